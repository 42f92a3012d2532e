//! A key server that is sealed while a project is made, while it works, and while it goes.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD};
use serde_json::{Value, json};

use crate::recover_faults::with_data;

const HOST: &str = "host-s";
const PROJECT: &str = "liver-ct";

fn condition(platform: &Platform, tenant: &str, kind: &str) -> (String, String, String) {
    platform.condition(tenant, "isolatedproject", PROJECT, kind)
}

/// Whether the project says by this condition that it waits for a key server that is sealed.
fn waits(platform: &Platform, tenant: &str, kind: &str) -> bool {
    let (status, _, message) = condition(platform, tenant, kind);
    status == if kind == "Terminating" { "True" } else { "Unknown" } && message.contains("the key server, which is sealed")
}

fn plans(platform: &Platform) -> usize {
    let listed = platform
        .world
        .run(ADMIN, &["get", "hostplans", "-n", &format!("dejima-host-{HOST}"), "-o", "name"]);
    listed.accepted().lines().count()
}

/// What the host has of all projects, of this kind: `volumes`, `domains`.
fn things(platform: &Platform, kind: &str) -> Vec<Value> {
    let remembered = platform.remembered(HOST);
    let projects = remembered["projects"].as_object().cloned().unwrap_or_default();
    let of = |project: &Value| {
        project[kind]
            .as_object()
            .into_iter()
            .flat_map(|all| all.values().cloned())
            .collect::<Vec<_>>()
    };
    projects.values().flat_map(of).collect()
}

fn is_formatted(volume: &Value) -> bool {
    volume["formatted"] == true
}

/// How many receipts of this state lie in the tenant's namespace.
fn lying(platform: &Platform, tenant: &str, state: &str) -> usize {
    let label = format!("dejima.dev/receipt={state}");
    let all = platform
        .world
        .run(ADMIN, &["get", "configmaps", "-n", tenant, "-l", &label, "-o", "name"]);
    all.accepted().lines().count()
}

fn is_mounted(platform: &Platform, tenant: &str) -> bool {
    let object = platform.world.get(tenant, "isolatedproject", PROJECT);
    object["status"]["summary"]["datasets"] == "1/1" && platform.attached(HOST, "train") == 1
}

fn delete(platform: &Platform, tenant: &str) {
    let words = ["delete", "isolatedproject", PROJECT, "-n", tenant, "--wait=false"];
    platform.world.run(LEAD, &words).accepted();
}

fn patch(platform: &Platform, tenant: &str, patch: &Value) {
    let world = &platform.world;
    world.patch(LEAD, tenant, "isolatedproject", PROJECT, &patch.to_string()).accepted();
}

#[test]
fn a_sealed_key_server_is_waited_for_and_nothing_is_plain_meanwhile_and_what_ends_ends_without_it() {
    let mut platform = Platform::new("sealed", &[HOST]);
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let (_, manifest) = with_data(&mut platform, &tenant, ("open-2026", "open-2026"));

    // Before the project's key is made: nothing of it is on the host, and it says for whom it waits.
    platform.keys.seal().unwrap();
    platform.world.create(LEAD, &manifest).accepted();
    platform.eventually("it says for whom it waits", || waits(&platform, &tenant, "KeysReady"));
    let (ready, reason, message) = condition(&platform, &tenant, "Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "KeyServerSilent"), "{message}");
    assert_eq!((plans(&platform), things(&platform, "volumes").len()), (0, 0));

    // After it, and before the volume's: the host has its plan, and neither formats anything nor starts anything.
    platform.stop(HOST);
    platform.keys.unseal().unwrap();
    platform.eventually("a plan", || plans(&platform) == 1);
    platform.keys.seal().unwrap();
    platform.start_host(HOST, None);
    platform.eventually("the volume waits", || {
        let (status, _, message) = condition(&platform, &tenant, "VolumesReady");
        status == "False" && message.contains("at the key server")
    });
    assert!(!things(&platform, "volumes").iter().any(is_formatted));
    assert_eq!(things(&platform, "domains").len(), 0);
    platform.keys.unseal().unwrap();
    platform.within(60, "the control: with the key server it is mounted", || {
        is_mounted(&platform, &tenant)
    });
    assert!(things(&platform, "volumes").iter().all(is_formatted) && things(&platform, "volumes").len() == 1);

    // While it works: what it may have no longer goes, what it has stays, what is new waits.
    let wish = platform.world.get(&tenant, "isolatedproject", PROJECT)["spec"]["datasets"].clone();
    platform.keys.seal().unwrap();
    patch(
        &platform,
        &tenant,
        &json!([{"op": "replace", "path": "/spec/datasets", "value": []}]),
    );
    platform.eventually("its mount ends", || platform.attached(HOST, "train") == 0);
    patch(
        &platform,
        &tenant,
        &json!([{"op": "replace", "path": "/spec/datasets", "value": wish}]),
    );
    // Whoever gets as far as asking for a key says so: the operator that opens it to the host, or the host that opens it.
    platform.eventually("it says for whom the mount waits", || {
        let (_, _, mounted) = condition(&platform, &tenant, "DatasetsMounted");
        waits(&platform, &tenant, "KeysReady") || mounted.contains("at the key server")
    });
    assert_eq!(condition(&platform, &tenant, "Ready").0, "True", "what runs goes on");
    assert_eq!(things(&platform, "domains")[0]["state"], "running");
    assert_eq!(platform.attached(HOST, "train"), 0);
    platform.keys.unseal().unwrap();
    platform.within(60, "it is mounted again", || is_mounted(&platform, &tenant));

    // While it goes: machines and mounts go all the same; the finalizer waits, and there is no receipt of a key that is there.
    platform.keys.seal().unwrap();
    delete(&platform, &tenant);
    platform.eventually("nothing is left on the host", || platform.remembered(HOST)["projects"] == json!({}));
    platform.eventually("it says for whom its end waits", || waits(&platform, &tenant, "Terminating"));
    assert!(!platform.gone(&tenant, "isolatedproject", PROJECT));
    assert_eq!((lying(&platform, &tenant, "partial"), lying(&platform, &tenant, "final")), (0, 0));
    platform.keys.unseal().unwrap();
    platform.within(60, "it is gone", || platform.gone(&tenant, "isolatedproject", PROJECT));
    assert_eq!((lying(&platform, &tenant, "partial"), lying(&platform, &tenant, "final")), (0, 1));

    // Sealed between the two receipts: the partial one stands until the final one can be signed.
    platform.world.create(LEAD, &manifest).accepted();
    platform.within(60, "another of that name is mounted", || is_mounted(&platform, &tenant));
    platform.stop(HOST);
    delete(&platform, &tenant);
    platform.eventually("a partial receipt", || lying(&platform, &tenant, "partial") == 1);
    platform.keys.seal().unwrap();
    platform.start_host(HOST, None);
    platform.eventually("nothing is left on the host", || platform.remembered(HOST)["projects"] == json!({}));
    platform.eventually("it says for whom its receipt waits", || waits(&platform, &tenant, "Terminating"));
    assert!(!platform.gone(&tenant, "isolatedproject", PROJECT));
    assert_eq!((lying(&platform, &tenant, "partial"), lying(&platform, &tenant, "final")), (1, 1));
    platform.keys.unseal().unwrap();
    platform.within(60, "it is gone", || platform.gone(&tenant, "isolatedproject", PROJECT));
    assert_eq!((lying(&platform, &tenant, "partial"), lying(&platform, &tenant, "final")), (0, 2));
    let keys = platform.keys.run(&["list", "transit/keys"], None).unwrap();
    assert!(!keys.contains("project-"), "{keys}");
}
