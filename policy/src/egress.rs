//! Which entries of a project's egress are open: over its exposure and everything its spec lists, never over what is mounted now.

use dejima_crds::bounded::Ref;
use dejima_crds::project::EgressEntry;
use dejima_crds::usage_policy::{Covered, NetworkEgress, UsagePolicySpec};
use jiff::{Timestamp, tz::TimeZone};

use crate::facts::{ProjectFacts, Vouched, nobody_vouches};

/// A dataset that has a say in what may leave: one that was ever mounted, or that the spec lists.
#[derive(Clone, Debug)]
pub struct Voice<'a> {
    /// Which.
    pub dataset: &'a Ref,
    /// Its policies: the one it was mounted under, and the one it names now. Empty where none can be found: then nothing leaves.
    pub policies: Vec<&'a UsagePolicySpec>,
    /// The entries that a request approved for it names.
    pub approved: &'a [EgressEntry],
}

/// One entry, open or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The entry.
    pub entry: EgressEntry,
    /// Why it is closed; nothing where it is open.
    pub closed: Option<String>,
    /// When it closes by itself.
    pub until: Option<Timestamp>,
}

/// Every listed entry, open or closed with its reason.
pub fn openings(project: &ProjectFacts, voices: &[Voice<'_>], at: Timestamp, zone: &TimeZone) -> Vec<Opening> {
    let entries = project.egress.iter().map(|claimed| {
        let entry = &claimed.value;
        let (attested, until) = match &claimed.vouched {
            Vouched::By { until: None, .. } => (true, None),
            Vouched::By { until: Some(until), .. } => match until.ends(zone) {
                Ok(ends) => (at < ends, Some(ends)),
                Err(_) => (false, None),
            },
            Vouched::Nobody | Vouched::InGap | Vouched::Otherwise(_) => (false, None),
        };
        let forbidden = voices.iter().find_map(|voice| refuses(voice, entry));
        let closed = if attested {
            forbidden
        } else {
            Some(format!("Unattested: {}", nobody_vouches(&claimed.vouched)))
        };
        Opening {
            entry: entry.clone(),
            closed,
            until,
        }
    });
    entries.collect()
}

fn refuses(voice: &Voice<'_>, entry: &EgressEntry) -> Option<String> {
    if voice.policies.is_empty() {
        return Some(format!("EgressForbidden: the policy of {} cannot be found", voice.dataset));
    }
    if voice.policies.iter().any(|policy| policy.egress.network == NetworkEgress::None) {
        return Some(format!("EgressForbidden: the policy of {} lets nothing leave", voice.dataset));
    }
    let covered = voice
        .policies
        .iter()
        .any(|policy| policy.review.required && policy.review.covers.contains(&Covered::Egress));
    (covered && !voice.approved.contains(entry)).then(|| format!("ReviewPending: no request approved for {} names it", voice.dataset))
}
