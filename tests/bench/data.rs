//! Data that comes and goes in running machines: by the word of a reviewer here, by virsh there.

use std::time::Instant;

use dejima_tests::{BOARD_PLATFORM, LEAD};

use crate::by_hand::{ByHand, DOMAIN, SHARD_SECRET, secret};
use crate::figures::{Goal, Row};
use crate::projects::ms;
use crate::running::{PROJECT, Running};
use crate::terminal::Terminal;
use crate::{BY_HAND, HOST};

/// Reads until a read fails, then says so; every read is the disk's.
fn until_it_fails(terminal: &mut Terminal, file: &str, mark: &str) {
    terminal.line(&format!(
        "echo reads-\"\"{mark}; while dd if={file} of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done; echo failed-\"\"{mark}"
    ));
    terminal.comes(&format!("reads-{mark}"));
}

/// Tries to read until it can, then says so.
fn until_it_can(terminal: &mut Terminal, before: &str, file: &str, mark: &str) {
    terminal.line(&format!(
        "echo tries-\"\"{mark}; until {before} dd if={file} of=/dev/null bs=64k count=1 iflag=direct 2>/dev/null; do usleep 2000; done; echo reads-\"\"{mark}"
    ));
    terminal.comes(&format!("tries-{mark}"));
}

/// The running machine of ours, with its grant.
struct Ours<'a> {
    running: &'a Running,
    terminal: Terminal,
    file: String,
    grant: String,
    line: usize,
}

/// What one turn took, in milliseconds: from the start of kubectl, and how long kubectl itself took.
struct Turn {
    until: f64,
    kubectl: f64,
}

impl<'a> Ours<'a> {
    fn new(running: &'a Running) -> Self {
        running.apply(&[]);
        running.platform.ready(&running.tenant, PROJECT);
        let grant = running.agree();
        running.mounted();
        let mut terminal = Terminal::open(running.platform.host(HOST), &running.domain("train"));
        terminal.line("until ls /data/ct-mr/CT >/dev/null 2>&1; do usleep 2000; done; echo it-\"\"shows");
        terminal.comes("it-shows");
        let file = terminal.says("find /data/ct-mr -type f -size +100k | head -1");
        assert!(file.starts_with("/data/ct-mr/"), "{file}");
        let (namespace, name) = grant.split_once('/').unwrap();
        let reviews = running.platform.world.get(namespace, "accessgrant", name)["spec"]["reviews"].clone();
        let line = reviews
            .as_array()
            .unwrap()
            .iter()
            .position(|line| line["reviewer"] == BOARD_PLATFORM)
            .unwrap();
        Self {
            running,
            terminal,
            file,
            grant,
            line,
        }
    }

    /// The reviewer changes his mind, with kubectl: it takes the data away as a revocation does, and can be taken back.
    fn decide(&self, decision: &str) -> (Instant, f64) {
        let (namespace, name) = self.grant.split_once('/').unwrap();
        let patch = format!(
            r#"[{{"op": "replace", "path": "/spec/reviews/{}/decision", "value": "{decision}"}}]"#,
            self.line
        );
        let begun = Instant::now();
        self.running
            .platform
            .world
            .patch(BOARD_PLATFORM, namespace, "accessgrant", name, &patch)
            .accepted();
        (begun, ms(begun.elapsed()))
    }

    fn said(&self, summary: &str) {
        self.running
            .platform
            .eventually(summary, || self.running.project()["status"]["summary"]["datasets"] == summary);
    }

    fn taken(&mut self, mark: &str) -> Turn {
        until_it_fails(&mut self.terminal, &self.file, mark);
        let (begun, kubectl) = self.decide("reject");
        let failed = self.terminal.comes(&format!("failed-{mark}"));
        self.said("0/1");
        Turn {
            until: ms(failed - begun),
            kubectl,
        }
    }

    fn given(&mut self, mark: &str) -> Turn {
        until_it_can(&mut self.terminal, "", &self.file, mark);
        let (begun, kubectl) = self.decide("approve");
        let reads = self.terminal.comes(&format!("reads-{mark}"));
        self.said("1/1");
        Turn {
            until: ms(reads - begun),
            kubectl,
        }
    }
}

/// The machine that was made by hand, and the same shard.
struct Theirs<'a> {
    running: &'a Running,
    terminal: Terminal,
    file: String,
    disk: std::path::PathBuf,
}

impl<'a> Theirs<'a> {
    fn new(running: &'a Running, like: &Ours<'_>) -> Self {
        let host = running.platform.host(BY_HAND);
        let dir = host.images().join("by-hand");
        let shard = running.platform.world.get(&running.provider, "dataset", "ct-mr")["status"]["shards"][0].clone();
        let text = |field: &str| shard[field].as_str().unwrap().to_owned();
        let stored = running
            .platform
            .image_store()
            .join(format!("shards/{}.luks", text("storedDigest").trim_start_matches("sha256:")));
        std::fs::copy(stored, dir.join("shard.luks")).unwrap();
        let wrapped = format!("ciphertext={}", text("wrappedKey"));
        let path = format!("transit/decrypt/{}", text("key"));
        let key = running
            .platform
            .keys
            .run(&["write", "-field=plaintext", &path, &wrapped], None)
            .unwrap();
        host.ask(&["secret-define", "/dev/stdin"], Some(&secret(SHARD_SECRET))).unwrap();
        let value = ["secret-set-value", SHARD_SECRET, "--file", "/dev/stdin", "--plain"];
        host.ask(&value, Some(key.trim())).unwrap();
        let disk = dir.join("shard.xml");
        let source = dir.join("shard.luks");
        let element = format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'><encryption format='luks' engine='qemu'>\
             <secret type='passphrase' uuid='{SHARD_SECRET}'/></encryption></source><target dev='sdd' bus='scsi'/><serial>shard</serial>\
             <address type='drive' controller='0' bus='0' target='0' unit='3'/><readonly/><shareable/></disk>\n",
            source.display()
        );
        std::fs::write(&disk, element).unwrap();
        let terminal = Terminal::open(host, DOMAIN);
        let file = like.file.replace("/data/ct-mr/", "/mnt/");
        Self {
            running,
            terminal,
            file,
            disk,
        }
    }

    fn virsh(&self, what: &str) -> Instant {
        let begun = Instant::now();
        self.running
            .platform
            .host(BY_HAND)
            .ask(&[what, DOMAIN, self.disk.to_str().unwrap(), "--live"], None)
            .unwrap();
        begun
    }

    fn given(&mut self, mark: &str) -> f64 {
        let mount = "for disk in /dev/sd[c-z]; do mount -t erofs -o ro $disk /mnt 2>/dev/null && break; done &&";
        until_it_can(&mut self.terminal, mount, &self.file, mark);
        let begun = self.virsh("attach-device");
        ms(self.terminal.comes(&format!("reads-{mark}")) - begun)
    }

    fn taken(&mut self, mark: &str) -> f64 {
        until_it_fails(&mut self.terminal, &self.file, mark);
        let begun = self.virsh("detach-device");
        let took = ms(self.terminal.comes(&format!("failed-{mark}")) - begun);
        self.terminal.says("umount /mnt");
        took
    }
}

/// Pairs of taking and giving, in turns.
pub(crate) fn pairs(running: &Running, pairs: usize) -> Vec<Row> {
    let mut ours = Ours::new(running);
    let by_hand = ByHand::like(running, &running.project());
    by_hand.make();
    let mut theirs = Theirs::new(running, &ours);
    theirs.given("warm");
    let (mut taken, mut given, mut kubectl) = (Vec::new(), Vec::new(), Vec::new());
    let (mut detached, mut attached) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        let turn = ours.taken(&format!("{pair}-a"));
        taken.push(turn.until);
        kubectl.push(turn.kubectl);
        detached.push(theirs.taken(&format!("{pair}-b")));
        let turn = ours.given(&format!("{pair}-c"));
        given.push(turn.until);
        kubectl.push(turn.kubectl);
        attached.push(theirs.given(&format!("{pair}-d")));
    }
    by_hand.clean();
    let delete = ["delete", "isolatedproject", PROJECT, "-n", &running.tenant, "--timeout=60s"];
    running.platform.world.run(LEAD, &delete).accepted();
    vec![
        Row {
            what: "taken away: kubectl begins -> first failed uncached read",
            unit: "ms",
            ours: taken,
            rival: Some(("virsh detach-device", detached)),
            goal: Goal::OverAndBelow { p50: 150.0, p99: 1000.0 },
        },
        Row {
            what: "permitted: kubectl begins -> first read",
            unit: "ms",
            ours: given,
            rival: Some(("virsh attach-device and mount", attached)),
            goal: Goal::Over { p50: 300.0, p95: None },
        },
        Row {
            what: "of which kubectl, from its start to its end",
            unit: "ms",
            ours: kubectl,
            rival: None,
            goal: Goal::None,
        },
    ]
}
