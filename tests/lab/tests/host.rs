//! A host with a guest, on real parts: libvirt, QEMU, the distribution's kernel.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is test code: what cannot go on must stop"
)]

use std::path::Path;
use std::process::Command;

use dejima_lab::{Agent, Guest, Host, ToStderr, host, packages, run};

/// A directory of its own for each test; it goes with the value.
struct Place(String);

impl Place {
    fn new(name: &str) -> Self {
        Self(format!("test-{name}-{}", std::process::id()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new("/var/lib/dejima-lab").join(&self.0));
    }
}

fn disk(file: &Path, serial: &str, bus: &str, target: &str, extra: &str) -> String {
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/><target dev='{target}' bus='{bus}'/>\
         <serial>{serial}</serial>{extra}</disk>",
        file.display()
    )
}

fn domain(guest: &Guest, name: &str, devices: &str) -> String {
    format!(
        "<domain type='qemu'><name>{name}</name><uuid>7e57ab1e-0000-4000-8000-000000000001</uuid><memory unit='MiB'>192</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{}</kernel><initrd>{}</initrd><cmdline>{}</cmdline></os>\
         <features><acpi/></features><cpu mode='maximum'/><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
         <controller type='usb' model='none'/><controller type='scsi' index='0' model='virtio-scsi'/>\
         <controller type='pci' index='1' model='pcie-root-port'/><controller type='pci' index='2' model='pcie-root-port'/>\
         <controller type='pci' index='3' model='pcie-root-port'/><controller type='pci' index='4' model='pcie-root-port'/>\
         <controller type='pci' index='5' model='pcie-root-port'/><controller type='pci' index='6' model='pcie-root-port'/>\
         {devices}<interface type='bridge'><mac address='52:54:00:51:00:01'/><source bridge='br0'/><target dev='port0'/><model type='virtio'/></interface>\
         <serial type='pty'/><memballoon model='none'/>\
         <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>",
        guest.kernel.display(),
        guest.initrd.display(),
        dejima_lab::guest::COMMAND_LINE
    )
}

fn define(host: &Host, xml: &str) {
    host.ask(&["define", "/dev/stdin"], Some(xml)).unwrap();
}

/// A seed: the files of NoCloud on the smallest ISO 9660 image that a kernel reads, with the label `cidata`.
fn seed(path: &Path, files: &[(&str, &str)]) {
    const SECTOR: usize = 2048;
    let both = |value: usize| {
        let value = u32::try_from(value).unwrap();
        [value.to_le_bytes(), value.to_be_bytes()].concat()
    };
    let entry = |name: &[u8], at: usize, length: usize, flags: u8| {
        let size = 33 + name.len() + (name.len() + 1) % 2;
        let mut bytes = vec![u8::try_from(size).unwrap(), 0];
        bytes.extend(both(at));
        bytes.extend(both(length));
        bytes.extend([126, 1, 1, 0, 0, 0, 0, flags, 0, 0, 1, 0, 0, 1, u8::try_from(name.len()).unwrap()]);
        bytes.extend(name);
        bytes.resize(size, 0);
        bytes
    };
    let root = |name: &[u8]| entry(name, 18, SECTOR, 2);
    let mut folder = [root(&[0]), root(&[1])].concat();
    let mut contents = Vec::new();
    for (name, text) in files {
        let at = 19 + contents.len() / SECTOR;
        folder.extend(entry(format!("{}.;1", name.to_uppercase()).as_bytes(), at, text.len(), 0));
        contents.extend_from_slice(text.as_bytes());
        contents.resize(contents.len().next_multiple_of(SECTOR), 0);
    }
    folder.resize(SECTOR, 0);
    let mut volume = vec![0; SECTOR];
    volume[..7].copy_from_slice(b"\x01CD001\x01");
    volume[8..72].fill(b' ');
    volume[40..46].copy_from_slice(b"cidata");
    let sectors = 19 + contents.len() / SECTOR;
    volume[80..88].copy_from_slice(&both(sectors));
    for at in [120, 124] {
        volume[at..at + 4].copy_from_slice(&[1, 0, 0, 1]);
    }
    volume[128..132].copy_from_slice(&[0, 8, 8, 0]);
    volume[156..190].copy_from_slice(&root(&[0]));
    volume[881] = 1;
    let mut end = vec![0; SECTOR];
    end[..7].copy_from_slice(b"\xffCD001\x01");
    let image = [vec![0; 16 * SECTOR], volume, end, folder, contents].concat();
    std::fs::write(path, image).unwrap();
}

const SCRIPT: &str = "#!/bin/sh\nmkdir -p /run/shown\nhostname > /run/shown/name\nwhile :; do sleep 1; done\n";
const NETWORK: &str = "version: 2\nethernets:\n  port:\n    match:\n      macaddress: \"52:54:00:51:00:01\"\n    addresses:\n      - 10.51.0.1/24\n\
                       \x20   routes:\n      - to: default\n        via: 10.51.0.254\n";

#[test]
fn a_guest_boots_obeys_its_seed_and_takes_disks_while_it_runs() {
    packages::install(&ToStderr).unwrap();
    let guest = Guest::get(&ToStderr).unwrap();
    let place = Place::new("guest");
    let mut host = Host::start(&place.0, "h1").unwrap();
    host.run(&["ip", "link", "add", "br0", "type", "bridge"], None).unwrap();
    host.run(&["ip", "addr", "add", "10.51.0.254/24", "dev", "br0"], None).unwrap();
    host.run(&["ip", "link", "set", "br0", "up"], None).unwrap();

    let images = host.images();
    seed(
        &images.join("seed.iso"),
        &[
            ("meta-data", "{\"instance-id\": \"one\", \"local-hostname\": \"scan-1\"}\n"),
            ("vendor-data", SCRIPT),
            ("network-config", NETWORK),
        ],
    );
    std::fs::write(images.join("volume.raw"), vec![0; 32 << 20]).unwrap();
    let tree = images.join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("slice.dcm"), "a slice").unwrap();
    let shard = images.join("shard.erofs");
    run::succeed(Command::new("mkfs.erofs").arg(&shard).arg(&tree), None).unwrap();

    let devices = disk(&images.join("seed.iso"), "seed", "scsi", "sda", "<readonly/>")
        + &disk(&images.join("volume.raw"), "volume-1", "virtio", "vda", "");
    define(&host, &domain(&guest, "m1", &devices));
    host.ask(&["start", "m1"], None).unwrap();
    let agent = Agent::new(&host.uri(), "m1");
    agent.plug_in().unwrap();
    agent.ready(60).unwrap();

    // The seed was obeyed.
    let said = |command: &str| agent.succeed(command, 30).unwrap();
    run::await_until("the script of the seed", 10, "/run/shown", || {
        said("cat /run/shown/name || true") == "scan-1"
    })
    .unwrap();
    assert_eq!(said("ip -4 -o addr show dev eth0 | awk '{print $4}'"), "10.51.0.1/24");
    assert_eq!(said("ip route | awk '$1 == \"default\" {print $3}'"), "10.51.0.254");
    said("ping -c 1 -W 5 10.51.0.254");

    // A volume is found by its serial and can be formatted.
    said(
        "d=/dev/$(grep -lx volume-1 /sys/block/vd*/serial | cut -d/ -f4) && mkfs.ext4 -q $d && mkdir -p /mnt/v && mount $d /mnt/v && echo kept > /mnt/v/file",
    );

    // A dataset's disk comes and goes while the machine runs; the guest loads what it needs.
    let serial = "7e57ab1e0000400080000000000000aa0001";
    let lun = disk(&shard, serial, "scsi", "sdb", "<readonly/><shareable/>");
    host.ask(&["attach-device", "m1", "/dev/stdin", "--live"], Some(&lun)).unwrap();
    let find = format!("grep -l {serial} /sys/block/sd*/device/vpd_pg80 | cut -d/ -f4");
    run::await_until("the disk in the guest", 10, "agent", || {
        !said(&format!("{find} || true")).is_empty()
    })
    .unwrap();
    assert_eq!(
        said(&format!(
            "mkdir -p /mnt/d && mount -t erofs -o ro /dev/$({find}) /mnt/d && cat /mnt/d/slice.dcm"
        )),
        "a slice"
    );
    host.ask(&["detach-device", "m1", "/dev/stdin", "--live"], Some(&lun)).unwrap();
    run::await_until("the end of the disk", 10, "agent", || said(&format!("{find} || true")).is_empty()).unwrap();

    // The machine goes on without libvirt, and libvirt finds it again.
    let qemu = host.domain_pid("m1").unwrap();
    host.stop_libvirt(false).unwrap();
    assert!(host.libvirt_pid().is_none());
    assert!(!host.virsh(&["list"], None).unwrap().status.success());
    host.start_libvirt().unwrap();
    assert_eq!(host.domain_pid("m1"), Some(qemu));
    assert_eq!(said("cat /mnt/v/file"), "kept");

    // The guest obeys the power button.
    host.ask(&["shutdown", "m1", "--mode", "acpi"], None).unwrap();
    run::await_until("the end of the machine", 30, "virsh", || {
        host.ask(&["domstate", "m1"], None).is_ok_and(|state| state.trim() == "shut off")
    })
    .unwrap();

    host.stop().unwrap();
    assert!(!Path::new("/proc").join(qemu.to_string()).exists());
}

#[test]
fn nothing_of_a_host_is_seen_outside_and_nothing_of_it_stays() {
    packages::install(&ToStderr).unwrap();
    let place = Place::new("quiet");
    let links = || run::succeed(Command::new("ip").args(["-brief", "link"]), None).unwrap();
    let mounts = || std::fs::read_to_string("/proc/mounts").unwrap();
    let (links_before, mounts_before) = (links(), mounts());
    let mut host = Host::start(&place.0, "h1").unwrap();
    host.run(&["ip", "link", "add", "br-seen", "type", "bridge"], None).unwrap();
    host.run(&["nft", "add", "table", "inet", "seen"], None).unwrap();
    // Positive control: inside, it is there.
    assert!(host.run(&["ip", "-brief", "link"], None).unwrap().contains("br-seen"));
    assert!(host.run(&["nft", "list", "tables"], None).unwrap().contains("inet seen"));
    assert!(!host.run(&["ls", "/dev"], None).unwrap().lines().any(|name| name == "kvm"));
    assert_eq!(links(), links_before);
    assert_eq!(mounts(), mounts_before);

    // A program on the host has the host's pids, and the machine's network where it is wanted.
    let mut command = host.command(Path::new("sh"), host::Network::Machine);
    let seen = run::succeed(
        command.args(["-c", "cat /proc/1/comm; hostname; ip -brief link | grep -c br-seen"]),
        None,
    );
    assert!(seen.is_err(), "the bridge is in the host's network alone");
    let mut command = host.command(Path::new("sh"), host::Network::Host);
    let seen = run::succeed(
        command.args(["-c", "cat /proc/1/comm; hostname; ip -brief link | grep -c br-seen"]),
        None,
    );
    assert_eq!(seen.unwrap(), "bash\nh1\n1\n");

    let pids = [host.pid(), host.libvirt_pid().unwrap()];
    host.stop().unwrap();
    for pid in pids {
        assert!(!Path::new("/proc").join(pid.to_string()).exists());
    }
    assert_eq!(links(), links_before);
    assert_eq!(mounts(), mounts_before);
    host.remove().unwrap();
    assert!(!Path::new("/var/lib/dejima-lab").join(&place.0).join("h1").exists());
}
