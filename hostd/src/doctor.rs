//! What a machine lacks to be a host, each with its remedy: looked at by [`look`], judged by [`judge`], which is pure.

mod look;

use dejima_crds::text::Text;

pub use self::look::look;

/// What a host is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// It runs machines.
    pub machines: bool,
    /// It seals datasets.
    pub intake: bool,
}

/// Whether the processor helps machines to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// There is no `/dev/kvm`.
    Absent,
    /// It is there, and a small machine did not run with it.
    Broken,
    /// A small machine ran with it.
    Works,
}

/// What libvirt says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hypervisor {
    /// libvirt's version: major × 1,000,000 + minor × 1,000 + release.
    pub libvirt: u32,
    /// QEMU's version, in the same form.
    pub qemu: u32,
    /// What keeps machines of one host apart below the processor (sVirt): `selinux`, `apparmor`.
    pub confined_by: Option<String>,
}

/// Somewhere that memory may be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The device or file, as in /proc/swaps (proc(5)).
    pub name: String,
    /// Whether it is memory itself (zram), or a device that dm-crypt encrypts.
    pub safe: bool,
}

/// What was found on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it is to do.
    pub roles: Roles,
    /// Programs that this work needs and that are not in the path.
    pub missing: Vec<String>,
    /// The processor's help.
    pub kvm: Kvm,
    /// libvirt; or why it does not answer.
    pub hypervisor: Result<Hypervisor, String>,
    /// Where memory may be written to.
    pub swaps: Vec<Swap>,
    /// Where the kernel leaves the memory of a process that crashes (core(5)), as /proc/sys/kernel/core_pattern has it.
    pub core_pattern: String,
    /// Whether the directory for seeds and maps lies in memory (tmpfs, ramfs).
    pub run_in_memory: bool,
    /// Where the key server answers, and where the platform's API does.
    pub addresses: Vec<(&'static str, String)>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it must be.
    Good,
    /// It works, and something is worse than it could be.
    Advice,
    /// It is no host like this.
    Lacking,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, in one word.
    pub about: &'static str,
    /// How bad it is.
    pub grade: Grade,
    /// What was found.
    pub found: Text,
    /// What to do about it; empty where it is good.
    pub remedy: Text,
}

/// The oldest libvirt that is tried, and the oldest QEMU: an older QEMU's emulation makes guests panic.
const LIBVIRT: u32 = 11_000_000;
const QEMU: u32 = 10_000_000;

fn finding(about: &'static str, grade: Grade, found: (&str, &str), remedy: (&str, &str)) -> Finding {
    let remedy = if grade == Grade::Good {
        Text::default()
    } else {
        Text::of(remedy.0, remedy.1)
    };
    Finding {
        about,
        grade,
        found: Text::of(found.0, found.1),
        remedy,
    }
}

fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

/// What follows from what was found: one finding for each thing, good ones too, in a fixed order.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![programs(&facts.missing)];
    if facts.roles.machines {
        all.push(kvm(facts.kvm));
        all.extend(hypervisor(&facts.hypervisor));
        all.push(memory(facts.run_in_memory));
    }
    all.push(swap(&facts.swaps));
    all.push(core(&facts.core_pattern));
    all.extend(facts.addresses.iter().map(|(name, address)| tls(name, address)));
    all
}

fn programs(missing: &[String]) -> Finding {
    let names = missing.join(", ");
    let grade = if missing.is_empty() { Grade::Good } else { Grade::Lacking };
    let found = if missing.is_empty() {
        (
            "必要なプログラムが揃っている".to_owned(),
            "every program that is needed is there".to_owned(),
        )
    } else {
        (format!("見つからない: {names}"), format!("not found: {names}"))
    };
    finding(
        "programs",
        grade,
        (&found.0, &found.1),
        (
            "パッケージを入れる (Debian: libvirt-daemon-system, qemu-system-x86, qemu-utils, nftables, erofs-utils, cryptsetup-bin)",
            "install the packages (Debian: libvirt-daemon-system, qemu-system-x86, qemu-utils, nftables, erofs-utils, cryptsetup-bin)",
        ),
    )
}

fn kvm(kvm: Kvm) -> Finding {
    let (grade, found) = match kvm {
        Kvm::Works => (Grade::Good, ("KVM で小さな仮想マシンが動いた", "a small machine ran with KVM")),
        Kvm::Absent => (
            Grade::Advice,
            (
                "/dev/kvm がない: エミュレーション (TCG) で動く",
                "there is no /dev/kvm: machines are emulated (TCG)",
            ),
        ),
        Kvm::Broken => (
            Grade::Advice,
            (
                "/dev/kvm はあるが仮想マシンが動かない: エミュレーション (TCG) で動く",
                "/dev/kvm is there, and no machine runs with it: machines are emulated (TCG)",
            ),
        ),
    };
    finding(
        "kvm",
        grade,
        found,
        (
            "ファームウェアで仮想化支援を有効にする。エミュレーションは十倍ほど遅い",
            "enable virtualisation in the firmware; emulation is some ten times slower",
        ),
    )
}

fn hypervisor(seen: &Result<Hypervisor, String>) -> Vec<Finding> {
    let there = match seen {
        Ok(there) => there,
        Err(cause) => {
            return vec![finding(
                "libvirt",
                Grade::Lacking,
                (
                    &format!("libvirt が答えない: {cause}"),
                    &format!("libvirt does not answer: {cause}"),
                ),
                (
                    "libvirtd を起動する (systemctl start libvirtd)",
                    "start libvirtd (systemctl start libvirtd)",
                ),
            )];
        }
    };
    let aged = |about, name: &str, found: u32, oldest: u32| {
        let grade = if found >= oldest { Grade::Good } else { Grade::Lacking };
        let said = format!("{name} {}", version(found));
        let (ja, en) = (
            format!("{} 以降を入れる (Debian 12 では backports から)", version(oldest)),
            format!("install {} or later (on Debian 12 from the backports)", version(oldest)),
        );
        finding(about, grade, (&said, &said), (&ja, &en))
    };
    let svirt = match &there.confined_by {
        Some(by) => (Grade::Good, format!("sVirt: {by}")),
        None => (Grade::Advice, "sVirt: -".to_owned()),
    };
    vec![
        aged("libvirt", "libvirt", there.libvirt, LIBVIRT),
        aged("qemu", "QEMU", there.qemu, QEMU),
        finding(
            "svirt",
            svirt.0,
            (&svirt.1, &svirt.1),
            (
                "AppArmor か SELinux を有効にする。複数のプロジェクトが共有するホスト (dedicated: false) では必須",
                "enable AppArmor or SELinux; a must on hosts that projects share (dedicated: false)",
            ),
        ),
    ]
}

fn memory(in_memory: bool) -> Finding {
    finding(
        "run",
        if in_memory { Grade::Good } else { Grade::Lacking },
        if in_memory {
            ("シードとマウント表はメモリ上にある", "seeds and maps lie in memory")
        } else {
            (
                "シードとマウント表の置き場がディスク上にある",
                "the directory for seeds and maps lies on a disk",
            )
        },
        ("--run に tmpfs のディレクトリを指定する", "give --run a directory on a tmpfs"),
    )
}

fn swap(swaps: &[Swap]) -> Finding {
    let open: Vec<&str> = swaps.iter().filter(|swap| !swap.safe).map(|swap| swap.name.as_str()).collect();
    let names = open.join(", ");
    let found = match (swaps.is_empty(), open.is_empty()) {
        (true, _) => ("スワップはない".to_owned(), "there is no swap".to_owned()),
        (false, true) => (
            "スワップは暗号化されている".to_owned(),
            "swap is encrypted, or is memory".to_owned(),
        ),
        (false, false) => (
            format!("暗号化されていないスワップ: {names}"),
            format!("swap that is not encrypted: {names}"),
        ),
    };
    finding(
        "swap",
        if open.is_empty() { Grade::Good } else { Grade::Lacking },
        (&found.0, &found.1),
        (
            "swapoff するか、起動ごとの鍵で暗号化する (crypttab(5): /dev/urandom swap)",
            "turn it off, or encrypt it under a key of each boot (crypttab(5): /dev/urandom swap)",
        ),
    )
}

fn core(pattern: &str) -> Finding {
    let pattern = pattern.trim();
    let nowhere = matches!(pattern, "" | "|/bin/false" | "|/usr/bin/false");
    let said = format!("kernel.core_pattern = {pattern}");
    finding(
        "core-dumps",
        if nowhere { Grade::Good } else { Grade::Lacking },
        (&said, &said),
        (
            "sysctl で kernel.core_pattern=|/bin/false にする。異常終了した QEMU のメモリには鍵がある",
            "set kernel.core_pattern=|/bin/false by sysctl: the memory of a QEMU that crashes holds keys",
        ),
    )
}

/// Whether what is sent there can be read on the way: tokens and plain keys are.
fn tls(name: &'static str, address: &str) -> Finding {
    let rest = address.strip_prefix("http://");
    let host = rest.map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
    let v6 = rest.is_some_and(|rest| rest.starts_with("[::1]"));
    let local = host.is_some_and(|host| host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()));
    let good = address.starts_with("https://") || local || v6;
    finding(
        name,
        if good { Grade::Good } else { Grade::Lacking },
        (address, address),
        (
            "https:// の宛先にする。トークンと鍵が通る (暗号なしはループバックだけ)",
            "use an https:// address: tokens and keys pass there (in the clear on loopback alone)",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            roles: Roles {
                machines: true,
                intake: true,
            },
            missing: Vec::new(),
            kvm: Kvm::Works,
            hypervisor: Ok(Hypervisor {
                libvirt: 11_003_000,
                qemu: 10_000_002,
                confined_by: Some("apparmor".to_owned()),
            }),
            swaps: Vec::new(),
            core_pattern: "|/bin/false\n".to_owned(),
            run_in_memory: true,
            addresses: vec![("key-server", "https://keys.example:8200".to_owned())],
        }
    }

    type Spoil = fn(&mut Facts);

    fn worst(facts: &Facts, about: &str) -> Grade {
        let found = judge(facts).into_iter().find(|finding| finding.about == about);
        found.map_or(Grade::Good, |finding| finding.grade)
    }

    #[test]
    fn a_good_host_lacks_nothing_and_hears_of_everything() {
        let found = judge(&good());
        assert_eq!(found.len(), 9);
        for finding in found {
            assert_eq!((finding.grade, finding.remedy), (Grade::Good, Text::default()), "{}", finding.about);
        }
    }

    #[test]
    fn each_thing_that_is_lacking_is_found_alone_with_its_remedy_in_both_languages() {
        let cases: [(&str, Grade, Spoil); 7] = [
            ("programs", Grade::Lacking, |facts| facts.missing.push("nft".to_owned())),
            ("kvm", Grade::Advice, |facts| facts.kvm = Kvm::Broken),
            ("libvirt", Grade::Lacking, |facts| facts.hypervisor = Err("refused".to_owned())),
            ("run", Grade::Lacking, |facts| facts.run_in_memory = false),
            ("core-dumps", Grade::Lacking, |facts| facts.core_pattern = "core".to_owned()),
            ("swap", Grade::Lacking, |facts| {
                facts.swaps = vec![
                    Swap {
                        name: "/dev/zram0".to_owned(),
                        safe: true,
                    },
                    Swap {
                        name: "/swapfile".to_owned(),
                        safe: false,
                    },
                ];
            }),
            ("key-server", Grade::Lacking, |facts| {
                facts.addresses = vec![("key-server", "http://keys.example:8200".to_owned())];
            }),
        ];
        for (about, grade, spoil) in cases {
            let mut facts = good();
            spoil(&mut facts);
            let bad: Vec<Finding> = judge(&facts).into_iter().filter(|finding| finding.grade != Grade::Good).collect();
            assert_eq!(
                bad.iter().map(|finding| (finding.about, finding.grade)).collect::<Vec<_>>(),
                [(about, grade)]
            );
            for finding in bad {
                assert!(finding.remedy.ja.is_some() && finding.remedy.en.is_some(), "{about}");
            }
        }
    }

    #[test]
    fn what_is_too_old_says_what_is_needed() {
        let mut facts = good();
        facts.hypervisor = Ok(Hypervisor {
            libvirt: 9_000_000,
            qemu: 7_002_000,
            confined_by: None,
        });
        let said = format!("{:?}", judge(&facts));
        assert!(said.contains("QEMU 7.2.0") && said.contains("install 10.0.0 or later"), "{said}");
        assert_eq!((worst(&facts, "libvirt"), worst(&facts, "svirt")), (Grade::Lacking, Grade::Advice));
    }

    #[test]
    fn tokens_travel_in_the_clear_on_loopback_alone() {
        for (address, wanted) in [
            ("https://keys.example", Grade::Good),
            ("http://127.0.0.1:8200", Grade::Good),
            ("http://localhost:8200/", Grade::Good),
            ("http://[::1]:8200", Grade::Good),
            ("http://127.0.0.1.example:8200", Grade::Lacking),
            ("http://localhost.example", Grade::Lacking),
            ("http://10.0.0.1:8200", Grade::Lacking),
            ("keys.example", Grade::Lacking),
        ] {
            assert_eq!(tls("key-server", address).grade, wanted, "{address}");
        }
    }

    #[test]
    fn an_intake_host_is_not_asked_for_machines() {
        let mut facts = good();
        facts.roles.machines = false;
        facts.hypervisor = Err("absent".to_owned());
        facts.kvm = Kvm::Absent;
        assert!(judge(&facts).iter().all(|finding| finding.grade == Grade::Good));
    }
}
