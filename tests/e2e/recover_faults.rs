//! Faults: every effect of a clean run has a name, and whichever of them fails, times out after it took effect, or is the
//! last thing its process did, the end is the clean run's. And admission that was gone for a while.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, OFFICE, PROVIDER, example, without_data};
use serde_json::{Value, json};

use crate::matrix::{Matrix, Stage};

pub(crate) const HOST: &str = "host-f";
/// The first sign of life comes at every start of hostd: it is let fail like all others.
const SIGN_OF_LIFE: &str = "renew lease/hostd";

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

/// One whole life of a project.
fn life(stage: &mut Stage, tenant: &str, manifest: &str) {
    stage.world.create(LEAD, manifest).accepted();
    stage.wait("ready and mounted", &|platform| {
        let answer = platform
            .world
            .run(ADMIN, &["get", "isolatedproject", "liver-ct", "-n", tenant, "-o", "json"]);
        let object: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        object["status"]["summary"]["datasets"] == "1/1"
    });
    stage.same("ready");
    assert_eq!(keys(stage), (true, true), "the control of what is gone afterwards");
    stage
        .world
        .run(LEAD, &["delete", "isolatedproject", "liver-ct", "-n", tenant, "--wait=false"])
        .accepted();
    stage.wait("gone", &|platform| {
        let left = platform.world.run(ADMIN, &["get", "isolatedproject", "liver-ct", "-n", tenant]);
        !left.accepted
    });
    stage.same("gone");
    nothing_is_left(stage);
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
fn nothing_is_left(platform: &Platform) {
    assert_eq!(platform.remembered(HOST)["projects"], json!({}), "left on the host");
    assert!(
        platform.world.get("", "host", HOST)["status"]["heldBy"].is_null(),
        "the host is still held"
    );
    let plans = platform.world.run(ADMIN, &["get", "hostplans", "-A", "-o", "name"]).accepted();
    assert_eq!(plans.trim(), "", "host plans are left");
    assert_eq!(keys(platform), (false, false), "keys are left, or the host may still use some");
}

#[test]
fn whatever_fails_times_out_or_is_killed_the_end_is_the_clean_runs() {
    let mut platform = Platform::new("faults", &[HOST]);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.start_operator(None);
    let (_, manifest) = with_data(&mut platform, &tenant, ("open-2026", "open-2026"));
    let matrix = Matrix {
        name: "create and delete",
        sample: 12,
        whole: None,
        restarted: &[],
        perhaps: &[],
        starting: &[(HOST, SIGN_OF_LIFE)],
    };
    Stage::new(platform, &[HOST]).run(&matrix, &mut |stage| life(stage, &tenant, &manifest));
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
