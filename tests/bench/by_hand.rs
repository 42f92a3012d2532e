//! The same by hand: a shell script with the calls to libvirt, cryptsetup, ip and nft that a project takes, and no proof, no keys at a
//! key server, no record. What it is made from is taken from a project of ours, so that it is the same machine.

use std::path::PathBuf;

use dejima_lab::Host;
use serde_json::Value;

use crate::running::{Running, domain_of};
use crate::{BY_HAND, HOST};

/// The name of the domain that is made by hand.
pub(crate) const DOMAIN: &str = "by-hand";
const SECRET: &str = "11111111-2222-4333-8444-555555555555";
/// The secret of a shard that is plugged in by hand.
pub(crate) const SHARD_SECRET: &str = "11111111-2222-4333-8444-666666666666";

const SCRIPT: &str = r#"set -eu
cd "DIR"
ip link add BRIDGE type bridge
for switch in ipv6/conf/BRIDGE/disable_ipv6 ipv4/conf/BRIDGE/arp_ignore; do echo 1 > /proc/sys/net/$switch; done
ip address add GATEWAY/32 dev BRIDGE
ip link set BRIDGE up
nft -f rules.nft
head -c 32 /dev/urandom | base64 -w 0 > key
truncate -s SIZE work.luks
cryptsetup luksFormat --batch-mode --type luks1 --cipher aes-xts-plain64 --pbkdf-force-iterations 1000 --key-size 512 --hash sha256 --key-file key work.luks
virsh --quiet "secret-define secret.xml; secret-set-value SECRET --file key --plain; define domain.xml; start DOMAIN"
"#;

const CLEAN: &str = r#"cd "DIR"
virsh --quiet "destroy DOMAIN; undefine DOMAIN; secret-undefine SECRET"
nft flush ruleset
ip link delete BRIDGE
rm -f key work.luks
"#;

/// What is done by hand on its host.
pub(crate) struct ByHand<'a> {
    host: &'a Host,
    make: PathBuf,
    clean: PathBuf,
}

impl<'a> ByHand<'a> {
    /// Takes what a ready project of ours was made from.
    pub(crate) fn like(running: &'a Running, project: &Value) -> Self {
        let (ours, host) = (running.platform.host(HOST), running.platform.host(BY_HAND));
        let dir = host.images().join("by-hand");
        std::fs::create_dir_all(&dir).unwrap();
        let domain = domain_of(project, "train");
        let text = ours.ask(&["dumpxml", "--inactive", &domain], None).unwrap();
        let between = |from: &str, to: &str| {
            let found = text.split_once(from).and_then(|(_, rest)| rest.split_once(to));
            found.unwrap_or_else(|| panic!("no {from} in {text}")).0.to_owned()
        };
        let copied = |from: &str, name: &str| {
            std::fs::copy(ours.seen_at(from), dir.join(name)).unwrap();
            dir.join(name).display().to_string()
        };
        let (kernel, initrd) = (between("<kernel>", "</kernel>"), between("<initrd>", "</initrd>"));
        let files: Vec<&str> = text
            .split("<source file='")
            .skip(1)
            .filter_map(|rest| rest.split('\'').next())
            .collect();
        let [seed, volume] = files[..] else {
            panic!("not two disks: {text}")
        };
        let size = std::fs::metadata(ours.seen_at(volume)).unwrap().len().to_string();
        let changes = [
            (format!("<name>{domain}</name>"), format!("<name>{DOMAIN}</name>")),
            (format!("<uuid>{}</uuid>", between("<uuid>", "</uuid>")), String::new()),
            (between("<secret type='passphrase' uuid='", "'"), SECRET.to_owned()),
            (kernel.clone(), copied(&kernel, "vmlinux")),
            (initrd.clone(), copied(&initrd, "initrd")),
            (seed.to_owned(), copied(seed, "seed.iso")),
            (volume.to_owned(), dir.join("work.luks").display().to_string()),
        ];
        let definition = changes.iter().fold(text.clone(), |text, (from, to)| text.replace(from, to));
        let bridge = between("<source bridge='", "'");
        let links: Value = serde_json::from_str(&ours.run(&["ip", "-j", "address", "show", "dev", &bridge], None).unwrap()).unwrap();
        let gateway = links[0]["addr_info"][0]["local"].as_str().unwrap().to_owned();
        std::fs::write(dir.join("domain.xml"), definition).unwrap();
        std::fs::write(dir.join("rules.nft"), ours.run(&["nft", "list", "ruleset"], None).unwrap()).unwrap();
        std::fs::write(dir.join("secret.xml"), secret(SECRET)).unwrap();
        let path = dir.display().to_string();
        let words = [
            ("DIR", path.as_str()),
            ("BRIDGE", &bridge),
            ("GATEWAY", &gateway),
            ("SIZE", &size),
            ("SECRET", SECRET),
            ("DOMAIN", DOMAIN),
        ];
        let script = |name: &str, text: &str| {
            let file = dir.join(name);
            std::fs::write(&file, words.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))).unwrap();
            file
        };
        let (make, clean) = (script("make.sh", SCRIPT), script("clean.sh", CLEAN));
        Self { host, make, clean }
    }

    /// Makes the machine; it runs when this returns.
    pub(crate) fn make(&self) {
        self.host.run(&["sh", self.make.to_str().unwrap()], None).unwrap();
    }

    /// Removes it.
    pub(crate) fn clean(&self) {
        self.host.run(&["sh", self.clean.to_str().unwrap()], None).unwrap();
    }
}

/// The definition of a secret.
pub(crate) fn secret(uuid: &str) -> String {
    format!("<secret ephemeral='yes' private='yes'><uuid>{uuid}</uuid><usage type='volume'><volume>{uuid}</volume></usage></secret>\n")
}
