//! What a machine is told, obeyed by a real guest: the seed at its start, the map of mounts while it runs.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code stops where it cannot go on")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use dejima_crds::host_plan::ProjectPlan;
use dejima_hostd::map::{ANSWER, map_disk, map_serial, write_disk};
use dejima_hostd::seed::seed;
use dejima_lab::{Agent, Guest, Host, Reporter as _, ToStderr, packages, run};
use dejima_plan::host::{MapEntry, MapKind};
use serde_json::json;

const WORK: &str = "7e57ab1e000040008000000000000001";
const OLD: &str = "7e57ab1e000040008000000000000002";
const DEBIAN: &str = "7e57ab1e0000400080000000000000ff";
const SCRIPT: &str = "#!/bin/sh\n# What a tenant writes: \"quotes\", 'more', ]]> and $signs.\necho 'it was'\" obeyed\" >/run/user\n";

/// The serial of the n-th shard.
fn shard(number: usize) -> String {
    format!("7e57ab1e0000400080000000000001{number:02x}")
}

fn plan() -> ProjectPlan {
    serde_json::from_value(json!({
        "of": {"namespace": "lab", "name": "lung", "uid": "p-1"}, "dedicated": false, "key": "k", "volumes": [], "mounts": [],
        "segment": {"bridge": "br0", "cidr": "10.51.0.0/24", "gateway": "10.51.0.254",
            "ports": [{"machine": "scan-1", "tap": "port0", "mac": "52:54:00:51:00:01", "address": "10.51.0.1"}]},
        "domains": [{"machine": "scan-1", "uid": "7e57ab1e-0000-4000-8000-000000000003", "power": "running", "cpus": 1, "memoryMiB": 192,
            "image": {"name": "probe", "format": "kernel-initrd", "guest": "probe"}, "userData": SCRIPT}],
    }))
    .unwrap()
}

/// A host with one running machine; the directory goes with it.
struct Bench {
    host: Host,
    agent: Agent,
    place: PathBuf,
    /// How many disks it was given.
    disks: RefCell<u8>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ended = self.host.stop();
        let _gone = std::fs::remove_dir_all(&self.place);
    }
}

/// A LUN. Its address is said: from the name libvirt would make one on another controller, from the sixteenth on.
fn disk(file: &str, serial: &str, unit: u8, extra: &str) -> String {
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{file}'/><target dev='sd{}' bus='scsi'/>\
         <serial>{serial}</serial>{extra}<address type='drive' controller='0' bus='0' target='0' unit='{unit}'/></disk>",
        char::from(b'a' + unit)
    )
}

impl Bench {
    /// A machine with its seed, one volume that is new and one that is not, neither with a file system.
    fn start() -> Self {
        packages::install(&ToStderr).unwrap();
        let guest = Guest::get(&ToStderr).unwrap();
        let name = format!("test-told-{}", std::process::id());
        let host = Host::start(&name, "h1").unwrap();
        host.run(&["ip", "link", "add", "br0", "type", "bridge"], None).unwrap();
        host.run(&["ip", "addr", "add", "10.51.0.254/24", "dev", "br0"], None).unwrap();
        host.run(&["ip", "link", "set", "br0", "up"], None).unwrap();
        let images = host.images();
        for volume in ["work", "old"] {
            std::fs::write(images.join(volume), vec![0; 48 << 20]).unwrap();
        }
        let plan = plan();
        std::fs::write(host.seen_at("/run/dejima/seed.iso"), seed(&plan, &plan.domains[0]).unwrap()).unwrap();
        let image = |name: &str| images.join(name).display().to_string();
        let disks =
            disk("/run/dejima/seed.iso", "seed", 0, "<readonly/>") + &disk(&image("work"), WORK, 1, "") + &disk(&image("old"), OLD, 2, "");
        let domain = format!(
            "<domain type='qemu'><name>m1</name><uuid>{}</uuid><memory unit='MiB'>192</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{}</kernel><initrd>{}</initrd><cmdline>{}</cmdline></os>\
             <features><acpi/></features><cpu mode='maximum'/><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <controller type='usb' model='none'/><controller type='scsi' index='0' model='virtio-scsi'/>{disks}\
             <interface type='bridge'><mac address='52:54:00:51:00:01'/><source bridge='br0'/><model type='virtio'/></interface>\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
             <serial type='pty'/><memballoon model='none'/>\
             <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>",
            plan.domains[0].uid,
            guest.kernel.display(),
            guest.initrd.display(),
            dejima_lab::guest::COMMAND_LINE
        );
        host.ask(&["define", "/dev/stdin"], Some(&domain)).unwrap();
        host.ask(&["start", "m1"], None).unwrap();
        let agent = Agent::new(&host.uri(), "m1");
        agent.ready(60).unwrap();
        Self {
            host,
            agent,
            place: Path::new("/var/lib/dejima-lab").join(name),
            disks: RefCell::new(3),
        }
    }

    fn said(&self, command: &str) -> String {
        self.agent.succeed(command, 60).unwrap()
    }

    fn fails(&self, command: &str) -> bool {
        !self.agent.run(command, 60).unwrap().is_success()
    }

    /// Attaches a disk for reading; what takes it away again.
    fn attach(&self, file: &str, serial: &str) -> String {
        let unit = self.disks.replace_with(|unit| *unit + 1);
        let lun = disk(file, serial, unit, "<readonly/><shareable/>");
        self.host.ask(&["attach-device", "m1", "/dev/stdin", "--live"], Some(&lun)).unwrap();
        lun
    }

    fn detach(&self, lun: &str) {
        self.host.ask(&["detach-device", "m1", "/dev/stdin", "--live"], Some(lun)).unwrap();
    }

    /// Gives the machine a map: as it is, or torn.
    fn tell(&self, map: &[MapEntry], torn: bool) -> String {
        let mut bytes = map_disk(map, &BTreeSet::from([WORK.to_owned()]));
        if torn {
            bytes[100] ^= 1;
        }
        let file = format!("/run/dejima/map-{}", *self.disks.borrow());
        write_disk(&self.host.seen_at(&file), &bytes).unwrap();
        self.attach(&file, &map_serial(map))
    }

    /// A shard with one file, and the file's digest.
    fn seal(&self, number: usize) -> (String, String) {
        let tree = self.host.images().join(format!("tree-{number}/series"));
        std::fs::create_dir_all(&tree).unwrap();
        let slice = tree.join(format!("slice-{number}.dcm"));
        std::fs::write(&slice, vec![u8::try_from(number).unwrap(); 70_000 + number]).unwrap();
        let image = self.host.images().join(format!("shard-{number}.erofs"));
        run::succeed(Command::new("mkfs.erofs").arg(&image).arg(tree.parent().unwrap()), None).unwrap();
        let said = run::succeed(Command::new("sha256sum").arg(&slice), None).unwrap();
        (image.display().to_string(), said[..64].to_owned())
    }

    /// A disk with the programs of Debian that the script calls, and their libraries.
    fn debian(&self) -> String {
        let (folder, image) = (self.host.images().join("debian"), self.host.images().join("debian.erofs"));
        std::fs::create_dir_all(&folder).unwrap();
        let copy = "for name in dash mount umount tail tr cat sha256sum head rm mkdir mv ln sleep rmdir blkid resize2fs; do \
                    file=$(command -v $name) && cp -L \"$file\" $(ldd \"$file\" | grep -o '/[^ ]*') . || exit; done";
        run::succeed(Command::new("sh").current_dir(&folder).args(["-c", copy]), None).unwrap();
        run::succeed(Command::new("mkfs.erofs").arg(&image).arg(&folder), None).unwrap();
        image.display().to_string()
    }

    /// Whether the guest has said that it did what a map says: it has read all of its disk.
    fn answered(&self, lun: &str) -> bool {
        let target = lun.split("dev='").nth(1).unwrap().split('\'').next().unwrap();
        let said = self.host.ask(&["domblkstat", "m1", target], None).unwrap();
        let read = said.lines().find(|line| line.contains(" rd_bytes ")).unwrap();
        read.split_whitespace().last().unwrap().parse::<u64>().unwrap() >= ANSWER
    }

    fn state(&self) -> String {
        self.said("cat /run/dejima/state 2>/dev/null || true")
    }

    fn log(&self) -> String {
        self.said("cat /run/vendor-data.log")
    }

    /// Waits until the guest is so; says after how long.
    fn until(&self, what: &str, so: impl Fn() -> bool) {
        let begin = Instant::now();
        let late = run::await_until(what, 60, "the guest", so);
        assert!(
            late.is_ok(),
            "{what}: not within 60 s\n{}\n{}{}",
            self.state(),
            self.log(),
            self.said("cat /run/again.log || true")
        );
        ToStderr.say(&format!("{what}: {:?}", begin.elapsed()));
    }
}

fn entry(kind: MapKind, path: &str, serials: &[String]) -> MapEntry {
    MapEntry {
        path: path.to_owned(),
        kind,
        serials: serials.to_vec(),
    }
}

#[test]
fn a_machine_obeys_its_seed_and_its_map_and_formats_only_what_is_new() {
    let bench = Bench::start();
    let work = entry(MapKind::Volume, "/scratch", &[WORK.to_owned()]);
    let old = entry(MapKind::Volume, "/old", &[OLD.to_owned()]);
    let ct = entry(MapKind::Dataset, "/data/ct", &[shard(1), shard(2)]);

    // The seed: who it is, where its port leads, and what the tenant gave.
    bench.until("the tenant's script", || bench.said("cat /run/user || true") == "it was obeyed");
    assert_eq!(bench.said("hostname"), "scan-1");
    assert_eq!(bench.said("ip -4 -o addr show dev eth0 | awk '{print $4}'"), "10.51.0.1/24");
    assert_eq!(bench.said("ip route | awk '$1 == \"default\" {print $3}'"), "10.51.0.254");
    assert_eq!(bench.said("ls /run/seed"), "meta-data\nnetwork-config\nuser-data\nvendor-data");
    assert_eq!(bench.said("cat /run/seed/user-data") + "\n", SCRIPT);
    // A reader that does not know Rock Ridge finds the same files.
    bench.said("cat $(awk '$2 == \"/run/seed\" {print $1}' /proc/mounts) >/run/copy && mkdir /mnt/iso && mount -o loop,ro,norock /run/copy /mnt/iso");
    let rock = |place: &str| !bench.said(&format!("grep ' {place} ' /proc/mounts")).contains("norock");
    assert_eq!((rock("/run/seed"), rock("/mnt/iso")), (true, false));
    assert_eq!(bench.said("ls /mnt/iso"), bench.said("ls /run/seed"));

    // Volumes: what is new is formatted; the same zeros that are not new are left as they are.
    let first = bench.tell(&[old.clone(), work.clone()], false);
    bench.until("the new volume", || bench.state() == format!("volume\t/scratch\t{WORK}"));
    assert!(
        bench.log().contains("volume /old holds no file system, and is not new"),
        "{}",
        bench.log()
    );
    let of = |serial: &str| bench.said(&format!("cut -d' ' -f1 /run/dejima/disk/{serial}"));
    assert_eq!(bench.agent.run(&format!("blkid -p /dev/{}", of(OLD)), 10).unwrap().status, 2);
    assert_eq!(bench.log().matches("is formatted").count(), 1);
    bench.said("echo kept >/scratch/file && sync");
    assert!(bench.fails("echo lost >/old/file"), "something is mounted at /old");

    // A dataset is there when all of its shards are; the second map came while the first was still there.
    let (image, digest) = bench.seal(1);
    let one = bench.attach(&image, &shard(1));
    let map = [ct.clone(), work.clone()];
    let second = bench.tell(&map, false);
    bench.detach(&first);
    bench.until("the second map", || bench.said("cat /run/dejima/want").contains("/data/ct"));
    assert!(bench.fails("ls /data/ct/series"), "half of a dataset is shown");
    let (image, other) = bench.seal(2);
    let two = bench.attach(&image, &shard(2));
    let both = format!("dataset\t/data/ct\t{}\t{}\nvolume\t/scratch\t{WORK}", shard(1), shard(2));
    bench.until("the dataset", || bench.state() == both);
    let digests = "cd /data/ct && find . -type f | sort | xargs sha256sum";
    let tree = format!("{digest}  ./series/slice-1.dcm\n{other}  ./series/slice-2.dcm");
    assert_eq!(bench.said(digests), tree);
    assert!(bench.fails("touch /data/ct/series/mine"), "a dataset was written to");
    bench.said("touch /scratch/mine");

    // A torn map is not obeyed, and without any map everything stays.
    let torn = bench.tell(std::slice::from_ref(&work), true);
    bench.until("the torn map", || bench.log().contains("is torn"));
    bench.detach(&torn);
    bench.detach(&second);
    bench.until("the end of all maps", || {
        bench.said("grep -l dejimamap /sys/block/sd*/device/vpd_pg80 || true").is_empty()
    });
    bench.said("sleep 1");
    assert_eq!((bench.state(), bench.said(digests)), (both.clone(), tree.clone()));

    // Begun again, the machine finds everything as it was, and formats nothing although the map calls it new.
    let third = bench.tell(&map, false);
    let boot = bench.said("cat /proc/sys/kernel/random/boot_id");
    let _goes_down = bench.agent.run("sync; reboot", 5);
    bench.until("the next boot", || {
        let seen = bench.agent.run("cat /proc/sys/kernel/random/boot_id", 5);
        seen.is_ok_and(|seen| seen.is_success() && seen.output.trim_end() != boot)
    });
    bench.until("everything again", || bench.state() == both);
    assert_eq!((bench.said("cat /scratch/file"), bench.said(digests)), ("kept".to_owned(), tree));
    assert!(!bench.log().contains("is formatted"), "{}", bench.log());

    // A volume that became larger has more room.
    let room = || bench.said("df -k /scratch | awk 'END {print $2}'").parse::<u64>().unwrap();
    let before = room();
    let image = bench.host.images().join("work").display().to_string();
    bench.host.ask(&["blockresize", "m1", &image, "96M"], None).unwrap();
    bench.until("more room", || room() > before * 3 / 2);

    // A dataset that loses one of its disks is gone; the volume stays.
    bench.detach(&two);
    bench.until("the end of the dataset", || {
        !bench.said("cat /proc/mounts").contains("/data/ct") && bench.fails("ls /data/ct/series")
    });
    assert_eq!(
        (bench.state(), bench.said("cat /scratch/file")),
        (format!("volume\t/scratch\t{WORK}"), "kept".to_owned())
    );
    // With its disk it comes back, and what leaves the map is gone although its disks are there.
    let two = bench.attach(&bench.host.images().join("shard-2.erofs").display().to_string(), &shard(2));
    bench.until("the dataset once more", || bench.state() == both);
    let fourth = bench.tell(std::slice::from_ref(&work), false);
    bench.until("the end by the map", || !bench.said("cat /proc/mounts").contains("erofs"));

    // A volume that leaves the map stays as long as it is used, and only then the guest says that it has let go.
    bench.until("the answer", || bench.answered(&fourth));
    bench.said("(cd /scratch && exec sleep 1000) >/dev/null 2>&1 & echo $! >/run/busy");
    let fifth = bench.tell(&[], false);
    bench.until("it is used", || bench.log().contains("volume /scratch is used"));
    let is_mounted = || bench.said("cat /proc/mounts").contains(" /scratch ");
    assert_eq!((is_mounted(), bench.answered(&fifth)), (true, false));
    bench.said("kill $(cat /run/busy)");
    bench.until("it has let go", || bench.answered(&fifth));
    assert!(!is_mounted());
    let sixth = bench.tell(std::slice::from_ref(&work), false);
    bench.until("the volume is back", || bench.state() == format!("volume\t/scratch\t{WORK}"));
    assert_eq!(bench.said("cat /scratch/file"), "kept");

    // Where systemd runs, the script becomes a service. Another life of it goes on from there, under Debian's programs.
    bench.attach(&bench.debian(), DEBIAN);
    bench.said(&format!(
        "d=/dev/$(grep -l {DEBIAN} /sys/block/sd*/device/vpd_pg80 | cut -d/ -f4) && mkdir -p /run/debian && mount -t erofs -o ro $d /run/debian"
    ));
    bench.said("mkdir -p /run/systemd/system /etc/systemd/system /usr/local/bin && kill $(cat /run/dejima/pid)");
    bench.said("printf '#!/bin/sh\\necho \"$@\" >>/run/asked\\n' >/usr/local/bin/systemctl && chmod +x /usr/local/bin/systemctl");
    bench.said("sed 's/^most_layers=.*/most_layers=2/; s,^PATH=,PATH=/run/debian:,' /run/vendor-data >/run/again && sh /run/again");
    assert_eq!(
        bench.said("wc -l </run/asked; tail -n 1 /run/asked"),
        "3\nrestart --no-block dejima-mounts.service"
    );
    let command = bench.said("sed -n 's,^ExecStart=/bin/sh ,,p' /etc/systemd/system/dejima-mounts.service");
    assert_eq!(command, "/usr/local/lib/dejima/mount.sh obey");
    bench.said(&format!(
        "LD_LIBRARY_PATH=/run/debian setsid /run/debian/dash {command} </dev/null >/run/again.log 2>&1 &"
    ));
    bench.until("the other life", || {
        bench.said("readlink /proc/$(cat /run/dejima/pid)/exe || true") == "/run/debian/dash"
    });

    // Five shards, with two layers to a storey, are one tree too.
    let five: Vec<String> = (1..=5).map(shard).collect();
    for number in 3..=5 {
        bench.attach(&bench.seal(number).0, &shard(number));
    }
    bench.tell(&[entry(MapKind::Dataset, "/data/all", &five), work], false);
    for gone in [&third, &fourth, &fifth, &sixth] {
        bench.detach(gone);
    }
    bench.until("five shards", || bench.said("ls /data/all/series 2>/dev/null | wc -l") == "5");
    assert_eq!(bench.said("grep -c '^dejima ' /proc/mounts"), "3");
    assert_eq!(bench.said("grep -c ' /scratch ' /proc/mounts; cat /scratch/file"), "1\nkept");
    for lun in [&one, &two] {
        bench.detach(lun);
    }
    bench.until("the end of all", || !bench.said("cat /proc/mounts").contains("dejima "));
}
