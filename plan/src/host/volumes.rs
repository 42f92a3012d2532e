//! Volumes on a host: made and grown; attached to machines that run, resized there, and taken from them; destroyed.
//!
//! A volume that is wanted no more is not torn out of a running machine: the map stops naming it, the guest lets go of it and
//! says so, and then it is detached. Only an order to destroy it does not wait for the guest.

use std::collections::BTreeSet;

use dejima_crds::bounded::{Label, WrappedKey};
use dejima_crds::host_plan::{DomainPlan, ItemState, Power, ProjectPlan, VolumePlan};
use jiff::Timestamp;

use super::{Action, DomainSeen, DomainState, Next, Observed, VolumeSeen, is_told};
use crate::seen::Seen;

/// The volumes that a machine is to have.
pub(super) fn wanted<'a>(plan: &'a ProjectPlan, machine: &Label) -> impl Iterator<Item = &'a VolumePlan> {
    plan.volumes.iter().filter(move |volume| volume.attach_to.as_ref() == Some(machine))
}

/// A machine that is not off and has a volume.
fn holder<'a>(seen: &'a Observed, name: &Label) -> Option<&'a DomainSeen> {
    let mut domains = seen.domains.present().into_iter().flatten();
    domains.find(|domain| domain.state != DomainState::Shutoff && domain.volumes.contains_key(name))
}

/// The names of volumes that are there and can be opened.
pub(super) fn make(plan: &ProjectPlan, seen: &Observed, next: &mut Next) -> BTreeSet<Label> {
    let mut ready = BTreeSet::new();
    for volume in &plan.volumes {
        let found = seen.volumes.present().map(|all| all.iter().find(|found| found.name == volume.name));
        let (state, key) = match found {
            None if seen.volumes == Seen::Unknown => (ItemState::Unknown, None),
            Some(Some(found)) if found.formatted && found.wrapped_key.is_some() => {
                ready.insert(volume.name.clone());
                if found.bytes < volume.bytes {
                    next.actions.push(Action::GrowVolume(volume.clone()));
                }
                (in_place(volume, found, seen), found.wrapped_key.clone())
            }
            None | Some(_) => {
                next.actions.push(Action::MakeVolume(volume.clone()));
                (ItemState::Pending, None)
            }
        };
        next.items.push((format!("volume/{}", volume.name), state, key));
    }
    ready
}

/// How a volume that is there stands: ready once the machine that is to have it has all of it, and no other one has it.
fn in_place(volume: &VolumePlan, found: &VolumeSeen, seen: &Observed) -> ItemState {
    if seen.domains == Seen::Unknown {
        return ItemState::Unknown;
    }
    let of = |machine: &&DomainSeen| volume.attach_to.as_ref() == Some(&machine.machine);
    let mut domains = seen.domains.present().into_iter().flatten();
    let owner = domains.find(of).filter(|owner| owner.state != DomainState::Shutoff);
    let has_all = match owner {
        Some(owner) => owner.volumes.get(&volume.name).is_some_and(|bytes| *bytes >= volume.bytes),
        // What is off takes all of it at its start; nobody else may have it meanwhile.
        None => holder(seen, &volume.name).is_none(),
    };
    if found.bytes >= volume.bytes && has_all {
        ItemState::Ready
    } else {
        ItemState::Pending
    }
}

/// Whether everything that a machine starts with is there, and in no other machine.
pub(super) fn are_free(plan: &ProjectPlan, domain: &DomainPlan, ready: &BTreeSet<Label>, seen: &Observed) -> bool {
    let elsewhere = |volume: &VolumePlan| holder(seen, &volume.name).is_some_and(|holder| holder.machine != domain.machine);
    wanted(plan, &domain.machine).all(|volume| ready.contains(&volume.name) && !elsewhere(volume))
}

/// Whether a machine that is off was defined with exactly the volumes that it is to have.
pub(super) fn are_defined(plan: &ProjectPlan, found: &DomainSeen) -> bool {
    let names: BTreeSet<&Label> = wanted(plan, &found.machine).map(|volume| &volume.name).collect();
    found.volumes.keys().collect::<BTreeSet<_>>() == names
}

fn is_to_run(plan: &ProjectPlan, found: &DomainSeen) -> bool {
    let planned = |domain: &DomainPlan| domain.machine == found.machine && domain.power == Power::Running;
    plan.domains.iter().any(planned)
}

/// What machines that run, or are about to, lack of their volumes.
pub(super) fn attach(plan: &ProjectPlan, seen: &Observed, ready: &BTreeSet<Label>, next: &mut Next) {
    for found in seen.domains.present().into_iter().flatten() {
        if found.state == DomainState::Shutoff || !is_to_run(plan, found) {
            continue;
        }
        for volume in wanted(plan, &found.machine).filter(|volume| ready.contains(&volume.name)) {
            let whole = |known: &VolumeSeen| known.name == volume.name && known.bytes >= volume.bytes;
            let has_grown = seen.volumes.present().into_iter().flatten().any(whole);
            match found.volumes.get(&volume.name) {
                None if holder(seen, &volume.name).is_none() => {
                    next.actions.push(Action::AttachVolume(found.machine.clone(), volume.clone()));
                }
                Some(bytes) if *bytes < volume.bytes && has_grown => {
                    next.actions.push(Action::ResizeVolume(found.machine.clone(), volume.clone()));
                }
                None | Some(_) => {}
            }
        }
    }
}

/// What machines that run have and are not to have: detached once the guest has let go of it, or at once where it is destroyed.
pub(super) fn detach(plan: &ProjectPlan, seen: &Observed, now: Timestamp, next: &mut Next) {
    for found in seen.domains.present().into_iter().flatten() {
        // One that is to stop lets go of everything then.
        if found.state != DomainState::Running || !is_to_run(plan, found) {
            continue;
        }
        let left = |name: &&Label| !wanted(plan, &found.machine).any(|volume| volume.name == **name);
        for name in found.volumes.keys().filter(left) {
            let let_go = found.answered && is_told(plan, found, now);
            if let_go || plan.destroy.contains(name) {
                next.actions.push(Action::DetachVolume(found.machine.clone(), name.clone()));
            }
        }
    }
}

/// Volumes whose destruction is ordered, once no machine has them: never while nobody can tell.
pub(super) fn destroy(plan: &ProjectPlan, seen: &Observed, next: &mut Next) {
    for name in &plan.destroy {
        if plan.volumes.iter().any(|volume| volume.name == *name) {
            continue;
        }
        let is_there = seen.volumes.present().into_iter().flatten().any(|volume| volume.name == *name);
        let is_free = seen.domains != Seen::Unknown && holder(seen, name).is_none();
        if is_there && is_free {
            next.actions.push(Action::RemoveVolume(name.clone()));
        }
        let state = match seen.volumes {
            Seen::Unknown => ItemState::Unknown,
            Seen::Present(_) | Seen::Absent if is_there => ItemState::Pending,
            Seen::Present(_) | Seen::Absent => ItemState::Ended,
        };
        let none: Option<WrappedKey> = None;
        next.items.push((format!("volume/{name}"), state, none));
    }
}
