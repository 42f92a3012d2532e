//! Hosts that projects share: whatever comes and goes, no host is promised twice.

#![expect(clippy::unwrap_used, reason = "test code stops where it cannot go on")]

use std::collections::BTreeMap;

use dejima_crds::bounded::Uid;
use dejima_crds::country::Country;
use dejima_crds::host::{Capacity, HostStatus};
use dejima_crds::{Host, HostSpec};
use dejima_plan::placement::{Candidate, Hold, Need, Placed, hold, holds, name, place};
use proptest::prelude::*;
use serde_json::json;

const CPUS: u32 = 8;
const HOSTS: [&str; 3] = ["a", "b", "c"];

/// What happens to one of a few projects.
#[derive(Clone, Debug)]
enum Event {
    /// It is there, or changed, and wants this.
    Wants { dedicated: bool, cpus: u32 },
    /// It is gone.
    Gone,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (any::<bool>(), 1..=CPUS).prop_map(|(dedicated, cpus)| Event::Wants { dedicated, cpus }),
        1 => Just(Event::Gone),
    ]
}

fn hosts() -> Vec<Host> {
    let spec: HostSpec = serde_json::from_value(json!({"roles": ["machines"]})).unwrap();
    let status = HostStatus {
        capacity: Some(Capacity {
            cpus: CPUS,
            memory: 1 << 40,
            bytes: 1 << 40,
        }),
        ..HostStatus::default()
    };
    let host = |name: &&str| {
        let mut host = Host::new(name, spec.clone());
        host.status = Some(status.clone());
        host
    };
    HOSTS.iter().map(host).collect()
}

/// What the operator does about an event, as the objects then say; whether the project has all that it wants.
fn carry_out(hosts: &mut [Host], uid: &Uid, event: &Event) -> bool {
    let Event::Wants { dedicated, cpus } = *event else {
        for status in hosts.iter_mut().filter_map(|host| host.status.as_mut()) {
            status.claims.retain(|claim| claim.uid != *uid);
            status.held_by = status.held_by.take().filter(|held| held.uid != *uid);
        }
        return false;
    };
    let (country, empty, labels) = (Country::from("JP"), BTreeMap::new(), BTreeMap::new());
    let need = Need {
        uid,
        dedicated,
        capacity: Capacity {
            cpus,
            memory: 1 << 20,
            bytes: 1 << 20,
        },
        country: &country,
        selector: &empty,
        sites: &[],
        namespace: &labels,
    };
    let candidates: Vec<Candidate<'_>> = hosts.iter().map(|host| Candidate { host, alive: true }).collect();
    let Placed::On(host) = place(&need, &candidates) else {
        return false;
    };
    let status = hosts
        .iter_mut()
        .find(|known| name(known) == host)
        .and_then(|host| host.status.as_mut());
    let status = status.unwrap();
    if let Some(taken) = hold(&need, status) {
        status.claims.retain(|claim| claim.uid != *uid);
        match taken {
            Hold::Alone => {
                status.held_by = Some(serde_json::from_value(json!({"namespace": "n", "name": "p", "uid": uid})).unwrap());
            }
            Hold::Share(claim) => status.claims.push(claim),
        }
    }
    assert_eq!(hold(&need, status), None, "what was written is what was wanted");
    true
}

proptest! {
    #[test]
    fn no_host_is_promised_twice(events in proptest::collection::vec((0_u32..6, event()), 1..60)) {
        let mut hosts = hosts();
        for (project, event) in events {
            let uid = Uid::from(format!("p-{project}"));
            let before = hosts.clone();
            let placed = carry_out(&mut hosts, &uid, &event);
            for status in hosts.iter().filter_map(|host| host.status.as_ref()) {
                let claimed: u32 = status.claims.iter().map(|claim| claim.cpus).sum();
                prop_assert!(claimed <= CPUS, "{status:?}");
                prop_assert!(status.held_by.is_none() || status.claims.is_empty(), "{status:?}");
            }
            let on = |hosts: &[Host]| hosts.iter().filter(|host| holds(host.status.as_ref().unwrap(), &uid)).count();
            match event {
                Event::Gone => prop_assert_eq!(on(&hosts), 0, "a claim goes with its project"),
                Event::Wants { .. } if placed => prop_assert_eq!(on(&hosts), 1, "it is on one host"),
                // Who waits has taken nothing, and has lost nothing.
                Event::Wants { .. } => prop_assert_eq!(&hosts, &before),
            }
        }
    }
}
