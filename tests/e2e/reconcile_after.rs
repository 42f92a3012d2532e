//! After the end of a project's period: everything stops, volumes and keys stay for a while, and then they go with a receipt,
//! while the object stays.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, OFFICE, without_data};
use serde_json::Value;

use crate::reconcile_ends::in_seconds;
use crate::recover_faults::with_data;

const HOST: &str = "host-p";
const NAME: &str = "liver-ct";

/// What the host has of its project: how many shards are attached, and how its machine is.
fn machine(platform: &Platform) -> (usize, String) {
    let remembered = platform.remembered(HOST);
    let project = remembered["projects"].as_object().and_then(|all| all.values().next().cloned());
    let domain = project.unwrap_or_default()["domains"]["train"].clone();
    let shards = domain["shards"].as_array().map_or(0, Vec::len);
    (shards, domain["state"].as_str().unwrap_or_default().to_owned())
}

fn ends(platform: &Platform, tenant: &str, until: &str) {
    let patch = format!(r#"[{{"op":"replace","path":"/spec/period/until","value":"{until}"}}]"#);
    platform.world.patch(LEAD, tenant, "isolatedproject", NAME, &patch).accepted();
}

fn ready(platform: &Platform, tenant: &str) -> (String, String, String) {
    platform.condition(tenant, "isolatedproject", NAME, "Ready")
}

fn key(platform: &Platform, uid: &str) -> bool {
    let keys = platform.keys.run(&["list", "transit/keys"], None).unwrap_or_default();
    keys.contains(&format!("project-{uid}"))
}

/// The states of the project's receipts in the ledger.
fn receipts(platform: &Platform, uid: &str) -> Vec<String> {
    let (_, list) = platform.ask(OFFICE, "GET", "/api/v1/receipts", None);
    let all = list["items"].as_array().cloned().unwrap_or_default();
    let own = all.iter().filter(|signed| signed["receipt"]["project"]["uid"] == uid);
    own.filter_map(|signed| signed["receipt"]["state"].as_str().map(str::to_owned))
        .collect()
}

/// How often an event with this reason was written about `Terminating`.
fn announced(platform: &Platform, tenant: &str, reason: &str) -> usize {
    let listed = platform
        .world
        .run(ADMIN, &["get", "events.events.k8s.io", "-n", tenant, "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed.accepted()).unwrap();
    let all = listed["items"].as_array().cloned().unwrap_or_default();
    let of = |event: &&Value| event["action"] == "Terminating" && event["reason"] == reason;
    all.iter().filter(of).count()
}

#[test]
fn a_project_whose_period_has_ended_is_held_for_the_retention_then_destroyed_with_a_receipt_while_the_object_stays() {
    let mut platform = Platform::new("after-end", &[HOST]);
    let site = platform.dir().join("site.yaml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, format!("{text}retention: PT20S\n")).unwrap();
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let (_, manifest) = with_data(&mut platform, &tenant, ("open-2026", "open-2026"));
    platform.world.create(LEAD, &manifest).accepted();
    let running = (1, "running".to_owned());
    platform.within(60, "the control: its machine runs with its data", || machine(&platform) == running);
    platform.ready(&tenant, NAME);
    let object = platform.world.get(&tenant, "isolatedproject", NAME);
    let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();

    // Its period ends: nobody has to order anything.
    ends(&platform, &tenant, &in_seconds(2).0);
    platform.within(30, "its machine is stopped and its mount ended", || {
        machine(&platform) == (0, "shutoff".to_owned())
    });
    platform.eventually("it says so, and what to do", || {
        let (status, reason, message) = ready(&platform, &tenant);
        status == "False" && reason == "PeriodEnded" && message.contains("stay until") && message.contains("spec.period.until")
    });
    assert!(key(&platform, &uid), "volumes and keys stay");
    assert_eq!(announced(&platform, &tenant, "DestructionWithin1Day"), 1, "notice was given, once");

    // A longer period brings it back, and the data is judged anew.
    ends(&platform, &tenant, "2027-03-31");
    platform.within(30, "its machine runs again, with its data", || machine(&platform) == running);
    platform.ready(&tenant, NAME);

    // It ends for good: its host is silent, and the key goes all the same.
    platform.stop(HOST);
    ends(&platform, &tenant, &in_seconds(0).0);
    platform.within(60, "its key is destroyed", || !key(&platform, &uid));
    platform.eventually("a partial receipt", || receipts(&platform, &uid) == ["partial"]);
    let held = |platform: &Platform| platform.world.get("default", "host", HOST)["status"]["heldBy"]["uid"] == uid;
    assert!(held(&platform), "a host that has not confirmed is nobody else's");
    ends(&platform, &tenant, "2027-03-31");
    platform.start_host(HOST, None);
    platform.within(45, "the receipt is final", || {
        receipts(&platform, &uid).contains(&"final".to_owned())
    });
    platform.eventually("the object says that it is over and where the receipt is", || {
        let (_, reason, message) = ready(&platform, &tenant);
        let map = format!("ConfigMap receipt-{NAME}-{}", &uid[..8]);
        reason == "PeriodEnded" && message.contains(&map) && message.contains("may be deleted")
    });
    let object = platform.world.get(&tenant, "isolatedproject", NAME);
    assert!(object["metadata"]["finalizers"].is_null() && object["metadata"]["deletionTimestamp"].is_null());
    assert!(!held(&platform));
    assert_eq!(machine(&platform), (0, String::new()), "nothing is left on the host");

    // The host takes the next one, and the object that is over takes nothing with it.
    let other = without_data(&tenant).replace(&format!("name: {NAME}"), "name: next");
    platform.world.create(LEAD, &other).accepted();
    assert_eq!(platform.ready(&tenant, "next"), HOST);
    let before = receipts(&platform, &uid);
    platform
        .world
        .run(LEAD, &["delete", "isolatedproject", NAME, "-n", &tenant, "--timeout=20s"])
        .accepted();
    assert_eq!(platform.ready(&tenant, "next"), HOST);
    assert_eq!(receipts(&platform, &uid), before, "no second receipt");
    let ended = platform.records().into_iter().filter(|record| {
        let act = &record["act"];
        act["kind"] == "delete" && act["phase"] == "ended" && act["project"]["uid"] == uid
    });
    assert_eq!(ended.count(), 1, "one end on record");
}
