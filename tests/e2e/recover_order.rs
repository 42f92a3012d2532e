//! Things that come at once, and things that go in whatever order: two projects for the last host, namespaces of everybody, the
//! chart, the definitions. Nothing is stuck, and nothing is destroyed that nobody ordered.

use dejima_lab::{Binaries, ToStderr};
use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, root, without_data};
use serde_json::{Value, json};

use crate::recover_faults::with_data;

const HOST: &str = "host-o";
const INTAKE: &str = "intake-1";
const PROJECT: &str = "liver-ct";

fn space() -> String {
    format!("dejima-host-{HOST}")
}

/// How many projects the host has something of.
fn on_host(platform: &Platform) -> usize {
    platform.remembered(HOST)["projects"].as_object().map_or(0, serde_json::Map::len)
}

/// Formatted volumes and running machines on the host.
fn has(platform: &Platform) -> (usize, usize) {
    let text = platform.remembered(HOST).to_string();
    (text.matches("\"formatted\":true").count(), text.matches("\"running\"").count())
}

fn delete(platform: &Platform, words: &[&str]) {
    let words = [&["delete", "--wait=false"], words].concat();
    platform.world.run(ADMIN, &words).accepted();
}

fn says(platform: &Platform, tenant: &str, kind: &str, what: &str) -> bool {
    platform.condition(tenant, "isolatedproject", PROJECT, kind).2.contains(what)
}

fn receipts(platform: &Platform, of: &str) -> usize {
    let is_final = |record: &&Value| record["act"]["kind"] == "receipt" && record["act"]["phase"] == "ended";
    let about = |record: &&Value| record["act"].to_string().contains(of);
    platform.records().iter().filter(is_final).filter(about).count()
}

fn uid(platform: &Platform, namespace: &str, kind: &str, name: &str) -> String {
    let object = platform.world.get(namespace, kind, name);
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn keys(platform: &Platform, of: &str) -> usize {
    let keys = platform.keys.run(&["list", "transit/keys"], None).unwrap_or_default();
    keys.matches(of).count()
}

/// Two projects come in one moment, and two operators see them: one gets the host, the other waits and gets it next.
fn two_race(platform: &mut Platform, tenant: &str) {
    platform.start_second_operator();
    for round in 0..3 {
        let names = [format!("one-{round}"), format!("two-{round}")];
        std::thread::scope(|scope| {
            for name in &names {
                let world = &platform.world;
                let manifest = without_data(tenant).replace("name: liver-ct", &format!("name: {name}"));
                scope.spawn(move || world.create(LEAD, &manifest).accepted());
            }
        });
        let ready = |name: &str| platform.condition(tenant, "isolatedproject", name, "Ready").0 == "True";
        platform.within(60, "one of them is ready", || names.iter().any(|name| ready(name)));
        platform.within(60, "the other waits", || {
            names
                .iter()
                .any(|name| platform.condition(tenant, "isolatedproject", name, "Placed").1 == "NoHost")
        });
        let (winner, loser) = if ready(&names[0]) { (0, 1) } else { (1, 0) };
        let held = platform.world.get("", "host", HOST)["status"]["heldBy"].clone();
        assert_eq!((held["name"].as_str(), on_host(platform)), (Some(names[winner].as_str()), 1));
        assert!(!ready(&names[loser]));
        for name in [&names[winner], &names[loser]] {
            platform.within(60, &format!("{name} has its turn"), || ready(name));
            assert_eq!(on_host(platform), 1);
            let words = ["delete", "isolatedproject", name, "-n", tenant, "--timeout=60s"];
            platform.world.run(LEAD, &words).accepted();
        }
    }
    platform.stop("operator-2");
}

/// The namespaces of a tenant and of the provider whose data is mounted go at once.
fn namespaces_of_people_go(platform: &mut Platform) {
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let (provider, manifest) = with_data(platform, &tenant, ("open-2026", "open-2026"));
    platform.start_host(INTAKE, None);
    platform.world.create(LEAD, &manifest).accepted();
    platform.within(60, "the control: its data is mounted", || platform.attached(HOST, "train") == 1);
    let (project, dataset) = (
        uid(platform, &tenant, "isolatedproject", PROJECT),
        uid(platform, &provider, "dataset", "ct-mr"),
    );
    assert_eq!((keys(platform, "project-"), keys(platform, "shard-")), (1, 1));
    delete(platform, &["namespace", &provider]);
    delete(platform, &["namespace", &tenant]);
    platform.within(90, "both namespaces are gone", || {
        [&provider, &tenant]
            .iter()
            .all(|space| platform.gone("default", "namespace", space))
    });
    platform.eventually("nothing is left on the host", || on_host(platform) == 0);
    assert_eq!((keys(platform, "project-"), keys(platform, "shard-")), (0, 0));
    assert_eq!(
        (receipts(platform, &project), receipts(platform, &dataset)),
        (1, 1),
        "the ledger has both"
    );
    assert!(platform.world.get("", "host", HOST)["status"]["heldBy"].is_null());
    platform.stop(INTAKE);
}

/// The namespace of a host goes, with the plans and the login of its agent in it: nothing is destroyed; what cannot be carried out
/// says so; and it goes on once an admin has made the host again.
fn the_namespace_of_a_host_goes(platform: &mut Platform, tenant: &str) {
    platform.world.create(LEAD, &without_data(tenant)).accepted();
    platform.ready(tenant, PROJECT);
    assert_eq!(has(platform), (1, 1));
    delete(platform, &["namespace", &space()]);
    platform.within(60, "it is gone", || platform.gone("default", "namespace", &space()));
    platform.within(60, "the project says what is missing", || says(platform, tenant, "Ready", &space()));
    assert_eq!(has(platform), (1, 1), "nobody ordered an end");
    delete(platform, &["isolatedproject", PROJECT, "-n", tenant]);
    platform.within(60, "its end says what is missing", || {
        says(platform, tenant, "Terminating", &space())
    });
    let project = uid(platform, tenant, "isolatedproject", PROJECT);
    assert_eq!(receipts(platform, &project), 0, "nothing is said in the host's name");
    platform.stop(HOST);
    platform.add_host(HOST, "{roles: [machines]}");
    platform.start_host(HOST, None);
    platform.within(60, "it is gone", || platform.gone(tenant, "isolatedproject", PROJECT));
    assert_eq!((on_host(platform), receipts(platform, &project)), (0, 1));
}

/// The chart goes while a project stands, and operator, API, rights and admission with it: nothing that is deleted finishes, nothing
/// is destroyed; with the chart it all goes on.
fn the_chart_goes(platform: &mut Platform, tenant: &str) {
    let helm = Binaries::get(&ToStderr).unwrap().helm;
    platform.world.create(LEAD, &without_data(tenant)).accepted();
    platform.ready(tenant, PROJECT);
    let project = uid(platform, tenant, "isolatedproject", PROJECT);
    for part in ["operator", "dejima-api"] {
        platform.stop(part);
    }
    platform.world.uninstall(&helm).unwrap();
    // The tenant's rights went as well.
    delete(platform, &["isolatedproject", PROJECT, "-n", tenant]);
    let log = platform.log(HOST);
    platform.within(60, "the host has no right to anything", || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains("this host has not said that it lives")
    });
    assert!(!platform.gone(tenant, "isolatedproject", PROJECT));
    assert_eq!((has(platform), keys(platform, &project)), ((1, 1), 1));
    platform.world.install(&helm, &root().join("charts/dejima")).unwrap();
    // What the chart runs has logins of the chart's.
    for name in ["operator", "api"] {
        platform.world.plane().service_account("dejima-system", name).unwrap();
    }
    platform.start_api();
    platform.start_operator(None);
    platform.within(90, "it is gone", || platform.gone(tenant, "isolatedproject", PROJECT));
    assert_eq!(
        (on_host(platform), keys(platform, &project), receipts(platform, &project)),
        (0, 0, 1)
    );
}

/// The definitions go while a project stands: each object is ended first.
fn the_definitions_go(platform: &mut Platform, tenant: &str) {
    platform.world.create(LEAD, &without_data(tenant)).accepted();
    platform.ready(tenant, PROJECT);
    let project = uid(platform, tenant, "isolatedproject", PROJECT);
    delete(platform, &["crd", "isolatedprojects.dejima.dev"]);
    platform.within(90, "the definition is gone", || {
        platform.gone("default", "crd", "isolatedprojects.dejima.dev")
    });
    assert_eq!(
        (on_host(platform), keys(platform, &project), receipts(platform, &project)),
        (0, 0, 1)
    );
    delete(
        platform,
        &["crd", "hostplans.dejima.dev", "hosts.dejima.dev", "datasets.dejima.dev"],
    );
    platform.within(60, "so are the others", || {
        let all = platform.world.run(ADMIN, &["get", "crd", "-o", "name"]).accepted();
        !["hostplans", "hosts", "datasets"]
            .iter()
            .any(|kind| all.contains(&format!("/{kind}.dejima.dev")))
    });
}

#[test]
fn what_comes_at_once_and_what_goes_in_any_order_leaves_nothing_stuck() {
    let mut platform = Platform::new("order", &[HOST]);
    let site = platform.dir().join("site.yaml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, format!("{text}retention: PT5S\n")).unwrap();
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    two_race(&mut platform, &tenant);
    namespaces_of_people_go(&mut platform);
    the_namespace_of_a_host_goes(&mut platform, &tenant);
    the_chart_goes(&mut platform, &tenant);
    the_definitions_go(&mut platform, &tenant);
    assert_eq!(platform.remembered(HOST)["projects"], json!({}));
}
