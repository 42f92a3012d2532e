//! What follows from the largest project that admission takes is taken as well: its status and its host plan fit into their schemas.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code stops where it cannot go on")]

use std::collections::BTreeMap;

use dejima_crds::bounded::Ref;
use dejima_crds::dataset::reference;
use dejima_crds::host_plan::HostPlanStatus;
use dejima_crds::{Dataset, Host, HostPlan, IsolatedProject, MachineImage, UsagePolicy};
use dejima_plan::placement::Candidate;
use dejima_plan::problems::problems;
use dejima_plan::project::{Inputs, Next, Step, Wish, next};
use dejima_policy::{Case, DatasetFacts, PolicyFacts, facts, judge};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

/// A name of so many letters that begins like this.
fn long(begins: &str, letters: usize) -> String {
    format!("{begins}{}", "x".repeat(letters - begins.len()))
}

fn digest() -> String {
    format!("sha256:{}", "a".repeat(64))
}

fn machine(at: usize) -> String {
    long(&format!("m{at}-"), 40)
}

/// Every list as long, and every text as long, as admission takes it, and all of it together as `problems` takes it.
fn largest() -> Value {
    let all = |count: usize, one: &dyn Fn(usize) -> Value| (0..count).map(one).collect::<Vec<_>>();
    let login = |at: usize| long(&format!("member-{at}-"), 253);
    let machines: Vec<String> = (0..64).map(machine).collect();
    json!({
        "title": {"ja": "島".repeat(4096), "en": "x".repeat(4096)},
        "purpose": all(16, &|_| json!({"duo": "DUO:0000006", "mondo": vec!["MONDO:0004992"; 32], "actions": vec!["export-aggregate"; 16]})),
        "institution": "https://ror.org/035t8zc32", "orgKind": "for-profit", "country": "JP",
        "members": all(256, &|at| json!({"subject": login(at), "role": "researcher", "training": vec![json!({"course": "x".repeat(128), "passedOn": "2026-01"}); 32]})),
        "ethics": vec![json!({"committee": "島".repeat(253), "protocol": "島".repeat(253), "approvedOn": "2026-01"}); 16],
        "period": {"from": "2026-04", "until": "9999-12-31"},
        "machines": all(64, &|at| json!({"name": machine(at), "cpu": 1024, "memory": "64Ti", "image": long("i", 253), "userData": "x".repeat(8000)})),
        "volumes": all(64, &|at| json!({"name": long(&format!("v{at}-"), 63), "size": "4096Ti", "attachTo": machine(at), "mountPath": long(&format!("/v{at}-"), 255)})),
        "destroyVolumes": all(64, &|at| json!(long(&format!("k{at}-"), 63))),
        "datasets": all(64, &|at| json!({"namespace": long(&format!("n{at}-"), 63), "name": long("d", 253), "version": 4_294_967_295_u32, "actions": vec!["export-aggregate"; 16],
            "attachTo": machines, "mountPath": long(&format!("/d{at}-"), 255)})),
        "network": {"egress": all(64, &|at| json!({"cidr": format!("203.0.{at}.0/24"), "ports": vec![65535; 32], "why": "島".repeat(253)}))},
    })
}

/// Conditions of use that name as much as they can, and nothing of this project.
fn strictest() -> UsagePolicy {
    let orgs = vec!["https://ror.org/010hz0g26"; 256];
    let terms = (0..16).map(|at| json!({"url": "https://example.org/terms", "digest": format!("sha256:{at:064x}")}));
    let countries: Vec<&str> = dejima_crds::country::codes().into_iter().filter(|code| *code != "JP").collect();
    let policy = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "UsagePolicy", "metadata": {"name": "strict", "namespace": "n"}, "spec": {
        "permits": {"duo": [{"id": "DUO:0000042"}], "actions": ["mount"]}, "who": {"orgs": orgs, "orgKind": ["public"]}, "where": {"countries": countries, "minIsolation": "dedicated-host"},
        "when": {"notBefore": "9999-01"}, "prerequisites": {"approvals": ["provider", "platform", "user"], "terms": terms.collect::<Vec<_>>()},
        "review": {"required": true, "quorum": {"approvals": 64, "distinctOrgs": 64}, "covers": ["purpose", "institution", "egress", "members"]}, "egress": {"network": "none"}}});
    serde_json::from_value(policy).unwrap()
}

/// Where a value breaks its schema: forms, lengths, numbers, words.
fn breaks(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let mut lacks = |what: &str| found.push(format!("{path}: {what}"));
    match value {
        Value::String(text) => {
            let letters = text.chars().count() as u64;
            if schema["maxLength"].as_u64().is_some_and(|most| letters > most)
                || schema["minLength"].as_u64().is_some_and(|least| letters < least)
            {
                lacks(&format!("{letters} letters"));
            }
            if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
                lacks("an unknown word");
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap();
            if schema["maximum"].as_f64().is_some_and(|most| number > most)
                || schema["minimum"].as_f64().is_some_and(|least| number < least)
            {
                lacks("a number out of bounds");
            }
        }
        Value::Array(items) => {
            let count = items.len() as u64;
            if schema["maxItems"].as_u64().is_some_and(|most| count > most)
                || schema["minItems"].as_u64().is_some_and(|least| count < least)
            {
                lacks(&format!("{count} items"));
            }
            for item in items {
                breaks(&schema["items"], item, &format!("{path}[]"), found);
            }
        }
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    found.push(format!("{path}.{name}: it is not there"));
                }
            }
            for (name, field) in fields {
                if schema["properties"][name].is_null() && schema["additionalProperties"].is_null() {
                    found.push(format!("{path}.{name}: nobody knows it"));
                }
                breaks(&schema["properties"][name], field, &format!("{path}.{name}"), found);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[track_caller]
fn fits(kind: &str, part: &str, value: &Value) {
    let definition = dejima_crds::all().into_iter().find(|found| found.spec.names.kind == kind).unwrap();
    let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
    let schema = &schema["openAPIV3Schema"]["properties"][part];
    assert!(schema["properties"].is_object(), "{kind} has no {part}");
    let mut found = Vec::new();
    breaks(schema, value, part, &mut found);
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{kind}: {found:#?}");
}

struct World {
    project: IsolatedProject,
    host: Host,
    images: Vec<MachineImage>,
    policy: Option<UsagePolicy>,
    plans: Vec<HostPlan>,
}

impl World {
    fn new(spec: &Value, policy: Option<UsagePolicy>) -> Self {
        let project = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "IsolatedProject", "spec": spec,
            "metadata": {"namespace": long("t", 63), "name": long("p", 253), "uid": "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", "generation": 1, "finalizers": [dejima_crds::names::FINALIZER]}});
        let held = json!({"namespace": long("t", 63), "name": long("p", 253), "uid": "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"});
        let host = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "Host", "metadata": {"name": long("h", 50)}, "spec": {"roles": ["machines"]}, "status": {"heldBy": held}});
        let kernel = json!({"path": "k", "digest": digest(), "initrd": "i", "initrdDigest": digest()});
        let image = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "MachineImage", "metadata": {"name": long("i", 253)},
            "spec": {"format": "kernel-initrd", "guest": "probe", "boot": {"kernel": kernel}}});
        Self {
            project: serde_json::from_value(project).unwrap(),
            host: serde_json::from_value(host).unwrap(),
            images: vec![serde_json::from_value(image).unwrap()],
            policy,
            plans: Vec::new(),
        }
    }

    /// One pass: what it writes fits, and is there for the next one.
    fn pass(&mut self) -> Next {
        let now: Timestamp = "2026-11-24T00:01:00Z".parse().unwrap();
        let facts = facts::project(&self.project, facts::Labels::Count(&BTreeMap::new()), &[]);
        let policies: Vec<PolicyFacts> = self.policy.iter().filter_map(facts::policy).collect();
        let sealed = |wish: &dejima_crds::project::DatasetWish| -> DatasetFacts {
            let shard = json!({"id": "0".repeat(16), "digest": digest(), "storedDigest": digest(), "key": "shard-d-1", "wrappedKey": "vault:v1:YQ==", "bytes": 1, "files": 1});
            let version = json!({"version": 4_294_967_295_u32, "digest": digest(), "bytes": 1, "files": 1, "shards": ["0".repeat(16)], "sealedAt": "2026-01-01T00:00:00Z"});
            let dataset = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "Dataset", "metadata": {"namespace": wish.namespace, "name": wish.name, "uid": long("u", 36)},
                "spec": {"catalogueId": 1, "title": {}, "providers": [{"ror": "https://ror.org/010hz0g26"}], "processing": "raw", "category": "image", "policyRef": "strict",
                    "source": {"directory": {"host": "h", "path": "ct"}}},
                "status": {"versions": [version], "shards": [shard]}});
            let dataset: Dataset = serde_json::from_value(dataset).unwrap();
            facts::dataset(&dataset, &[])
        };
        let datasets: Vec<(Ref, DatasetFacts)> = self
            .project
            .spec
            .datasets
            .iter()
            .map(|wish| (reference(&wish.namespace, &wish.name), sealed(wish)))
            .collect();
        let wishes: Vec<Wish<'_>> = self
            .project
            .spec
            .datasets
            .iter()
            .zip(&datasets)
            .map(|(wish, (name, dataset))| {
                let case = Case {
                    project: &facts,
                    dataset: Some(dataset),
                    reference: name,
                    version: wish.version,
                    actions: &wish.actions,
                    policies: &policies,
                    grants: &[],
                };
                let mut verdict = judge(case, now, &TimeZone::UTC);
                if self.policy.is_none() {
                    verdict.decision = dejima_crds::reason::Decision::Permit;
                    verdict.policy = Some(digest().as_str().into());
                    verdict.version = wish.version;
                }
                Wish {
                    wish,
                    dataset: Some(dataset),
                    policy: policies.first(),
                    verdict,
                    grants: vec![],
                }
            })
            .collect();
        let next = next(&Inputs {
            facts: &facts,
            project: &self.project,
            namespace: &BTreeMap::new(),
            candidates: &[Candidate {
                host: &self.host,
                alive: true,
            }],
            images: &self.images,
            plans: &self.plans,
            wishes: &wishes,
            openings: &[],
            admission: &[],
            horizon: &"P30D".into(),
            retention: &"P30D".into(),
            now,
            zone: &TimeZone::UTC,
        });
        let status = serde_json::to_value(&next.status).unwrap();
        fits("IsolatedProject", "status", &status);
        let bytes = status.to_string().len();
        assert!(bytes < 1 << 20, "a status of {bytes} bytes");
        for step in &next.steps {
            if let Step::Write { spec, .. } = step {
                fits("HostPlan", "spec", &serde_json::to_value(spec).unwrap());
                let metadata =
                    json!({"namespace": format!("dejima-host-{}", long("h", 50)), "name": "project-p-1", "resourceVersion": "1"});
                let plan = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "HostPlan", "metadata": metadata, "spec": spec});
                self.plans = vec![serde_json::from_value(plan).unwrap()];
            }
            if let Step::Request { spec, .. } = step {
                fits("AccessGrant", "spec", &serde_json::to_value(spec).unwrap());
            }
        }
        self.project.status = Some(next.status.clone());
        next
    }
}

#[test]
fn whatever_follows_from_the_largest_project_fits_into_what_it_is_written_to() {
    let spec = largest();
    fits("IsolatedProject", "spec", &spec);
    for policy in [None, Some(strictest())] {
        let permitted = policy.is_none();
        let mut world = World::new(&spec, policy);
        assert_eq!(problems(&world.project.spec), []);
        world.pass();
        if !permitted {
            // Every clause refuses, and every member.
            assert!(
                world
                    .project
                    .status
                    .unwrap()
                    .members
                    .iter()
                    .all(|member| !member.reasons.is_empty())
            );
            continue;
        }
        world.pass();
        let plan = world.plans[0].spec.project.clone().unwrap();
        assert_eq!((plan.domains.len(), plan.volumes.len(), plan.mounts.len()), (64, 64, 64));
        // Its volumes are all exchanged for others, until there is no room for more; then it says so, and that fits as well.
        for round in 0..3 {
            for (at, volume) in world.project.spec.volumes.iter_mut().enumerate() {
                volume.name = long(&format!("r{round}-{at}-"), 63).into();
            }
            world.pass();
            world.pass();
        }
        let kept = world.project.status.clone().unwrap().kept_volumes.len();
        assert!((128..=256).contains(&kept), "{kept}");
        let ready = world.pass().status;
        let admitted = dejima_crds::condition::get(&ready.conditions, dejima_crds::condition::ConditionKind::Admitted).unwrap();
        assert!(admitted.message.as_str().contains("destroyVolumes"), "{}", admitted.message);
        // What its host says of all of it fits too.
        let items: Vec<Value> = plan
            .mounts
            .iter()
            .flat_map(|mount| {
                mount
                    .machines
                    .iter()
                    .map(|machine| dejima_crds::host_plan::mount_item(mount, machine))
            })
            .map(|item| json!({"item": item, "state": "ready", "since": "2026-11-24T00:00:00Z"}))
            .collect();
        let status: HostPlanStatus = serde_json::from_value(json!({"planGeneration": 1, "items": items})).unwrap();
        fits("HostPlan", "status", &serde_json::to_value(&status).unwrap());
    }
    // The control: what does not fit is seen.
    let mut found = Vec::new();
    breaks(&json!({"type": "string", "maxLength": 3}), &json!("four"), "x", &mut found);
    assert_eq!(found, ["x: 4 letters"]);
}
