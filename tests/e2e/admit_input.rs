//! What is wrong with a manifest is answered at admission, all of it at once, with the field and with what to do.

use dejima_tests::{ADMIN, Answer, LEAD, OFFICE, OTHER_LEAD, PROVIDER, STUDENT, World, example, world};
use serde_json::{Value, json};

/// An example as JSON, in a namespace.
fn base(file: &str, namespace: &str) -> Value {
    let mut manifest: Value = serde_yaml::from_str(&example(file, &[])).unwrap();
    manifest["metadata"]["namespace"] = namespace.into();
    manifest
}

/// Puts a value at its place, with whatever must be around it; null takes away.
fn put(manifest: &mut Value, pointer: &str, value: &Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    if manifest.pointer(parent).is_none() {
        put(manifest, parent, &json!({}));
    }
    match (manifest.pointer_mut(parent).unwrap(), field.parse::<usize>()) {
        (Value::Array(items), Ok(at)) if at < items.len() => items[at] = value.clone(),
        (Value::Array(items), Ok(_) | Err(_)) => items.push(value.clone()),
        (Value::Object(fields), Ok(_) | Err(_)) if value.is_null() => drop(fields.remove(field)),
        (other, Ok(_) | Err(_)) => other[field] = value.clone(),
    }
}

/// The manifest with parts of it replaced, added, or taken away.
fn with(manifest: &Value, changes: &[(&str, Value)]) -> Value {
    let mut manifest = manifest.clone();
    for (pointer, value) in changes {
        put(&mut manifest, pointer, value);
    }
    manifest
}

fn dry(world: &World, login: &str, manifest: &Value) -> Answer {
    world.input(login, &["create", "--dry-run=server", "-f", "-"], &manifest.to_string())
}

/// What is wrong, what is changed in the example, the words that must be in the answer.
type Case = (&'static str, Vec<(&'static str, Value)>, &'static [&'static str]);

fn one(what: &'static str, pointer: &'static str, value: Value, words: &'static [&'static str]) -> Case {
    (what, vec![(pointer, value)], words)
}

#[rustfmt::skip] // One case a line.
fn of_projects() -> Vec<Case> {
    let machine = |name: &str, count: u32| json!({"name": name, "cpu": 1, "memory": "64Mi", "image": "probe", "count": count});
    vec![
        one("an unknown action", "/spec/purpose/0/actions/0", json!("steal"), &["spec.purpose[0].actions[0]", "\"finetune\""]),
        one("an unknown role", "/spec/members/0/role", json!("king"), &["spec.members[0].role", "\"researcher\""]),
        one("an unknown kind", "/spec/orgKind", json!("mafia"), &["spec.orgKind", "\"non-profit\""]),
        one("an unknown purpose", "/spec/purpose/0/duo", json!("DUO:9"), &["spec.purpose[0].duo", "DUO:0000042"]),
        one("an unknown country", "/spec/country", json!("XX"), &["spec.country", "\"JP\""]),
        one("an organisation in words", "/spec/institution", json!("Osaka"), &["spec.institution", "https://ror.org/035t8zc32"]),
        one("a login with a space", "/spec/members/0/subject", json!("a b"), &["spec.members[0].subject", "printable ASCII"]),
        one("a login that looks like another", "/spec/members/0/subject", json!("l\u{435}ad"), &["printable ASCII"]),
        one("no title", "/spec/title", Value::Null, &["spec.title", "Required"]),
        one("a field with a typing error", "/spec/machine", json!([]), &["unknown field \"spec.machine\""]),
        one("a size below zero", "/spec/volumes/0/size", json!("-1Gi"), &["spec.volumes[0].size", "such as 64Gi"]),
        one("a size of nothing", "/spec/volumes/0/size", json!("0"), &["spec.volumes[0].size", "such as 64Gi"]),
        one("a size in exbibytes", "/spec/volumes/0/size", json!("1Ei"), &["spec.volumes[0].size", "such as 64Gi"]),
        one("a size with an exponent", "/spec/volumes/0/size", json!("1e400"), &["spec.volumes[0].size", "such as 64Gi"]),
        one("a size that is a number", "/spec/volumes/0/size", json!(64), &["spec.volumes[0].size", "string"]),
        one("a size with a line break", "/spec/volumes/0/size", json!("64Mi\n"), &["spec.volumes[0].size", "such as 64Gi"]),
        one("more than anybody has", "/spec/volumes/0/size", json!("999999999999999Ti"), &["at least 16Mi and at most 4096Ti"]),
        one("too small a volume", "/spec/volumes/0/size", json!("15Mi"), &["spec.volumes[0].size", "at least 16Mi"]),
        one("too little memory", "/spec/machines/0/memory", json!("1"), &["spec.machines[0].memory", "at least 64Mi"]),
        one("absurd memory", "/spec/machines/0/memory", json!("900000Ti"), &["spec.machines[0].memory", "at most 64Ti"]),
        one("no processor", "/spec/machines/0/cpu", json!(0), &["spec.machines[0].cpu", "1"]),
        one("processors below zero", "/spec/machines/0/cpu", json!(-1), &["spec.machines[0].cpu"]),
        one("half a processor", "/spec/machines/0/cpu", json!(0.5), &["spec.machines[0].cpu", "integer"]),
        one("a version with no room", "/spec/datasets/0/version", json!(5_000_000_000_u64), &["spec.datasets[0].version", "4294967295"]),
        one("a version with no room in 64 bits", "/spec/datasets/0/version", json!(1e30), &["spec.datasets[0].version"]),
        one("too many machines", "/spec/machines/1", machine("more", 64), &["spec.machines", "at most 64 machines"]),
        one("a machine twice", "/spec/machines/1", machine("train", 1), &["spec.machines[1]", "Duplicate value"]),
        one("a volume twice", "/spec/volumes/1", json!({"name": "work", "size": "64Mi", "attachTo": "train", "mountPath": "/more"}), &["spec.volumes[1]", "Duplicate value"]),
        one("a member twice", "/spec/members/1", json!({"subject": LEAD, "role": "engineer"}), &["spec.members[1]", "Duplicate value"]),
        one("a dataset twice", "/spec/datasets/1", json!({"namespace": "jichi", "name": "ct-mr", "attachTo": ["train"], "mountPath": "/other"}), &["spec.datasets[1]", "Duplicate value"]),
        one("a machine named twice", "/spec/datasets/0/attachTo/1", json!("train"), &["spec.datasets[0].attachTo[1]", "Duplicate value"]),
        one("a volume of no machine", "/spec/volumes/0/attachTo", json!("none"), &["a volume is attached to one machine of this project", "attachTo"]),
        one("a dataset for no machine", "/spec/datasets/0/attachTo/0", json!("none"), &["a dataset is attached to machines of this project", "attachTo"]),
        one("a volume of several machines", "/spec/machines/0/count", json!(2), &["whose count is 1"]),
        one("both class and cpu", "/spec/machines/0/class", json!("large"), &["a machine names a class, or both cpu and memory"]),
        one("an order for a listed volume", "/spec/destroyVolumes", json!(["work"]), &["must have left volumes first"]),
        one("a path with ..", "/spec/volumes/0/mountPath", json!("/scratch/../etc"), &["spec.volumes[0].mountPath", "absolute"]),
        one("a relative path", "/spec/volumes/0/mountPath", json!("scratch"), &["spec.volumes[0].mountPath", "absolute"]),
        one("a path over the machine's own", "/spec/volumes/0/mountPath", json!("/etc/ssh"), &["spec.volumes[0].mountPath", "choose another"]),
        one("data over the machine's own", "/spec/datasets/0/mountPath", json!("/run"), &["spec.datasets[0].mountPath", "choose another"]),
        one("a path with a command in it", "/spec/volumes/0/mountPath", json!("/a$(reboot)"), &["spec.volumes[0].mountPath", "/data/ct-mr"]),
        one("a name with markup", "/spec/machines/0/name", json!("a'/><x"), &["spec.machines[0].name", "lower-case"]),
        one("a name with a line break", "/spec/machines/0/name", json!("train\n"), &["spec.machines[0].name", "lower-case"]),
        one("a name that is too long", "/spec/machines/0/name", json!("a".repeat(41)), &["spec.machines[0].name", "40"]),
        one("a period that ends first", "/spec/period/until", json!("2026-03-31"), &["spec.period", "ends after it begins"]),
        one("a month that is none", "/spec/period/until", json!("2027-13"), &["spec.period.until", "2027-03-31"]),
        one("a day that no month has", "/spec/period/until", json!("2027-02-29"), &["spec.period.until", "2027-03-31"]),
        one("a day in words", "/spec/ethics/0/validUntil", json!("tomorrow"), &["spec.ethics[0].validUntil", "2027-03-31"]),
        one("an address that is none", "/spec/network", json!({"egress": [{"cidr": "999.1.1.1/99", "ports": [443], "why": "x"}]}), &["spec.network.egress[0].cidr", "203.0.113.0/24"]),
        one("a port that is none", "/spec/network", json!({"egress": [{"cidr": "203.0.113.0/24", "ports": [70000], "why": "x"}]}), &["spec.network.egress[0].ports[0]", "65535"]),
        one("rules in an address", "/spec/network", json!({"egress": [{"cidr": "0/0; flush ruleset", "ports": [1], "why": "x"}]}), &["spec.network.egress[0].cidr"]),
        one("an image that cannot have a name", "/spec/machines/0/image", json!("Probe!"), &["spec.machines[0].image", "lower-case"]),
        one("too long a text for a machine", "/spec/machines/0/userData", json!("x".repeat(16_385)), &["spec.machines[0].userData", "16384"]),
    ]
}

#[rustfmt::skip] // One case a line.
fn of_datasets() -> Vec<Case> {
    vec![
        one("a source above its root", "/spec/source/directory/path", json!("../other"), &["spec.source.directory.path", "no .."]),
        one("a source from the root of all", "/spec/source/directory/path", json!("/etc"), &["spec.source.directory.path", "relative"]),
        one("a source that is hidden", "/spec/source/directory/path", json!("a/.ssh"), &["spec.source.directory.path", "beginning with a dot"]),
        one("two sources", "/spec/source/nfs", json!({"url": "nfs://a/b"}), &["exactly one of directory, nfs, cephfs, s3"]),
        one("no source", "/spec/source", json!({}), &["exactly one of directory, nfs, cephfs, s3"]),
        one("a shard of nothing", "/spec/source/shardBytes", json!(0), &["spec.source.shardBytes", "1024"]),
        one("a shard of too much", "/spec/source/shardBytes", json!(1_u64 << 41), &["spec.source.shardBytes"]),
        one("a count below zero", "/spec/count/value", json!(-1), &["spec.count.value"]),
        one("a number that is none", "/spec/catalogueId", json!(0), &["spec.catalogueId"]),
        one("a revision with no room", "/spec/revision", json!(9_999_999_999_u64), &["spec.revision"]),
        one("a category nobody knows", "/spec/category", json!("secret"), &["spec.category", "\"clinical\""]),
        one("a digest in capitals", "/spec/agreement/documentDigest", json!(format!("sha256:{}", "A".repeat(64))), &["as sha256sum prints them"]),
        one("a policy that cannot have a name", "/spec/policyRef", json!("a/b"), &["spec.policyRef", "ct-mr-2026"]),
    ]
}

#[rustfmt::skip] // One case a line.
fn of_policies() -> Vec<Case> {
    vec![
        one("an action nobody knows", "/spec/permits/actions/0", json!("look"), &["spec.permits.actions[0]", "\"mount\""]),
        one("a quorum of nobody", "/spec/review/quorum/approvals", json!(0), &["spec.review.quorum.approvals", "1"]),
        one("a duration in words", "/spec/obligations/1/deleteWithin/period", json!("90 days"), &["spec.obligations[1].deleteWithin.period", "P90D"]),
        one("half a duration", "/spec/obligations/1/deleteWithin/period", json!("P1DT"), &["P90D"]),
        one("two obligations in one", "/spec/obligations/1/attribute", json!({"en": "x"}), &["an obligation is exactly one of"]),
        one("a network nobody knows", "/spec/egress/network", json!("some"), &["spec.egress.network", "\"attested\""]),
        one("an isolation nobody knows", "/spec/where/minIsolation", json!("island"), &["spec.where.minIsolation", "\"dedicated-host\""]),
        one("terms without an address", "/spec/prerequisites/terms/0/url", json!("see notes"), &["https://example.org/terms"]),
    ]
}

#[test]
fn every_mistake_is_answered_where_it_is_made_with_what_to_do() {
    let world = world();
    let mut told = 0;
    for (file, cases) in [
        ("isolatedproject-story.yaml", of_projects()),
        ("dataset-story.yaml", of_datasets()),
        ("usagepolicy-story.yaml", of_policies()),
    ] {
        let manifest = base(file, "default");
        dry(world, ADMIN, &manifest).accepted();
        for (what, changes, words) in cases {
            let answer = dry(world, ADMIN, &with(&manifest, &changes));
            assert!(!answer.accepted, "{what}: accepted");
            for word in words {
                assert!(answer.text.contains(word), "{what}: nothing about `{word}` in {}", answer.text);
            }
            told += 1;
        }
    }
    assert!(told > 70, "{told}");
    // Norway is a country, also to readers of YAML to which NO is no.
    let project = base("isolatedproject-story.yaml", "default");
    dry(world, ADMIN, &with(&project, &[("/spec/country", json!("NO"))])).accepted();
}

#[test]
fn a_manifest_with_five_mistakes_is_told_five() {
    let world = world();
    let project = base("isolatedproject-story.yaml", "default");
    let told = |changes: &[(&str, Value)], words: &[&str]| {
        let answer = dry(world, ADMIN, &with(&project, changes));
        assert!(!answer.accepted);
        let lines: Vec<&str> = answer.text.lines().collect();
        for word in words {
            assert!(
                lines.iter().any(|line| line.contains(word)),
                "nothing about `{word}` in {}",
                answer.text
            );
        }
    };
    // Of one kind each: words, amounts, names, references, order.
    told(
        &[
            ("/spec/volumes/0/size", json!("1Ei")),
            ("/spec/volumes/0/mountPath", json!("/etc")),
            ("/spec/datasets/0/attachTo/0", json!("none")),
            ("/spec/members/0/subject", json!("a b")),
            ("/spec/period/until", json!("2025-01-01")),
        ],
        &[
            "spec.volumes[0].size",
            "spec.volumes[0].mountPath",
            "check attachTo",
            "spec.members[0].subject",
            "spec.period",
        ],
    );
    // A word that is not known keeps the server from asking rules: forms are looked at all the same.
    told(
        &[
            ("/spec/members/0/role", json!("king")),
            ("/spec/orgKind", json!("mafia")),
            ("/spec/volumes/0/size", json!("1Ei")),
            ("/spec/machines/0/cpu", json!(0)),
            ("/spec/institution", json!("Osaka")),
        ],
        &[
            "spec.members[0].role",
            "spec.orgKind",
            "spec.volumes[0].size",
            "spec.machines[0].cpu",
            "spec.institution",
            "were not checked",
        ],
    );
}

/// The lists of a schema that lie in no other list, with the most items that each may have.
fn lists(schema: &Value, path: &str, found: &mut Vec<(String, u64)>) {
    if let Some(most) = schema["maxItems"].as_u64() {
        found.push((path.to_owned(), most));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        lists(field, &format!("{path}/{name}"), found);
    }
}

/// An item for each list that the examples do not show: of the right form, since the server itself takes long to say ten thousand
/// times that something is of none.
#[rustfmt::skip] // One list a line.
fn item(pointer: &str) -> Option<Value> {
    let digest = format!("sha256:{}", "a".repeat(64));
    Some(match pointer {
        "/spec/termsAccepted" => json!({"member": LEAD, "digest": digest}),
        "/spec/placement/sites" | "/spec/where/sites" => json!("tokyo"),
        "/spec/destroyVolumes" => json!("old"),
        "/spec/network/egress" => json!({"cidr": "203.0.113.0/24", "ports": [443], "why": "x"}),
        "/spec/network/l2vpn/hosts" => json!("host-a"),
        "/spec/index/datasets" | "/spec/combination/linkList" | "/spec/combination/forbidWith" => json!("jichi/ct-mr"),
        "/spec/aliases" => json!("JGAD000001"),
        "/spec/legalBasis" => json!("consent"),
        "/spec/withdrawn" => json!({"version": "1", "by": "x", "reason": "x"}),
        "/spec/who/orgs" | "/spec/review/reviewerOrgs" => json!("https://ror.org/035t8zc32"),
        "/spec/who/roles" => json!("lead"),
        "/spec/who/training" => json!({"course": "ethics"}),
        "/spec/review/covers" => json!("egress"),
        "/spec/egress/blockedTypes" => json!("DICOM"),
        _ => return None,
    })
}

#[test]
fn lists_without_end_and_manifests_without_end_are_refused_in_words() {
    let world = world();
    let mut seen = 0;
    for (kind, file) in [
        ("IsolatedProject", "isolatedproject-story.yaml"),
        ("Dataset", "dataset-story.yaml"),
        ("UsagePolicy", "usagepolicy-story.yaml"),
    ] {
        let definition = dejima_crds::all().into_iter().find(|found| found.spec.names.kind == kind).unwrap();
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        let mut all = Vec::new();
        lists(&schema["openAPIV3Schema"]["properties"]["spec"], "/spec", &mut all);
        let manifest = base(file, "default");
        for few in all.chunks(3) {
            let full = |pointer: &str| {
                let shown = manifest.pointer(pointer).and_then(|list| list.get(0)).cloned();
                let item = shown.or_else(|| item(pointer));
                assert!(item.is_some(), "{pointer}: what does it hold?");
                json!(vec![item; 10_000])
            };
            let long: Vec<(&str, Value)> = few.iter().map(|(pointer, _)| (pointer.as_str(), full(pointer))).collect();
            let answer = dry(world, ADMIN, &with(&manifest, &long));
            assert!(!answer.accepted);
            for (pointer, most) in few {
                let path = pointer.trim_start_matches('/').replace('/', ".");
                let told = answer
                    .text
                    .contains(&format!("{path}: Too many: 10000: must have at most {most} items"));
                assert!(told, "{pointer}: {}", answer.text.chars().take(2000).collect::<String>());
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
    let five = json!("x".repeat(5 << 20));
    let project = base("isolatedproject-story.yaml", "default");
    for pointer in ["/spec/machines/0/userData", "/spec/title/en", "/metadata/annotations"] {
        let five = if pointer == "/metadata/annotations" {
            json!({"note": five})
        } else {
            five.clone()
        };
        dry(world, ADMIN, &with(&project, &[(pointer, five)])).refused("too large");
    }
}

#[test]
fn what_is_somebody_elses_is_refused_in_the_same_words_whether_or_not_it_is_there() {
    let world = world();
    let (mine, other) = (
        world.namespace("osaka-in", &[("dejima-tenant", "dejima.dev/tenant-osaka")]),
        world.namespace("kyoto-in", &[("dejima-tenant", "dejima.dev/tenant-kyoto")]),
    );
    let provider = world.namespace("jichi-in", &[("dejima-provider", "dejima.dev/provider-jichi")]);
    let there = base("isolatedproject-story.yaml", &other);
    world.create(OTHER_LEAD, &there.to_string()).accepted();
    world
        .create(PROVIDER, &base("dataset-story.yaml", &provider).to_string())
        .accepted();
    let words = |login: &str, kind: &str, space: &str, name: &str| -> Vec<String> {
        let patch = r#"{"metadata":{"labels":{"a":"b"}}}"#;
        let status = r#"{"status":{"conditions":[]}}"#;
        let tries: Vec<Vec<&str>> = vec![
            vec!["get", kind, name, "-n", space],
            vec!["get", kind, "-n", space],
            vec!["patch", kind, name, "-n", space, "--type=merge", "-p", patch],
            vec![
                "patch",
                kind,
                name,
                "-n",
                space,
                "--subresource=status",
                "--type=merge",
                "-p",
                status,
            ],
            vec!["delete", kind, name, "-n", space],
        ];
        tries
            .into_iter()
            .map(|arguments| {
                let answer = world.run(login, &arguments);
                assert!(
                    !answer.accepted && answer.text.contains("forbidden"),
                    "{arguments:?}: {}",
                    answer.text
                );
                answer.text.replace(name, "NAME")
            })
            .collect()
    };
    for (login, kind, space, name) in [
        (LEAD, "isolatedproject", other.as_str(), "liver-ct"),
        (LEAD, "dataset", &provider, "ct-mr"),
        (LEAD, "accessgrant", &provider, "ct-mr"),
        (PROVIDER, "isolatedproject", &other, "liver-ct"),
        (LEAD, "hostplan", "dejima-host-none", "project-u-1"),
    ] {
        assert_eq!(
            words(login, kind, space, name),
            words(login, kind, space, "never-was"),
            "{login} and {kind}"
        );
    }
    // Nor is anything learned from admission: who may not attest is told the same of what is there and what is not.
    let uid = world.get(&other, "isolatedproject", "liver-ct")["metadata"]["uid"].clone();
    let attest = |name: &str, uid: &Value| {
        let claim = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "Attestation", "metadata": {"name": "a", "namespace": mine},
            "spec": {"of": {"kind": "IsolatedProject", "name": name, "uid": uid}, "claim": "ethics", "value": {}, "by": LEAD}});
        let answer = dry(world, LEAD, &claim);
        assert!(!answer.accepted, "{}", answer.text);
        answer.text
    };
    assert_eq!(attest("liver-ct", &uid), attest("never-was", &json!("none")));
    // The controls: the owner is let in, and is told apart what is there and what is not.
    world
        .run(OTHER_LEAD, &["get", "isolatedproject", "liver-ct", "-n", &other])
        .accepted();
    world
        .run(OTHER_LEAD, &["get", "isolatedproject", "never-was", "-n", &other])
        .refused("not found");
}

#[test]
fn nothing_is_attested_that_nobody_could_read() {
    let world = world();
    let space = world.namespace("attested-in", &[]);
    let claim = |value: &Value| {
        json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "Attestation", "metadata": {"name": "deep", "namespace": space},
            "spec": {"of": {"kind": "Dataset", "name": "none", "uid": "none"}, "claim": "approval", "value": value, "by": OFFICE}})
    };
    let approval = json!({"role": "platform", "committee": "ROIS", "approvedOn": "2025-01"});
    dry(world, OFFICE, &claim(&approval)).accepted();
    // Deeper than readers of JSON go: one such object would keep all of its kind from being read.
    let deep = (0..200).fold(json!({}), |inner, _| json!({"a": inner}));
    dry(world, OFFICE, &claim(&deep)).refused("unknown field \"spec.value.a\"");
    let mut long = approval;
    long["committee"] = json!("x".repeat(300_000));
    dry(world, OFFICE, &claim(&long)).refused("spec.value.committee");
    // Whoever does not ask for strictness loses what has no place, and is not let through with it.
    let loose = ["create", "--dry-run=server", "--validate=ignore", "-o", "json", "-f", "-"];
    let taken = world.input(OFFICE, &loose, &claim(&deep).to_string()).accepted();
    assert_eq!(serde_json::from_str::<Value>(&taken).unwrap()["spec"]["value"], json!({}));
    world.run(STUDENT, &["get", "attestations", "-n", &space]).refused("forbidden");
}
