//! What is there: nothing is changed, nothing is written but a small file that a trial machine boots from.

use std::path::Path;
use std::time::Duration;

use virt::connect::Connect;

use super::{Facts, Hypervisor, Kvm, Roles, Swap};
use crate::libvirt::kvm_works;

/// libvirt that hangs is libvirt that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at this machine. Where something cannot be read, it counts as the worse.
pub async fn look(roles: Roles, uri: &str, run: &Path, addresses: Vec<(&'static str, String)>) -> Facts {
    let mut programs = Vec::new();
    if roles.machines {
        programs.extend(["qemu-system-x86_64", "nft", "timeout"]);
    }
    if roles.intake {
        programs.extend(["mkfs.erofs", "cryptsetup", "qemu-img"]);
    }
    let missing = programs.into_iter().filter(|name| !in_path(name)).map(str::to_owned).collect();
    let (kvm, hypervisor) = if roles.machines {
        (kvm().await, hypervisor(uri).await)
    } else {
        (Kvm::Absent, Err("not asked".to_owned()))
    };
    Facts {
        roles,
        missing,
        kvm,
        hypervisor,
        swaps: std::fs::read_to_string("/proc/swaps").map_or_else(
            |_| {
                vec![Swap {
                    name: "/proc/swaps".to_owned(),
                    safe: false,
                }]
            },
            |text| swaps(&text, &encrypted),
        ),
        core_pattern: std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_else(|error| error.to_string()),
        run_in_memory: in_memory(run),
        addresses,
    }
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

async fn kvm() -> Kvm {
    if !Path::new("/dev/kvm").exists() {
        return Kvm::Absent;
    }
    match tokio::task::spawn_blocking(kvm_works).await {
        Ok(true) => Kvm::Works,
        Ok(false) | Err(_) => Kvm::Broken,
    }
}

async fn hypervisor(uri: &str) -> Result<Hypervisor, String> {
    let uri = uri.to_owned();
    let ask = move || -> Result<Hypervisor, virt::error::Error> {
        let connection = Connect::open_read_only(Some(&uri))?;
        Ok(Hypervisor {
            libvirt: connection.lib_version()?,
            qemu: connection.hyp_version()?,
            confined_by: confined_by(&connection.capabilities()?),
        })
    };
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(ask)).await {
        Ok(Ok(answer)) => answer.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The security model of libvirt's capabilities that tells machines apart; `dac` alone does not.
fn confined_by(capabilities: &str) -> Option<String> {
    let document = roxmltree::Document::parse(capabilities).ok()?;
    let mut models = document.descendants().filter(|node| node.has_tag_name("secmodel"));
    models.find_map(|model| {
        let name = model.children().find(|child| child.has_tag_name("model"))?.text()?;
        matches!(name, "selinux" | "apparmor").then(|| name.to_owned())
    })
}

/// Of /proc/swaps (proc(5)): a heading, then `name type size used priority` a line.
fn swaps(text: &str, encrypted: &dyn Fn(&str) -> bool) -> Vec<Swap> {
    let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let swap = |name: &str| Swap {
        name: name.to_owned(),
        safe: name.starts_with("/dev/zram") || encrypted(name),
    };
    names.map(swap).collect()
}

/// Whether a block device is one of dm-crypt: its identifier in the kernel begins so.
fn encrypted(name: &str) -> bool {
    let Ok(device) = std::fs::canonicalize(name) else { return false };
    let Some(node) = device
        .file_name()
        .and_then(|name| name.to_str())
        .filter(|_| device.starts_with("/dev"))
    else {
        return false;
    };
    std::fs::read_to_string(format!("/sys/class/block/{node}/dm/uuid")).is_ok_and(|uuid| uuid.starts_with("CRYPT-"))
}

/// Whether a directory, or the nearest above it that is there, lies in memory (statfs(2)).
fn in_memory(folder: &Path) -> bool {
    const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6]; // tmpfs, ramfs
    let there = folder.ancestors().find(|folder| folder.exists());
    let kind = there.and_then(|folder| rustix::fs::statfs(folder).ok()).map(|found| found.f_type);
    kind.is_some_and(|kind| IN_MEMORY.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_safe_in_memory_and_under_dm_crypt() {
        let text =
            "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition 1 0 100\n/dev/dm-3 partition 1 0 -2\n/swap\\040file file 1 0 -3\n";
        let safe: Vec<bool> = swaps(text, &|name| name == "/dev/dm-3").iter().map(|swap| swap.safe).collect();
        assert_eq!(safe, [true, true, false]);
        assert!(swaps("Filename\tType\tSize\tUsed\tPriority\n", &|_| false).is_empty());
    }

    #[test]
    fn machines_are_kept_apart_by_a_security_model_that_labels_them() {
        let with = |model: &str| format!("<capabilities><host><secmodel><model>{model}</model></secmodel></host></capabilities>");
        assert_eq!(confined_by(&with("apparmor")), Some("apparmor".to_owned()));
        assert_eq!((confined_by(&with("dac")), confined_by("no xml")), (None, None));
    }

    #[test]
    fn memory_is_told_from_disks() {
        assert!(in_memory(Path::new("/dev/shm/not/there")));
        assert!(!in_memory(Path::new("/proc")));
    }

    #[test]
    fn a_program_is_found_by_its_name() {
        assert!(in_path("sh") && !in_path("no-such-program"));
    }
}
