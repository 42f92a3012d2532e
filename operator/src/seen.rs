//! What people wrote and the verdicts rest on: when each line was first seen, and whether it counts.
//!
//! Reviews, acceptances of terms, attestations and the labels of tenants' namespaces count if they came while every
//! admission policy stood. What came in a gap counts for nothing until it is written again. A namespace is not ours: what
//! was seen of its labels is remembered beside the stamp, in the operator's own ConfigMap.

use std::collections::BTreeMap;

use dejima_crds::attestation::{AttestationStatus, Sighting};
use dejima_crds::bounded::Digest;
use dejima_crds::condition::seconds;
use dejima_crds::digest::of_value;
use dejima_crds::grant::{AccessGrantStatus, ReviewSeen};
use dejima_crds::project::{IsolatedProjectStatus, TermsSeen};
use dejima_crds::{AccessGrant, Attestation, IsolatedProject};
use dejima_policy::facts::Labels;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::admission::Wanted;
use crate::pass::{Error, Pass, failed};
use crate::{Context, apply, canary};

/// What the operator remembers of admission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The stamp of the policies that stood when everything was last seen.
    pub stamp: Option<String>,
    /// The labels of each tenant's namespace as they were last seen, by the UID of the namespace.
    pub labels: BTreeMap<String, LabelsSeen>,
}

/// The labels of one namespace as they were last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelsSeen {
    /// The digest of those of them that are ours.
    digest: Digest,
    /// Whether they count.
    counts: bool,
}

/// Reviews: forgets those that were taken back or changed, and stamps new ones, where it is known whether they count.
pub(crate) fn reviews(grant: &AccessGrant, status: &mut AccessGrantStatus, counts: Option<bool>, now: Timestamp) {
    let lines = &grant.spec.reviews;
    status.seen.retain(|seen| {
        lines
            .iter()
            .any(|line| line.reviewer == seen.reviewer && line.org == seen.org && line.decision == seen.decision)
    });
    let Some(counts) = counts else { return };
    for line in lines {
        if !status.seen.iter().any(|seen| seen.reviewer == line.reviewer) {
            status.seen.push(ReviewSeen {
                reviewer: line.reviewer.clone(),
                org: line.org.clone(),
                decision: line.decision,
                first_seen: seconds(now),
                counts,
            });
        }
    }
}

/// The same for acceptances of terms.
pub(crate) fn terms(project: &IsolatedProject, status: &mut IsolatedProjectStatus, counts: Option<bool>, now: Timestamp) {
    let lines = &project.spec.terms_accepted;
    status
        .seen
        .retain(|seen| lines.iter().any(|line| line.member == seen.member && line.digest == seen.digest));
    let Some(counts) = counts else { return };
    for line in lines {
        if !status
            .seen
            .iter()
            .any(|seen| seen.member == line.member && seen.digest == line.digest)
        {
            status.seen.push(TermsSeen {
                member: line.member.clone(),
                digest: line.digest.clone(),
                first_seen: seconds(now),
                counts,
            });
        }
    }
}

fn attestation(counts: bool, now: Timestamp) -> AttestationStatus {
    AttestationStatus {
        seen: Some(Sighting {
            first_seen: seconds(now),
            counts,
        }),
    }
}

fn is_unseen(attestation: &Attestation) -> bool {
    attestation.status.as_ref().is_none_or(|status| status.seen.is_none())
}

/// The digest of the labels of a namespace that are facts about its tenant; nothing where it has none.
fn of_labels(space: &Namespace) -> Option<Digest> {
    let ours: BTreeMap<&String, &String> = space.labels().iter().filter(|(key, _)| key.starts_with("dejima.dev/")).collect();
    if ours.is_empty() {
        return None;
    }
    // INVARIANT: a map of texts has a JSON form; labels without a digest would be seen by nobody, and count for nothing.
    of_value(&ours).ok()
}

impl Memory {
    /// What the labels of a namespace are worth.
    pub(crate) fn labels<'a>(&self, space: &'a Namespace) -> Labels<'a> {
        let Some(digest) = of_labels(space) else {
            return Labels::Count(space.labels());
        };
        let seen = self.labels.get(&space.uid().unwrap_or_default());
        if seen.is_some_and(|seen| seen.counts && seen.digest == digest) {
            Labels::Count(space.labels())
        } else {
            Labels::InGap
        }
    }

    /// Remembers the labels that are others than before; whether there were any.
    fn see(&mut self, spaces: &[impl AsRef<Namespace>], counts: bool) -> bool {
        let before = self.labels.clone();
        for space in spaces.iter().map(AsRef::as_ref) {
            let uid = space.uid().unwrap_or_default();
            match of_labels(space) {
                None => {
                    self.labels.remove(&uid);
                }
                Some(digest) if self.labels.get(&uid).is_some_and(|seen| seen.digest == digest) => {}
                Some(digest) => {
                    self.labels.insert(uid, LabelsSeen { digest, counts });
                }
            }
        }
        self.labels != before
    }
}

/// Waits until every policy has refused its canary, then marks everything that was not seen yet as of the gap.
pub(crate) async fn close_gap(context: &Context, pass: &mut Pass<'_>, wanted: &Wanted, stamp: &str) -> Result<(), Error> {
    for policy in wanted.names() {
        if let Err(error) = canary::refused(context, &policy).await {
            pass.admission.push(format!("{policy} (it has refused no canary yet)"));
            return Err(error);
        }
    }
    // Asked of the server, not of our copy: everything that was written before the canaries were refused is in the answer.
    for grant in all::<AccessGrant>(context).await? {
        let mut wanted = grant.clone();
        reviews(&grant, wanted.status.get_or_insert_default(), Some(false), pass.now);
        if wanted.status != grant.status && !grant.spec.reviews.is_empty() {
            write(context, pass, &wanted).await?;
        }
    }
    for project in all::<IsolatedProject>(context).await? {
        let mut wanted = project.clone();
        terms(&project, wanted.status.get_or_insert_default(), Some(false), pass.now);
        if wanted.status != project.status && !project.spec.terms_accepted.is_empty() {
            write(context, pass, &wanted).await?;
        }
    }
    for mut found in all::<Attestation>(context).await?.into_iter().filter(is_unseen) {
        found.status = Some(attestation(false, pass.now));
        write(context, pass, &found).await?;
    }
    let spaces = Api::<Namespace>::all(context.client.clone()).list(&ListParams::default()).await;
    let spaces: Vec<Box<Namespace>> = spaces.map_err(failed("list", "namespaces"))?.into_iter().map(Box::new).collect();
    let mut memory = pass.memory.clone();
    memory.see(&spaces, false);
    memory
        .labels
        .retain(|uid, _| spaces.iter().any(|space| space.uid().as_deref() == Some(uid)));
    memory.stamp = Some(stamp.to_owned());
    apply::write_memory(context, &memory).await?;
    *pass.memory = memory;
    Ok(())
}

async fn all<K>(context: &Context) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found = Api::<K>::all(context.client.clone()).list(&ListParams::default()).await;
    Ok(found.map_err(failed("list", &K::plural(&())))?.items)
}

async fn write<K>(context: &Context, pass: &Pass<'_>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let api = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    pass.watched.wrote(&apply::replace_status(context, &api, object).await?);
    Ok(())
}

/// Takes what is new for seen while the policies stood, after the server has said that they still do, unchanged since they
/// were last seen to refuse: a line that our copy has, and a policy that it does not miss yet, come by different ways.
pub(crate) async fn confirm(context: &Context, pass: &mut Pass<'_>, wanted: &Wanted) -> Result<(), Error> {
    let watched = pass.watched;
    let (grants, projects) = (watched.grants.state(), watched.projects.state());
    let (attestations, spaces) = (watched.attestations.state(), watched.namespaces.state());
    let grants = grants.iter().filter(|grant| {
        let mut after = grant.status.clone().unwrap_or_default();
        let before = after.seen.clone();
        reviews(grant, &mut after, Some(true), pass.now);
        after.seen.iter().any(|seen| !before.contains(seen))
    });
    let projects = projects.iter().filter(|project| {
        let mut after = project.status.clone().unwrap_or_default();
        let before = after.seen.clone();
        terms(project, &mut after, Some(true), pass.now);
        after.seen.iter().any(|seen| !before.contains(seen))
    });
    let new = grants
        .filter_map(|grant| version(grant.as_ref()))
        .chain(projects.filter_map(|project| version(project.as_ref())));
    let new = new.collect();
    let attested: Vec<&Attestation> = attestations
        .iter()
        .map(AsRef::as_ref)
        .filter(|found| is_unseen(found) && watched.fresh(*found))
        .collect();
    let mut memory = pass.memory.clone();
    let labelled = memory.see(&spaces, true);
    let nothing = |new: &std::collections::BTreeSet<_>| new.is_empty() && attested.is_empty() && !labelled;
    if nothing(&new) || wanted.ask(context).await? != pass.memory.stamp {
        return Ok(());
    }
    for found in attested {
        let mut found = found.clone();
        found.status = Some(attestation(true, pass.now));
        write(context, pass, &found).await?;
    }
    if labelled {
        apply::write_memory(context, &memory).await?;
        *pass.memory = memory;
    }
    pass.confirmed = new;
    Ok(())
}

/// UID and resource version: this object, exactly as it is.
pub(crate) fn version<K: Resource>(object: &K) -> Option<(String, String)> {
    let meta = object.meta();
    Some((meta.uid.clone()?, meta.resource_version.clone()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn space(labels: &serde_json::Value) -> Box<Namespace> {
        let object = json!({"metadata": {"name": "osaka", "uid": "n-1", "labels": labels}});
        Box::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn labels_of_a_gap_count_for_nothing_until_they_are_changed_again() {
        let counts = |memory: &Memory, space: &Namespace| matches!(memory.labels(space), Labels::Count(_));
        let (mut memory, first) = (Memory::default(), space(&json!({"dejima.dev/country": "JP", "team": "ct"})));
        assert!(!counts(&memory, &first), "not seen yet");
        assert!(memory.see(std::slice::from_ref(&first), true) && counts(&memory, &first));
        let team = space(&json!({"dejima.dev/country": "JP", "team": "mr"}));
        assert!(
            !memory.see(std::slice::from_ref(&team), false) && counts(&memory, &team),
            "other labels are not ours"
        );
        let changed = space(&json!({"dejima.dev/country": "US"}));
        assert!(!counts(&memory, &changed));
        assert!(memory.see(std::slice::from_ref(&changed), false));
        assert!(
            !memory.see(std::slice::from_ref(&changed), true) && !counts(&memory, &changed),
            "seen once is seen"
        );
        let confirmed = space(&json!({"dejima.dev/country": "US", "dejima.dev/confirmed": "1"}));
        assert!(memory.see(std::slice::from_ref(&confirmed), true) && counts(&memory, &confirmed));
        // One without labels of ours is no tenant, and takes no room.
        let bare = space(&json!({"team": "ct"}));
        assert!(memory.see(std::slice::from_ref(&bare), true) && memory.labels.is_empty() && counts(&memory, &bare));
    }
}
