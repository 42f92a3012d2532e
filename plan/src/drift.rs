//! What is not as it was made, on one host and of one project: said, and where the plan says how it must be, repaired.
//!
//! A thing has drifted that was ready under this very plan and is not now, although its time is not over: what is made for the
//! first time, or for another plan, has not. Whether it is repaired follows from [`crate::host::next`], which looks at the same.

use std::collections::BTreeSet;

use dejima_crds::bounded::Label;
use dejima_crds::host_plan::{Drift, HostPlanSpec, HostPlanStatus, ItemState, Power, ProjectPlan, mount_item};
use jiff::Timestamp;

use crate::host::{DomainSeen, DomainState, Observed, definition, segment_digest, wanted};
use crate::seen::Seen;
use crate::sweep::{Owned, Thing};

/// Everything that drifted since the last status; what is on the host as drivers found it before anything was done.
pub fn drift(
    spec: &HostPlanSpec,
    plan: &ProjectPlan,
    before: &HostPlanStatus,
    seen: &Observed,
    owned: &Owned,
    now: Timestamp,
) -> Vec<Drift> {
    if spec.ends {
        return Vec::new();
    }
    let was = |item: &str| {
        let ready = |known: &dejima_crds::host_plan::Item| known.item == item && known.state == ItemState::Ready;
        before.plan_generation == spec.plan_generation && before.items.iter().any(ready)
    };
    let mut all = Vec::new();
    if was("network") {
        all.extend(network(plan, seen));
    }
    for domain in &plan.domains {
        let item = format!("domain/{}", domain.machine);
        let found = seen
            .domains
            .present()
            .and_then(|all| all.iter().find(|found| found.machine == domain.machine));
        if was(&item)
            && seen.domains != Seen::Unknown
            && let Some(message) = power(found, domain.power)
        {
            all.push(said(&item, message, true));
        }
        let Some(found) = found.filter(|found| found.state != DomainState::Shutoff) else {
            continue;
        };
        if found.changed {
            let message = "its definition was changed by somebody else: stop it and it is made anew";
            all.push(said(&item, message, false));
        }
        if found.definition != definition(plan, domain) {
            let message = "the project asks for another machine than the one that runs: it is made at the next start";
            all.push(said(&item, message, false));
        }
        for mount in wanted(plan, &domain.machine, now) {
            let gone: Vec<String> = mount
                .shards
                .iter()
                .filter(|shard| !found.shards.contains(&shard.serial))
                .map(|shard| shard.id.to_string())
                .collect();
            let item = mount_item(mount, &domain.machine);
            if was(&item) && !gone.is_empty() {
                let message = format!("nobody ordered that it loses shard {}: it is attached again", gone.join(", "));
                all.push(said(&item, &message, true));
            }
        }
        for volume in plan
            .volumes
            .iter()
            .filter(|volume| volume.attach_to.as_ref() == Some(&domain.machine))
        {
            let item = format!("volume/{}", volume.name);
            if was(&item) && !found.volumes.contains_key(&volume.name) {
                let message = format!("nobody ordered that machine {} loses it: it is given back", domain.machine);
                all.push(said(&item, &message, true));
            }
        }
        if was(&item) && found.map.is_none() && domain.power == Power::Running {
            all.push(said(&item, "its map of mounts was taken away: it is told again", true));
        }
    }
    all.extend(keys(plan, owned));
    all
}

fn said(item: &str, message: &str, repaired: bool) -> Drift {
    Drift {
        item: item.into(),
        message: message.into(),
        repaired,
    }
}

fn network(plan: &ProjectPlan, seen: &Observed) -> Option<Drift> {
    let message = match &seen.network {
        Seen::Absent => "it was taken away: it is made and proved anew",
        Seen::Present(network) if network.rules != segment_digest(&plan.segment) => {
            "its rules or its bridge were changed by somebody else: they are made and proved anew"
        }
        Seen::Present(_) | Seen::Unknown => return None,
    };
    Some(said("network", message, true))
}

fn power(found: Option<&DomainSeen>, wanted: Power) -> Option<&'static str> {
    match (found.map(|found| found.state), wanted) {
        (None, _) => Some("its definition is gone: it is defined again"),
        (Some(DomainState::Shutoff), Power::Running) => Some("it ended, and nobody ordered it: it is started again"),
        (Some(DomainState::Paused), Power::Running) => Some("it stands still, and nobody ordered it: it goes on"),
        (Some(DomainState::Paused | DomainState::Running), Power::Stopped) => Some("it was started, and nobody ordered it: it is stopped"),
        (Some(DomainState::Running), Power::Running) | (Some(DomainState::Shutoff), Power::Stopped) => None,
    }
}

/// Keys of this plan's disks that lie in libvirt's memory although nobody waits for them.
fn keys(plan: &ProjectPlan, owned: &Owned) -> Vec<Drift> {
    let shards = plan.mounts.iter().flat_map(|mount| &mount.shards);
    let named = shards.map(|shard| (&shard.serial, format!("shard/{}", shard.id)));
    let volumes = plan
        .volumes
        .iter()
        .map(|volume| (&volume.serial, format!("volume/{}", volume.name)));
    let lies = |serial: &&Label| owned.things.contains(&Thing::Secret((*serial).clone()));
    // A shard may be mounted more than once.
    let all: BTreeSet<String> = named
        .chain(volumes)
        .filter(|(serial, _)| lies(serial))
        .map(|(_, item)| item)
        .collect();
    let message = "its key was left in libvirt's memory: it is forgotten";
    all.iter().map(|item| said(item, message, true)).collect()
}
