//! The end of a dataset: held as long as it must be, destroyed whoever is silent, gone once its host has confirmed.

#![expect(clippy::unwrap_used, reason = "test code stops where it cannot go on")]

use dejima_crds::receipt::{Receipt, State};
use dejima_crds::{Dataset, Host, HostPlan};
use dejima_plan::dataset::{Inputs, Next, Step, next};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

const DELETED: &str = "2026-11-24T00:00:00Z";
const HELD: &str = "2026-12-24T00:00:00Z";

fn shard(digit: char) -> Value {
    let digest = format!("sha256:{}", digit.to_string().repeat(64));
    json!({"id": digit.to_string().repeat(16), "digest": digest, "storedDigest": digest, "key": format!("shard-d-1-{digit}"),
        "wrappedKey": "vault:v1:YQ==", "bytes": 1, "files": 1})
}

fn dataset(shards: &[char], conditions: &Value) -> Dataset {
    let shards: Vec<Value> = shards.iter().map(|digit| shard(*digit)).collect();
    serde_json::from_value(json!({
        "apiVersion": "dejima.dev/v1alpha1", "kind": "Dataset",
        "metadata": {"namespace": "jichi", "name": "ct", "uid": "d-1", "generation": 2, "deletionTimestamp": DELETED, "finalizers": ["dejima.dev/end"]},
        "spec": {"catalogueId": 1, "title": {"en": "CT"}, "providers": [{"ror": "https://ror.org/010hz0g26"}], "processing": "raw",
            "category": "image", "policyRef": "p", "source": {"directory": {"host": "intake-1", "path": "ct"}}},
        "status": {"shards": shards, "conditions": conditions},
    }))
    .unwrap()
}

fn destroyed() -> Value {
    json!([{"type": "Destroyed", "status": "True", "reason": "KeysDestroyed", "message": "", "lastTransitionTime": "2026-12-24T00:00:05Z"}])
}

fn plan(ends: bool, status: &Value) -> HostPlan {
    let intake = json!({"dataset": {"namespace": "jichi", "name": "ct", "uid": "d-1"}, "version": 1, "source": {"host": "intake-1", "path": "ct"},
        "root": "jichi", "shardBytes": 1024, "keys": [{"shard": "cccccccccccccccc", "key": "shard-d-1-c"}]});
    serde_json::from_value(json!({
        "apiVersion": "dejima.dev/v1alpha1", "kind": "HostPlan",
        "metadata": {"namespace": "dejima-host-intake-1", "name": "intake-d-1", "resourceVersion": "1"},
        "spec": {"planGeneration": 7, "ends": ends, "intake": intake}, "status": status,
    }))
    .unwrap()
}

fn follows(dataset: &Dataset, is_known: bool, plan: Option<&HostPlan>, now: &str) -> Next {
    let host: Host = serde_json::from_value(json!({
        "apiVersion": "dejima.dev/v1alpha1", "kind": "Host", "metadata": {"name": "intake-1"}, "spec": {"roles": ["intake"]},
    }))
    .unwrap();
    let hosts: Vec<&Host> = is_known.then_some(&host).into_iter().collect();
    let plans: Vec<&HostPlan> = plan.into_iter().collect();
    next(&Inputs {
        dataset,
        hosts: &hosts,
        plans: &plans,
        held_until: Some(HELD.parse().unwrap()),
        horizon: &"P30D".into(),
        now: now.parse::<Timestamp>().unwrap(),
    })
}

fn receipt(next: &Next) -> Option<&Receipt> {
    next.steps.iter().find_map(|step| match step {
        Step::Receipt(receipt) => Some(receipt.as_ref()),
        Step::Finalize
        | Step::DestroyKeys { .. }
        | Step::Unfinalize
        | Step::OpenKeys { .. }
        | Step::CloseKeys { .. }
        | Step::Write { .. }
        | Step::Forget { .. } => None,
    })
}

fn ordered(next: &Next) -> Option<usize> {
    next.steps.iter().find_map(|step| match step {
        Step::Write { spec, .. } if spec.ends => spec.intake.as_ref().map(|intake| intake.known.len()),
        Step::Write { .. }
        | Step::Finalize
        | Step::DestroyKeys { .. }
        | Step::Unfinalize
        | Step::OpenKeys { .. }
        | Step::CloseKeys { .. }
        | Step::Receipt(_)
        | Step::Forget { .. } => None,
    })
}

#[test]
fn a_dataset_is_held_then_destroyed_and_goes_once_its_host_has_confirmed() {
    let one = dataset(&['a', 'b'], &json!([]));
    let held = follows(&one, true, None, "2026-12-23T23:59:59Z");
    assert_eq!((held.steps.len(), held.again), (0, Some(HELD.parse().unwrap())));
    assert_eq!(held.end.unwrap().reason, "Held");

    // The keys of what it was just sealing go too; the order names everything that lies in the store.
    let sealing = plan(false, &json!({"planGeneration": 7}));
    let over = follows(&one, true, Some(&sealing), HELD);
    let keys = ["shard-d-1-a", "shard-d-1-b", "shard-d-1-c"].map(Into::into).to_vec();
    assert!(over.steps.contains(&Step::DestroyKeys { keys }), "{:?}", over.steps);
    assert_eq!(ordered(&over), Some(2));
    assert!(receipt(&over).is_none(), "it says when they were destroyed: not yet");

    let one = dataset(&['a', 'b'], &destroyed());
    let waits = follows(&one, true, Some(&plan(true, &json!({"planGeneration": 6}))), HELD);
    assert_eq!(receipt(&waits).unwrap().state, State::Partial, "a word about an older plan is none");
    assert!(!waits.steps.contains(&Step::Unfinalize));
    let said = json!({"planGeneration": 7, "closedAt": "2026-12-24T00:00:07Z", "sweptAt": "2026-12-24T00:00:08Z"});
    let done = follows(&one, true, Some(&plan(true, &said)), HELD);
    let last = receipt(&done).unwrap();
    assert_eq!(
        (last.state, last.shards.len(), last.issued_at.as_str()),
        (State::Final, 3, "2026-12-24T00:00:08Z")
    );
    assert!(last.about().unwrap().is_dataset);
    assert_eq!(done.steps.last(), Some(&Step::Unfinalize));

    // A host that an admin took away confirms nothing, and nothing waits for it. What was never sealed is not held.
    let alone = follows(&one, false, None, HELD);
    assert_eq!(receipt(&alone).unwrap().state, State::Partial);
    assert_eq!(alone.steps.last(), Some(&Step::Unfinalize));
    let empty = follows(&dataset(&[], &json!([])), true, None, DELETED);
    assert_eq!(empty.steps, [Step::Unfinalize]);
}

proptest! {
    /// Whatever else is so: nothing is destroyed before the time, and nothing goes before its keys are destroyed.
    #[test]
    fn nothing_is_destroyed_before_its_time(
        seconds in 0_i64..4_000_000, is_known: bool, has_plan: bool, ends: bool, is_destroyed: bool,
    ) {
        let deleted: Timestamp = DELETED.parse().unwrap();
        let now = deleted + jiff::SignedDuration::from_secs(seconds);
        let held: Timestamp = HELD.parse().unwrap();
        let conditions = if is_destroyed { destroyed() } else { json!([]) };
        let (one, plan) = (dataset(&['a'], &conditions), plan(ends, &json!({"planGeneration": 7, "sweptAt": "2026-12-24T00:00:08Z"})));
        let after = follows(&one, is_known, has_plan.then_some(&plan), &now.to_string());
        let destroys = after.steps.iter().any(|step| matches!(step, Step::DestroyKeys { .. }));
        if now < held {
            prop_assert!(!destroys && ordered(&after).is_none() && !after.steps.contains(&Step::Unfinalize));
        } else {
            prop_assert_eq!(destroys, !is_destroyed);
            prop_assert!(is_destroyed || !after.steps.contains(&Step::Unfinalize));
        }
    }
}
