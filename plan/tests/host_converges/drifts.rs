//! What somebody changed by hand is said.

use super::*;

/// The status of a host on which everything of a plan is ready.
fn ready(spec: &HostPlanSpec, host: &Observed) -> HostPlanStatus {
    let todo = next(spec, spec.project.as_ref().unwrap(), host, now());
    HostPlanStatus {
        plan_generation: spec.plan_generation,
        items: items(&todo, &[], now()),
        ..HostPlanStatus::default()
    }
}

fn drifted(spec: &HostPlanSpec, before: &HostPlanStatus, host: &Observed, owned: &Owned) -> Vec<(String, bool)> {
    let all = drift(spec, spec.project.as_ref().unwrap(), before, host, owned, now());
    all.into_iter().map(|drift| (drift.item.to_string(), drift.repaired)).collect()
}

#[test]
fn what_somebody_changed_is_said_and_what_runs_is_left_alone() {
    let mut spec = plan(1, 0, 0, Power::Running);
    let mut host = empty();
    carry_out(&spec, &mut host, usize::MAX);
    let before = ready(&spec, &host);
    let said = |spec: &HostPlanSpec, host: &Observed| {
        let plan = spec.project.as_ref().unwrap();
        assert_eq!(next(spec, plan, host, now()).actions, [], "nothing that runs is harmed");
        drifted(spec, &before, host, &Owned::default())
    };
    assert_eq!(said(&spec, &host), [], "the control");
    list(&mut host.domains)[0].changed = true;
    assert_eq!(said(&spec, &host), [("domain/m0".to_owned(), false)]);
    spec.project.as_mut().unwrap().domains[0].memory_mib = 512;
    assert_eq!(said(&spec, &host).len(), 2, "the project asks for another machine");
}

/// What somebody does to a host by hand.
type Hand<'a> = &'a dyn Fn(&mut Observed);

#[test]
fn what_was_ready_and_is_not_has_drifted_and_what_is_said_to_be_repaired_is() {
    let spec = plan(2, 1, 2, Power::Running);
    let project = spec.project.as_ref().unwrap();
    let mut whole = empty();
    carry_out(&spec, &mut whole, usize::MAX);
    let before = ready(&spec, &whole);
    assert_eq!(drifted(&spec, &before, &whole, &Owned::default()), [], "the control");
    let mount = mount_item(&project.mounts[0], &"m0".into());
    let serial = project.mounts[0].shards[1].serial.clone();
    let hands: [(&str, Hand<'_>); 8] = [
        ("volume/v0", &|host| list(&mut host.domains)[0].volumes.clear()),
        (mount.as_str(), &|host| {
            list(&mut host.domains)[0].shards.retain(|shard| *shard != serial);
        }),
        ("domain/m0", &|host| list(&mut host.domains)[0].state = DomainState::Paused),
        ("domain/m0", &|host| apply(project, host, &Action::Destroy("m0".into()))),
        ("domain/m1", &|host| drop(list(&mut host.domains).remove(1))),
        ("domain/m0", &|host| list(&mut host.domains)[0].map = None),
        ("network", &|host| host.network = Seen::Absent),
        ("network", &|host| {
            host.network = Seen::Present(NetworkSeen {
                rules: map_digest(&[]),
                proved: None,
            });
        }),
    ];
    for (item, hand) in hands {
        let mut host = whole.clone();
        hand(&mut host);
        assert_eq!(drifted(&spec, &before, &host, &Owned::default()), [(item.to_owned(), true)]);
        // Nobody knows: nobody says.
        let blind = Observed {
            network: Seen::Unknown,
            domains: Seen::Unknown,
            ..host.clone()
        };
        assert_eq!(drifted(&spec, &before, &blind, &Owned::default()), []);
        // Under a plan that changed it is being made, and what was not ready before has lost nothing.
        let newer = HostPlanSpec {
            plan_generation: 2,
            ..spec.clone()
        };
        assert_eq!(drifted(&newer, &before, &host, &Owned::default()), []);
        carry_out(&spec, &mut host, usize::MAX);
        assert_eq!(host, whole, "{item} is as it was");
    }
    // A mount whose end has come is not missing.
    let (mut over, mut host) = (spec.clone(), whole.clone());
    over.project.as_mut().unwrap().mounts[0].until = Some("2026-11-24T00:00:00Z".into());
    for domain in list(&mut host.domains) {
        domain.shards.clear();
    }
    assert_eq!(drifted(&over, &before, &host, &Owned::default()), []);
    // Keys that were left behind, of its own disks alone.
    let keys = Owned::found([Thing::Secret(serial.clone()), Thing::Secret("another".into())]);
    let said = drifted(&spec, &before, &whole, &keys);
    let shard = format!("shard/{}", project.mounts[0].shards[1].id);
    assert_eq!(said, [(shard, true)]);
}
