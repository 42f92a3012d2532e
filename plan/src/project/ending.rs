//! The end of a project: network, mounts, machines and the key side by side; then the receipt; then the bytes; then the
//! hosts are free.

use std::collections::BTreeSet;

use dejima_crds::bounded::{Label, ObjectName};
use dejima_crds::condition::{ConditionKind, get, seconds};
use dejima_crds::host_plan::{HostPlanSpec, ProjectPlan};
use dejima_crds::project::IsolatedProjectStatus;
use dejima_crds::receipt::{HostEnd, Receipt, State};
use dejima_crds::{HostPlan, names};
use jiff::Timestamp;

use super::{Inputs, Step, host_of, of};
use crate::placement::{holds, name as host_name};
use crate::segment::segment;

/// The reason of `KeysReady` once the key is destroyed.
pub(super) const DESTROYED: &str = "Destroyed";
/// The reason of `Terminating` once the receipt is final.
pub(super) const FINAL: &str = "ReceiptFinal";

/// What can be done now.
pub(super) fn steps(inputs: &Inputs<'_>) -> Vec<Step> {
    let uid = &inputs.facts.of.uid;
    let status = inputs.project.status.clone().unwrap_or_default();
    let concluded = concluded(&status);
    let mut steps = Vec::new();
    let mut close = Vec::new();
    let mut open = false;
    for host in hosts(inputs) {
        let plan = plan_of(inputs, &host);
        if !concluded || plan.is_some() {
            steps.extend(end(inputs, &host, plan));
            close.push(Step::CloseKeys { host: host.clone() });
        }
        open |= is_known(inputs, &host) && plan.map_or(!concluded, |plan| !swept(plan));
    }
    // Every host is told before the key server is asked for anything: where that is silent, machines and mounts go all the same.
    steps.append(&mut close);
    // The receipt says when the key was destroyed, hence comes once that was written down.
    let Some(destroyed) = destroyed(&status) else {
        steps.push(Step::DestroyKey {
            key: names::project_key(uid),
        });
        return steps;
    };
    if !concluded {
        steps.push(Step::Receipt(Box::new(receipt(inputs, destroyed))));
    }
    if open {
        return steps;
    }
    // Only now: what a plan says of its host is what the receipt says.
    let swept_plans = inputs.plans.iter().filter(|plan| swept(plan)).filter_map(host_of);
    steps.extend(swept_plans.map(|host| Step::Forget { host }));
    // A host is free only when nothing of the project is left on it: its plan says so, or it never had one.
    let held = inputs
        .candidates
        .iter()
        .filter(|candidate| candidate.host.status.as_ref().is_some_and(|status| holds(status, uid)));
    steps.extend(held.map(|candidate| Step::Release {
        host: host_name(candidate.host),
    }));
    steps.push(Step::Unfinalize);
    steps
}

/// Whether the receipt is final, and that was written down.
pub(super) fn concluded(status: &IsolatedProjectStatus) -> bool {
    get(&status.conditions, ConditionKind::Terminating).is_some_and(|condition| condition.reason == FINAL)
}

/// When the key was destroyed, as it was written down.
fn destroyed(status: &IsolatedProjectStatus) -> Option<Timestamp> {
    get(&status.conditions, ConditionKind::KeysReady)
        .filter(|condition| condition.reason == DESTROYED)
        .and_then(|condition| condition.last_transition_time.as_str().parse().ok())
}

/// Every host that had a plan: what was said of it stands in the status, whatever became of the plan.
fn hosts(inputs: &Inputs<'_>) -> BTreeSet<ObjectName> {
    let status = inputs.project.status.as_ref();
    let said = status.into_iter().flat_map(|status| status.hosts.iter().cloned());
    said.chain(inputs.plans.iter().filter_map(host_of)).collect()
}

fn plan_of<'a>(inputs: &Inputs<'a>, host: &ObjectName) -> Option<&'a HostPlan> {
    inputs.plans.iter().find(|plan| host_of(plan).as_ref() == Some(host))
}

/// Whether there is such a host. One that an admin took away for good confirms nothing, and nothing waits for it.
fn is_known(inputs: &Inputs<'_>, host: &ObjectName) -> bool {
    inputs.candidates.iter().any(|candidate| host_name(candidate.host) == *host)
}

/// What this plan's host says of its end: of exactly this plan, in words that can be read.
pub(crate) fn said(plan: &HostPlan, what: fn(&dejima_crds::HostPlanStatus) -> Option<&dejima_crds::bounded::Line>) -> Option<Timestamp> {
    let status = plan.status.as_ref()?;
    let current = plan.spec.ends && status.plan_generation == plan.spec.plan_generation;
    what(status).filter(|_| current)?.as_str().parse().ok()
}

fn closed_at(plan: &HostPlan) -> Option<Timestamp> {
    said(plan, |status| status.closed_at.as_ref())
}

fn swept_at(plan: &HostPlan) -> Option<Timestamp> {
    said(plan, |status| status.swept_at.as_ref())
}

pub(super) fn swept(plan: &HostPlan) -> bool {
    swept_at(plan).is_some()
}

/// A host ends what it holds. One whose plan is gone, though nobody saw its end, is told again.
fn end(inputs: &Inputs<'_>, host: &ObjectName, plan: Option<&HostPlan>) -> Option<Step> {
    let spec = match plan {
        Some(plan) if plan.spec.ends => None,
        Some(plan) => Some(HostPlanSpec {
            plan_generation: plan.spec.plan_generation + 1,
            ends: true,
            ..plan.spec.clone()
        }),
        None if is_known(inputs, host) => Some(HostPlanSpec {
            plan_generation: crate::first_generation(inputs.now),
            ends: true,
            project: Some(bare(inputs)),
            intake: None,
        }),
        None => None,
    };
    spec.map(|spec| Step::Write {
        host: host.clone(),
        spec: Box::new(spec),
        from: plan.and_then(|plan| plan.metadata.resource_version.clone()),
    })
}

/// A plan that names the project and nothing of it: what is found of it on the host goes.
fn bare(inputs: &Inputs<'_>) -> ProjectPlan {
    let uid = &inputs.facts.of.uid;
    ProjectPlan {
        of: of(inputs),
        dedicated: inputs.project.spec.placement.dedicated,
        key: names::project_key(uid),
        segment: segment(uid, &[], Vec::new()),
        volumes: Vec::new(),
        destroy: Vec::new(),
        mounts: Vec::new(),
        domains: Vec::new(),
    }
}

/// The receipt as it is now: a function of what was written down, so that it is the same whenever it is made again.
fn receipt(inputs: &Inputs<'_>, destroyed: Timestamp) -> Receipt {
    // One that was over before it was deleted was not destroyed for the deletion's sake: the receipt stays what it was.
    let deleted = inputs.project.metadata.deletion_timestamp.as_ref().map(|at| at.0);
    let asked = deleted.map_or(destroyed, |at| at.min(destroyed));
    let mut issued = destroyed;
    let mut hosts_ends = Vec::new();
    let mut last_swept = Some(destroyed);
    for host in hosts(inputs) {
        let plan = plan_of(inputs, &host);
        let closed = plan.and_then(closed_at);
        last_swept = last_swept.zip(plan.and_then(swept_at)).map(|(one, other)| one.max(other));
        issued = closed.map_or(issued, |closed| closed.max(issued));
        hosts_ends.push(HostEnd {
            host,
            closed_at: closed.map(seconds),
            unconfirmed_since: closed.is_none().then(|| seconds(asked)),
        });
    }
    let confirmed = hosts_ends.iter().all(|host| host.closed_at.is_some());
    let volumes: BTreeSet<Label> = inputs
        .plans
        .iter()
        .filter_map(|plan| plan.spec.project.as_ref())
        .flat_map(|plan| plan.volumes.iter().map(|volume| volume.name.clone()))
        .chain(inputs.project.spec.volumes.iter().map(|volume| volume.name.clone()))
        .chain(
            inputs
                .project
                .status
                .iter()
                .flat_map(|status| status.kept_volumes.iter().map(|kept| kept.name.clone())),
        )
        .collect();
    Receipt {
        id: names::receipt_id(&inputs.facts.of.uid),
        project: Some(of(inputs)),
        dataset: None,
        volume: None,
        state: if confirmed { State::Final } else { State::Partial },
        key_destroyed_at: seconds(destroyed),
        hosts: hosts_ends,
        swept_at: last_swept.map(seconds),
        volumes: volumes.into_iter().collect(),
        shards: Vec::new(),
        key_server_backup_horizon: inputs.horizon.clone(),
        issued_at: seconds(last_swept.map_or(issued, |swept| swept.max(issued))),
    }
}
