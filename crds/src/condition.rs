//! Conditions, and the words that stand in them: one place, used alike by status, events and metrics.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Line, Prose};

/// One condition, as Kubernetes writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is said.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: Truth,
    /// Why, in one word.
    pub reason: Line,
    /// Why, in a sentence, with what to do about it.
    pub message: Prose,
    /// The generation of the object that this was said of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Since when (RFC 3339).
    pub last_transition_time: Line,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say: what would tell is silent.
    Unknown,
}

/// Everything a condition can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionKind {
    /// The object can be carried out as it stands.
    Admitted,
    /// Hosts are held for it.
    Placed,
    /// Its keys exist and are open to its hosts.
    KeysReady,
    /// Its network is closed, and that was proved.
    NetworkSealed,
    /// Its volumes are there.
    VolumesReady,
    /// All datasets it wants are mounted.
    DatasetsMounted,
    /// Its machines run.
    MachinesRunning,
    /// Its vector index can be asked.
    IndexReady,
    /// All of it.
    Ready,
    /// It works, but less than it should.
    Degraded,
    /// Somebody else changed what is ours.
    Drifted,
    /// It is being taken down.
    Terminating,
    /// The entry is complete.
    Registered,
    /// The provider's ethics committee has approved.
    EthicsProvider,
    /// The platform's ethics committee has approved, and that was attested.
    EthicsPlatform,
    /// The agreement is signed, and that was attested.
    AgreementSigned,
    /// The source was read and sealed.
    Ingested,
    /// What was sealed is what was declared.
    Verified,
    /// Projects may ask for it.
    Mountable,
    /// The provider has suspended it.
    Suspended,
    /// The provider has withdrawn it.
    Withdrawn,
    /// Its keys are destroyed.
    Destroyed,
    /// The image can be booted.
    Available,
    /// The host must not be used: it is silent, or held by what was never swept.
    Fenced,
    /// The host takes nothing new.
    Draining,
    /// The grant is in force.
    Granted,
    /// The digests of a model's files were compared.
    DigestsVerified,
    /// Nothing is missing from a model's lineage.
    LineageComplete,
    /// A model may be given away.
    Releasable,
}

/// Sets `new` among `conditions`: the time of the transition changes only where the status does.
/// Returns whether anything changed.
pub fn set(conditions: &mut Vec<Condition>, new: ConditionDraft, at: Timestamp) -> bool {
    let ConditionDraft {
        kind,
        status,
        reason,
        message,
        observed_generation,
    } = new;
    // What is too long to be written would keep everything else from being said.
    let (reason, message) = (Line::cut(&reason), Prose::cut(&message));
    if let Some(old) = conditions.iter_mut().find(|old| old.kind == kind) {
        let same = old.status == status && old.reason == reason && old.message == message && old.observed_generation == observed_generation;
        if old.status != status {
            old.last_transition_time = seconds(at);
        }
        (old.status, old.reason, old.message, old.observed_generation) = (status, reason, message, observed_generation);
        return !same;
    }
    conditions.push(Condition {
        kind,
        status,
        reason,
        message,
        observed_generation,
        last_transition_time: seconds(at),
    });
    conditions.sort_by_key(|condition| condition.kind);
    true
}

/// Dates a condition: what it says is so since then.
pub fn date(conditions: &mut [Condition], kind: ConditionKind, at: Timestamp) {
    for condition in conditions.iter_mut().filter(|condition| condition.kind == kind) {
        condition.last_transition_time = seconds(at);
    }
}

/// The condition of this kind, if it was ever said.
pub fn get(conditions: &[Condition], kind: ConditionKind) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// Whether the condition of this kind holds.
pub fn holds(conditions: &[Condition], kind: ConditionKind) -> bool {
    get(conditions, kind).is_some_and(|condition| condition.status == Truth::True)
}

/// A condition before it is known whether it is news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionDraft {
    /// What is said.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: Truth,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// The generation of the object that this is said of.
    pub observed_generation: i64,
}

/// A time that tells what comes soon after another: RFC 3339, milliseconds, UTC.
pub fn millis(at: Timestamp) -> Line {
    Line::from(at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

/// A time as status fields carry it: RFC 3339, whole seconds, UTC.
pub fn seconds(at: Timestamp) -> Line {
    Line::from(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_seconds_or_milliseconds() {
        let at = Timestamp::from_millisecond(1_764_230_400_007).unwrap();
        assert_eq!(seconds(at).as_str(), "2025-11-27T08:00:00Z");
        assert_eq!(millis(at).as_str(), "2025-11-27T08:00:00.007Z");
    }

    fn draft(status: Truth, message: &str) -> ConditionDraft {
        ConditionDraft {
            kind: ConditionKind::Ready,
            status,
            reason: "Why".into(),
            message: message.into(),
            observed_generation: 1,
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let (first, later): (Timestamp, Timestamp) = ("2026-11-24T01:00:00Z".parse().unwrap(), "2026-11-24T02:00:00Z".parse().unwrap());
        let mut all = vec![];
        assert!(set(&mut all, draft(Truth::False, "waits"), first));
        assert!(!set(&mut all, draft(Truth::False, "waits"), later), "the same again is no news");
        assert!(set(&mut all, draft(Truth::False, "waits for a host"), later));
        assert_eq!(all[0].last_transition_time, "2026-11-24T01:00:00Z");
        assert!(set(&mut all, draft(Truth::True, "ready"), later));
        assert_eq!(all[0].last_transition_time, "2026-11-24T02:00:00Z");
    }
}
