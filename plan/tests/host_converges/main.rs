//! A plan carried out leaves an empty plan; cut short at any action, it leaves exactly its rest. On a pretend host.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code stops where it cannot go on"
)]

mod drifts;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use dejima_crds::bounded::Label;
use dejima_crds::host_plan::{HostPlanSpec, HostPlanStatus, ItemState, MountPlan, Power, ProjectPlan, mount_item};
use dejima_plan::Seen;
use dejima_plan::drift::drift;
use dejima_plan::host::{
    Action, DomainSeen, DomainState, NetworkSeen, Observed, VolumeSeen, definition, items, map_digest, next, segment_digest,
};
use dejima_plan::segment::segment;
use dejima_plan::sweep::{Owned, Thing};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

fn now() -> Timestamp {
    "2026-11-24T00:00:00Z".parse().unwrap()
}

fn empty() -> Observed {
    Observed {
        network: Seen::Absent,
        volumes: Seen::Absent,
        domains: Seen::Absent,
        others: Seen::Absent,
        attached: BTreeMap::new(),
    }
}

/// A plan with this many machines, volumes on the first, and shards of one dataset in all.
fn plan(machines: usize, volumes: usize, shards: usize, power: Power) -> HostPlanSpec {
    let names: Vec<_> = (0..machines).map(|at| format!("m{at}").as_str().into()).collect();
    let uid = "p-1".into();
    let digest = format!("sha256:{}", "a".repeat(64));
    let domains: Vec<_> = names
        .iter()
        .map(|name: &Label| {
            json!({"machine": name, "uid": format!("u-{name}"), "power": power, "cpus": 1, "memoryMiB": 256, "image": {"name": "probe", "format": "kernel-initrd", "guest": "probe"}})
        })
        .collect();
    let volumes: Vec<_> = (0..volumes).map(|at| json!({"name": format!("v{at}"), "uid": format!("u-v{at}"), "serial": format!("{at:032}"), "bytes": 1024, "attachTo": "m0", "mountPath": format!("/v{at}")})).collect();
    let list: Vec<_> = (0..shards)
        .map(|at| json!({"id": format!("{at:016x}"), "serial": format!("{at:032x}"), "digest": digest, "storedDigest": digest, "key": "k", "wrappedKey": "vault:v1:YQ=="}))
        .collect();
    let mounts = if shards == 0 {
        json!([])
    } else {
        json!([{"dataset": "jichi/ct", "uid": "d-1", "version": 1, "digest": digest, "policyDigest": digest, "machines": names, "path": "/data", "shards": list}])
    };
    let project = json!({
        "of": {"namespace": "osaka", "name": "liver", "uid": "p-1"}, "dedicated": true, "key": "project-p-1",
        "segment": segment(&uid, &names, vec![]), "volumes": volumes, "mounts": mounts, "domains": domains,
    });
    HostPlanSpec {
        plan_generation: 1,
        ends: false,
        project: Some(serde_json::from_value(project).unwrap()),
        intake: None,
    }
}

fn list<T>(seen: &mut Seen<Vec<T>>) -> &mut Vec<T> {
    if !matches!(seen, Seen::Present(_)) {
        *seen = Seen::Present(vec![]);
    }
    match seen {
        Seen::Present(all) => all,
        Seen::Absent | Seen::Unknown => panic!("it was just made"),
    }
}

/// The machine that is not off and has a volume.
fn held(host: &mut Observed, name: &Label) -> Option<Label> {
    let holds = |domain: &&DomainSeen| domain.state != DomainState::Shutoff && domain.volumes.contains_key(name);
    list(&mut host.domains).iter().find(holds).map(|domain| domain.machine.clone())
}

/// How large a volume's file is.
fn size(host: &mut Observed, name: &Label) -> u64 {
    let found = list(&mut host.volumes).iter().find(|volume| volume.name == *name);
    found.expect("a volume that is there").bytes
}

/// What a machine is defined, or started, with.
fn volumes_of(plan: &ProjectPlan, host: &mut Observed, machine: &Label) -> BTreeMap<Label, u64> {
    let own = plan.volumes.iter().filter(|volume| volume.attach_to.as_ref() == Some(machine));
    own.map(|volume| (volume.name.clone(), size(host, &volume.name))).collect()
}

/// What an action does to a host.
fn apply(plan: &ProjectPlan, host: &mut Observed, action: &Action) {
    let find = |host: &mut Observed, name: &Label| list(&mut host.domains).iter().position(|domain| domain.machine == *name).unwrap();
    match action {
        Action::SealNetwork(segment) => {
            host.network = Seen::Present(NetworkSeen {
                rules: segment_digest(segment),
                proved: None,
            });
        }
        Action::ProveIsolation(segment) => {
            let Seen::Present(network) = &mut host.network else {
                panic!("proof of what is not there")
            };
            network.proved = Some(segment_digest(segment));
        }
        Action::MakeVolume(volume) => list(&mut host.volumes).push(VolumeSeen {
            name: volume.name.clone(),
            bytes: volume.bytes,
            wrapped_key: Some("vault:v1:YQ==".into()),
            formatted: true,
        }),
        Action::GrowVolume(volume) => list(&mut host.volumes)
            .iter_mut()
            .filter(|found| found.name == volume.name)
            .for_each(|found| found.bytes = volume.bytes),
        Action::Define(domain) => {
            assert!(host.network.present().is_some(), "a machine before its rules");
            let fresh = DomainSeen {
                machine: domain.machine.clone(),
                state: DomainState::Shutoff,
                definition: definition(plan, domain),
                shards: BTreeSet::new(),
                volumes: volumes_of(plan, host, &domain.machine),
                map: None,
                answered: false,
                changed: false,
            };
            list(&mut host.domains).push(fresh);
        }
        Action::Start(domain) => {
            let at = find(host, &domain.machine);
            let volumes = volumes_of(plan, host, &domain.machine);
            for name in volumes.keys() {
                assert!(held(host, name).is_none(), "{name} is in two machines");
            }
            let found = &mut list(&mut host.domains)[at];
            assert!(
                found.volumes.keys().eq(volumes.keys()),
                "a machine starts with other volumes than it is to have"
            );
            (found.state, found.volumes) = (DomainState::Paused, volumes);
        }
        Action::Attach(machine, _, shard) => {
            let at = find(host, machine);
            assert_ne!(list(&mut host.domains)[at].state, DomainState::Shutoff);
            list(&mut host.domains)[at].shards.insert(shard.serial.clone());
        }
        Action::Tell(machine, map) => {
            let at = find(host, machine);
            let found = &mut list(&mut host.domains)[at];
            // The guest of this host lets go at once, where it runs.
            (found.map, found.answered) = (Some(map_digest(map)), found.state == DomainState::Running);
        }
        Action::AttachVolume(machine, volume) => {
            assert!(held(host, &volume.name).is_none(), "{} is in two machines", volume.name);
            let (at, bytes) = (find(host, machine), size(host, &volume.name));
            list(&mut host.domains)[at].volumes.insert(volume.name.clone(), bytes);
        }
        Action::ResizeVolume(machine, volume) => {
            let (at, bytes) = (find(host, machine), size(host, &volume.name));
            assert!(bytes >= volume.bytes, "a machine sees more than there is");
            list(&mut host.domains)[at].volumes.insert(volume.name.clone(), bytes);
        }
        Action::DetachVolume(machine, name) => {
            let at = find(host, machine);
            let found = &mut list(&mut host.domains)[at];
            assert!(
                found.answered || plan.destroy.contains(name),
                "{name} is torn out of a machine that uses it"
            );
            found.volumes.remove(name).unwrap();
        }
        Action::Resume(machine) => {
            assert!(
                host.network.present().unwrap().proved.is_some(),
                "a machine runs on a network that was not proved"
            );
            let at = find(host, machine);
            let found = &mut list(&mut host.domains)[at];
            (found.state, found.answered) = (DomainState::Running, true);
        }
        Action::Detach(machine, serial) => {
            let at = find(host, machine);
            list(&mut host.domains)[at].shards.remove(serial);
        }
        Action::Destroy(machine) => {
            let at = find(host, machine);
            let domain = &mut list(&mut host.domains)[at];
            (domain.state, domain.map, domain.answered) = (DomainState::Shutoff, None, false);
            domain.shards.clear();
        }
        Action::Undefine(machine) => {
            let at = find(host, machine);
            assert_eq!(list(&mut host.domains)[at].state, DomainState::Shutoff);
            list(&mut host.domains).remove(at);
        }
        Action::RemoveVolume(name) => {
            assert!(held(host, name).is_none(), "{name} is destroyed while a machine has it");
            list(&mut host.volumes).retain(|volume| volume.name != *name);
        }
        Action::RemoveNetwork => host.network = Seen::Absent,
    }
    // A real host lists things in an order of its own; here it is by name.
    list(&mut host.domains).sort_by(|one, other| one.machine.cmp(&other.machine));
    list(&mut host.volumes).sort_by(|one, other| one.name.cmp(&other.name));
}

/// Carries a plan out, and stops after `budget` actions. How many were carried out, by name.
fn carry_out(spec: &HostPlanSpec, host: &mut Observed, budget: usize) -> Vec<String> {
    let plan = spec.project.as_ref().unwrap();
    let mut done = vec![];
    for _ in 0..100 {
        let todo = next(spec, plan, host, now());
        if todo.actions.is_empty() {
            return done;
        }
        for action in &todo.actions {
            if done.len() == budget {
                return done;
            }
            apply(plan, host, action);
            done.push(format!("{:?}", action.name()));
        }
    }
    panic!("it does not converge: {done:?}");
}

/// What was done, in no order. A map is replaced for each change, hence may be told once more where the rest is done in other rounds.
fn without_maps(mut done: Vec<String>) -> Vec<String> {
    done.retain(|name| !name.contains("\"tell\""));
    done.sort();
    done
}

fn everything_is_ready(spec: &HostPlanSpec, host: &Observed) -> bool {
    next(spec, spec.project.as_ref().unwrap(), host, now())
        .items
        .iter()
        .all(|(_, state, _)| *state == ItemState::Ready)
}

/// Carries one plan out as far as a cut, then another one, cut as well: the host as it is then, and as it is without the second cut.
fn cut_twice(before: &HostPlanSpec, after: &HostPlanSpec, cut: usize) -> Result<Observed, TestCaseError> {
    let mut host = empty();
    carry_out(before, &mut host, cut);
    let mut whole = host.clone();
    let all = carry_out(after, &mut whole, usize::MAX);
    let part = carry_out(after, &mut host, cut % (all.len() + 1));
    let rest = carry_out(after, &mut host, usize::MAX);
    prop_assert_eq!(without_maps([part, rest].concat()), without_maps(all));
    prop_assert_eq!(&host, &whole);
    Ok(host)
}

#[test]
fn the_order_is_rules_volumes_machines_data_proof_and_only_then_it_runs() {
    let (spec, mut host) = (plan(1, 1, 1, Power::Running), empty());
    let done = carry_out(&spec, &mut host, usize::MAX).join(" ");
    let at = |word: &str| done.find(word).unwrap_or_else(|| panic!("no {word} in {done}"));
    assert!(at("seal") < at("define") && at("make") < at("define") && at("define") < at("start"));
    assert!(
        at("start") < at("attach") && at("prove") < at("resume") && at("attach") < at("resume"),
        "{done}"
    );
    assert!(everything_is_ready(&spec, &host));
}

#[test]
fn what_nobody_can_tell_about_is_neither_made_nor_taken_away() {
    let spec = plan(1, 1, 1, Power::Running);
    let blind = Observed {
        network: Seen::Unknown,
        volumes: Seen::Unknown,
        domains: Seen::Unknown,
        others: Seen::Absent,
        attached: BTreeMap::from([("m0".into(), BTreeSet::from([format!("{:032x}", 0).into()]))]),
    };
    let todo = next(&spec, spec.project.as_ref().unwrap(), &blind, now());
    assert_eq!(todo.actions, []);
    assert!(
        todo.items.iter().all(|(_, state, _)| *state == ItemState::Unknown),
        "{:?}",
        todo.items
    );
    let ending = HostPlanSpec { ends: true, ..spec };
    let todo = next(&ending, ending.project.as_ref().unwrap(), &blind, now());
    // An order to end waits for nobody, but what nobody saw is not said to be over.
    assert_eq!(todo.actions, [Action::Destroy("m0".into())]);
    assert!(!todo.closed && !todo.swept);
}

#[test]
fn a_mount_that_must_end_takes_a_machine_with_it_that_nobody_can_tell_about() {
    let mut spec = plan(2, 0, 2, Power::Running);
    let serial = |at: usize| format!("{at:032x}").as_str().into();
    let blind = Observed {
        domains: Seen::Unknown,
        attached: BTreeMap::from([("m0".into(), BTreeSet::from([serial(0), serial(1)]))]),
        ..empty()
    };
    let actions = |spec: &HostPlanSpec, at: &str| {
        let todo = next(spec, spec.project.as_ref().unwrap(), &blind, at.parse().unwrap());
        let mut ends = todo.actions;
        ends.retain(|action| matches!(action, Action::Destroy(_) | Action::Detach(..)));
        ends
    };
    spec.project.as_mut().unwrap().mounts[0].until = Some("2026-11-24T00:00:01Z".into());
    assert_eq!(actions(&spec, "2026-11-24T00:00:00Z"), [], "the control: its time has not come");
    assert_eq!(
        actions(&spec, "2026-11-24T00:00:01Z"),
        [Action::Destroy("m0".into())],
        "and no other machine"
    );
    spec.project.as_mut().unwrap().mounts.clear();
    assert_eq!(
        actions(&spec, "2026-11-24T00:00:00Z"),
        [Action::Destroy("m0".into())],
        "the grant is gone"
    );
}

#[test]
fn a_mount_ends_at_its_own_end_whoever_is_silent() {
    let mut spec = plan(1, 0, 2, Power::Running);
    let mut host = empty();
    carry_out(&spec, &mut host, usize::MAX);
    let mount: &mut MountPlan = &mut spec.project.as_mut().unwrap().mounts[0];
    mount.until = Some("2026-11-24T00:00:01Z".into());
    let plan = spec.project.as_ref().unwrap();
    let before = next(&spec, plan, &host, now());
    assert_eq!(before.actions, [], "the control: one second earlier nothing is to be done");
    let after = next(&spec, plan, &host, "2026-11-24T00:00:01Z".parse().unwrap());
    assert_eq!(
        after.actions.iter().filter(|action| matches!(action, Action::Detach(..))).count(),
        2
    );
    assert!(matches!(after.actions[0], Action::Detach(..)), "access is taken away first");
}

#[test]
fn a_host_that_another_project_holds_gives_nothing_and_takes_away_all_the_same() {
    let spec = plan(1, 1, 1, Power::Running);
    let mut host = empty();
    for (others, problem) in [
        (Seen::Present(BTreeSet::from(["p-2".into()])), "HostHeldByAnother"),
        (Seen::Unknown, "DriverSilent"),
    ] {
        host.others = others;
        let todo = next(&spec, spec.project.as_ref().unwrap(), &host, now());
        assert_eq!((todo.actions.len(), todo.problem), (0, Some(problem)), "{:?}", host.others);
    }
    host.others = Seen::Absent;
    assert!(
        !next(&spec, spec.project.as_ref().unwrap(), &host, now()).actions.is_empty(),
        "the control"
    );
}

#[test]
fn a_volume_that_leaves_the_plan_is_kept_until_its_destruction_is_ordered() {
    let (mut spec, mut host) = (plan(1, 2, 0, Power::Running), empty());
    carry_out(&spec, &mut host, usize::MAX);
    spec.project.as_mut().unwrap().volumes.truncate(1);
    carry_out(&spec, &mut host, usize::MAX);
    assert_eq!(host.volumes.present().unwrap().len(), 2, "kept");
    spec.project.as_mut().unwrap().destroy = vec!["v1".into()];
    carry_out(&spec, &mut host, usize::MAX);
    assert_eq!(host.volumes.present().unwrap().len(), 1, "destroyed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// From any plan to any other, cut anywhere: what is left is the rest, and nothing is left of it in the end.
    #[test]
    fn a_half_carried_out_plan_is_simply_continued(
        first in (0_usize..3, 0_usize..3, 0_usize..3), second in (0_usize..3, 0_usize..3, 0_usize..3),
        stopped in any::<bool>(), cut in 0_usize..30, ends in any::<bool>(),
    ) {
        let power = if stopped { Power::Stopped } else { Power::Running };
        let volumes = |machines: usize, volumes: usize| if machines == 0 { 0 } else { volumes };
        let before = plan(first.0, volumes(first.0, first.1), first.2, Power::Running);
        let mut after = plan(second.0, volumes(second.0, second.1), second.2, power);
        after.ends = ends;
        let host = cut_twice(&before, &after, cut)?;
        let left = next(&after, after.project.as_ref().unwrap(), &host, now());
        prop_assert_eq!(left.actions, vec![]);
        if ends {
            prop_assert!(left.closed && left.swept);
        } else if !stopped {
            prop_assert!(everything_is_ready(&after, &host));
        }
    }
}
