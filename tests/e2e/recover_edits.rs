//! Faults while a project goes on: its volumes come and go, its data is permitted and permitted no longer, its window ends, its host
//! is without power. Whatever fails, times out or is killed meanwhile, the end is the clean run's.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, BOARD_JICHI, BOARD_PLATFORM, LEAD, OFFICE, PROVIDER, without_data};
use serde_json::{Value, json};

use crate::matrix::{Matrix, Stage};
use crate::reconcile_ends::in_seconds;
use crate::reconcile_volumes::remembered;
use crate::recover_faults::{HOST, with_data};
use crate::running::{LABELS, PROJECT};

fn project(platform: &Platform, tenant: &str) -> Value {
    platform.world.get(tenant, "isolatedproject", PROJECT)
}

#[track_caller]
fn edit(stage: &Stage, tenant: &str, patch: &Value) {
    let patched = stage.world.patch(LEAD, tenant, "isolatedproject", PROJECT, &patch.to_string());
    patched.accepted();
}

#[track_caller]
fn says(stage: &Stage, login: &str, arguments: &[&str]) {
    let answer = stage.dejima(login, arguments);
    assert!(
        answer.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&answer.stderr)
    );
}

/// How many shards the machine has.
fn attached(platform: &Platform) -> usize {
    let shards = remembered(platform, HOST, "/domains/train/shards");
    shards.as_array().map_or(0, Vec::len)
}

fn is(platform: &Platform, state: &str) -> bool {
    remembered(platform, HOST, "/domains/train/state") == state
}

/// A volume comes, grows, leaves, and is destroyed, each once it is seen that the one before was carried out.
fn volumes(stage: &mut Stage, tenant: &str) {
    let size = |platform: &Platform| remembered(platform, HOST, "/domains/train/volumes/more");
    let key = |platform: &Platform| remembered(platform, HOST, "/volumes/more/wrapped_key");
    let kept = |platform: &Platform| project(platform, tenant)["status"]["keptVolumes"].as_array().map_or(0, Vec::len);
    let more = |size: &str| json!({"name": "more", "size": size, "attachTo": "train", "mountPath": "/more"});
    edit(
        stage,
        tenant,
        &json!([{"op": "add", "path": "/spec/volumes/-", "value": more("64Mi")}]),
    );
    stage.wait("it comes", &|platform| size(platform) == 64 << 20);
    let first = key(stage);
    edit(
        stage,
        tenant,
        &json!([{"op": "replace", "path": "/spec/volumes/1/size", "value": "128Mi"}]),
    );
    stage.wait("it grows", &|platform| size(platform) == 128 << 20);
    edit(stage, tenant, &json!([{"op": "remove", "path": "/spec/volumes/1"}]));
    stage.wait("it leaves", &|platform| size(platform).is_null() && kept(platform) == 1);
    assert_eq!(key(stage), first, "it is another one");
    stage.same("a volume is kept");
    edit(
        stage,
        tenant,
        &json!([{"op": "add", "path": "/spec/destroyVolumes", "value": ["more"]}]),
    );
    stage.wait("it is destroyed", &|platform| key(platform).is_null() && kept(platform) == 0);
    edit(stage, tenant, &json!([{"op": "remove", "path": "/spec/destroyVolumes"}]));
    stage.same("a volume is destroyed");
    assert!(is(stage, "running"));
}

/// A dataset comes, is permitted, not attested any more, attested again, revoked, and leaves.
fn data(stage: &mut Stage, tenant: &str, provider: &str) {
    let ethics = |stage: &Stage| says(stage, OFFICE, &["attest", "project", &format!("{tenant}/{PROJECT}"), "ethics"]);
    let open = |platform: &Platform| -> Vec<String> {
        let all = platform.world.run(PROVIDER, &["get", "accessgrants", "-n", provider, "-o", "json"]);
        let list: Value = serde_json::from_str(&all.text).unwrap_or_default();
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let open = all.iter().filter(|grant| grant["spec"]["revoked"].is_null());
        open.map(|grant| format!("{provider}/{}", grant["metadata"]["name"].as_str().unwrap()))
            .collect()
    };
    let wish = json!({"namespace": provider, "name": "ct-mr", "actions": ["train", "evaluate"], "attachTo": ["train"], "mountPath": "/data/ct-mr"});
    edit(stage, tenant, &json!([{"op": "add", "path": "/spec/datasets", "value": [wish]}]));
    ethics(stage);
    stage.wait("a request", &|platform| open(platform).len() == 1);
    let grant = open(stage).remove(0);
    for reviewer in [BOARD_JICHI, BOARD_PLATFORM] {
        says(stage, reviewer, &["review", "approve", &grant]);
    }
    stage.wait("mounted", &|platform| attached(platform) == 1);
    stage.same("mounted");
    withdraw(stage, tenant);
    stage.wait("what nobody vouches for is not mounted", &|platform| attached(platform) == 0);
    stage.same("withdrawn");
    ethics(stage);
    stage.wait("mounted again", &|platform| attached(platform) == 1);
    says(stage, PROVIDER, &["grant", "revoke", &grant, "--reason", "over"]);
    stage.wait("revoked", &|platform| attached(platform) == 0);
    stage.same("revoked");
    edit(stage, tenant, &json!([{"op": "remove", "path": "/spec/datasets"}]));
    withdraw(stage, tenant);
    // The same is asked for again by the next life.
    let grants = ["delete", "accessgrants", "-n", provider, "--all"];
    stage.world.run(ADMIN, &grants).accepted();
    stage.same("without data");
}

/// The office takes its word for the tenant back.
fn withdraw(stage: &Stage, tenant: &str) {
    let all = ["delete", "attestations", "-n", tenant, "--all"];
    stage.world.run(OFFICE, &all).accepted();
}

/// The window ends by itself: the mount goes, the machine stops; a later end brings both back.
fn window(stage: &mut Stage, tenant: &str) {
    let until = |end: &str| json!([{"op": "replace", "path": "/spec/period/until", "value": end}]);
    stage.wait("the control: it runs with its data", &|platform| {
        attached(platform) == 1 && is(platform, "running")
    });
    edit(stage, tenant, &until(&in_seconds(2).0));
    stage.wait("over", &|platform| attached(platform) == 0 && is(platform, "shutoff"));
    stage.same("over");
    edit(stage, tenant, &until("2027-03-31"));
    stage.wait("it runs again with its data", &|platform| {
        attached(platform) == 1 && is(platform, "running")
    });
    stage.same("it goes on");
}

/// The host loses its power: machines are off, and what was in memory alone is gone. Its agent starts again and makes it good.
fn power(stage: &mut Stage) {
    stage.wait("the control: it runs with its data", &|platform| {
        attached(platform) == 1 && is(platform, "running")
    });
    stage.same("before");
    stage.power_cut(HOST, |world| {
        for things in world["projects"].as_object_mut().unwrap().values_mut() {
            things["network"] = Value::Null;
            things["segment"] = Value::Null;
            things["given"] = json!([]);
            for domain in things["domains"].as_object_mut().unwrap().values_mut() {
                domain["state"] = "shutoff".into();
                (domain["shards"], domain["map"], domain["answered"]) = (json!([]), Value::Null, false.into());
            }
        }
    });
    stage.wait("it runs again with its data", &|platform| {
        attached(platform) == 1 && is(platform, "running")
    });
    stage.same("after");
}

/// A project that is ready, without data; the tenant and what has its data reviewed.
fn prepared(name: &str, policy: (&str, &str)) -> (Stage, String, String) {
    let mut platform = Platform::new(name, &[HOST]);
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let label = [&["label", "namespace", &tenant][..], &LABELS[..]].concat();
    platform.world.run(OFFICE, &label).accepted();
    let (provider, manifest) = with_data(&mut platform, &tenant, policy);
    let manifest = if policy == OPEN { manifest } else { without_data(&tenant) };
    platform.world.create(LEAD, &manifest).accepted();
    platform.ready(&tenant, PROJECT);
    (Stage::new(platform, &[HOST]), tenant, provider)
}

const OPEN: (&str, &str) = ("open-2026", "open-2026");
const REVIEWED: (&str, &str) = (
    "  where:",
    "  prerequisites: {approvals: [user]}\n  review: {required: true, quorum: {approvals: 2, distinctOrgs: 2}}\n  where:",
);

#[test]
fn whatever_fails_while_a_project_is_edited_the_end_is_the_clean_runs() {
    let (mut stage, tenant, provider) = prepared("edit-faults", REVIEWED);
    stage.run(&Matrix::of("volumes", 6), &mut |stage| volumes(stage, &tenant));
    stage.run(&Matrix::of("data", 6), &mut |stage| data(stage, &tenant, &provider));
}

#[test]
fn whatever_fails_when_a_window_ends_or_power_is_lost_the_end_is_the_clean_runs() {
    let (mut stage, tenant, _) = prepared("window-faults", OPEN);
    stage.run(&Matrix::of("window", 4), &mut |stage| window(stage, &tenant));
    let power_cut = Matrix {
        restarted: &[HOST],
        // What the host has made good it says in the end; what it was like meanwhile may have been seen or not.
        perhaps: &["write isolatedproject/", "write hostplan/status", "announce event/"],
        ..Matrix::of("power", 4)
    };
    stage.run(&power_cut, &mut power);
}
