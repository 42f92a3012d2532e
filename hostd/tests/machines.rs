//! Machines: one suite for libvirt and for the driver that remembers. The real one runs inside a host of the lab, where
//! pids, sockets and memory file systems are where a host has them: this test starts itself there again.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code stops where it cannot go on"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dejima_crds::bounded::{Label, Uid};
use dejima_crds::digest;
use dejima_crds::host::{Capacity, EngineKind};
use dejima_crds::host_plan::{DomainPlan, ProjectPlan, ShardPlan, VolumePlan};
use dejima_crds::names;
use dejima_hostd::driver::{Machines, PlainKey, Storage};
use dejima_hostd::fetch::Cache;
use dejima_hostd::libvirt::{Libvirt, Settings};
use dejima_hostd::memory::Memory;
use dejima_hostd::seal::store_path;
use dejima_hostd::volumes::Pool;
use dejima_lab::{Guest, Host, ToStderr, host, packages, run};
use dejima_plan::Seen;
use dejima_plan::host::{DomainSeen, DomainState, definition, map, map_digest};
use dejima_plan::segment::segment;
use dejima_plan::sweep::{self, Kind, Owned, Thing};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStoreExt as _, PutPayload};
use serde_json::json;

const INSIDE: &str = "DEJIMA_TEST_INSIDE";
const MACHINE: &str = "train";

fn of_file(path: &Path) -> String {
    digest::of_bytes(&std::fs::read(path).unwrap()).to_string()
}

/// A plan with one machine, one volume and one shard.
fn plan(kernel: &str, initrd: &str, stored: &str) -> ProjectPlan {
    let uid = Uid::from("7e57ab1e-0000-4000-8000-000000000007");
    let id = |role: &str| names::id(&uid, role).to_string();
    let serial = |role: &str| names::serial(&uid, role);
    let nothing = digest::of_bytes(b"").to_string();
    let image = json!({"name": "probe", "format": "kernel-initrd", "guest": "probe", "kernel": {
        "path": "images/kernel", "digest": kernel, "initrd": "images/initrd", "initrdDigest": initrd, "commandLine": dejima_lab::guest::COMMAND_LINE}});
    let project = json!({
        "of": {"namespace": "osaka", "name": "liver", "uid": uid}, "dedicated": true, "key": "project-p",
        "segment": segment(&uid, &[MACHINE.into()], vec![]),
        "volumes": [{"name": "work", "uid": id("volume/scratch"), "serial": serial("volume/scratch"), "bytes": 16 << 20, "attachTo": MACHINE, "mountPath": "/scratch"}],
        "domains": [{"machine": MACHINE, "uid": id("domain/train"), "power": "running", "cpus": 1, "memoryMiB": 192, "image": image, "userData": "#!/bin/sh\n"}],
        "mounts": [{"dataset": "jichi/ct", "uid": "d-1", "version": 1, "digest": nothing, "policyDigest": nothing, "machines": [MACHINE], "path": "/data", "shards": [
            {"id": "00000000000000aa", "serial": serial("shard/aa"), "digest": nothing, "storedDigest": stored, "key": "k", "wrappedKey": "vault:v1:YQ=="}]}],
    });
    serde_json::from_value(project).unwrap()
}

fn key() -> PlainKey {
    PlainKey::new(format!("{}=", "k".repeat(43)))
}

async fn one(machines: &dyn Machines, uid: &Uid) -> DomainSeen {
    match machines.observe(uid).await {
        Seen::Present(mut all) if all.len() == 1 => all.remove(0),
        other @ (Seen::Present(_) | Seen::Absent | Seen::Unknown) => panic!("one machine was expected: {other:?}"),
    }
}

/// What every driver of machines does.
async fn suite(machines: &dyn Machines, storage: &dyn Storage, plan: &ProjectPlan) {
    let (uid, machine) = (plan.of.uid.clone(), Label::from(MACHINE));
    let (domain, volume, shard): (&DomainPlan, _, &ShardPlan) = (&plan.domains[0], &plan.volumes[0], &plan.mounts[0].shards[0]);
    let more = VolumePlan {
        name: "more".into(),
        serial: names::serial(&uid, "volume/more").as_str().into(),
        attach_to: None,
        ..volume.clone()
    };
    for volume in [volume, &more] {
        storage.keep_key(&uid, volume, &"vault:v1:YQ==".into()).await.unwrap();
        storage.format(&uid, volume, &key()).await.unwrap();
    }
    assert_eq!(machines.observe(&uid).await, Seen::Absent);
    assert!(machines.capacity().await.unwrap().0.memory > 1 << 30);
    // It is defined once; the digest of what it was defined from is found again.
    machines.define(plan, domain).await.unwrap();
    machines.define(plan, domain).await.unwrap();
    let fresh = one(machines, &uid).await;
    assert_eq!((fresh.state, fresh.definition), (DomainState::Shutoff, definition(plan, domain)));
    let own = |thing: &Thing| matches!(thing, Thing::Domain(of, name) if *of == uid && *name == machine);
    assert!(machines.list_owned().await.things.iter().any(own));
    assert!(
        machines.resume(&uid, &machine).await.is_err(),
        "a machine that is off does not go on"
    );
    machines.give_key(&uid, &volume.serial, &key()).await.unwrap();
    machines.start_paused(plan, domain).await.unwrap();
    machines.start_paused(plan, domain).await.unwrap();
    assert_eq!(one(machines, &uid).await.state, DomainState::Paused);
    // The map of mounts is replaced.
    let (empty, full) = (vec![], map(plan, &machine, "2026-11-24T00:00:00Z".parse().unwrap()));
    for told in [&full, &empty, &full, &full] {
        machines.tell(&uid, &machine, told).await.unwrap();
        assert_eq!(one(machines, &uid).await.map, Some(map_digest(told)));
    }
    machines.resume(&uid, &machine).await.unwrap();
    machines.resume(&uid, &machine).await.unwrap();
    assert_eq!(one(machines, &uid).await.state, DomainState::Running);
    // A volume that has grown is seen whole once that is asked for.
    let sizes = |all: &[(&str, u64)]| all.iter().map(|(name, bytes)| ((*name).into(), *bytes)).collect();
    let larger = VolumePlan {
        bytes: 32 << 20,
        ..volume.clone()
    };
    storage.grow(&uid, &larger).await.unwrap();
    assert_eq!(one(machines, &uid).await.volumes, sizes(&[("work", 16 << 20)]));
    machines.resize_volume(&uid, &machine, &larger).await.unwrap();
    machines.resize_volume(&uid, &machine, &larger).await.unwrap();
    assert_eq!(one(machines, &uid).await.volumes, sizes(&[("work", 32 << 20)]));
    // Another one comes with its key alone, and goes.
    assert!(machines.resize_volume(&uid, &machine, &more).await.is_err(), "it is not there");
    assert!(
        machines.attach_volume(&uid, &machine, &more).await.is_err(),
        "attached without a key"
    );
    machines.give_key(&uid, &more.serial, &key()).await.unwrap();
    machines.attach_volume(&uid, &machine, &more).await.unwrap();
    assert_eq!(one(machines, &uid).await.volumes, sizes(&[("more", 16 << 20), ("work", 32 << 20)]));
    machines.detach_volume(&uid, &machine, &more.name).await.unwrap();
    machines.detach_volume(&uid, &machine, &more.name).await.unwrap();
    assert_eq!(one(machines, &uid).await.volumes, sizes(&[("work", 32 << 20)]));
    // A shard comes once it was fetched and with its key alone, and goes.
    machines.give_key(&uid, &shard.serial, &key()).await.unwrap();
    assert!(
        machines.attach(&uid, &machine, shard).await.is_err(),
        "attached, and nobody fetched it"
    );
    machines.sweep(&Thing::Secret(shard.serial.clone())).await.unwrap();
    machines.fetch(shard).await.unwrap();
    assert!(machines.attach(&uid, &machine, shard).await.is_err(), "attached without a key");
    assert!(one(machines, &uid).await.shards.is_empty());
    machines.give_key(&uid, &shard.serial, &key()).await.unwrap();
    machines.attach(&uid, &machine, shard).await.unwrap();
    assert_eq!(one(machines, &uid).await.shards, [shard.serial.clone()].into());
    let (fetched, attached) = (
        Thing::Fetched(shard.stored_digest.clone()),
        Thing::Attached(shard.stored_digest.clone()),
    );
    let owned = machines.list_owned().await;
    assert!(owned.things.contains(&fetched) && owned.things.contains(&attached), "{owned:?}");
    machines.detach(&uid, &machine, &shard.serial).await.unwrap();
    machines.detach(&uid, &machine, &shard.serial).await.unwrap();
    let after = one(machines, &uid).await;
    assert_eq!((after.shards.len(), after.state), (0, DomainState::Running), "the rest goes on");
    // The end.
    machines.destroy(&uid, &machine).await.unwrap();
    machines.destroy(&uid, &machine).await.unwrap();
    let off = one(machines, &uid).await;
    assert_eq!((off.state, off.map), (DomainState::Shutoff, None));
    machines.undefine(&uid, &machine).await.unwrap();
    machines.undefine(&uid, &machine).await.unwrap();
    assert_eq!(machines.observe(&uid).await, Seen::Absent);
    for volume in [volume, &more] {
        storage.remove(&uid, &volume.name).await.unwrap();
    }
    // What nobody needs is found, and swept; what holds data no driver sweeps.
    machines.give_key(&uid, &shard.serial, &key()).await.unwrap();
    let left = machines.list_owned().await;
    assert_eq!(left, Owned::found([Thing::Secret(shard.serial.clone()), fetched]));
    for thing in &left.things {
        machines.sweep(thing).await.unwrap();
        machines.sweep(thing).await.unwrap();
    }
    assert_eq!(machines.list_owned().await, Owned::default());
    assert!(machines.sweep(&Thing::Domain(uid.clone(), machine.clone())).await.is_err());
}

#[tokio::test]
async fn machines_that_are_remembered_behave_as_real_ones_do() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = Capacity {
        memory: 2 << 30,
        ..Capacity::default()
    };
    let memory = Memory::new(dir.path(), capacity, EngineKind::Memory)
        .unwrap()
        .beside_real_networks();
    let nothing = digest::of_bytes(b"").to_string();
    suite(&memory, &memory, &plan(&nothing, &nothing, &nothing)).await;
}

/// The drivers of the host that this process is in.
async fn drivers(dir: &Path, uri: &str) -> (Libvirt, Pool, ProjectPlan) {
    let store = Arc::new(LocalFileSystem::new_with_prefix(dir).unwrap());
    let sealed = dir.join("sealed");
    std::fs::write(&sealed, vec![0; 4 << 20]).unwrap();
    let mut format = Command::new("cryptsetup");
    format.args([
        "luksFormat",
        "-q",
        "--type",
        "luks1",
        "--pbkdf-force-iterations",
        "1000",
        "--key-file",
        "-",
    ]);
    run::succeed(format.arg(&sealed), Some(key().as_bytes())).unwrap();
    let stored = of_file(&sealed);
    let put = PutPayload::from(std::fs::read(&sealed).unwrap());
    store.put(&store_path(&stored.as_str().into()), put).await.unwrap();
    let plan = plan(&of_file(&dir.join("images/kernel")), &of_file(&dir.join("images/initrd")), &stored);
    let pool = Pool::new(&dir.join("volumes")).unwrap();
    let cache = Cache::new(&dir.join("fetched"), store).unwrap();
    let settings = Settings {
        uri: uri.to_owned(),
        run: "/run/dejima".into(),
        pids: "/run/libvirt/qemu".into(),
        kvm: false,
    };
    (Libvirt::new(settings, cache, pool.clone()).unwrap(), pool, plan)
}

/// Runs inside the host.
#[tokio::test]
async fn inside() {
    let Some(dir) = std::env::var_os(INSIDE).map(PathBuf::from) else {
        return;
    };
    let (machines, pool, plan) = drivers(&dir, "qemu:///system").await;
    let ip = |words: &[&str]| run::succeed(Command::new("ip").args(words), None).unwrap();
    ip(&["link", "add", plan.segment.bridge.as_str(), "type", "bridge"]);
    let volume = &plan.volumes[0];
    suite(&machines, &pool, &plan).await;
    pool.keep_key(&plan.of.uid, volume, &"vault:v1:YQ==".into()).await.unwrap();
    pool.format(&plan.of.uid, volume, &key()).await.unwrap();
    assert_eq!(std::fs::read_dir("/run/dejima").unwrap().count(), 0, "something is left in memory");
    let secrets = run::succeed(Command::new("virsh").args(["-q", "secret-list"]), None).unwrap();
    assert_eq!(secrets.trim(), "", "libvirt still has keys");

    // Where libvirt does not answer, a machine is unknown, and it can be ended all the same.
    let (uid, machine, shard) = (&plan.of.uid, &Label::from(MACHINE), &plan.mounts[0].shards[0]);
    for freeze in [false, true] {
        machines.define(&plan, &plan.domains[0]).await.unwrap();
        machines.give_key(uid, &volume.serial, &key()).await.unwrap();
        machines.start_paused(&plan, &plan.domains[0]).await.unwrap();
        machines.resume(uid, machine).await.unwrap();
        machines.fetch(shard).await.unwrap();
        machines.give_key(uid, &shard.serial, &key()).await.unwrap();
        machines.attach(uid, machine, shard).await.unwrap();
        // Somebody edits the definition by hand: it is seen, and what runs goes on.
        assert!(!one(&machines, uid).await.changed, "the control: nobody changed anything");
        let name = run::succeed(Command::new("virsh").args(["-q", "list", "--name"]), None).unwrap();
        let dump = ["-q", "dumpxml", "--inactive", name.trim()];
        let text = run::succeed(Command::new("virsh").args(dump), None).unwrap();
        let edited = text.replace(">196608</", ">262144</");
        assert_ne!(edited, text);
        run::succeed(Command::new("virsh").args(["-q", "define", "/dev/stdin"]), Some(edited.as_bytes())).unwrap();
        let seen = one(&machines, uid).await;
        assert!(seen.changed && seen.state == DomainState::Running);
        let pid = std::fs::read_to_string("/run/libvirt/libvirtd.pid").unwrap();
        let signal = if freeze { "STOP" } else { "KILL" };
        run::succeed(Command::new("kill").args(["-s", signal, pid.trim()]), None).unwrap();
        run::await_until("libvirt is silent", 20, "virsh", || {
            let mut ask = Command::new("timeout");
            run::succeed(ask.args(["1", "virsh", "-q", "list"]), None).is_err()
        })
        .unwrap();
        assert_eq!(machines.observe(uid).await, Seen::Unknown, "{signal}");
        let owned = machines.list_owned().await;
        let known = [
            Thing::Domain(uid.clone(), machine.clone()),
            Thing::Fetched(shard.stored_digest.clone()),
        ];
        assert!(
            owned.unknown.contains(&Kind::Domains) && owned.unknown.contains(&Kind::Secrets),
            "{owned:?}"
        );
        assert!(
            known.iter().all(|thing| owned.things.contains(thing)),
            "what lives and what lies here is known: {owned:?}"
        );
        assert_eq!(sweep::strays(&[], &owned), [], "nothing is swept");
        machines.detach(uid, machine, &shard.serial).await.unwrap();
        let seen = one(&machines, uid).await;
        assert_eq!(
            (seen.state, seen.shards.len()),
            (DomainState::Shutoff, 0),
            "{signal}: it is off beyond doubt"
        );
        if freeze {
            run::succeed(Command::new("kill").args(["-s", "CONT", pid.trim()]), None).unwrap();
        } else {
            run::succeed(Command::new("libvirtd").args(["-d", "-p", "/run/libvirt/libvirtd.pid"]), None).unwrap();
        }
        run::await_until("libvirt answers", 20, "virsh", || {
            run::succeed(Command::new("virsh").args(["-q", "list"]), None).is_ok_and(|list| list.trim().is_empty())
        })
        .unwrap();
        assert_eq!(one(&machines, uid).await.state, DomainState::Shutoff);
        machines.undefine(uid, machine).await.unwrap();
    }
    strays(&machines, &dir).await;
    events(&machines, &plan, volume, &dir).await;
    std::fs::write(dir.join("done"), "").unwrap();
}

/// What is left of work that was cut short is found, and goes; what is somebody else's is not touched.
async fn strays(machines: &Libvirt, dir: &Path) {
    let foreign = "<secret ephemeral='yes' private='yes'><usage type='volume'><volume>/somebody/elses</volume></usage></secret>";
    run::succeed(
        Command::new("virsh").args(["-q", "secret-define", "/dev/stdin"]),
        Some(foreign.as_bytes()),
    )
    .unwrap();
    std::fs::create_dir_all("/run/dejima/p-gone/train").unwrap();
    std::fs::write("/run/dejima/p-gone/train/seed.iso", "a seed").unwrap();
    std::fs::write(dir.join("fetched/shards/aa.part"), "half of a shard").unwrap();
    let owned = machines.list_owned().await;
    let all = sweep::strays(&[], &owned);
    let words: Vec<&str> = all.iter().map(Thing::word).collect();
    assert_eq!(words, ["place", "fetched", "part"], "{owned:?}");
    for thing in &all {
        machines.sweep(thing).await.unwrap();
    }
    assert_eq!(machines.list_owned().await, Owned::default());
    assert_eq!(std::fs::read_dir("/run/dejima").unwrap().count(), 0);
    let secrets = run::succeed(Command::new("virsh").args(["-q", "secret-list"]), None).unwrap();
    assert_eq!(secrets.trim().lines().count(), 1, "somebody else's secret is gone: {secrets}");
}

/// Something happens by somebody else's hand: the bell rings, and rings again after libvirt was started anew.
async fn events(machines: &Libvirt, plan: &ProjectPlan, volume: &VolumePlan, dir: &Path) {
    let uid = &plan.of.uid;
    let virsh = |words: &[&str]| run::succeed(Command::new("virsh").arg("-q").args(words), None).unwrap();
    let mut bell = machines.bell().listen();
    let mut late = Vec::new();
    for restarted in [false, true] {
        if restarted {
            let pid = std::fs::read_to_string("/run/libvirt/libvirtd.pid").unwrap();
            run::succeed(Command::new("kill").args(["-s", "KILL", pid.trim()]), None).unwrap();
            run::await_until("the end of libvirt", 20, "kill", || !Path::new("/proc").join(pid.trim()).exists()).unwrap();
            run::succeed(Command::new("libvirtd").args(["-d", "-p", "/run/libvirt/libvirtd.pid"]), None).unwrap();
        }
        machines.define(plan, &plan.domains[0]).await.unwrap();
        machines.give_key(uid, &volume.serial, &key()).await.unwrap();
        machines.start_paused(plan, &plan.domains[0]).await.unwrap();
        machines.tell(uid, &MACHINE.into(), &[]).await.unwrap();
        machines.resume(uid, &MACHINE.into()).await.unwrap();
        let name = virsh(&["list", "--name"]).trim().to_owned();
        let dump = virsh(&["dumpxml", &name]);
        let map = dump.split("<disk ").find(|disk| disk.contains("dejimamap")).unwrap();
        let disk = format!("<disk {}</disk>", map.split("</disk>").next().unwrap());
        // What rang before, on our own account, is not meant; nor is the moment in which the events are heard again.
        while tokio::time::timeout(Duration::from_secs(3), bell.changed()).await.is_ok() {}
        for hand in ["detach", "destroy", "undefine"] {
            let began = Instant::now();
            match hand {
                "detach" => drop(
                    run::succeed(
                        Command::new("virsh").args(["-q", "detach-device", &name, "/dev/stdin", "--live"]),
                        Some(disk.as_bytes()),
                    )
                    .unwrap(),
                ),
                _ => drop(virsh(&[hand, &name])),
            }
            let rang = tokio::time::timeout(Duration::from_secs(5), bell.changed()).await;
            rang.unwrap_or_else(|_| panic!("nobody heard of `{hand}` (libvirt started anew: {restarted})"))
                .unwrap();
            late.push(began.elapsed());
            while tokio::time::timeout(Duration::from_millis(500), bell.changed()).await.is_ok() {}
        }
        assert_eq!(machines.observe(uid).await, Seen::Absent);
    }
    std::fs::write(dir.join("late"), format!("{late:?}")).unwrap();
    assert!(late.iter().all(|late| *late < Duration::from_secs(2)), "{late:?}");
}

#[test]
fn machines_run_on_libvirt_and_end_without_it() {
    packages::install(&ToStderr).unwrap();
    let guest = Guest::get(&ToStderr).unwrap();
    let platform = format!("test-machines-{}", std::process::id());
    let host = Host::start(&platform, "h1").unwrap();
    let dir = host.images();
    std::fs::create_dir_all(dir.join("images")).unwrap();
    for (from, name) in [(&guest.kernel, "kernel"), (&guest.initrd, "initrd")] {
        std::fs::copy(from, dir.join("images").join(name)).unwrap();
    }
    let mut again = host.command(&std::env::current_exe().unwrap(), host::Network::Host);
    again.args(["inside", "--exact", "--nocapture"]).env(INSIDE, &dir);
    let said = run::succeed(&mut again, None);
    eprintln!(
        "the bell rang after {}",
        std::fs::read_to_string(dir.join("late")).unwrap_or_default()
    );
    let log = std::fs::read_to_string(host.dir().join("log/libvirtd.log")).unwrap_or_default();
    assert!(said.is_ok(), "{}\n{log}", said.unwrap_err());
    assert!(dir.join("done").exists(), "it did not run to its end: {}", said.unwrap());
    host.remove().unwrap();
    std::fs::remove_dir(Path::new("/var/lib/dejima-lab").join(platform)).unwrap();
}
