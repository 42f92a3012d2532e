//! Placement: which host takes a project. Filter, then score; every host that does not come into question says why.

use std::collections::BTreeMap;

use dejima_crds::Host;
use dejima_crds::bounded::{Code, ObjectName, Uid};
use dejima_crds::country::Country;
use dejima_crds::host::{Capacity, HostRole, HostStatus};

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
    status.held_by.as_ref().is_some_and(|held| held.uid == *uid) || status.claims.iter().any(|claim| claim.uid == *uid)
}

/// Chooses a host: one that the project holds already, else the smallest that fits.
pub fn place(need: &Need<'_>, candidates: &[Candidate<'_>]) -> Placed {
    let held = candidates
        .iter()
        .find(|candidate| candidate.host.status.as_ref().is_some_and(|status| holds(status, need.uid)));
    if let Some(held) = held {
        return Placed::On(name(held.host));
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

    fn place_on(hosts: &[Host], uid: &str, dedicated: bool) -> Placed {
        let (uid, country, empty, labels) = (Uid::from(uid), Country::from("JP"), BTreeMap::new(), BTreeMap::new());
        let capacity = Capacity {
            cpus: 4,
            memory: 1 << 30,
            bytes: 1 << 30,
        };
        let need = Need {
            uid: &uid,
            dedicated,
            capacity,
            country: &country,
            selector: &empty,
            sites: &[],
            namespace: &labels,
        };
        let candidates: Vec<Candidate<'_>> = hosts.iter().map(|host| Candidate { host, alive: true }).collect();
        place(&need, &candidates)
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
    fn a_host_that_was_not_swept_or_is_cordoned_is_not_used() {
        let mut unswept = host("a", 8);
        unswept.status.as_mut().unwrap().tombstones = vec![serde_json::from_value(json!({"uid": "old", "what": "machines"})).unwrap()];
        let mut cordoned = host("b", 8);
        cordoned.spec.schedulable = false;
        assert!(matches!(place_on(&[unswept, cordoned], "p", true), Placed::Waits(refusals) if refusals.len() == 2));
    }
}
