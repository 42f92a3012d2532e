//! The end of what a provider offers: a dataset is held, then its keys and images go, with a receipt; a policy that something
//! names stays; and a namespace that goes away takes all of it along.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, PROVIDER};
use serde_json::Value;

use crate::recover_faults::with_data;

const HOST: &str = "host-k";
const OPEN: (&str, &str) = ("open-2026", "open-2026");

fn gone(platform: &Platform, namespace: &str, kind: &str, name: &str) -> bool {
    platform.gone(namespace, kind, name)
}

/// How many shards the host has attached.
fn attached(platform: &Platform) -> usize {
    platform.attached(HOST, "train")
}

fn shard_keys(platform: &Platform) -> usize {
    let keys = platform.keys.run(&["list", "transit/keys"], None).unwrap_or_default();
    keys.matches("shard-").count()
}

fn stored(platform: &Platform) -> usize {
    std::fs::read_dir(platform.image_store().join("shards")).map_or(0, Iterator::count)
}

fn delete(platform: &Platform, login: &str, words: &[&str]) {
    let words = [&["delete", "--wait=false"], words].concat();
    platform.world.run(login, &words).accepted();
}

/// The receipts of datasets, as the ledger has them.
fn receipts(platform: &Platform, state: &str) -> Vec<Value> {
    let (_, list) = platform.ask(dejima_tests::OFFICE, "GET", "/api/v1/receipts", None);
    let all = list["items"].as_array().cloned().unwrap_or_default();
    let of_dataset = |signed: &Value| signed["receipt"]["dataset"].is_object() && signed["receipt"]["state"] == state;
    all.into_iter().filter(of_dataset).collect()
}

#[test]
fn a_dataset_that_is_deleted_is_held_then_destroyed_with_a_receipt_and_its_policy_outlives_it() {
    let mut platform = Platform::new("dataset-end", &[HOST]);
    let site = platform.dir().join("site.yaml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, format!("{text}retention: PT30S\n")).unwrap();
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let (provider, manifest) = with_data(&mut platform, &tenant, OPEN);
    platform.world.create(LEAD, &manifest).accepted();
    platform.within(60, "the control: its data is mounted", || attached(&platform) == 1);
    let uid = platform.world.get(&provider, "dataset", "ct-mr")["metadata"]["uid"].clone();

    // A policy that a dataset names stays, and says which.
    delete(&platform, PROVIDER, &["usagepolicy", "open-2026", "-n", &provider]);
    platform.eventually("the policy says what names it", || {
        let (status, reason, message) = platform.condition(&provider, "usagepolicy", "open-2026", "Terminating");
        status == "True" && reason == "Pinned" && message.contains("dataset ct-mr")
    });
    assert_eq!(attached(&platform), 1, "what stands under it goes on");

    // Deleted: the mount ends at once, and everything is still there for a while.
    delete(&platform, PROVIDER, &["dataset", "ct-mr", "-n", &provider]);
    platform.eventually("the mount ends", || attached(&platform) == 0);
    platform.eventually("until when it is held is said", || {
        platform.condition(&provider, "dataset", "ct-mr", "Destroyed").1 == "Held"
    });
    assert_eq!((shard_keys(&platform), stored(&platform)), (1, 1), "it is held");
    assert!(!gone(&platform, &provider, "usagepolicy", "open-2026"));
    let verdict = platform.world.get(&tenant, "isolatedproject", "liver-ct")["status"]["datasets"][0].clone();
    assert_eq!(verdict["verdict"], "deny", "{verdict}");

    // Then its keys go, whoever is silent; the receipt is partial until the intake host has taken the images away.
    platform.within(75, "the keys are destroyed", || shard_keys(&platform) == 0);
    platform.eventually("a partial receipt", || receipts(&platform, "partial").len() == 1);
    assert_eq!(stored(&platform), 1, "the intake host is silent");
    assert!(!gone(&platform, &provider, "dataset", "ct-mr"));
    platform.start_host("intake-1", None);
    platform.within(45, "the dataset is gone", || gone(&platform, &provider, "dataset", "ct-mr"));
    assert_eq!(stored(&platform), 0);
    let last = receipts(&platform, "final");
    assert_eq!(last.len(), 1);
    let receipt = &last[0]["receipt"];
    assert_eq!(receipt["dataset"]["uid"], uid);
    assert_eq!(receipt["shards"].as_array().map(Vec::len), Some(1));
    assert_eq!(receipt["hosts"][0]["host"], "intake-1");
    // It lies beside where the dataset stood, and holds under the platform's key.
    let maps = platform
        .world
        .run(
            ADMIN,
            &["get", "configmaps", "-n", &provider, "-l", "dejima.dev/receipt=final", "-o", "name"],
        )
        .accepted();
    assert!(maps.contains("receipt-ct-mr-"), "{maps}");
    let (holds, said) = platform.verify(LEAD, &last[0].to_string());
    assert!(holds && said.contains("is final") && said.contains("keys of 1 shards"), "{said}");
    platform.eventually("nothing names the policy any more", || {
        gone(&platform, &provider, "usagepolicy", "open-2026")
    });
    let plans = platform
        .world
        .run(ADMIN, &["get", "hostplans", "-n", "dejima-host-intake-1", "-o", "name"]);
    assert_eq!(plans.accepted().trim(), "", "its plan is forgotten");

    // A whole namespace that goes away is held as long, then all of it goes: nothing is stuck.
    let (second, _) = with_data(&mut platform, &tenant, OPEN);
    platform.start_host("intake-1", None);
    delete(&platform, ADMIN, &["namespace", &second]);
    platform.eventually("the dataset is held", || {
        platform.condition(&second, "dataset", "ct-mr", "Destroyed").1 == "Held"
    });
    assert_eq!((shard_keys(&platform), stored(&platform)), (1, 1));
    platform.within(90, "the namespace is gone", || gone(&platform, "default", "namespace", &second));
    assert_eq!((shard_keys(&platform), stored(&platform)), (0, 0));
    assert_eq!(receipts(&platform, "final").len(), 2, "the ledger has the receipt of both");
}
