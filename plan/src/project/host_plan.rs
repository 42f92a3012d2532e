//! The host plan of a project: what it says, and when it is written.

use std::collections::{BTreeMap, BTreeSet};

use dejima_crds::bounded::{KeyName, Label, ObjectName};
use dejima_crds::host_plan::{DomainPlan, EgressRule, HostPlanSpec, ImagePlan, MountPlan, Power, ProjectPlan, ShardPlan, VolumePlan};
use dejima_crds::names;
use dejima_crds::reason::Decision;

use super::{Inputs, Step, Wish, attached_to, host_of, kept, less, of};
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
    let egress = if inputs.admission.is_empty() {
        let open = inputs.openings.iter().filter(|opening| opening.closed.is_none());
        let mut rules: Vec<EgressRule> = open
            .map(|opening| EgressRule {
                cidr: opening.entry.cidr.clone(),
                ports: opening.entry.ports.clone(),
            })
            .collect();
        rules.sort();
        rules
    } else {
        less::egress(inputs, current.map_or(&[], |plan| &plan.segment.egress))
    };
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

/// The mounts of the plan: permitted, and their exposure acknowledged. While an admission policy is missing nothing new is
/// permitted: of those that stand, what a fresh verdict still permits goes on.
fn mounts(inputs: &Inputs<'_>, current: Option<&ProjectPlan>) -> Vec<MountPlan> {
    if !inputs.admission.is_empty() {
        return less::mounts(inputs, current.map_or(&[], |plan| &plan.mounts));
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
    Some(MountPlan {
        dataset: dataset.of.clone(),
        uid: dataset.uid.clone(),
        version: number,
        digest: version.digest.clone(),
        policy_digest: policy,
        machines: attached_to(inputs, wish.wish),
        path: wish.wish.mount_path.clone(),
        until: wish.verdict.until.map(dejima_crds::condition::seconds),
        shards: shards.filter(|shards| !shards.is_empty())?,
    })
}
