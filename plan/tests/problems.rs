//! What is wrong with a project and admission cannot say: all of it at once, in the words of the manifest, with what to do.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code stops where it cannot go on")]

use dejima_crds::IsolatedProjectSpec;
use dejima_crds::bounded::Label;
use dejima_plan::problems::{of_kept, problems};
use serde_json::{Value, json};

fn project(changes: &Value) -> IsolatedProjectSpec {
    let mut spec = json!({
        "title": {"en": "Liver"}, "purpose": [{"duo": "DUO:0000042"}], "institution": "https://ror.org/035t8zc32", "orgKind": "public",
        "country": "JP", "members": [{"subject": "lead@osaka.example", "role": "lead"}], "period": {"from": "2026-04", "until": "2027-03"},
        "machines": [{"name": "train", "cpu": 1, "memory": "1Gi", "image": "probe"}],
    });
    for (field, value) in changes.as_object().unwrap() {
        spec[field] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

fn told(changes: &Value) -> Vec<String> {
    problems(&project(changes)).into_iter().map(|problem| problem.message).collect()
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_what_to_do() {
    assert_eq!(told(&json!({})), Vec::<String>::new(), "the control");
    let said = told(&json!({
        "period": {"from": "2027-01", "until": "2026-02-30"},
        "machines": [
            {"name": "train", "cpu": 1, "memory": "1", "image": "probe", "count": 2},
            {"name": "train-1", "class": "large", "image": "probe"},
        ],
        "volumes": [
            {"name": "work", "size": "999999999999999Ti", "attachTo": "train-1", "mountPath": "/data"},
            {"name": "more", "size": "1Gi", "attachTo": "train-1", "mountPath": "/data/more"},
        ],
        "datasets": [{"namespace": "jichi", "name": "ct", "attachTo": ["train-1"], "mountPath": "/data/more/ct"}],
        "network": {"l2vpn": {"vni": 7}},
    }));
    for words in [
        "period: `2026-02-30` is no time: write it as",
        "machines[train].memory: give at least 64Mi and at most 64Ti",
        "one of train-1 and one of train would both be called train-1: rename one of the two",
        "machines[train-1].class is not built yet: leave it out",
        "volumes[work].size: give at least 16Mi and at most 4096Ti",
        "/data and /data/more lie in each other in machine train-1",
        "/data/more and /data/more/ct lie in each other",
        "/data and /data/more/ct lie in each other",
        "network.l2vpn is not built yet",
    ] {
        assert!(said.iter().any(|said| said.contains(words)), "nothing about `{words}` in {said:#?}");
    }
    assert_eq!(said.len(), 9, "and nothing else: {said:#?}");
}

#[test]
fn what_has_no_room_in_a_host_plan_is_told_beforehand() {
    let machine = |name: &str, count: u32, user: &str| json!({"name": name, "cpu": 1, "memory": "1Gi", "image": "probe", "count": count, "userData": user});
    // Each sign of this text takes six bytes where it is written down.
    let text = "\u{1}".repeat(16_000);
    assert_eq!(
        told(&json!({"machines": [machine("a", 5, &text)]})),
        Vec::<String>::new(),
        "the control"
    );
    let said = told(&json!({"machines": [machine("a", 6, &text)]}));
    assert!(
        said.len() == 1 && said[0].contains("userData together") && said[0].contains("512 KiB"),
        "{said:?}"
    );
    let said = told(&json!({"machines": [machine("a", 64, ""), machine("b", 4_000_000_000, "")]}));
    assert!(said.len() == 1 && said[0].contains("at most 64"), "{said:?}");
}

#[test]
fn kept_volumes_have_an_end_and_an_order_to_destroy_makes_room() {
    let names: Vec<Label> = (0..193).map(|at| format!("v-{at}").into()).collect();
    let plain = project(&json!({}));
    assert_eq!(of_kept(&plain, names.iter().take(192)), None);
    let problem = of_kept(&plain, names.iter()).unwrap();
    assert!(
        problem.message.contains("193") && problem.message.contains("destroyVolumes"),
        "{problem:?}"
    );
    assert_eq!(of_kept(&project(&json!({"destroyVolumes": ["v-7"]})), names.iter()), None);
    let listed = json!({"volumes": [{"name": "v-7", "size": "1Gi", "attachTo": "train", "mountPath": "/data"}]});
    assert!(of_kept(&project(&listed), names.iter()).is_some(), "what is listed again is one");
}
