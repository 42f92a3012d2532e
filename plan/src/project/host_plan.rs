//! The host plan of a project: what it says, when it is written, and what it loses where nothing can be given any more.

use std::collections::{BTreeMap, BTreeSet};

use dejima_crds::bounded::{KeyName, Label, ObjectName};
use dejima_crds::host_plan::{DomainPlan, EgressRule, HostPlanSpec, ImagePlan, MountPlan, Power, ProjectPlan, ShardPlan, VolumePlan};
use dejima_crds::names;
use dejima_crds::reason::Decision;
use dejima_policy::Opening;

use super::{Inputs, Step, Wish, host_of, kept, of};
use crate::segment::{machine_names, segment};

/// The host plan, where it must change: keys before the plan that needs them.
pub(super) fn write(inputs: &Inputs<'_>, host: &ObjectName, images: &BTreeMap<ObjectName, ImagePlan>) -> Vec<Step> {
    let existing = inputs.plans.iter().find(|plan| host_of(plan).as_ref() == Some(host));
    let current = existing.and_then(|plan| plan.spec.project.as_ref());
    let Some(wanted) = project_plan(inputs, images, current) else {
        return Vec::new();
    };
    if existing.is_some_and(|plan| plan.spec.ends) {
        return Vec::new();
    }
    let shards = |plan: &ProjectPlan| -> BTreeSet<KeyName> {
        plan.mounts
            .iter()
            .flat_map(|mount| &mount.shards)
            .map(|shard| shard.key.clone())
            .collect()
    };
    let before = current.map(shards).unwrap_or_default();
    let keys = std::iter::once(wanted.key.clone()).chain(shards(&wanted)).collect();
    // Said whether or not the plan changes: what was cut short between the two is made good.
    let open = Step::OpenKeys { host: host.clone(), keys };
    if current == Some(&wanted) {
        return vec![open];
    }
    let plan_generation = existing.map_or_else(|| crate::first_generation(inputs.now), |plan| plan.spec.plan_generation + 1);
    let spec = HostPlanSpec {
        plan_generation,
        ends: false,
        project: Some(wanted.clone()),
        intake: None,
    };
    let from = existing.and_then(|plan| plan.metadata.resource_version.clone());
    let write = Step::Write {
        host: host.clone(),
        spec: Box::new(spec),
        from,
    };
    // A plan that only takes away is written first: ending access waits for nobody, the key server included.
    let only_less = current.is_some() && shards(&wanted).is_subset(&before);
    if only_less { vec![write, open] } else { vec![open, write] }
}

/// The plans that stand, without what the project may have no longer: no edit of its own prolongs access.
pub(super) fn withdraw(inputs: &Inputs<'_>) -> Vec<Step> {
    if !inputs.admission.is_empty() {
        return Vec::new();
    }
    let ended = inputs
        .project
        .spec
        .period
        .until
        .ends(inputs.zone)
        .is_ok_and(|end| inputs.now >= end);
    let open = |rule: &EgressRule| {
        let same = |opening: &&Opening| opening.entry.cidr == rule.cidr && opening.entry.ports == rule.ports;
        inputs.openings.iter().filter(same).any(|opening| opening.closed.is_none())
    };
    let mut steps = Vec::new();
    for plan in inputs.plans.iter().filter(|plan| !plan.spec.ends) {
        let (Some(host), Some(current)) = (host_of(plan), &plan.spec.project) else {
            continue;
        };
        let mut less = current.clone();
        less.mounts.retain_mut(|mount| {
            let permitted = inputs.wishes.iter().find(|wish| {
                let verdict = &wish.verdict;
                let same = verdict.version == Some(mount.version) && verdict.policy.as_ref() == Some(&mount.policy_digest);
                same && verdict.decision == Decision::Permit && wish.dataset.is_some_and(|dataset| dataset.of == mount.dataset)
            });
            if let Some(wish) = permitted {
                mount.until = wish.verdict.until.map(dejima_crds::condition::seconds);
            }
            permitted.is_some()
        });
        less.segment.egress.retain(open);
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

/// The plan of one host; nothing while an image is missing.
fn project_plan(inputs: &Inputs<'_>, images: &BTreeMap<ObjectName, ImagePlan>, current: Option<&ProjectPlan>) -> Option<ProjectPlan> {
    let (spec, uid) = (&inputs.project.spec, &inputs.facts.of.uid);
    let ended = spec.period.until.ends(inputs.zone).is_ok_and(|end| inputs.now >= end);
    let mut domains = Vec::new();
    for machine in &spec.machines {
        for name in machine_names(&machine.name, machine.count) {
            domains.push(DomainPlan {
                uid: names::id(uid, &format!("domain/{name}")).to_string().into(),
                power: if ended { Power::Stopped } else { Power::Running },
                cpus: machine.cpu.unwrap_or(1),
                memory_mib: machine.memory.as_ref().and_then(dejima_crds::bounded::Bytes::count).unwrap_or(0) >> 20,
                image: images.get(&machine.image)?.clone(),
                user_data: machine.user_data.clone(),
                machine: name,
            });
        }
    }
    let names_of_all: Vec<Label> = domains.iter().map(|domain| domain.machine.clone()).collect();
    let mut egress: Vec<EgressRule> = inputs
        .openings
        .iter()
        .filter(|opening| opening.closed.is_none())
        .map(|opening| EgressRule {
            cidr: opening.entry.cidr.clone(),
            ports: opening.entry.ports.clone(),
        })
        .collect();
    egress.sort();
    if !inputs.admission.is_empty() {
        egress = current.map(|plan| plan.segment.egress.clone()).unwrap_or_default();
    }
    let mut volumes: Vec<VolumePlan> = spec
        .volumes
        .iter()
        .map(|volume| VolumePlan {
            name: volume.name.clone(),
            uid: names::id(uid, &format!("volume/{}", volume.name)).to_string().into(),
            serial: names::serial(uid, &format!("volume/{}", volume.name)).into(),
            bytes: volume.size.count().unwrap_or(0),
            attach_to: Some(volume.attach_to.clone()),
            mount_path: Some(volume.mount_path.clone()),
        })
        .collect();
    let destroy = kept::ordered(inputs, current);
    volumes.retain(|volume| !destroy.contains(&volume.name));
    volumes.extend(current.into_iter().flat_map(|plan| kept::detached(inputs, plan, &destroy)));
    Some(ProjectPlan {
        of: of(inputs),
        dedicated: spec.placement.dedicated,
        key: names::project_key(uid),
        segment: segment(uid, &names_of_all, egress),
        volumes,
        destroy,
        mounts: mounts(inputs, current),
        domains,
    })
}

/// The mounts of the plan: permitted, and their exposure acknowledged. While nothing is judged, those that stand go on.
fn mounts(inputs: &Inputs<'_>, current: Option<&ProjectPlan>) -> Vec<MountPlan> {
    if !inputs.admission.is_empty() {
        return current.map(|plan| plan.mounts.clone()).unwrap_or_default();
    }
    let permitted = inputs.wishes.iter().filter(|wish| wish.verdict.decision == Decision::Permit);
    permitted.filter_map(|wish| mount(inputs, wish)).collect()
}

fn mount(inputs: &Inputs<'_>, wish: &Wish<'_>) -> Option<MountPlan> {
    let dataset = wish.dataset?;
    let (number, policy) = (wish.verdict.version?, wish.verdict.policy.clone()?);
    let acknowledged = inputs
        .facts
        .exposed
        .iter()
        .any(|known| known.dataset == dataset.of && known.version == number && known.policy_digest == policy);
    let version = dataset
        .versions
        .iter()
        .find(|version| version.version == number)
        .filter(|_| acknowledged)?;
    let shards: Option<Vec<ShardPlan>> = version
        .shards
        .iter()
        .map(|id| {
            let shard = dataset.shards.iter().find(|shard| shard.id == *id)?;
            Some(ShardPlan {
                id: id.clone(),
                serial: names::serial(&inputs.facts.of.uid, &format!("shard/{}/{id}", dataset.uid)).into(),
                digest: shard.digest.clone(),
                stored_digest: shard.stored_digest.clone(),
                key: shard.key.clone(),
                wrapped_key: shard.wrapped_key.clone(),
            })
        })
        .collect();
    let machines = wish.wish.attach_to.iter().flat_map(|name| {
        let count = inputs
            .project
            .spec
            .machines
            .iter()
            .find(|machine| machine.name == *name)
            .map_or(1, |machine| machine.count);
        machine_names(name, count)
    });
    Some(MountPlan {
        dataset: dataset.of.clone(),
        uid: dataset.uid.clone(),
        version: number,
        digest: version.digest.clone(),
        policy_digest: policy,
        machines: machines.collect(),
        path: wish.wish.mount_path.clone(),
        until: wish.verdict.until.map(dejima_crds::condition::seconds),
        shards: shards.filter(|shards| !shards.is_empty())?,
    })
}
