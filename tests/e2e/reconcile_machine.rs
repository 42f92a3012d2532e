//! The story on a real machine: it comes up sealed, the data appears in it while it runs, and is gone with the grant.

use dejima_lab::{ToStderr, dicom};
use dejima_tests::{ADMIN, LEAD, PROVIDER};

use crate::running::{PROJECT, Running, digests, stands};

const HOST: &str = "host-m";
const FIND: &str = "cd /data/ct-mr && find . -type f | LC_ALL=C sort | while read -r file; do sha256sum \"$file\"; done";

#[test]
fn data_appears_in_the_running_machine_and_is_gone_with_the_grant() {
    let running = Running::new("machine", &[HOST], "usagepolicy-story.yaml", 400_000);
    let platform = &running.platform;
    let shards = platform.world.get(&running.provider, "dataset", "ct-mr")["status"]["versions"][0]["shards"].clone();
    assert!(shards.as_array().map_or(0, Vec::len) >= 3, "{shards}");
    let user_data = "image: probe, userData: \"#!/bin/sh\\necho canary-of-user-data > /run/told\\n\"}]";
    running.apply(&[("image: probe}]", user_data)]);
    assert_eq!(platform.ready(&running.tenant, PROJECT), HOST);
    let engine = platform.world.get("", "host", HOST)["status"]["engine"].clone();
    assert!(
        engine["versions"]["qemu"]
            .as_str()
            .is_some_and(|version| version.starts_with("10.")),
        "{engine}"
    );

    // Each step is told, as condition and event.
    let described = ["describe", "isolatedproject", PROJECT, "-n", &running.tenant];
    platform.eventually("the events of each step", || {
        let text = platform.world.run(LEAD, &described).text;
        let events = text.rsplit_once("Events:").map(|(_, events)| events.to_owned()).unwrap_or_default();
        ["Placed", "KeysReady", "NetworkSealed", "VolumesReady", "MachinesRunning", "Ready"]
            .iter()
            .all(|step| events.contains(&format!("{step} is True")))
    });

    // It waits for its data; everything else is there. What nobody agreed to is not in the machine.
    let guest = running.guest(HOST, "train");
    let said = |command: &str| guest.succeed(command, 60).unwrap();
    let fails = |command: &str| !guest.run(command, 60).unwrap().is_success();
    platform.within(30, "the volume in the guest", || {
        guest.run("grep -q ' /scratch ' /proc/mounts", 10).unwrap().is_success()
    });
    assert_eq!(said("hostname"), "train");
    assert_eq!(said("cat /run/told"), "canary-of-user-data");
    said("echo canary-of-volume > /scratch/kept; sync; echo canary-of-memory > /run/canary");
    assert!(fails("ls /data/ct-mr/*"), "data before anybody agreed");
    // The host does not answer at its own address, which answers the host itself. (Rule by rule: reconcile_beside.rs.)
    let segment = said("ip -4 -o addr show dev eth0 | awk '{print $4}'");
    let gateway = segment.rsplit_once('.').unwrap().0.to_owned() + ".1";
    let ping = ["busybox", "ping", "-c", "1", "-W", "2", &gateway];
    platform
        .host(HOST)
        .run(&ping, None)
        .expect("the control: it answers the host itself");
    assert!(fails(&format!("ping -c 1 -W 2 {gateway}")), "{gateway}");

    let grant = running.agree();
    running.mounted();
    let sealed = digests(&dicom::images(&ToStderr).unwrap());
    platform.within(30, "the data in the guest", || {
        guest.run("ls /data/ct-mr/CT", 10).unwrap().is_success()
    });
    assert_eq!(said(FIND), sealed, "file for file");
    assert!(
        fails("echo x > /data/ct-mr/new") && fails("rm -rf /data/ct-mr/CT"),
        "data was written"
    );
    assert!(!fails("echo x > /scratch/new"), "the control: the volume is written");

    // A reboot of the machine keeps the volume and brings the data back.
    said("sync; (sleep 1; reboot) >/dev/null 2>&1 &");
    platform.within(60, "a new life of the guest", || {
        guest
            .run("[ ! -e /run/canary ] && cat /scratch/kept && ls /data/ct-mr/CT", 10)
            .is_ok_and(|ran| ran.is_success())
    });
    assert_eq!(said("cat /scratch/kept"), "canary-of-volume");
    assert_eq!(said(FIND), sealed, "after the reboot");
    said("echo canary-of-memory > /run/canary; echo canary-of-volume-2 > /scratch/kept2; sync");

    // Nothing of it lies on the host's disk, and the same search finds it in a file that is not encrypted.
    let uid = running.project()["metadata"]["uid"].as_str().unwrap().to_owned();
    let volume = platform.volumes(HOST).join(&uid).join("work.luks");
    let wrapped = running.wrapped_key(HOST, &uid, "work");
    let key = running.open_key(&uid, &wrapped).unwrap();
    let disk = platform.host(HOST).dir().to_path_buf();
    let secrets = ["canary-of-volume", "canary-of-user-data", "canary-of-memory", key.as_str()];
    for secret in secrets {
        assert!(!stands(secret, &disk), "`{secret}` lies on the host's disk");
        std::fs::write(disk.join("control"), format!("....{secret}....")).unwrap();
        assert!(stands(secret, &disk), "the control: the same search finds `{secret}`");
        std::fs::remove_file(disk.join("control")).unwrap();
    }

    // The grant is revoked: an uncached read fails within a second, the disk is gone, the rest goes on.
    let reader = "file=$(find /data/ct-mr -type f -size +100k | head -1); (while dd if=$file of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done; \
                  cat /proc/uptime > /run/failed) >/dev/null 2>&1 &";
    let clock = |text: &str| text.split_whitespace().next().unwrap().parse::<f64>().unwrap();
    said(reader);
    // The guest's clock, in seconds; what the look itself and the command take is taken off.
    let begun = std::time::Instant::now();
    let revoked = clock(&said("cat /proc/uptime"));
    running.says(PROVIDER, &["grant", "revoke", &grant, "--reason", "asked to"]);
    let asked = begun.elapsed();
    platform.within(10, "the read fails", || guest.run("cat /run/failed", 10).unwrap().is_success());
    let late = clock(&said("cat /run/failed")) - revoked - asked.as_secs_f64();
    std::fs::write(
        platform.dir().join("revoked.txt"),
        format!("{late:.2} s after the command had returned\n"),
    )
    .unwrap();
    assert!(late < 1.0, "the read went on for {late} s");
    platform.within(10, "the disks are gone", || {
        said("ls /sys/block | grep -c '^sd' || true").parse::<u32>().unwrap() <= 3
    });
    assert!(fails("ls /data/ct-mr/CT"));
    assert_eq!(said("cat /scratch/kept"), "canary-of-volume", "the rest goes on");
    platform.eventually("said", || {
        running.project()["status"]["datasets"][0]["reasons"][0]["code"] == "Revoked"
    });

    // The project goes, and with it everything; what a thief kept is noise.
    let kept = platform.dir().join("thief.luks");
    std::fs::copy(&volume, &kept).unwrap();
    assert!(crate::reconcile_network::opens(&kept, &key), "the control: it opens with its key");
    let delete = ["delete", "isolatedproject", PROJECT, "-n", &running.tenant, "--timeout=60s"];
    platform.world.run(LEAD, &delete).accepted();
    assert_eq!(platform.host(HOST).ask(&["list", "--all", "--name"], None).unwrap().trim(), "");
    assert!(
        !volume.exists() && running.open_key(&uid, &wrapped).is_none(),
        "the key can still be opened"
    );
    let fetched = platform.host(HOST).images().join("fetched/shards");
    assert_eq!(std::fs::read_dir(fetched).unwrap().count(), 0, "copies of its shards are left");
    let links = platform.host(HOST).run(&["ip", "-brief", "link"], None).unwrap();
    assert!(!links.contains("djb") && !links.contains("djt"), "{links}");
    assert!(platform.world.get("", "host", HOST)["status"]["heldBy"].is_null());
    assert_eq!(
        platform
            .world
            .run(ADMIN, &["get", "hostplans", "-A", "-o", "name"])
            .accepted()
            .matches("project")
            .count(),
        0
    );
    // After a power cut of the host the same search finds nothing either.
    let mut running = running;
    running.platform.stop(HOST);
    running.platform.host_mut(HOST).stop().unwrap();
    for secret in secrets {
        assert!(!stands(secret, &disk), "`{secret}` lies on the host's disk after a power cut");
        std::fs::write(disk.join("control"), format!("....{secret}....")).unwrap();
        assert!(stands(secret, &disk), "the control: the same search finds `{secret}`");
        std::fs::remove_file(disk.join("control")).unwrap();
    }
}
