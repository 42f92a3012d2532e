//! Every field of the schema that asks for what is not built: each is named, by the words of the manifest, on the object that
//! asks. The table is the list; what is not in it is built, or describes and asks for nothing.

#![expect(clippy::unwrap_used, reason = "test code stops where it cannot go on")]

use dejima_crds::bounded::Digest;
use dejima_crds::{DatasetSpec, HostSpec, IsolatedProjectSpec, MachineImageSpec, UsagePolicySpec};
use dejima_plan::{image, problems};
use dejima_policy::unbuilt;
use serde_json::{Value, json};

fn project() -> Value {
    json!({
        "title": {"en": "Liver"}, "purpose": [{"duo": "DUO:0000042"}], "institution": "https://ror.org/035t8zc32", "orgKind": "public",
        "country": "JP", "members": [{"subject": "lead@osaka.example", "role": "lead"}], "period": {"from": "2026-04", "until": "2027-03"},
        "machines": [{"name": "train", "cpu": 1, "memory": "1Gi", "image": "probe"}],
        "volumes": [{"name": "work", "size": "1Gi", "attachTo": "train", "mountPath": "/work"}],
    })
}

fn dataset() -> Value {
    json!({
        "catalogueId": 1, "title": {"en": "CT"}, "providers": [{"ror": "https://ror.org/010hz0g26"}], "processing": "raw", "category": "image",
        "policyRef": "p", "source": {"directory": {"host": "intake-1", "path": "ct"}},
    })
}

/// What names the fields of a spec that ask for what is not built.
type Judge<'a> = &'a dyn Fn(Value) -> Vec<String>;

/// The base with one part replaced or added.
fn with(mut base: Value, pointer: &str, value: &Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    base.pointer_mut(parent).unwrap()[field] = value.clone();
    base
}

#[test]
fn every_field_that_asks_for_what_is_not_built_is_named() {
    let of_project = |spec: Value| -> Vec<String> {
        let spec: IsolatedProjectSpec = serde_json::from_value(spec).unwrap();
        let all = problems::problems(&spec).into_iter();
        all.filter(|problem| problem.reason == "NotYetBuilt")
            .map(|problem| problem.message)
            .collect()
    };
    let of_dataset = |spec: Value| -> Vec<String> {
        let spec: DatasetSpec = serde_json::from_value(spec).unwrap();
        problems::of_dataset(&spec).into_iter().map(str::to_owned).collect()
    };
    let of_policy = |spec: Value| -> Vec<String> {
        let spec: UsagePolicySpec = serde_json::from_value(spec).unwrap();
        unbuilt::clauses(&spec)
    };
    let remote = json!({"nfs": {"url": "nfs://a/b"}});
    let duo = |term: &Value| json!([term]);
    let index = json!({"datasets": ["jichi/ct"], "embedder": "built-in"});
    let table: Vec<(&str, Value, Judge<'_>, &str, Value)> = vec![
        ("project", project(), &of_project, "/machines/0/class", json!("gpu")),
        ("project", project(), &of_project, "/machines/0/devices", json!(["gpu"])),
        ("project", project(), &of_project, "/volumes/0/backup", json!(true)),
        (
            "project",
            project(),
            &of_project,
            "/network",
            json!({"l2vpn": {"vni": 7, "hosts": []}}),
        ),
        ("project", project(), &of_project, "/index", index),
        ("dataset", dataset(), &of_dataset, "/source", remote),
        (
            "dataset",
            dataset(),
            &of_dataset,
            "/source",
            json!({"cephfs": {"url": "ceph://a/b"}}),
        ),
        ("dataset", dataset(), &of_dataset, "/source", json!({"s3": {"url": "s3://a/b"}})),
        ("dataset", dataset(), &of_dataset, "/delivery", json!("share")),
        (
            "policy",
            json!({"permits": {}}),
            &of_policy,
            "/permits/duo",
            duo(&json!({"id": "DUO:0000007", "mondo": ["MONDO:0005061"]})),
        ),
        (
            "policy",
            json!({"permits": {}}),
            &of_policy,
            "/permits/duo",
            duo(&json!({"id": "DUO:0000042", "months": 6})),
        ),
        ("policy", json!({"who": {}}), &of_policy, "/who/roles", json!(["lead"])),
        (
            "policy",
            json!({"who": {}}),
            &of_policy,
            "/who/training",
            json!([{"course": "ethics"}]),
        ),
        ("policy", json!({"where": {}}), &of_policy, "/where/sites", json!(["tokyo"])),
        ("policy", json!({"when": {}}), &of_policy, "/when/maxDuration", json!("P1Y")),
        ("policy", json!({"when": {}}), &of_policy, "/when/embargoUntil", json!("2027-01")),
        ("policy", json!({"when": {}}), &of_policy, "/when/renewal", json!({"max": 1})),
        (
            "policy",
            json!({"combination": {}}),
            &of_policy,
            "/combination/linkWith",
            json!("none"),
        ),
        (
            "policy",
            json!({"combination": {}}),
            &of_policy,
            "/combination/forbidWith",
            json!(["jichi/ct"]),
        ),
        (
            "policy",
            json!({"egress": {}}),
            &of_policy,
            "/egress/blockedTypes",
            json!(["DICOM"]),
        ),
        ("policy", json!({"egress": {}}), &of_policy, "/egress/maxBytes", json!(1)),
        (
            "policy",
            json!({"egress": {}}),
            &of_policy,
            "/egress/quorum",
            json!({"approvals": 1, "distinctOrgs": 1}),
        ),
        ("policy", json!({}), &of_policy, "/revocation", json!({"leaseTtl": "5m"})),
    ];
    for (kind, base, judge, pointer, value) in table {
        assert_eq!(judge(base.clone()), Vec::<String>::new(), "{kind}: the control");
        let found = judge(with(base, pointer, &value));
        // The word of the manifest that is named: of an object in a field the innermost that is there.
        let last = pointer.rsplit('/').next().unwrap();
        let word = match (last, &value) {
            ("source" | "network", Value::Object(inner)) => inner.keys().next().unwrap().clone(),
            ("duo", _) => value[0]["id"].as_str().unwrap().to_owned(),
            _ => last.to_owned(),
        };
        assert!(found.len() == 1 && found[0].contains(&word), "{kind} {pointer}: {found:?}");
    }
    // Of a host everything that its admin may say is built; its own list keeps it so.
    let HostSpec {
        roles: _,
        schedulable: _,
        allow: _,
        site: _,
        country: _,
        maintenance: _,
        intake: _,
    } = serde_json::from_value(json!({"roles": ["machines"]})).unwrap();
    // Of an image: disks.
    for format in ["qcow2", "raw"] {
        let digest = Digest::from(format!("sha256:{}", "a".repeat(64)));
        let spec = json!({"format": format, "guest": "cloud-init", "source": "a", "digest": digest});
        let spec: MachineImageSpec = serde_json::from_value(spec).unwrap();
        assert!(image::not_built(&spec).unwrap().contains(format), "{format}");
    }
}
