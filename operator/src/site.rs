//! What is the site's own: one documented schema, the chart's values or `site.yaml`.

use std::time::Duration;

use dejima_crds::bounded::Period;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Deserialize;

/// The site.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Site {
    /// The zone in which dates are read (IANA name).
    pub zone: String,
    /// How long a host's lease lasts, in seconds: one that was not renewed for so long is silent.
    pub host_lease_seconds: u32,
    /// After a failure the next pass comes after this many milliseconds, then after twice as many, up to `retry_max_ms`.
    pub retry_ms: u64,
    /// The longest pause between two passes after failures, in milliseconds.
    pub retry_max_ms: u64,
    /// A pass is made after so many seconds even if nothing happened.
    pub resync_seconds: u64,
    /// How long a back-up of the key server may still hold a key that was destroyed (ISO 8601): receipts say it.
    pub key_backup_horizon: Period,
    /// How long what was deleted, and what a project has at the end of its period, is held before its keys are destroyed (ISO 8601).
    pub retention: Period,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            zone: "Asia/Tokyo".to_owned(),
            host_lease_seconds: 40,
            retry_ms: 500,
            retry_max_ms: 30_000,
            resync_seconds: 60,
            key_backup_horizon: Period::from("P0D"),
            retention: Period::from("P30D"),
        }
    }
}

impl Site {
    /// The zone. One that nobody knows is refused at start, by [`Site::check`]; until then it is UTC.
    pub fn time_zone(&self) -> TimeZone {
        TimeZone::get(&self.zone).unwrap_or(TimeZone::UTC)
    }

    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        TimeZone::get(&self.zone).map_err(|error| format!("site.zone: {error}"))?;
        for (name, period) in [("keyBackupHorizon", &self.key_backup_horizon), ("retention", &self.retention)] {
            let read: Result<Span, _> = period.as_str().parse();
            read.map_err(|_| format!("site.{name}: `{period}` is no duration such as P30D"))?;
        }
        Ok(())
    }

    /// Until when something is held that was deleted at this time.
    pub fn held_until(&self, deleted: Timestamp) -> Timestamp {
        dejima_plan::held_until(deleted, &self.retention, &self.time_zone())
    }

    /// The pause after the n-th failure in a row.
    pub fn pause(&self, failures: u32) -> Duration {
        let doubled = self.retry_ms.saturating_mul(1 << failures.saturating_sub(1).min(16));
        Duration::from_millis(doubled.min(self.retry_max_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_says_its_horizon_as_a_duration() {
        let site = |horizon: &str| Site {
            key_backup_horizon: horizon.into(),
            ..Site::default()
        };
        assert!(site("P30D").check().is_ok() && Site::default().check().is_ok());
        assert!(site("a month").check().unwrap_err().contains("P30D"));
        let deleted = "2026-11-24T00:00:00Z".parse().unwrap();
        assert_eq!(Site::default().held_until(deleted), "2026-12-24T00:00:00Z".parse().unwrap());
        let short = Site {
            retention: "PT3S".into(),
            ..Site::default()
        };
        assert_eq!(short.held_until(deleted), "2026-11-24T00:00:03Z".parse().unwrap());
    }
}
