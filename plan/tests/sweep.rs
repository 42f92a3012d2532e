//! What is swept without an order: never a machine or a volume, never what a plan names, never what nobody can tell about.

#![expect(clippy::unwrap_used, reason = "test code stops where it cannot go on")]

use std::collections::BTreeSet;

use dejima_crds::bounded::{Digest, Label, Uid};
use dejima_crds::host_plan::HostPlanSpec;
use dejima_plan::Seen;
use dejima_plan::segment::segment;
use dejima_plan::sweep::{Kind, Owned, Thing, others, strays, unplanned};
use proptest::prelude::*;
use serde_json::json;

fn uid(at: u8) -> Uid {
    format!("p-{at}").into()
}

fn label(kind: &str, at: u8) -> Label {
    format!("{kind}{at}").into()
}

fn digest(at: u8) -> Digest {
    format!("sha256:{}", format!("{at:x}").repeat(64)).into()
}

fn bridge(at: u8) -> Label {
    segment(&uid(at), &[], vec![]).bridge
}

/// The plan of a project with one machine, one volume and one shard, all of this number.
fn plan(at: u8) -> HostPlanSpec {
    let image = json!({"name": "probe", "format": "kernel-initrd", "guest": "probe"});
    let project = json!({
        "of": {"namespace": "osaka", "name": "liver", "uid": uid(at)}, "dedicated": true, "key": "k",
        "segment": segment(&uid(at), &[label("m", at)], vec![]),
        "volumes": [{"name": label("v", at), "uid": "u", "serial": format!("{at:032x}"), "bytes": 1, "attachTo": label("m", at)}],
        "domains": [{"machine": label("m", at), "uid": "u", "power": "running", "cpus": 1, "memoryMiB": 1, "image": image}],
        "mounts": [{"dataset": "jichi/ct", "uid": "d", "version": 1, "digest": digest(at), "policyDigest": digest(at), "machines": [label("m", at)],
            "path": "/data", "shards": [{"id": format!("{at:016x}"), "serial": format!("{at:032x}"), "digest": digest(at), "storedDigest": digest(at),
            "key": "k", "wrappedKey": "vault:v1:YQ=="}]}],
    });
    HostPlanSpec {
        plan_generation: 1,
        ends: false,
        project: Some(serde_json::from_value(project).unwrap()),
        intake: None,
    }
}

/// Everything that there may be of one project.
fn all_of(at: u8) -> [Thing; 10] {
    [
        Thing::Domain(uid(at), label("m", at)),
        Thing::Volume(uid(at), label("v", at)),
        Thing::Network(uid(at)),
        Thing::Bridge {
            name: bridge(at),
            plugged: false,
        },
        Thing::Secret(format!("{at:032x}").into()),
        Thing::Place(uid(at), label("m", at)),
        Thing::Attached(digest(at)),
        Thing::Fetched(digest(at)),
        Thing::Part(format!("shards/{at}.part")),
        Thing::Unmade(uid(at), label("v", at)),
    ]
}

fn words(things: &[Thing]) -> Vec<&'static str> {
    things.iter().map(Thing::word).collect()
}

#[test]
fn what_is_nobodys_is_swept_and_nothing_else() {
    let (own, plan) = (Owned::found(all_of(1)), plan(1));
    // Of a project that has a plan only what is left of something that was cut short.
    assert_eq!(words(&strays(&[&plan], &own)), ["secret", "part"]);
    // Without a plan, what its machine needs stays with the machine.
    assert_eq!(words(&strays(&[], &own)), ["bridge", "secret", "part", "unmade"]);
    assert_eq!(unplanned(&[], &own), BTreeSet::from([uid(1)]));
    assert_eq!(unplanned(&[&plan], &own), BTreeSet::new(), "the control");
    // Without a machine all of it goes but the volume.
    let mut left = own;
    left.things.retain(|thing| !matches!(thing, Thing::Domain(..) | Thing::Attached(_)));
    let swept = ["network", "bridge", "secret", "place", "fetched", "part", "unmade"];
    assert_eq!(words(&strays(&[], &left)), swept);
    assert_eq!(unplanned(&[], &left), BTreeSet::from([uid(1)]), "its volume is reported");
    // A bridge into which something is plugged is somebody's.
    let plugged = Owned::found([Thing::Bridge {
        name: bridge(2),
        plugged: true,
    }]);
    assert_eq!(strays(&[], &plugged), []);
}

#[test]
fn who_cannot_be_told_apart_from_nobody_holds_the_host() {
    let own = plan(1).project.unwrap();
    let theirs = |owned: &Owned| others(owned, Some(&own));
    assert_eq!(theirs(&Owned::found(all_of(1))), Seen::Absent, "its own");
    for thing in [
        Thing::Domain(uid(2), label("m", 2)),
        Thing::Volume(uid(2), label("v", 2)),
        Thing::Network(uid(2)),
        Thing::Place(uid(2), label("m", 2)),
        Thing::Bridge {
            name: bridge(2),
            plugged: false,
        },
    ] {
        let owned = Owned::found(all_of(1)).and(Owned::found([thing.clone()]));
        assert!(matches!(theirs(&owned), Seen::Present(_)), "{thing:?}");
    }
    for kind in [Kind::Domains, Kind::Volumes, Kind::Networks] {
        assert_eq!(theirs(&Owned::unknown(kind)), Seen::Unknown, "{kind:?}");
    }
    assert_eq!(theirs(&Owned::unknown(Kind::Secrets)), Seen::Absent, "keys hold nothing");
    assert!(matches!(others(&Owned::found(all_of(1)), None), Seen::Present(_)));
}

fn things() -> impl Strategy<Value = Owned> {
    let kinds = [Kind::Domains, Kind::Volumes, Kind::Networks, Kind::Secrets, Kind::Files];
    let found = prop::collection::vec((1_u8..5, 0_usize..10), 0..30);
    let unknown = prop::collection::vec(prop::sample::select(kinds.to_vec()), 0..2);
    (found, unknown).prop_map(|(found, unknown)| Owned {
        things: found.into_iter().filter_map(|(at, which)| all_of(at).get(which).cloned()).collect(),
        unknown: unknown.into_iter().collect(),
    })
}

proptest! {
    #[test]
    fn nothing_that_could_be_lost_and_nothing_that_a_plan_names_is_ever_swept(owned in things(), planned in prop::collection::btree_set(1_u8..5, 0..4)) {
        let specs: Vec<HostPlanSpec> = planned.iter().map(|at| plan(*at)).collect();
        let plans: Vec<&HostPlanSpec> = specs.iter().collect();
        let swept = strays(&plans, &owned);
        let kept = |thing: &Thing| matches!(thing, Thing::Domain(..) | Thing::Volume(..) | Thing::Attached(_));
        prop_assert!(!swept.iter().any(kept));
        for at in &planned {
            let named: Vec<Thing> = all_of(*at).into_iter().filter(|thing| !matches!(thing, Thing::Secret(_) | Thing::Part(_))).collect();
            prop_assert!(!swept.iter().any(|thing| named.contains(thing)), "{swept:?}");
        }
        if owned.unknown.contains(&Kind::Domains) {
            let needs = |thing: &Thing| matches!(thing, Thing::Network(_) | Thing::Place(..) | Thing::Fetched(_));
            prop_assert!(!swept.iter().any(needs), "it may belong to a machine that nobody sees");
        }
        // Once is enough, and what was swept made nothing else a stray.
        let mut left = owned.clone();
        left.things.retain(|thing| !swept.contains(thing));
        prop_assert_eq!(strays(&plans, &left), vec![]);
        prop_assert_eq!(unplanned(&plans, &left), unplanned(&plans, &owned));
        // One plan more takes nothing away that was not swept before.
        let more = plan(1);
        let with: Vec<&HostPlanSpec> = plans.iter().copied().chain([&more]).collect();
        prop_assert!(strays(&with, &owned).iter().all(|thing| swept.contains(thing)));
    }
}
