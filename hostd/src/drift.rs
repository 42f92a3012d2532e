//! What a host says about drift: what stands as it is, and for a while what was repaired, so that somebody sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use dejima_crds::host_plan::Drift;
use jiff::Timestamp;

/// How long a repair is said: long enough for the operator and for whoever asks how things stand.
const SAID: Duration = Duration::from_mins(1);
/// As many as a status has room for.
const ROOM: usize = 64;

/// What was repaired lately, by plan. Of this life only.
#[derive(Debug, Default)]
pub struct Repaired {
    plans: BTreeMap<String, Vec<(Drift, Timestamp)>>,
}

impl Repaired {
    /// What is to be said of a plan now: what was found at the beginning of a look and is repaired, what was repaired a while ago,
    /// and what is left as it stands at its end.
    pub fn say(&mut self, plan: &str, found: Vec<Drift>, left: Vec<Drift>, now: Timestamp) -> Vec<Drift> {
        let known = self.plans.entry(plan.to_owned()).or_default();
        known.retain(|(_, until)| now < *until);
        for drift in found.into_iter().filter(|drift| drift.repaired) {
            known.retain(|(same, _)| *same != drift);
            known.push((drift, now.saturating_add(SAID).unwrap_or(now)));
        }
        let standing = left.into_iter().filter(|drift| !drift.repaired);
        let all: Vec<Drift> = standing.chain(known.iter().map(|(drift, _)| drift.clone())).take(ROOM).collect();
        self.plans.retain(|_, drift| !drift.is_empty());
        all
    }

    /// When the next of them is said no longer.
    pub fn until(&self) -> Option<Timestamp> {
        self.plans.values().flatten().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(item: &str, repaired: bool) -> Drift {
        Drift {
            item: item.into(),
            message: "it differs".into(),
            repaired,
        }
    }

    #[test]
    fn a_repair_is_said_for_a_while_and_what_stands_as_long_as_it_does() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut repaired = Repaired::default();
        let said = repaired.say(
            "p",
            vec![drift("mount", true), drift("domain", false)],
            vec![drift("domain", false)],
            at(0),
        );
        assert_eq!(said, [drift("domain", false), drift("mount", true)]);
        assert_eq!(repaired.say("q", vec![], vec![], at(1)), [], "another plan's");
        assert_eq!(repaired.until(), Some(at(60)));
        assert_eq!(repaired.say("p", vec![], vec![], at(59)), [drift("mount", true)]);
        // The same again is one, and counts from now.
        assert_eq!(
            repaired.say("p", vec![drift("mount", true)], vec![], at(59)),
            [drift("mount", true)]
        );
        assert_eq!(repaired.say("p", vec![], vec![], at(118)), [drift("mount", true)]);
        assert_eq!(repaired.say("p", vec![], vec![], at(119)), []);
        assert_eq!(repaired.until(), None);
    }
}
