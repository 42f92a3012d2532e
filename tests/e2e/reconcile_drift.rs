//! What somebody does by hand to a machine that runs is seen at once, said, and made good where the plan says how it must be.

use std::time::Instant;

use dejima_lab::{ToStderr, dicom};
use serde_json::Value;

use crate::running::{PROJECT, Running, digests};

const HOST: &str = "host-d";
const FIND: &str = "cd /data/ct-mr && find . -type f | LC_ALL=C sort | while read -r file; do sha256sum \"$file\"; done";

/// The elements of the disks of a domain whose files lie here.
fn disks(dump: &str, below: &str) -> Vec<String> {
    let all = dump.split("<disk ").skip(1).filter_map(|rest| rest.split_once("</disk>"));
    all.map(|(disk, _)| format!("<disk {disk}</disk>"))
        .filter(|disk| disk.contains(below))
        .collect()
}

#[test]
fn what_somebody_takes_away_by_hand_is_said_and_comes_back() {
    let running = Running::new("drift", &[HOST], "usagepolicy-open.yaml", 400_000);
    let (platform, sealed) = (&running.platform, digests(&dicom::images(&ToStderr).unwrap()));
    running.apply(&[]);
    running.mounted();
    let (domain, host) = (running.domain("train"), platform.host(HOST));
    let whole = |what: &str| {
        let guest = running.guest(HOST, "train");
        platform.within(60, what, || {
            guest.run(FIND, 30).is_ok_and(|ran| ran.is_success() && ran.output.trim() == sealed)
        });
    };
    whole("the data in the guest");
    let drifted = || platform.condition(&running.tenant, "isolatedproject", PROJECT, "Drifted");
    assert_ne!(drifted().0, "True", "the control: nobody did anything");
    let shards = || disks(&host.ask(&["dumpxml", &domain], None).unwrap(), "/fetched/shards/");
    let all = shards().len();
    assert!(all >= 3, "{all} shards");
    let mut late = Vec::new();

    // A shard is pulled out: it is back at once, not at the next look in half a minute, and the guest has every file again.
    let begun = Instant::now();
    host.ask(&["detach-device", &domain, "/dev/stdin", "--live"], Some(&shards()[1]))
        .unwrap();
    platform.within(20, "the shard is back", || shards().len() == all);
    late.push(("a shard", begun.elapsed()));
    platform.within(20, "that is said", || {
        let (truth, _, message) = drifted();
        truth == "True" && message.contains("mount/") && message.contains("attached again")
    });
    whole("all of it again");
    let plan: Value = platform.world.get(
        &format!("dejima-host-{HOST}"),
        "hostplan",
        &format!("project-{}", running.project()["metadata"]["uid"].as_str().unwrap()),
    );
    let said = plan["status"]["drift"].as_array().cloned().unwrap_or_default();
    assert!(!said.is_empty() && said.iter().all(|drift| drift["repaired"] == true), "{said:?}");

    // The plug is pulled: the machine is started again, with its data, and that is said.
    let pid = host.domain_pid(&domain);
    let begun = Instant::now();
    host.ask(&["destroy", &domain], None).unwrap();
    platform.within(30, "a new life of the machine", || {
        let next = host.domain_pid(&domain);
        next.is_some() && next != pid
    });
    late.push(("a machine", begun.elapsed()));
    platform.within(20, "that is said too", || {
        let (truth, _, message) = drifted();
        truth == "True" && message.contains("domain/train: it ended")
    });
    platform.within(60, "its shards", || shards().len() == all);
    whole("the data in its new life");

    // A key is left in libvirt's memory, as after a crash, and somebody stops the machine's processors: the key goes, they go on.
    let serial = plan["spec"]["project"]["mounts"][0]["shards"][0]["serial"].as_str().unwrap();
    let parts = [&serial[..8], &serial[8..12], &serial[12..16], &serial[16..20], &serial[20..]];
    let usage = format!("<usage type='volume'><volume>dejima/{serial}</volume></usage>");
    let secret = format!(
        "<secret ephemeral='yes' private='yes'><uuid>{}</uuid>{usage}</secret>",
        parts.join("-")
    );
    host.ask(&["secret-define", "/dev/stdin"], Some(&secret)).unwrap();
    host.ask(&["suspend", &domain], None).unwrap();
    platform.within(20, "the key is forgotten", || {
        let left = host.ask(&["secret-list"], None).unwrap();
        left.trim().is_empty() && drifted().2.contains("its key was left in libvirt's memory")
    });
    platform.within(20, "it goes on", || {
        host.ask(&["domstate", &domain], None).is_ok_and(|state| state.trim() == "running") && drifted().2.contains("it stands still")
    });
    std::fs::write(platform.dir().join("late.txt"), format!("{late:?}\n")).unwrap();
    assert!(late.iter().all(|(_, late)| late.as_secs() < 15), "{late:?}");
}
