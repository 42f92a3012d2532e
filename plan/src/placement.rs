//! Placement: which host takes a project. Filter, then score; every host that does not come into question says why.

use std::collections::BTreeMap;

use dejima_crds::Host;
use dejima_crds::bounded::{Code, ObjectName, Uid};
use dejima_crds::country::Country;
use dejima_crds::host::{Capacity, HostClaim, HostRole, HostStatus};

/// A host as the operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The object.
    pub host: &'a Host,
    /// Whether its lease is fresh.
    pub alive: bool,
}

/// What a project needs of a host.
#[derive(Clone, Debug)]
pub struct Need<'a> {
    /// The project.
    pub uid: &'a Uid,
    /// Whether it wants the host for itself.
    pub dedicated: bool,
    /// Virtual CPUs, memory and storage in bytes, of all its machines together.
    pub capacity: Capacity,
    /// The project's country.
    pub country: &'a Country,
    /// Labels that a host must bear.
    pub selector: &'a BTreeMap<String, dejima_crds::bounded::Line>,
    /// Sites that come into question; any, where empty.
    pub sites: &'a [Code],
    /// The labels of the project's namespace.
    pub namespace: &'a BTreeMap<String, String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// This host.
    On(ObjectName),
    /// None, and why not, host by host.
    Waits(Vec<(ObjectName, String)>),
}

/// The name of a host object.
pub fn name(host: &Host) -> ObjectName {
    ObjectName::from(host.metadata.name.clone().unwrap_or_default())
}

/// Whether this project holds, or shares, a host.
pub fn holds(status: &HostStatus, uid: &Uid) -> bool {
    is_alone(status, uid) || share(status, uid).is_some()
}

/// Whether this project has a host for itself.
fn is_alone(status: &HostStatus, uid: &Uid) -> bool {
    status.held_by.as_ref().is_some_and(|held| held.uid == *uid)
}

fn share<'a>(status: &'a HostStatus, uid: &Uid) -> Option<&'a HostClaim> {
    status.claims.iter().find(|claim| claim.uid == *uid)
}

/// How a host is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Whole: nobody else is on it.
    Alone,
    /// A share of it.
    Share(HostClaim),
}

/// How this project is to hold the host that it was placed on, where that does not stand there yet. A host that is held alone stays
/// so: nobody comes to lie beside what was promised to be alone.
pub fn hold(need: &Need<'_>, status: &HostStatus) -> Option<Hold> {
    if is_alone(status, need.uid) {
        return None;
    }
    if need.dedicated {
        return Some(Hold::Alone);
    }
    let claim = HostClaim {
        uid: need.uid.clone(),
        cpus: need.capacity.cpus,
        memory: need.capacity.memory,
        bytes: need.capacity.bytes,
    };
    (share(status, need.uid) != Some(&claim)).then_some(Hold::Share(claim))
}

/// Chooses a host: one that the project holds already, else the smallest that fits.
pub fn place(need: &Need<'_>, candidates: &[Candidate<'_>]) -> Placed {
    let held = candidates
        .iter()
        .find(|candidate| candidate.host.status.as_ref().is_some_and(|status| holds(status, need.uid)));
    if let Some(held) = held {
        return match more(need, held.host) {
            Some(why) => Placed::Waits(vec![(name(held.host), why)]),
            None => Placed::On(name(held.host)),
        };
    }
    let mut refusals = Vec::new();
    let mut fitting = Vec::new();
    for candidate in candidates
        .iter()
        .filter(|candidate| candidate.host.spec.roles.contains(&HostRole::Machines))
    {
        match refusal(need, candidate) {
            Some(why) => refusals.push((name(candidate.host), why)),
            None => fitting.push((spare(candidate.host), name(candidate.host))),
        }
    }
    // The smallest that fits leaves the large ones for those who need them; the name decides between equals.
    fitting.sort();
    if let Some((_, name)) = fitting.into_iter().next() {
        return Placed::On(name);
    }
    refusals.sort();
    Placed::Waits(refusals)
}

fn claimed(status: &HostStatus) -> (u64, u64, u64) {
    status.claims.iter().fold((0, 0, 0), |(cpus, memory, bytes), claim| {
        (
            cpus + u64::from(claim.cpus),
            memory.saturating_add(claim.memory),
            bytes.saturating_add(claim.bytes),
        )
    })
}

fn spare(host: &Host) -> (u64, u64, u64) {
    let status = host.status.clone().unwrap_or_default();
    let capacity = status.capacity.clone().unwrap_or_default();
    let (cpus, memory, bytes) = claimed(&status);
    (
        u64::from(capacity.cpus).saturating_sub(cpus),
        capacity.memory.saturating_sub(memory),
        capacity.bytes.saturating_sub(bytes),
    )
}

/// Why a project cannot have what it now wants of the host that it shares. What it has goes on.
fn more(need: &Need<'_>, host: &Host) -> Option<String> {
    let status = host.status.clone().unwrap_or_default();
    let own = share(&status, need.uid)?;
    if need.dedicated && status.claims.len() > 1 {
        return Some("other projects share it, and this one now wants it for itself".to_owned());
    }
    let (cpus, memory, bytes) = spare(host);
    let too_much = |wanted: u64, own: u64, spare: u64| wanted > own.saturating_add(spare);
    let grown = [
        (u64::from(need.capacity.cpus), u64::from(own.cpus), cpus),
        (need.capacity.memory, own.memory, memory),
        (need.capacity.bytes, own.bytes, bytes),
    ];
    // What it has is never taken back because the host has become smaller.
    let too_little = grown.into_iter().any(|(wanted, own, spare)| too_much(wanted, own, spare));
    too_little.then(|| "it has too little room for what was added".to_owned())
}

/// Why this host does not come into question.
fn refusal(need: &Need<'_>, candidate: &Candidate<'_>) -> Option<String> {
    let host = candidate.host;
    let status = host.status.clone().unwrap_or_default();
    let labels = host.metadata.labels.clone().unwrap_or_default();
    if !host.spec.schedulable {
        return Some("it is cordoned".to_owned());
    }
    if host.spec.maintenance {
        return Some("it is in maintenance".to_owned());
    }
    if !candidate.alive {
        return Some("it is silent".to_owned());
    }
    if !status.tombstones.is_empty() {
        return Some("it was not swept after a project that ended while it was silent".to_owned());
    }
    if let Some((label, _)) = host
        .spec
        .allow
        .iter()
        .find(|(label, value)| need.namespace.get(*label).map(String::as_str) != Some(value.as_str()))
    {
        return Some(format!("its admin allows only namespaces with the label {label}"));
    }
    if let Some((label, value)) = need
        .selector
        .iter()
        .find(|(label, value)| labels.get(*label).map(String::as_str) != Some(value.as_str()))
    {
        return Some(format!("it does not bear the label {label}={value}"));
    }
    if !need.sites.is_empty() && !host.spec.site.as_ref().is_some_and(|site| need.sites.contains(site)) {
        return Some("it stands at none of the project's sites".to_owned());
    }
    if let Some(country) = host.spec.country.as_ref().filter(|country| *country != need.country) {
        return Some(format!("it stands in {country}"));
    }
    // Whose it is stays unsaid: tenants learn nothing about each other.
    if status.held_by.is_some() || (need.dedicated && !status.claims.is_empty()) {
        return Some("it is held by another project".to_owned());
    }
    let (cpus, memory, bytes) = spare(host);
    if cpus < u64::from(need.capacity.cpus) || memory < need.capacity.memory || bytes < need.capacity.bytes {
        return Some("it has too little room".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use dejima_crds::HostSpec;
    use serde_json::json;

    fn host(name: &str, cpus: u32) -> Host {
        let spec: HostSpec = serde_json::from_value(json!({"roles": ["machines"]})).unwrap();
        let mut host = Host::new(name, spec);
        host.status = Some(HostStatus {
            capacity: Some(Capacity {
                cpus,
                memory: 1 << 40,
                bytes: 1 << 40,
            }),
            ..HostStatus::default()
        });
        host
    }

    fn with_need<T>(uid: &str, dedicated: bool, cpus: u32, ask: impl FnOnce(&Need<'_>) -> T) -> T {
        let (uid, country, empty, labels) = (Uid::from(uid), Country::from("JP"), BTreeMap::new(), BTreeMap::new());
        let capacity = Capacity {
            cpus,
            memory: 1 << 30,
            bytes: 1 << 30,
        };
        ask(&Need {
            uid: &uid,
            dedicated,
            capacity,
            country: &country,
            selector: &empty,
            sites: &[],
            namespace: &labels,
        })
    }

    fn place_for(hosts: &[Host], uid: &str, dedicated: bool, cpus: u32) -> Placed {
        let candidates: Vec<Candidate<'_>> = hosts.iter().map(|host| Candidate { host, alive: true }).collect();
        with_need(uid, dedicated, cpus, |need| place(need, &candidates))
    }

    fn place_on(hosts: &[Host], uid: &str, dedicated: bool) -> Placed {
        place_for(hosts, uid, dedicated, 4)
    }

    fn hold_on(host: &Host, uid: &str, dedicated: bool, cpus: u32) -> Option<Hold> {
        with_need(uid, dedicated, cpus, |need| hold(need, host.status.as_ref().unwrap()))
    }

    fn held(mut host: Host, uid: &str) -> Host {
        host.status.as_mut().unwrap().held_by = Some(serde_json::from_value(json!({"namespace": "n", "name": "p", "uid": uid})).unwrap());
        host
    }

    fn claimed(mut host: Host, uid: &str, cpus: u32) -> Host {
        host.status
            .as_mut()
            .unwrap()
            .claims
            .push(serde_json::from_value(json!({"uid": uid, "cpus": cpus, "memory": 1, "bytes": 1})).unwrap());
        host
    }

    #[test]
    fn the_smallest_host_that_fits_is_taken() {
        assert_eq!(
            place_on(&[host("big", 64), host("small", 8), host("tiny", 2)], "p", true),
            Placed::On("small".into())
        );
    }

    #[test]
    fn a_host_is_held_both_ways() {
        assert_eq!(
            place_on(&[held(host("a", 8), "other"), host("b", 8)], "p", true),
            Placed::On("b".into())
        );
        assert_eq!(
            place_on(&[held(host("a", 8), "other"), host("b", 8)], "p", false),
            Placed::On("b".into())
        );
        let waits = place_on(&[held(host("a", 8), "other"), claimed(host("b", 8), "x", 1)], "p", true);
        let because = "it is held by another project".to_owned();
        assert_eq!(waits, Placed::Waits(vec![("a".into(), because.clone()), ("b".into(), because)]));
        assert_eq!(
            place_on(&[held(host("a", 8), "p"), host("b", 4)], "p", true),
            Placed::On("a".into()),
            "it stays where it is"
        );
    }

    #[test]
    fn projects_that_allow_it_share_a_host_up_to_its_room() {
        assert_eq!(place_on(&[claimed(host("a", 8), "x", 4)], "p", false), Placed::On("a".into()));
        assert_eq!(
            place_on(&[claimed(host("a", 8), "x", 5)], "p", false),
            Placed::Waits(vec![("a".into(), "it has too little room".into())])
        );
    }

    #[test]
    fn a_share_grows_as_far_as_there_is_room_and_is_never_taken_back() {
        let shared = || claimed(claimed(host("a", 8), "x", 2), "p", 4);
        let on = Placed::On(ObjectName::from("a"));
        let waits = |why: &str| Placed::Waits(vec![("a".into(), why.to_owned())]);
        assert_eq!(place_for(&[shared()], "p", false, 6), on, "to the last one");
        assert_eq!(
            place_for(&[shared()], "p", false, 7),
            waits("it has too little room for what was added")
        );
        let share = |cpus| {
            Some(Hold::Share(HostClaim {
                uid: "p".into(),
                cpus,
                memory: 1 << 30,
                bytes: 1 << 30,
            }))
        };
        assert_eq!(hold_on(&host("a", 8), "p", false, 4), share(4));
        assert_eq!(hold_on(&shared(), "p", false, 6), share(6));
        let mut standing = host("a", 8);
        let Some(Hold::Share(claim)) = share(4) else { unreachable!() };
        standing.status.as_mut().unwrap().claims.push(claim);
        assert_eq!(hold_on(&standing, "p", false, 4), None, "nothing is written twice");
        // A host that became smaller keeps what it has.
        standing.status.as_mut().unwrap().capacity.as_mut().unwrap().cpus = 1;
        assert_eq!(place_for(&[standing.clone()], "p", false, 4), on);
        assert_eq!(
            place_for(&[standing], "p", false, 5),
            waits("it has too little room for what was added")
        );
    }

    #[test]
    fn who_wants_his_shared_host_for_himself_gets_it_once_he_is_the_only_one() {
        let beside = claimed(claimed(host("a", 8), "x", 1), "p", 4);
        let because = "other projects share it, and this one now wants it for itself".to_owned();
        assert_eq!(place_on(&[beside], "p", true), Placed::Waits(vec![("a".into(), because)]));
        let last = claimed(host("a", 8), "p", 4);
        assert_eq!(place_on(std::slice::from_ref(&last), "p", true), Placed::On("a".into()));
        assert_eq!(hold_on(&last, "p", true, 4), Some(Hold::Alone));
        // What was promised to be alone stays so.
        let alone = held(host("a", 8), "p");
        assert_eq!((hold_on(&alone, "p", true, 4), hold_on(&alone, "p", false, 4)), (None, None));
    }

    #[test]
    fn a_host_that_was_not_swept_or_is_cordoned_is_not_used() {
        let mut unswept = host("a", 8);
        unswept.status.as_mut().unwrap().tombstones = vec![serde_json::from_value(json!({"uid": "old", "what": "machines"})).unwrap()];
        let mut cordoned = host("b", 8);
        cordoned.spec.schedulable = false;
        assert!(matches!(place_on(&[unswept, cordoned], "p", true), Placed::Waits(refusals) if refusals.len() == 2));
    }
}
