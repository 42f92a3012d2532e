//! Ends that nobody has to order: a window's end while operator and API are stopped, with libvirt and without it; and a
//! guest that does not take part.

use dejima_tests::{ADMIN, LEAD, OFFICE, PROVIDER};

use crate::running::{Console, PROJECT, Running, domain_of, stands};

const HOSTS: [&str; 2] = ["host-x", "host-y"];

/// A moment so many seconds from now, as specs have it; and the seconds since 1970.
pub(crate) fn in_seconds(seconds: u64) -> (String, u64) {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let moment = format!("@{}", now + seconds);
    let mut date = std::process::Command::new("date");
    let said = date.args(["-u", "-d", &moment, "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    (String::from_utf8(said.stdout).unwrap().trim().to_owned(), now + seconds)
}

fn now() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

#[test]
fn a_window_ends_by_itself_with_operator_and_api_stopped_and_without_libvirt() {
    let mut running = Running::new("ends", &HOSTS, "usagepolicy-open.yaml", 400_000);
    let mut domains = Vec::new();
    // Of what is created within one second the first by name is the eldest: the last of these waits.
    for name in ["one", "two", "waits"] {
        let named = format!("name: {name}, namespace: osaka-radiology");
        let changes = [("name: liver-ct, namespace: osaka-radiology", named.as_str())];
        running.apply(&changes);
    }
    // Two run side by side, each on a host of its own; the third waits and says for what.
    for name in ["one", "two"] {
        running.platform.within(60, &format!("{name} is mounted"), || {
            running.platform.world.get(&running.tenant, "isolatedproject", name)["status"]["summary"]["datasets"] == "1/1"
        });
        let project = running.platform.world.get(&running.tenant, "isolatedproject", name);
        let host = project["status"]["summary"]["host"].as_str().unwrap().to_owned();
        domains.push((host, domain_of(&project, "train")));
    }
    assert_ne!(domains[0].0, domains[1].0);
    let (placed, reason, why) = running.platform.condition(&running.tenant, "isolatedproject", "waits", "Placed");
    assert_eq!(placed, "False", "{reason}: {why}");
    assert!(HOSTS.iter().all(|host| why.contains(host)), "{why}");
    let guests: Vec<_> = domains.iter().map(|(host, domain)| running.look_into(host, domain)).collect();
    running.platform.within(30, "the data in both guests", || {
        guests.iter().all(|guest| guest.run("ls /data/ct-mr/CT", 20).unwrap().is_success())
    });

    // Their windows are made to end soon: the hosts know when. Then nobody but the hosts is left, and one of them has no libvirt.
    let (until, end) = in_seconds(30);
    let sooner = format!(r#"[{{"op":"replace","path":"/spec/period/until","value":"{until}"}}]"#);
    for (name, (host, _)) in ["one", "two"].iter().zip(&domains) {
        let world = &running.platform.world;
        world.patch(LEAD, &running.tenant, "isolatedproject", name, &sooner).accepted();
        let plans = ["get", "hostplans", "-n", &format!("dejima-host-{host}"), "-o", "json"];
        running
            .platform
            .within(20, "the host knows the end", || world.run(ADMIN, &plans).text.contains(&until));
    }
    for part in ["operator", "dejima-api"] {
        running.platform.stop(part);
    }
    let (with, without) = (&domains[0].0, &domains[1].0);
    running.platform.host_mut(without).stop_libvirt(false).unwrap();
    let disks = || {
        let listed = running.platform.host(with).ask(&["domblklist", &domains[0].1], None).unwrap();
        listed.matches("/fetched/shards/").count()
    };
    let lives = || running.platform.host(without).domain_pid(&domains[1].1).is_some();
    assert!(
        now() < u64_seconds(end),
        "the machine was too slow to see the end: {} s late",
        now() - u64_seconds(end)
    );
    assert!(disks() > 0 && lives(), "the control: before the end both have the data");
    let mut late = [0.0; 2];
    running.platform.within(60, "the end of both mounts", || {
        let over = [disks() == 0, !lives()];
        for (late, over) in late.iter_mut().zip(over) {
            if over && *late == 0.0 {
                *late = now() - u64_seconds(end);
            }
        }
        over == [true, true]
    });
    std::fs::write(running.platform.dir().join("late.txt"), format!("{late:?} s\n")).unwrap();
    assert!(
        late.iter().all(|late| (0.0..8.0).contains(late)),
        "the mounts ended {late:?} s after their end"
    );
    // What the guest has in its own memory goes with its mount, a moment after the disk.
    running.platform.within(20, "the guest sees it", || {
        !guests[0].run("ls /data/ct-mr/CT", 20).unwrap().is_success()
    });
    assert!(
        guests[0].run("grep -q ' /scratch ' /proc/mounts", 20).unwrap().is_success(),
        "the rest goes on"
    );

    // Everybody is back: what ended is said, and everything can be deleted.
    running.platform.host_mut(without).start_libvirt().unwrap();
    running.platform.start_api();
    running.platform.start_operator(None);
    running.platform.within(60, "the ends are on record", || {
        let (_, answer) = running.platform.ask(OFFICE, "GET", "/api/v1/records?count=1000", None);
        let records = answer["records"].as_array().cloned().unwrap_or_default();
        let ended = records
            .iter()
            .filter(|record| record["act"]["kind"] == "mount" && record["act"]["phase"] == "ended");
        ended.count() == 2
    });
    for name in ["waits", "two", "one"] {
        let delete = ["delete", "isolatedproject", name, "-n", &running.tenant, "--timeout=60s"];
        running.platform.world.run(LEAD, &delete).accepted();
    }
    assert_eq!(
        running
            .platform
            .world
            .run(ADMIN, &["get", "isolatedprojects", "-A", "-o", "name"])
            .accepted(),
        ""
    );
}

#[expect(clippy::cast_precision_loss, reason = "seconds of this century are exact")]
fn u64_seconds(seconds: u64) -> f64 {
    seconds as f64
}

#[test]
fn a_guest_that_does_no_hot_plug_loses_its_data_just_as_fast() {
    let mut running = Running::new("hostile", &["host-h"], "usagepolicy-story.yaml", 1 << 40);
    running.apply(&[("image: probe}]", "image: probe-hostile}]")]);
    running.platform.ready(&running.tenant, PROJECT);
    let grant = running.agree();
    running.mounted();
    let mut console = Console::open(&running, "host-h", "train");
    let mut said = |line: &str| console.run(line, 20);
    running.platform.within(60, "data and volume in the guest", || {
        said("ls /data/ct-mr/CT && grep -q ' /scratch ' /proc/mounts").is_some_and(|(status, _)| status == 0)
    });
    let line = said("cat /proc/cmdline").unwrap().1;
    assert!(line.contains("acpiphp.disable=1"), "{line}");
    let reader = "file=$(find /data/ct-mr -type f -size +100k | head -1); (while dd if=$file of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done; \
                  cat /proc/uptime > /run/failed) >/dev/null 2>&1 & true";
    assert_eq!(said(reader).unwrap().0, 0);
    let clock = |said: Option<(i32, String)>| -> f64 {
        let text = said.unwrap().1;
        let last = text
            .lines()
            .rev()
            .find(|line| line.contains('.') && !line.contains("uptime"))
            .unwrap()
            .to_owned();
        last.split_whitespace().next().unwrap().parse().unwrap()
    };
    let begun = std::time::Instant::now();
    let before = clock(said("cat /proc/uptime"));
    running.says(PROVIDER, &["grant", "revoke", &grant, "--reason", "asked to"]);
    let asked = begun.elapsed().as_secs_f64();
    running.platform.within(10, "the read fails", || {
        said("ls /run/failed").is_some_and(|(status, _)| status == 0)
    });
    let late = clock(said("cat /run/failed")) - before - asked;
    std::fs::write(running.platform.dir().join("revoked.txt"), format!("{late:.2} s\n")).unwrap();
    assert!(late < 1.0, "the read went on for {late} s");
    let domain = running.domain("train");
    let disks = running.platform.host("host-h").ask(&["domblklist", &domain], None).unwrap();
    assert!(!disks.contains("/fetched/shards/") && disks.contains("/volumes/"), "{disks}");
    assert_eq!(said("grep -q ' /scratch ' /proc/mounts").unwrap().0, 0, "the rest goes on");

    // A power cut of the host: nothing of it lies on the disk, and the same search finds it in a file that is not encrypted.
    assert_eq!(
        said("echo canary-of-power-cut > /scratch/kept; echo canary-of-power-cut > /run/kept; sync")
            .unwrap()
            .0,
        0
    );
    let uid = running.project()["metadata"]["uid"].as_str().unwrap().to_owned();
    let key = running.open_key(&uid, &running.wrapped_key("host-h", &uid, "work")).unwrap();
    running.platform.stop("host-h");
    running.platform.host_mut("host-h").stop().unwrap();
    let disk = running.platform.host("host-h").dir().to_path_buf();
    for secret in ["canary-of-power-cut", key.as_str()] {
        assert!(!stands(secret, &disk), "`{secret}` lies on the host's disk");
        std::fs::write(disk.join("control"), format!("....{secret}....")).unwrap();
        assert!(stands(secret, &disk), "the control: the same search finds `{secret}`");
        std::fs::remove_file(disk.join("control")).unwrap();
    }
}
