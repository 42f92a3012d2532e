//! Times as people write them: RFC 3339, or a date, or a month.
//!
//! A date or month is, as a beginning, its first instant and, as an end, its last, in the site's zone, which is an
//! argument here as everywhere.

use jiff::{Timestamp, civil, tz::TimeZone};

use crate::bounded::bounded;

bounded!(
    /// A time (RFC 3339), or a date `YYYY-MM-DD`, or a month `YYYY-MM`; each month has the days that it has.
    When,
    max = 35,
    min = 7,
    pattern = "^([0-9]{4}-(0[1-9]|1[0-2])|([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)([Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))?)$",
    words = "a time is written as 2027-03-31T12:00:00+09:00, 2027-03-31 or 2027-03"
);

/// A time that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time: write it as 2027-03-31T12:00:00+09:00, 2027-03-31 or 2027-03")]
pub struct Unreadable(String);

impl When {
    /// The first instant of what was written.
    pub fn begins(&self, zone: &TimeZone) -> Result<Timestamp, Unreadable> {
        self.read(zone).map(|(first, _)| first)
    }

    /// The first instant *after* what was written: an end that is a date lasts through that day.
    pub fn ends(&self, zone: &TimeZone) -> Result<Timestamp, Unreadable> {
        self.read(zone).map(|(_, after)| after)
    }

    fn read(&self, zone: &TimeZone) -> Result<(Timestamp, Timestamp), Unreadable> {
        let text = self.as_str();
        let unreadable = || Unreadable(text.to_owned());
        if text.len() > 10 {
            let at: civil::DateTime = text.get(..19).and_then(|local| local.parse().ok()).ok_or_else(unreadable)?;
            // Written in full it is of its own zone; beyond what is counted it is for ever.
            let instant: Timestamp = match text.parse() {
                Ok(instant) => instant,
                Err(_) if at.year() == civil::Date::MAX.year() => Timestamp::MAX,
                Err(_) => return Err(unreadable()),
            };
            return Ok((instant, instant));
        }
        let (first, next) = if text.len() == 7 {
            let first: civil::Date = format!("{text}-01").parse().map_err(|_| unreadable())?;
            (first, first.checked_add(jiff::Span::new().months(1)))
        } else {
            let first: civil::Date = text.parse().map_err(|_| unreadable())?;
            (first, first.tomorrow())
        };
        // People write 9999-12-31 for ever; time is counted to a day before it.
        let instant = |date: civil::Date| date.to_zoned(zone.clone()).map_or(Timestamp::MAX, |zoned| zoned.timestamp());
        Ok((instant(first), next.map_or(Timestamp::MAX, instant)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokyo() -> TimeZone {
        TimeZone::get("Asia/Tokyo").unwrap()
    }

    #[test]
    fn a_date_lasts_from_its_first_instant_through_its_last_in_the_sites_zone() {
        let day = When::from("2027-03-31");
        assert_eq!(day.begins(&tokyo()).unwrap(), "2027-03-30T15:00:00Z".parse().unwrap());
        assert_eq!(day.ends(&tokyo()).unwrap(), "2027-03-31T15:00:00Z".parse().unwrap());
    }

    #[test]
    fn a_month_ends_with_its_last_day_leap_years_included() {
        assert_eq!(
            When::from("2028-02").ends(&TimeZone::UTC).unwrap(),
            "2028-03-01T00:00:00Z".parse().unwrap()
        );
    }

    #[test]
    fn an_instant_begins_and_ends_with_itself() {
        let noon = When::from("2027-03-31T12:00:00+09:00");
        assert_eq!(noon.begins(&tokyo()).unwrap(), noon.ends(&TimeZone::UTC).unwrap());
    }

    proptest! {
        #[test]
        fn whatever_admission_takes_for_a_time_is_read(text in proptest::string::string_regex(&pattern()).unwrap(), tokyo in any::<bool>()) {
            let zone = if tokyo { self::tokyo() } else { TimeZone::UTC };
            let when = When::from(text.as_str());
            let (begins, ends) = (when.begins(&zone), when.ends(&zone));
            prop_assert!(begins.clone().is_ok_and(|begins| ends.clone().is_ok_and(|ends| begins <= ends)), "{text}: {begins:?} {ends:?}");
        }
    }

    /// The pattern of the schema, without its anchors.
    fn pattern() -> String {
        let schema = schemars::schema_for!(When);
        let pattern = schema.get("pattern").and_then(serde_json::Value::as_str).unwrap();
        pattern.trim_start_matches('^').trim_end_matches('$').to_owned()
    }

    #[test]
    fn for_ever_is_a_time() {
        for text in ["9999-12", "9999-12-31", "9999-12-31T23:59:59Z"] {
            assert_eq!(When::from(text).ends(&tokyo()).unwrap(), Timestamp::MAX, "{text}");
        }
        assert_eq!(
            When::from("2028-02-29").ends(&TimeZone::UTC).unwrap(),
            "2028-03-01T00:00:00Z".parse().unwrap()
        );
    }

    #[test]
    fn what_is_no_time_is_refused_in_the_writers_words() {
        let error = When::from("2027-02-30").begins(&tokyo()).unwrap_err();
        assert!(error.to_string().contains("`2027-02-30`"), "{error}");
        assert!(When::from("2027-13").ends(&tokyo()).is_err());
    }
}
