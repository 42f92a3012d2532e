//! After the end of its period: a project's mounts have ended and its machines are stopped; volumes and keys stay for the site's
//! retention, with notices; then it is ended as one that was deleted, with a receipt, while the object stays and says so.
//!
//! ```text
//! running -> (its period ends) held, since that was written down -> (retention) terminating, written down -> as on delete
//!         <- (a later period)
//! ```
//! What is said stands in the condition `Terminating`: its reason changes at each notice, and what changes is announced, once.
//! The retention runs from when the end was written down: an edit that puts the end far into the past destroys nothing before
//! there was as much time as ever to see it.

use dejima_crds::condition::{ConditionKind, Truth, date, get, holds, seconds};
use dejima_crds::names;
use dejima_crds::project::{IsolatedProjectStatus, Summary};
use jiff::{SignedDuration, Timestamp};

use super::status::{say, terminating};
use super::{Inputs, Next, ending};

/// The days before an end at which it is said that it comes.
const NOTICES: [i64; 4] = [1, 7, 14, 30];
/// The reason of `Ready`, and of `Terminating` before the first notice, once the period has ended.
pub(super) const ENDED: &str = "PeriodEnded";
/// The reason of `Terminating` where an end that was announced is far away again.
const EXTENDED: &str = "PeriodExtended";
/// What the reasons of notices before the end of the period begin with.
const ENDS: &str = "PeriodEndsWithin";
/// What the reasons of notices before the destruction begin with.
const GOES: &str = "DestructionWithin";

/// How far a project is that nobody deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its period lasts: until when, where that can be read.
    Lasts(Option<Timestamp>),
    /// Its period has ended; volumes and keys stay.
    Held {
        /// When the period ended.
        ended: Timestamp,
        /// Since when that is written down; where it is not yet, from now on.
        since: Timestamp,
        /// Until when they stay.
        until: Timestamp,
    },
    /// It is to be ended, and nothing brings it back: so is it written down, or is about to be.
    Over,
}

/// How far it is.
pub(super) fn stage(inputs: &Inputs<'_>) -> Stage {
    if is_written_down(inputs) {
        return Stage::Over;
    }
    let end = inputs.project.spec.period.until.ends(inputs.zone).ok();
    let Some(ended) = end.filter(|end| inputs.now >= *end) else {
        return Stage::Lasts(end);
    };
    // It may have been prolonged meanwhile, and nobody was there to see it.
    let since = held_since(inputs.project.status.as_ref()).unwrap_or(inputs.now).max(ended);
    let until = crate::held_until(since, inputs.retention, inputs.zone);
    if inputs.now >= until {
        return Stage::Over;
    }
    Stage::Held { ended, since, until }
}

fn is_written_down(inputs: &Inputs<'_>) -> bool {
    let status = inputs.project.status.as_ref();
    status.is_some_and(|status| holds(&status.conditions, ConditionKind::Terminating))
}

/// Since when its period's end is written down.
fn held_since(status: Option<&IsolatedProjectStatus>) -> Option<Timestamp> {
    let said = get(&status?.conditions, ConditionKind::Terminating)?;
    let held = said.reason == ENDED || said.reason.as_str().starts_with(GOES);
    said.last_transition_time.as_str().parse().ok().filter(|_| held)
}

/// The nearest notice before this end that is due, in days.
fn due(now: Timestamp, end: Timestamp) -> Option<i64> {
    let left = now.duration_until(end);
    NOTICES.into_iter().find(|days| left <= SignedDuration::from_hours(24 * days))
}

/// The next moment at which something is to be said or done.
pub(super) fn again(now: Timestamp, stage: Stage) -> Option<Timestamp> {
    let end = match stage {
        Stage::Lasts(end) => end?,
        Stage::Held { until, .. } => until,
        Stage::Over => return None,
    };
    let notices = NOTICES.into_iter();
    let notices = notices.filter_map(|days| end.checked_sub(SignedDuration::from_hours(24 * days)).ok());
    notices.chain([end]).filter(|at| *at > now).min()
}

/// What is said of one whose period has ended.
pub(super) fn words(stage: Stage) -> Option<String> {
    let Stage::Held { ended, until, .. } = stage else {
        return None;
    };
    Some(format!(
        "its period ended at {}: its mounts end and its machines stop; volumes and keys stay until {} and are destroyed then; a later \
         spec.period.until brings it back before that",
        seconds(ended),
        seconds(until)
    ))
}

/// Gives notice, where one is due.
pub(super) fn notice(inputs: &Inputs<'_>, stage: Stage, status: &mut IsolatedProjectStatus) {
    let kind = ConditionKind::Terminating;
    match (stage, words(stage)) {
        (Stage::Held { since, until, .. }, Some(words)) => {
            let is_news = held_since(Some(status)).is_none();
            let reason = due(inputs.now, until).map_or_else(|| ENDED.to_owned(), |days| named(GOES, days));
            say(inputs, status, kind, Truth::False, &reason, words);
            if is_news {
                // Before, it was as little being taken down; what counts is since when it is known that its period has ended.
                date(&mut status.conditions, kind, since);
            }
        }
        (Stage::Lasts(Some(end)), _) => {
            if let Some(days) = due(inputs.now, end) {
                let message = format!(
                    "its period ends at {}: then its mounts end and its machines stop; a later spec.period.until prolongs it",
                    seconds(end)
                );
                say(inputs, status, kind, Truth::False, &named(ENDS, days), message);
            } else if get(&status.conditions, kind).is_some() {
                let message = format!("its period lasts until {}", seconds(end));
                say(inputs, status, kind, Truth::False, EXTENDED, message);
            }
        }
        _ => {}
    }
}

fn named(what: &str, days: i64) -> String {
    format!("{what}{days}{}", if days == 1 { "Day" } else { "Days" })
}

/// What follows for one that is over. The object is somebody's and stays; without our finalizer nothing keeps it any more.
pub(super) fn over(inputs: &Inputs<'_>, is_finalized: bool) -> Next {
    // What cannot be undone waits until it was written down that it is to be: an edit that came in between is not passed over.
    let steps = if is_finalized && is_written_down(inputs) {
        ending::steps(inputs)
    } else {
        Vec::new()
    };
    let mut status = terminating(inputs, &steps);
    for dataset in &mut status.datasets {
        (dataset.mounted_on, dataset.since) = (Vec::new(), None);
    }
    status.machines.clear();
    status.summary = Some(Summary {
        host: None,
        machines: Some(format!("0/{}", inputs.project.spec.machines.len()).into()),
        datasets: Some(format!("0/{}", inputs.project.spec.datasets.len()).into()),
    });
    let became = match &status.receipt {
        Some(receipt) => {
            let of = &inputs.facts.of;
            let name = names::receipt_name(&of.name, &of.uid);
            format!("its key is destroyed, see receipt {receipt} in the ledger, here in the ConfigMap {name}")
        }
        None if is_finalized => "its key and volumes are being destroyed".to_owned(),
        None => "nothing of it was ever made".to_owned(),
    };
    let mut end = "";
    if !is_finalized {
        // Only now: until then the receipt is made of them.
        status.hosts.clear();
        status.kept_volumes.clear();
        end = "; the object may be deleted";
    }
    let message = format!("its period and the retention are over: nothing brings it back; {became}{end}");
    say(inputs, &mut status, ConditionKind::Ready, Truth::False, ENDED, message);
    Next {
        steps,
        status,
        again: None,
    }
}
