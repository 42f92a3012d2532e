//! Faults: every effect of a clean run has a name, and whichever of them fails, times out after it took effect, or is the
//! last thing its process did, the end is the clean run's. And admission that was gone for a while.

use std::collections::BTreeMap;

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, OFFICE, PROVIDER, example, without_data};
use serde_json::{Value, json};

pub(crate) const HOST: &str = "host-f";
pub(crate) const FATES: [&str; 3] = ["kill", "fail", "time-out"];
/// What comes by the clock and not by what is done: it may fall into a clean run or beside it, so that it is no part of the names
/// that are compared.
const BY_THE_CLOCK: [&str; 2] = ["renew lease/hostd", "say-alive host/host-f"];
/// The first sign of life comes at every start of hostd, hence once in every case: it is let fail like all others.
const SIGN_OF_LIFE: &str = BY_THE_CLOCK[0];

/// A provider whose sealed dataset needs no review, under the open policy with some of its text replaced: his namespace, and
/// the story's project over the dataset.
pub(crate) fn with_data(platform: &mut Platform, tenant: &str, change: (&str, &str)) -> (String, String) {
    let provider = platform
        .world
        .namespace("jichi", &[("dejima-provider", "dejima.dev/provider-jichi")]);
    platform.add_host(
        "intake-1",
        &format!("{{roles: [intake], intake: [{{namespace: {provider}, path: jichi}}]}}"),
    );
    let source = platform.sources("intake-1").join("jichi/ct-mr");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("one.dcm"), b"DICM").unwrap();
    platform.start_host("intake-1", None);
    let here = format!("namespace: {provider}");
    platform
        .world
        .create(PROVIDER, &example("usagepolicy-open.yaml", &[("namespace: jichi", &here), change]))
        .accepted();
    platform
        .world
        .create(
            PROVIDER,
            &example(
                "dataset-story.yaml",
                &[("namespace: jichi", &here), ("policyRef: ct-mr-2026", "policyRef: open-2026")],
            ),
        )
        .accepted();
    for claim in ["approval", "agreement"] {
        let attest = platform.dejima(OFFICE, &["attest", "dataset", &format!("{provider}/ct-mr"), claim]);
        assert!(attest.status.success(), "{}", String::from_utf8_lossy(&attest.stderr));
    }
    platform.eventually("Mountable", || {
        platform.condition(&provider, "dataset", "ct-mr", "Mountable").0 == "True"
    });
    platform.stop("intake-1");
    let project = example(
        "isolatedproject-story.yaml",
        &[
            ("namespace: osaka-radiology", &format!("namespace: {tenant}")),
            ("namespace: jichi", &here),
        ],
    );
    (provider, project)
}

/// Starts again, without faults, what a fault has killed.
fn revive(platform: &mut Platform) -> bool {
    let mut revived = false;
    if !platform.runs("operator") {
        platform.start_operator(None);
        revived = true;
    }
    if !platform.runs(HOST) {
        platform.start_host(HOST, None);
        revived = true;
    }
    revived
}

/// The world of the host without what differs from run to run.
fn shape(platform: &Platform) -> Value {
    let remembered = platform.remembered(HOST);
    let project = remembered["projects"]
        .as_object()
        .and_then(|all| all.values().next().cloned())
        .unwrap_or_default();
    let volumes: Vec<(String, bool, bool)> = project["volumes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, volume)| (name.clone(), volume["formatted"] == true, volume["wrapped_key"].is_string()))
        .collect();
    let domains: Vec<(String, Value)> = project["domains"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, domain)| (name.clone(), json!([domain["state"], domain["shards"].as_array().map(Vec::len)])))
        .collect();
    json!({"volumes": volumes, "domains": domains, "proved": project["network"]["proved"] == project["network"]["rules"]})
}

/// One whole life of a project; the shape of the host while it was ready.
fn life(platform: &mut Platform, tenant: &str, manifest: &str, case: &str) -> Value {
    let world_ready = |platform: &Platform| {
        let answer = platform
            .world
            .run(ADMIN, &["get", "isolatedproject", "liver-ct", "-n", tenant, "-o", "json"]);
        let object: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        platform.condition(tenant, "isolatedproject", "liver-ct", "Ready").0 == "True" && object["status"]["summary"]["datasets"] == "1/1"
    };
    let gone = |platform: &Platform| {
        !platform
            .world
            .run(ADMIN, &["get", "isolatedproject", "liver-ct", "-n", tenant])
            .accepted
    };
    platform.world.create(LEAD, manifest).accepted();
    wait(platform, &format!("{case}: ready and mounted"), &world_ready);
    let shape = shape(platform);
    assert_eq!(keys(platform), (true, true), "{case}: the control of what is gone afterwards");
    platform
        .world
        .run(LEAD, &["delete", "isolatedproject", "liver-ct", "-n", tenant, "--wait=false"])
        .accepted();
    wait(platform, &format!("{case}: gone"), &gone);
    shape
}

pub(crate) fn wait(platform: &mut Platform, what: &str, so: &dyn Fn(&Platform) -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
    while !so(platform) {
        revive(platform);
        if std::time::Instant::now() > end {
            // Says what the logs say, and stops.
            platform.eventually(what, || false);
        }
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
}

/// Whether the key server has a key of a project, and whether the host may use any.
fn keys(platform: &Platform) -> (bool, bool) {
    let keys = platform.keys.run(&["list", "transit/keys"], None).unwrap();
    let policy = platform
        .keys
        .run(&["policy", "read", &format!("dejima-host-{HOST}")], None)
        .unwrap();
    (keys.contains("project-"), policy.contains("path"))
}

/// After every life the same is left: nothing, and a free host.
fn nothing_is_left(platform: &Platform, case: &str) {
    assert_eq!(platform.remembered(HOST)["projects"], json!({}), "{case}: left on the host");
    assert!(
        platform.world.get("", "host", HOST)["status"]["heldBy"].is_null(),
        "{case}: the host is still held"
    );
    let plans = platform.world.run(ADMIN, &["get", "hostplans", "-A", "-o", "name"]).accepted();
    assert_eq!(plans.trim(), "", "{case}: host plans are left");
    assert_eq!(
        keys(platform),
        (false, false),
        "{case}: keys are left, or the host may still use some"
    );
    let phase = |phase: &str| {
        platform
            .records()
            .iter()
            .filter(|record| record["act"]["kind"] == "mount" && record["act"]["phase"] == phase)
            .count()
    };
    assert!(
        phase("begun") > 0 && phase("begun") == phase("ended"),
        "{case}: {} mounts begun, {} ended",
        phase("begun"),
        phase("ended")
    );
    // Each project that was ever deleted has one receipt, which is final, in the ledger and beside where it stood.
    let ended = |kind: &str| {
        let of = |record: &&Value| record["act"]["kind"] == kind && record["act"]["phase"] == "ended";
        platform.records().iter().filter(of).count()
    };
    let lying = |state: &str| {
        let label = format!("dejima.dev/receipt={state}");
        let all = platform.world.run(ADMIN, &["get", "configmaps", "-A", "-l", &label, "-o", "name"]);
        all.accepted().lines().filter(|line| line.contains("receipt-")).count()
    };
    assert_eq!(
        (ended("receipt"), lying("final"), lying("partial")),
        (ended("delete"), ended("delete"), 0),
        "{case}: receipts"
    );
}

pub(crate) fn names(path: &std::path::Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn whatever_fails_times_out_or_is_killed_the_end_is_the_clean_runs() {
    let mut platform = Platform::new("faults", &[HOST]);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    // Two clean runs have the same names.
    platform.start_operator(None);
    let (_, manifest) = with_data(&mut platform, &tenant, ("open-2026", "open-2026"));
    let log = platform.dir().join("effects.log");
    let watch = json!({"log": log});
    let mut clean = Vec::new();
    platform.start_operator(Some(&watch));
    platform.start_host(HOST, Some(&watch));
    for run in ["first", "second"] {
        // The names of starting up are not those of a project's life.
        platform.eventually("a host that lives", || platform.condition("", "host", HOST, "Ready").0 == "True");
        let stamped = || {
            platform
                .world
                .run(ADMIN, &["get", "configmap", "dejima-admission", "-n", "dejima-system"])
                .accepted
        };
        platform.eventually("admission that was seen to stand", stamped);
        let _ = std::fs::write(&log, "");
        let shape = life(&mut platform, &tenant, &manifest, run);
        nothing_is_left(&platform, run);
        let named: Vec<String> = names(&log)
            .into_keys()
            .filter(|name| !BY_THE_CLOCK.contains(&name.as_str()))
            .collect();
        clean.push((named, shape));
    }
    let (first, second) = (&clean[0], &clean[1]);
    assert_eq!(first.0, second.0, "the names of two clean runs");
    assert_eq!(first.1, second.1);
    assert!(first.0.len() >= 30, "{:?}", first.0);
    assert_eq!(first.1["domains"][0][1], json!(["running", 1]));

    let mut hit = 0;
    let mut cases = Vec::new();
    for name in first.0.iter().map(String::as_str).chain([SIGN_OF_LIFE]) {
        cases.extend(FATES.iter().map(|fate| (name.to_owned(), *fate)));
    }
    // For whoever looks into one case: DEJIMA_TEST_CASE="delete hostplan".
    if let Ok(only) = std::env::var("DEJIMA_TEST_CASE") {
        cases.retain(|(name, _)| name.contains(&only));
    }
    for (name, fate) in &cases {
        let case = format!("{name} ({fate})");
        let (verb, object) = name.split_once(' ').unwrap();
        let log = platform.dir().join("case.log");
        let _ = std::fs::write(&log, "");
        let faults = json!({"log": log, "object": object, "verb": verb, "nth": 1, "fate": fate});
        platform.start_operator(Some(&faults));
        platform.start_host(HOST, Some(&faults));
        let shape = life(&mut platform, &tenant, &manifest, &case);
        assert_eq!(shape, first.1, "{case}");
        nothing_is_left(&platform, &case);
        assert!(names(&log).contains_key(name), "{case} was never reached");
        hit += 1;
    }
    assert_eq!(hit, cases.len());
    std::fs::write(platform.dir().join("matrix.txt"), format!("{} names, {hit} cases\n", first.0.len())).unwrap();
}

#[test]
fn a_line_written_while_a_policy_was_gone_does_not_count_until_it_is_written_again() {
    let mut platform = Platform::new("gap", &[HOST]);
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    platform.ready(&tenant, "liver-ct");
    let accept = |platform: &Platform, digit: &str, path: &str| {
        let line = json!({"member": LEAD, "digest": format!("sha256:{}", digit.repeat(64))});
        let value = if path.ends_with('-') { line } else { json!([line]) };
        platform.world.patch(
            LEAD,
            &tenant,
            "isolatedproject",
            "liver-ct",
            &json!([{"op": "add", "path": path, "value": value}]).to_string(),
        )
    };
    let seen = |platform: &Platform, digit: &str| {
        let object = platform.world.get(&tenant, "isolatedproject", "liver-ct");
        let all = object["status"]["seen"].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .find(|line| line["digest"] == format!("sha256:{}", digit.repeat(64)))
            .map(|line| line["counts"] == true)
    };
    // The control: a line written while everything stands.
    accept(&platform, "1", "/spec/termsAccepted").accepted();
    platform.eventually("the first line counts", || seen(&platform, "1") == Some(true));

    let policy = platform
        .world
        .run(ADMIN, &["get", "validatingadmissionpolicy", "dejima-terms", "-o", "json"])
        .accepted();
    let mut policy: Value = serde_json::from_str(&policy).unwrap();
    policy["metadata"] = json!({"name": "dejima-terms"});
    policy["status"] = Value::Null;
    platform
        .world
        .run(ADMIN, &["delete", "validatingadmissionpolicy", "dejima-terms"])
        .accepted();
    platform.eventually("the operator notices", || {
        platform.condition(&tenant, "isolatedproject", "liver-ct", "Admitted").1 == "AdmissionMissing"
    });
    accept(&platform, "2", "/spec/termsAccepted/-").accepted();
    platform.world.create(ADMIN, &policy.to_string()).accepted();
    platform.eventually("the policy stands again", || {
        platform.condition(&tenant, "isolatedproject", "liver-ct", "Admitted").1 == "Admitted"
    });
    platform.eventually("the second line does not count", || seen(&platform, "2") == Some(false));
    assert_eq!(seen(&platform, "1"), Some(true), "what was seen before goes on to count");

    // Taken back and written again, it counts.
    platform
        .world
        .patch(
            LEAD,
            &tenant,
            "isolatedproject",
            "liver-ct",
            r#"[{"op":"remove","path":"/spec/termsAccepted/1"}]"#,
        )
        .accepted();
    platform.eventually("it is forgotten", || seen(&platform, "2").is_none());
    accept(&platform, "2", "/spec/termsAccepted/-").accepted();
    platform.eventually("written again, it counts", || seen(&platform, "2") == Some(true));
}

#[test]
fn an_operator_that_wakes_up_late_does_not_move_the_world_back() {
    let mut platform = Platform::new("late", &[HOST]);
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    platform.ready(&tenant, "liver-ct");
    let space = format!("dejima-host-{HOST}");
    let plan = platform
        .world
        .run(ADMIN, &["get", "hostplans", "-n", &space, "-o", "json"])
        .accepted();
    let old: Value = serde_json::from_str::<Value>(&plan).unwrap()["items"][0].clone();
    let operator = "system:serviceaccount:dejima-system:operator";
    // The world goes on: a second machine.
    let add = r#"[{"op":"add","path":"/spec/machines/-","value":{"name":"second","cpu":1,"memory":"256Mi","image":"probe"}}]"#;
    platform.world.patch(LEAD, &tenant, "isolatedproject", "liver-ct", add).accepted();
    platform.eventually("two machines", || {
        platform.remembered(HOST).to_string().matches("\"running\"").count() == 2
    });
    // What an operator that slept through it would write: its old plan, from the old resource version; then by force.
    let stale = platform.world.input(operator, &["replace", "-f", "-"], &old.to_string());
    stale.refused("the object has been modified");
    let mut forced = old.clone();
    forced["metadata"]["resourceVersion"] = Value::Null;
    platform
        .world
        .input(operator, &["replace", "-f", "-"], &forced.to_string())
        .refused("a changed plan bears a higher planGeneration");
    assert_eq!(platform.remembered(HOST).to_string().matches("\"running\"").count(), 2);
    // Two at once do no harm: both carry out what is there.
    let before = platform.world.get(&space, "hostplan", old["metadata"]["name"].as_str().unwrap())["spec"].clone();
    platform.start_operator(None);
    platform.eventually("it is ready still", || {
        platform.condition(&tenant, "isolatedproject", "liver-ct", "Ready").0 == "True"
    });
    assert_eq!(
        platform.world.get(&space, "hostplan", old["metadata"]["name"].as_str().unwrap())["spec"],
        before,
        "a new life of the operator changes nothing"
    );

    // Two that run at once do no harm: each writes from what it has seen, and what the other wrote first is not written over.
    platform.start_second_operator();
    let add = r#"[{"op":"add","path":"/spec/machines/-","value":{"name":"third","cpu":1,"memory":"256Mi","image":"probe"}}]"#;
    platform.world.patch(LEAD, &tenant, "isolatedproject", "liver-ct", add).accepted();
    platform.eventually("three machines", || {
        platform.remembered(HOST).to_string().matches("\"running\"").count() == 3
    });
    assert!(platform.runs("operator") && platform.runs("operator-2"), "both run");
    platform
        .world
        .run(LEAD, &["delete", "isolatedproject", "liver-ct", "-n", &tenant, "--timeout=40s"])
        .accepted();
    assert_eq!(platform.remembered(HOST)["projects"], json!({}), "nothing is left on the host");
    let ended = |record: &&Value| record["act"]["kind"] == "delete" && record["act"]["phase"] == "ended";
    assert_eq!(platform.records().iter().filter(ended).count(), 1, "it ended once");
}
