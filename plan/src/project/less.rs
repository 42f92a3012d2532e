//! What a project may have no longer: plans that stand become less, never more. So no edit prolongs access, and nothing
//! that is missing (a host, an image, an admission policy) keeps it from ending.

use std::collections::BTreeSet;

use dejima_crds::condition::seconds;
use dejima_crds::host_plan::{EgressRule, HostPlanSpec, MountPlan, Power};
use dejima_crds::reason::Decision;
use dejima_policy::Opening;
use jiff::Timestamp;

use super::{Inputs, Step, host_of};

/// The plans that stand, without what the project may have no longer.
pub(super) fn steps(inputs: &Inputs<'_>) -> Vec<Step> {
    let ended = inputs
        .project
        .spec
        .period
        .until
        .ends(inputs.zone)
        .is_ok_and(|end| inputs.now >= end);
    let mut steps = Vec::new();
    for plan in inputs.plans.iter().filter(|plan| !plan.spec.ends) {
        let (Some(host), Some(current)) = (host_of(plan), &plan.spec.project) else {
            continue;
        };
        let mut less = current.clone();
        less.mounts = mounts(inputs, &current.mounts);
        less.segment.egress = egress(inputs, &current.segment.egress);
        for domain in less.domains.iter_mut().filter(|_| ended) {
            domain.power = Power::Stopped;
        }
        if less == *current {
            continue;
        }
        let keys = less.mounts.iter().flat_map(|mount| &mount.shards).map(|shard| shard.key.clone());
        let keys = std::iter::once(less.key.clone()).chain(keys).collect::<BTreeSet<_>>();
        steps.push(Step::Write {
            host: host.clone(),
            spec: Box::new(HostPlanSpec {
                plan_generation: plan.spec.plan_generation + 1,
                ends: false,
                project: Some(less.clone()),
                intake: None,
            }),
            from: plan.metadata.resource_version.clone(),
        });
        // The project's own key first, as everywhere.
        let rest = keys.into_iter().filter(|key| *key != less.key);
        let keys = std::iter::once(less.key.clone()).chain(rest).collect();
        steps.push(Step::OpenKeys { host, keys });
    }
    steps
}

/// Of these mounts those that a fresh verdict permits, in no other machine, for no longer.
pub(super) fn mounts(inputs: &Inputs<'_>, current: &[MountPlan]) -> Vec<MountPlan> {
    current.iter().filter_map(|mount| still(inputs, mount)).collect()
}

fn still(inputs: &Inputs<'_>, mount: &MountPlan) -> Option<MountPlan> {
    let wish = inputs.wishes.iter().find(|wish| {
        let verdict = &wish.verdict;
        let same = verdict.version == Some(mount.version) && verdict.policy.as_ref() == Some(&mount.policy_digest);
        same && verdict.decision == Decision::Permit && wish.dataset.is_some_and(|dataset| dataset.of == mount.dataset)
    })?;
    let mut less = mount.clone();
    let wanted = super::attached_to(inputs, wish.wish);
    less.machines.retain(|machine| wanted.contains(machine));
    let until = |text: &dejima_crds::bounded::Line| text.as_str().parse::<Timestamp>().ok();
    if let Some(end) = wish.verdict.until
        && mount.until.as_ref().and_then(until).is_none_or(|known| end < known)
    {
        less.until = Some(seconds(end));
    }
    (!less.machines.is_empty()).then_some(less)
}

/// Of these openings those that are still open.
pub(super) fn egress(inputs: &Inputs<'_>, current: &[EgressRule]) -> Vec<EgressRule> {
    let open = |rule: &&EgressRule| {
        let same = |opening: &&Opening| opening.entry.cidr == rule.cidr && opening.entry.ports == rule.ports;
        inputs.openings.iter().filter(same).any(|opening| opening.closed.is_none())
    };
    current.iter().filter(open).cloned().collect()
}
