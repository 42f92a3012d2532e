//! What is said where a step could not be carried out: what is waited for, and nothing that is not so.

use dejima_crds::condition::{ConditionKind, Truth, get, holds};
use dejima_crds::project::IsolatedProjectStatus;

use super::status::{before, say};
use super::{Inputs, Step, after, less};

/// What could not be done, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// One word.
    pub reason: &'static str,
    /// A sentence: who is waited for, and for what.
    pub message: String,
    /// Whether it is the key server that is waited for.
    pub is_keys: bool,
}

/// The status where this step failed, in place of the one that is true after all of them.
pub fn waits(inputs: &Inputs<'_>, planned: &IsolatedProjectStatus, failed: &Step, wait: &Wait) -> IsolatedProjectStatus {
    let known = before(inputs);
    let said = |kind| get(&known.conditions, kind).map(|condition| (condition.status, condition.reason.to_string()));
    let is_deleted = inputs.project.metadata.deletion_timestamp.is_some();
    if is_deleted || holds(&known.conditions, ConditionKind::Terminating) {
        // What the rest of the end rests on stays as it was written down.
        let mut status = known.clone();
        let (truth, reason) = said(ConditionKind::Terminating).unwrap_or((Truth::True, "Terminating".to_owned()));
        let truth = if is_deleted { Truth::True } else { truth };
        let message = wait.message.as_str();
        say(inputs, &mut status, ConditionKind::Terminating, truth, &reason, message);
        if is_deleted {
            say(inputs, &mut status, ConditionKind::Ready, Truth::False, "Terminating", message);
        }
        return status;
    }
    let is_placed = !matches!(failed, Step::Finalize | Step::Hold { .. });
    let mut status = if is_placed { planned.clone() } else { known.clone() };
    // A volume that was destroyed is forgotten with its receipt, and not before.
    let kept = known.kept_volumes.iter();
    let missing = kept.filter(|kept| !planned.kept_volumes.iter().any(|planned| planned.name == kept.name));
    status.kept_volumes.extend(missing.filter(|_| is_placed).cloned());
    status.kept_volumes.sort_by(|one, other| one.name.cmp(&other.name));
    if wait.is_keys {
        let kind = ConditionKind::KeysReady;
        say(inputs, &mut status, kind, Truth::Unknown, wait.reason, wait.message.as_str());
    }
    // One that was ready goes on as it is: nothing of it was taken away. One whose period has ended waits for nobody.
    let rests =
        get(&status.conditions, ConditionKind::Ready).is_some_and(|ready| ready.status == Truth::True || ready.reason == after::ENDED);
    if !rests {
        let kind = ConditionKind::Ready;
        say(inputs, &mut status, kind, Truth::False, wait.reason, wait.message.as_str());
    }
    status
}

/// What is taken away all the same where keys could not be opened for what comes: a plan that does both waits for the key server.
pub fn taken_away(inputs: &Inputs<'_>, failed: &Step) -> Vec<Step> {
    if !matches!(failed, Step::OpenKeys { .. }) {
        return Vec::new();
    }
    let steps = less::steps(inputs).into_iter();
    steps.filter(|step| matches!(step, Step::Write { .. })).collect()
}
