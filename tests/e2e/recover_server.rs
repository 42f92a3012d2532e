//! An API server that is away: what runs goes on and what must end ends; and when it is back, what nobody told is found out.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, PROVIDER, example};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::reconcile_ends::in_seconds;
use crate::recover_faults::with_data;

const HOSTS: [&str; 2] = ["host-v", "host-w"];
const INTAKE: &str = "intake-1";

/// The host of a project once its data is mounted there.
fn mounted_on(platform: &Platform, tenant: &str, name: &str) -> String {
    platform.within(60, &format!("{name} is mounted"), || {
        platform.world.get(tenant, "isolatedproject", name)["status"]["summary"]["datasets"] == "1/1"
    });
    let project = platform.world.get(tenant, "isolatedproject", name);
    let host = project["status"]["summary"]["host"].as_str().unwrap().to_owned();
    assert_eq!(platform.attached(&host, "train"), 1);
    host
}

/// The state of the machine on a host.
fn machine(platform: &Platform, host: &str) -> String {
    let remembered = platform.remembered(host);
    let projects = remembered["projects"].as_object().cloned().unwrap_or_default();
    let state = |project: &Value| project["domains"]["train"]["state"].as_str().map(str::to_owned);
    projects.values().find_map(state).unwrap_or_default()
}

fn entries(folder: &std::path::Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// How often a part was told that what it watched from is gone.
fn told_gone(platform: &Platform, part: &str) -> usize {
    let text = std::fs::read_to_string(platform.log(part)).unwrap_or_default();
    text.lines().filter(|line| line.contains("too old resource version")).count()
}

fn server_answers(platform: &Platform) -> bool {
    platform.world.run(ADMIN, &["get", "--raw", "/readyz"]).accepted
}

/// Another dataset beside that of `with_data`, under the same policy; its intake host is started by whoever wants it sealed.
pub(crate) fn another_dataset(platform: &Platform, provider: &str, name: &str) {
    let source = platform.sources(INTAKE).join("jichi/another");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("two.dcm"), b"DICM").unwrap();
    let changes = [
        ("namespace: jichi", format!("namespace: {provider}")),
        ("policyRef: ct-mr-2026", "policyRef: open-2026".to_owned()),
        ("name: ct-mr,", format!("name: {name},")),
        ("path: ct-mr}", "path: another}".to_owned()),
    ];
    let changes: Vec<(&str, &str)> = changes.iter().map(|(from, to)| (*from, to.as_str())).collect();
    platform.world.create(PROVIDER, &example("dataset-story.yaml", &changes)).accepted();
}

#[test]
fn while_the_api_server_is_away_all_goes_on_and_ends_are_kept_and_what_was_missed_is_found_out() {
    let mut platform = Platform::new("away", &HOSTS);
    // It is away for longer than hosts are taken for alive without a sign, as if it were minutes.
    let site = platform.dir().join("site.yaml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, format!("{text}hostLeaseSeconds: 15\n")).unwrap();
    platform.start_operator(None);
    for host in HOSTS {
        platform.start_host(host, None);
    }
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let (provider, manifest) = with_data(&mut platform, &tenant, ("open-2026", "open-2026"));
    let mut hosts = Vec::new();
    for name in ["ends", "stays"] {
        let named = manifest.replace("name: liver-ct", &format!("name: {name}"));
        platform.world.create(LEAD, &named).accepted();
        hosts.push(mounted_on(&platform, &tenant, name));
    }
    let [ends, stays] = hosts.as_slice() else { unreachable!() };

    // A dataset is about to be sealed; one project has an end that comes soon, and its host knows it. Then the API server is gone.
    let faults = json!({"object": "seal/shard", "verb": "seal", "nth": 1, "fate": "hang"});
    platform.start_host(INTAKE, Some(&faults));
    another_dataset(&platform, &provider, "second");
    platform.within(60, "it is about to be sealed", || platform.hangs(INTAKE));
    let shards = platform.image_store().join("shards");
    assert_eq!(entries(&shards), 1);
    let (until, end) = in_seconds(15);
    let sooner = format!(r#"[{{"op":"replace","path":"/spec/period/until","value":"{until}"}}]"#);
    platform.world.patch(LEAD, &tenant, "isolatedproject", "ends", &sooner).accepted();
    let plans = ["get", "hostplans", "-n", &format!("dejima-host-{ends}"), "-o", "json"];
    platform.within(20, "its host knows the end", || {
        platform.world.run(ADMIN, &plans).text.contains(&until)
    });
    platform.world.plane().kill_server();
    assert!(!server_answers(&platform));
    assert_eq!(
        (platform.attached(ends, "train"), platform.attached(stays, "train")),
        (1, 1),
        "the control: before the end both have the data"
    );
    platform.signal(INTAKE, Signal::SIGCONT);
    platform.within(60, "what was being sealed is sealed", || entries(&shards) == 2);
    platform.within(60, "the end is kept", || platform.attached(ends, "train") == 0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(
        (end..end + 10).contains(&now),
        "it ended {} s after its end",
        i128::from(now) - i128::from(end)
    );
    assert_eq!(
        (platform.attached(stays, "train"), machine(&platform, stays).as_str()),
        (1, "running")
    );
    assert!(!server_answers(&platform), "it was away all the time");

    // It is back: hosts were silent for long, nothing of theirs is lost, and what was done meanwhile is said.
    platform.world.plane().start_server().unwrap();
    platform.within(60, "the second dataset is sealed", || {
        platform.condition(&provider, "dataset", "second", "Ingested").0 == "True"
    });
    platform.within(60, "the end is said", || {
        let project = platform.world.get(&tenant, "isolatedproject", "ends");
        project["status"]["summary"]["datasets"] == "0/1" && machine(&platform, ends) == "shutoff"
    });
    platform.within(60, "both hosts live", || {
        HOSTS.iter().all(|host| platform.condition("", "host", host, "Ready").0 == "True")
    });
    platform.within(60, "the end is on record", || {
        let of = |record: &&Value| record["act"]["kind"] == "mount" && record["act"]["phase"] == "ended";
        platform.records().iter().filter(of).count() == 1
    });
    assert_eq!(
        (platform.attached(stays, "train"), machine(&platform, stays).as_str()),
        (1, "running")
    );
    assert_eq!(platform.condition(&tenant, "isolatedproject", "stays", "Ready").0, "True");

    // What was deleted while nobody watched leaves no event behind: an API server that begins anew says that the past is gone
    // (410), and only a fresh list shows what is missing.
    let host_of_stays = stays.as_str();
    let before = ["operator", host_of_stays].map(|part| told_gone(&platform, part));
    for part in ["operator", host_of_stays] {
        platform.signal(part, Signal::SIGSTOP);
    }
    let listed = platform
        .world
        .run(ADMIN, &["get", "attestations", "-n", &provider, "-o", "name"])
        .accepted();
    for attestation in listed.lines() {
        platform.world.run(ADMIN, &["delete", attestation, "-n", &provider]).accepted();
    }
    platform.world.plane().kill_server();
    platform.world.plane().start_server().unwrap();
    assert_eq!(platform.attached(host_of_stays, "train"), 1, "the control: nobody has seen it yet");
    for part in ["operator", host_of_stays] {
        platform.signal(part, Signal::SIGCONT);
    }
    platform.within(25, "what the attestations carried ends", || {
        platform.attached(host_of_stays, "train") == 0
    });
    let after = ["operator", host_of_stays].map(|part| told_gone(&platform, part));
    assert!(
        after[0] > before[0],
        "nobody told the operator that the past is gone: {before:?} {after:?}"
    );
    assert_eq!(machine(&platform, host_of_stays), "running", "its machine goes on");
}
