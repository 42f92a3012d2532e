//! The end of a project: what the receipt says at each point, and what waits for it.

#![expect(clippy::unwrap_used, reason = "test code stops where it cannot go on")]

use std::collections::BTreeMap;

use dejima_crds::receipt::{Receipt, State};
use dejima_crds::{Host, HostPlan, IsolatedProject};
use dejima_plan::placement::Candidate;
use dejima_plan::project::{Inputs, Next, Step, next};
use dejima_policy::facts;
use jiff::{Timestamp, tz::TimeZone};
use proptest::prelude::*;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-11-24T00:01:00Z".parse().unwrap()
}

/// A project that was deleted at midnight, on these hosts, with these conditions.
fn project(hosts: &[&str], conditions: &Value) -> IsolatedProject {
    serde_json::from_value(json!({
        "apiVersion": "dejima.dev/v1alpha1", "kind": "IsolatedProject",
        "metadata": {"namespace": "osaka", "name": "liver", "uid": "p-1", "generation": 2, "deletionTimestamp": "2026-11-24T00:00:00Z", "finalizers": ["dejima.dev/end"]},
        "spec": {
            "title": {"en": "Liver"}, "purpose": [{"duo": "DUO:0000042"}], "institution": "https://ror.org/035t8zc32", "orgKind": "public", "country": "JP",
            "members": [{"subject": "lead@osaka.example", "role": "lead"}], "period": {"from": "2026-04", "until": "2027-03"},
            "machines": [{"name": "train", "cpu": 1, "memory": "1Gi", "image": "probe"}],
            "volumes": [{"name": "work", "size": "1Gi", "attachTo": "train", "mountPath": "/work"}],
        },
        "status": {"hosts": hosts, "conditions": conditions},
    }))
    .unwrap()
}

fn condition(kind: &str, reason: &str, at: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": at})
}

fn destroyed() -> Value {
    json!([condition("KeysReady", "Destroyed", "2026-11-24T00:00:05Z")])
}

fn plan(host: &str, ends: bool, status: Option<&Value>) -> HostPlan {
    let spec = json!({"planGeneration": 7, "ends": ends, "project": {
        "of": {"namespace": "osaka", "name": "liver", "uid": "p-1"}, "dedicated": true, "key": "project-p-1",
        "segment": {"bridge": "b", "cidr": "10.0.0.0/24", "gateway": "10.0.0.1", "ports": []}, "mounts": [], "domains": [],
        "volumes": [{"name": "kept", "uid": "u-1", "serial": "0", "bytes": 1024}],
    }});
    let metadata = json!({"namespace": format!("dejima-host-{host}"), "name": "project-p-1", "resourceVersion": "1"});
    serde_json::from_value(
        json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "HostPlan", "metadata": metadata, "spec": spec, "status": status}),
    )
    .unwrap()
}

fn host(name: &str) -> Host {
    serde_json::from_value(
        json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "Host", "metadata": {"name": name},
        "spec": {"roles": ["machines"]}, "status": {"heldBy": {"namespace": "osaka", "name": "liver", "uid": "p-1"}}}),
    )
    .unwrap()
}

fn follows(project: &IsolatedProject, hosts: &[&str], plans: &[HostPlan], now: Timestamp) -> Next {
    let hosts: Vec<Host> = hosts.iter().map(|name| host(name)).collect();
    let candidates: Vec<Candidate<'_>> = hosts.iter().map(|host| Candidate { host, alive: false }).collect();
    next(&Inputs {
        project,
        facts: &facts::project(project, facts::Labels::Count(&BTreeMap::new()), &[]),
        namespace: &BTreeMap::new(),
        candidates: &candidates,
        images: &[],
        plans,
        wishes: &[],
        openings: &[],
        admission: &[],
        horizon: &"P30D".into(),
        retention: &"P30D".into(),
        now,
        zone: &TimeZone::UTC,
    })
}

fn receipt(next: &Next) -> Option<Receipt> {
    let issued = next
        .steps
        .iter()
        .find_map(|step| if let Step::Receipt(receipt) = step { Some(receipt) } else { None });
    issued.map(|receipt| receipt.as_ref().clone())
}

/// The steps by name.
fn words(next: &Next) -> Vec<String> {
    let word = |step: &Step| format!("{step:?}").split([' ', '(']).next().unwrap().to_lowercase();
    next.steps.iter().map(word).collect()
}

const CLOSED: &str = "2026-11-24T00:00:20Z";
const SWEPT: &str = "2026-11-24T00:00:30Z";

#[test]
fn a_receipt_is_partial_until_every_host_has_confirmed_and_then_final() {
    let hosts = ["host-a", "host-b"];
    let first = follows(
        &project(&hosts, &json!([])),
        &hosts,
        &[plan("host-a", false, None), plan("host-b", false, None)],
        now(),
    );
    assert_eq!(words(&first), ["write", "write", "closekeys", "closekeys", "destroykey"]);
    assert_eq!(first.status.receipt, None);

    let ended = json!({"planGeneration": 7, "closedAt": CLOSED, "sweptAt": SWEPT});
    let project = project(&hosts, &destroyed());
    let plans = [plan("host-a", true, Some(&ended)), plan("host-b", true, None)];
    let partial = follows(&project, &hosts, &plans, now());
    assert_eq!(words(&partial), ["closekeys", "closekeys", "receipt"]);
    let said = receipt(&partial).unwrap();
    assert_eq!((said.state, said.swept_at.clone()), (State::Partial, None));
    assert_eq!(said.key_destroyed_at, "2026-11-24T00:00:05Z");
    assert_eq!(said.hosts[0].closed_at, Some(CLOSED.into()));
    assert_eq!(said.hosts[1].unconfirmed_since, Some("2026-11-24T00:00:00Z".into()));
    assert_eq!(said.volumes, ["kept", "work"]);
    assert_eq!(said.key_server_backup_horizon, "P30D");
    assert_eq!(partial.status.receipt, Some(said.id.as_str().into()));
    // The same facts at another time make the same receipt.
    assert_eq!(receipt(&follows(&project, &hosts, &plans, Timestamp::MAX)).unwrap(), said);

    let plans = [plan("host-a", true, Some(&ended)), plan("host-b", true, Some(&ended))];
    let last = follows(&project, &hosts, &plans, now());
    assert_eq!(
        words(&last),
        [
            "closekeys",
            "closekeys",
            "receipt",
            "forget",
            "forget",
            "release",
            "release",
            "unfinalize"
        ]
    );
    let said = receipt(&last).unwrap();
    assert_eq!((said.state, said.swept_at), (State::Final, Some(SWEPT.into())));
    assert_eq!(said.issued_at, SWEPT);
}

#[test]
fn a_host_that_has_closed_makes_it_final_and_is_free_once_its_bytes_are_gone() {
    let closed = json!({"planGeneration": 7, "closedAt": CLOSED});
    let next = follows(
        &project(&["host-a"], &destroyed()),
        &["host-a"],
        &[plan("host-a", true, Some(&closed))],
        now(),
    );
    assert_eq!(words(&next), ["closekeys", "receipt"]);
    assert_eq!(receipt(&next).unwrap().state, State::Final);
    // What an earlier plan's end says, or what cannot be read, confirms nothing.
    for status in [
        json!({"planGeneration": 6, "closedAt": CLOSED}),
        json!({"planGeneration": 7, "closedAt": "soon"}),
    ] {
        let next = follows(
            &project(&["host-a"], &destroyed()),
            &["host-a"],
            &[plan("host-a", true, Some(&status))],
            now(),
        );
        assert_eq!(receipt(&next).unwrap().state, State::Partial);
    }
}

#[test]
fn once_it_is_final_no_other_is_issued_though_the_plans_are_gone() {
    let concluded = json!([
        condition("KeysReady", "Destroyed", "2026-11-24T00:00:05Z"),
        condition("Terminating", "ReceiptFinal", CLOSED)
    ]);
    let next = follows(&project(&["host-a"], &concluded), &["host-a"], &[], now());
    assert_eq!(words(&next), ["release", "unfinalize"]);
}

#[test]
fn a_host_whose_plan_is_gone_is_told_again_and_one_that_is_no_more_stays_unconfirmed() {
    let next = follows(&project(&["host-a"], &destroyed()), &["host-a"], &[], now());
    assert_eq!(words(&next), ["write", "closekeys", "receipt"]);
    assert_eq!(receipt(&next).unwrap().state, State::Partial);

    // An admin took the host away, with its plan or without it: nothing waits for it, and nothing is said in its name.
    for plans in [vec![], vec![plan("host-a", true, None)]] {
        let next = follows(&project(&["host-a"], &destroyed()), &[], &plans, now());
        assert_eq!(words(&next), ["closekeys", "receipt", "unfinalize"]);
        let said = receipt(&next).unwrap();
        assert_eq!(
            (said.state, said.hosts[0].unconfirmed_since.is_some(), said.swept_at),
            (State::Partial, true, None)
        );
    }
}

/// What an operator may find of a host of a project that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Its plan was not told to end.
    Told,
    /// It was told, and is silent.
    Silent,
    /// No process of it holds a key.
    Closed,
    /// Nothing is left.
    Swept,
    /// Its plan is gone.
    Gone,
}

fn found() -> impl Strategy<Value = (Found, bool)> {
    let state = prop_oneof![
        Just(Found::Told),
        Just(Found::Silent),
        Just(Found::Closed),
        Just(Found::Swept),
        Just(Found::Gone)
    ];
    (state, any::<bool>())
}

proptest! {
    /// Whatever is found of its hosts, and whichever an admin took away.
    #[test]
    fn a_receipt_is_final_only_when_all_have_confirmed_and_a_host_is_free_only_when_nothing_is_left(
        hosts in proptest::collection::vec(found(), 1..4), is_destroyed in any::<bool>(),
    ) {
        let names: Vec<String> = (0..hosts.len()).map(|at| format!("host-{at}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let known: Vec<&str> = all.iter().zip(&hosts).filter(|(_, (_, known))| *known).map(|(name, _)| *name).collect();
        let plans: Vec<HostPlan> = all.iter().zip(&hosts).filter_map(|(name, (found, _))| match found {
            Found::Told => Some(plan(name, false, None)),
            Found::Silent => Some(plan(name, true, None)),
            Found::Closed => Some(plan(name, true, Some(&json!({"planGeneration": 7, "closedAt": CLOSED})))),
            Found::Swept => Some(plan(name, true, Some(&json!({"planGeneration": 7, "closedAt": CLOSED, "sweptAt": SWEPT})))),
            Found::Gone => None,
        }).collect();
        let conditions = if is_destroyed { destroyed() } else { json!([]) };
        let next = follows(&project(&all, &conditions), &known, &plans, now());
        let words = words(&next);
        // The key goes first; the receipt says when it went.
        prop_assert_eq!(words.contains(&"destroykey".to_owned()), !is_destroyed);
        prop_assert_eq!(receipt(&next).is_some(), is_destroyed);
        let confirmed = |(found, _): &(Found, bool)| matches!(found, Found::Closed | Found::Swept);
        if let Some(said) = receipt(&next) {
            prop_assert_eq!(said.state == State::Final, hosts.iter().all(confirmed));
            prop_assert_eq!(said.hosts.len(), hosts.len(), "every host that had a plan is named");
        }
        // Who was not told is told, and no host keeps its keys.
        let told = |(found, known): &&(Found, bool)| *found == Found::Told || (*found == Found::Gone && *known);
        prop_assert_eq!(words.iter().filter(|word| *word == "write").count(), hosts.iter().filter(told).count());
        prop_assert_eq!(words.iter().filter(|word| *word == "closekeys").count(), hosts.len());
        // Nothing waits for a host that an admin took away; for every other one everything does.
        let left = |(found, known): &(Found, bool)| *known && *found != Found::Swept;
        let over = is_destroyed && !hosts.iter().any(left);
        prop_assert_eq!(words.contains(&"unfinalize".to_owned()), over);
        prop_assert_eq!(words.iter().filter(|word| *word == "release").count(), if over { known.len() } else { 0 });
    }
}
