//! Names: as long as Kubernetes allows, alike when they are shortened, used again, used twice.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, OFFICE, without_data};
use serde_json::Value;

use crate::recover_faults::with_data;
use crate::recover_server::another_dataset;

const HOSTS: [&str; 2] = ["host-m", "host-n"];
const INTAKE: &str = "intake-1";
const SHARED: &str = "  placement: {dedicated: false}\n  period:";

fn named(manifest: &str, name: &str) -> String {
    manifest.replace("name: liver-ct,", &format!("name: {name},"))
}

fn uid(platform: &Platform, tenant: &str, name: &str) -> String {
    let object = platform.world.get(tenant, "isolatedproject", name);
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// What its host has of a project; nothing where none has anything.
fn on_host(platform: &Platform, uid: &str) -> Value {
    let of = |host| platform.remembered(host)["projects"][uid].clone();
    HOSTS.into_iter().map(of).find(|found| !found.is_null()).unwrap_or_default()
}

fn attached(platform: &Platform, machine: &str) -> usize {
    HOSTS.into_iter().map(|host| platform.attached(host, machine)).sum()
}

fn runs(platform: &Platform, uid: &str, machine: &str) -> bool {
    on_host(platform, uid)["domains"][machine]["state"] == "running"
}

/// The names of the final receipts in a namespace.
fn receipts(platform: &Platform, tenant: &str) -> Vec<String> {
    let words = ["get", "configmaps", "-n", tenant, "-l", "dejima.dev/receipt=final", "-o", "name"];
    let listed = platform.world.run(ADMIN, &words).accepted();
    listed.lines().map(str::to_owned).collect()
}

fn delete(platform: &Platform, tenant: &str, name: &str) {
    let words = ["delete", "isolatedproject", name, "-n", tenant, "--timeout=60s"];
    platform.world.run(LEAD, &words).accepted();
}

#[test]
fn names_may_be_long_alike_used_again_and_used_twice() {
    let mut platform = Platform::new("names", &HOSTS);
    platform.start_operator(None);
    for host in HOSTS {
        platform.start_host(host, None);
    }
    let bindings = [("dejima-tenant", "dejima.dev/tenant-osaka")];
    let tenant = "t".repeat(63);
    dejima_lab::World::namespace(&platform.world, &tenant, &bindings).unwrap();
    let other = platform.world.namespace("osaka", &bindings);

    // A dataset, a project, its machine and its volume, each with a name as long as there is; what is cut ends in a hyphen.
    let (provider, manifest) = with_data(&mut platform, &tenant, ("open-2026", "open-2026"));
    let long = format!("{}-{}", "a".repeat(199), "b".repeat(52));
    let (dataset, machine, volume) = (format!("{long}d"), "m".repeat(40), "v".repeat(63));
    another_dataset(&platform, &provider, &dataset);
    platform.start_host(INTAKE, None);
    for claim in ["approval", "agreement"] {
        let attest = platform.dejima(OFFICE, &["attest", "dataset", &format!("{provider}/{dataset}"), claim]);
        assert!(attest.status.success(), "{}", String::from_utf8_lossy(&attest.stderr));
    }
    platform.within(60, "it can be mounted", || {
        platform.condition(&provider, "dataset", &dataset, "Mountable").0 == "True"
    });
    let words = [
        ("name: ct-mr,", format!("name: {dataset},")),
        ("name: train,", format!("name: {machine},")),
        ("attachTo: train,", format!("attachTo: {machine},")),
        ("attachTo: [train]", format!("attachTo: [{machine}]")),
        ("name: work,", format!("name: {volume},")),
    ];
    let manifest = words.iter().fold(manifest, |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    // Two that differ in their last letter alone.
    let (one, two) = (format!("{long}x"), format!("{long}y"));
    for name in [&one, &two] {
        assert_eq!(name.len(), 253);
        platform.world.create(LEAD, &named(&manifest, name)).accepted();
    }
    for name in [&one, &two] {
        platform.within(60, "it is mounted", || {
            let project = platform.world.get(&tenant, "isolatedproject", name);
            project["status"]["summary"]["datasets"] == "1/1" && platform.condition(&tenant, "isolatedproject", name, "Ready").0 == "True"
        });
    }
    let uids = [&one, &two].map(|name| uid(&platform, &tenant, name));
    assert_eq!(attached(&platform, &machine), 2);
    assert!(uids.iter().all(|uid| runs(&platform, uid, &machine)));
    assert!(
        uids.iter()
            .all(|uid| on_host(&platform, uid)["volumes"][&volume]["formatted"] == true)
    );
    let events = [
        "get",
        "events.events.k8s.io",
        "-n",
        &tenant,
        "-o",
        "jsonpath={.items[*].regarding.name}",
    ];
    let told = platform.world.run(ADMIN, &events).accepted();
    assert!(
        [&one, &two].iter().all(|name| told.contains(name.as_str())),
        "what happened to them is told: {told}"
    );

    // One of them goes, and comes again under its name: another project, with nothing of the first.
    delete(&platform, &tenant, &one);
    assert!(
        on_host(&platform, &uids[0]).is_null() && runs(&platform, &uids[1], &machine),
        "the other goes on"
    );
    assert_eq!(receipts(&platform, &tenant).len(), 1);
    platform.world.create(LEAD, &named(&manifest, &one)).accepted();
    platform.within(60, "it is ready again", || {
        platform.condition(&tenant, "isolatedproject", &one, "Ready").0 == "True" && attached(&platform, &machine) == 2
    });
    let again = uid(&platform, &tenant, &one);
    assert_ne!(again, uids[0]);
    assert_ne!(on_host(&platform, &again)["volumes"], Value::Null);
    delete(&platform, &tenant, &two);
    delete(&platform, &tenant, &one);
    let all = receipts(&platform, &tenant);
    assert_eq!(all.len(), 3, "each has a receipt of its own: {all:?}");

    // Two of one name in two namespaces, on one host: what ends one touches nothing of the other.
    let closed = r#"[{"op": "add", "path": "/spec/schedulable", "value": false}]"#;
    platform.world.patch(ADMIN, "", "host", HOSTS[0], closed).accepted();
    for namespace in [&tenant, &other] {
        let twin = named(&without_data(namespace), "twin").replace("  period:", SHARED);
        platform.world.create(LEAD, &twin).accepted();
    }
    for namespace in [&tenant, &other] {
        assert_eq!(platform.ready(namespace, "twin"), HOSTS[1]);
    }
    let twins = [&tenant, &other].map(|namespace| uid(&platform, namespace, "twin"));
    let before = on_host(&platform, &twins[1]);
    delete(&platform, &tenant, "twin");
    assert!(on_host(&platform, &twins[0]).is_null());
    assert!(runs(&platform, &twins[1], "train") && on_host(&platform, &twins[1])["volumes"] == before["volumes"]);
    assert_eq!(platform.condition(&other, "isolatedproject", "twin", "Ready").0, "True");
    assert_eq!((receipts(&platform, &tenant).len(), receipts(&platform, &other).len()), (4, 0));
    delete(&platform, &other, "twin");
    for host in HOSTS {
        assert_eq!(platform.remembered(host)["projects"], serde_json::json!({}));
    }
}
