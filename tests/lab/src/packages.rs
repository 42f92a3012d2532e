//! The distribution's packages that the real parts need: which are missing and why, and how they come onto the machine.
//!
//! libvirt and QEMU must be new (QEMU 7.2 corrupts flags when it emulates, and kernels of the 6 series panic under it), so on a release
//! that ships older ones they, and nothing else, come from its backports. That is told to apt through files of our own: the machine's own
//! sources and preferences are read and never changed. No service is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Error, file, finish, succeed};
use crate::{Reporter, cache};

/// A package and what it is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What it is needed for.
    pub why: String,
}

/// The oldest QEMU that emulates a present kernel without faults.
pub const QEMU_AT_LEAST: u32 = 10;

/// What every part needs.
const NEEDED: [(&str, &str); 24] = [
    ("libvirt-daemon", "machines: the daemon of a host"),
    ("libvirt-daemon-driver-qemu", "machines: its QEMU driver"),
    ("libvirt-daemon-driver-secret", "machines: keys of encrypted volumes"),
    ("libvirt-daemon-driver-storage", "machines: it must load beside the QEMU driver"),
    ("libvirt-daemon-log", "machines: logs of consoles"),
    ("libvirt-clients", "the lab: virsh"),
    ("libvirt-dev", "building: the library that hostd is linked to"),
    ("pkg-config", "building: where that library is"),
    ("qemu-system-x86", "machines"),
    ("qemu-utils", "datasets: qemu-img writes encrypted images"),
    ("seabios", "machines: firmware"),
    ("nftables", "networks: rules"),
    ("conntrack", "networks: flows of a closed entry are ended"),
    ("iproute2", "networks: bridges and ports"),
    ("erofs-utils", "datasets: read-only images"),
    ("cryptsetup-bin", "volumes: LUKS headers"),
    ("busybox-static", "the lab's guest"),
    ("e2fsprogs", "the lab's guest: volumes are formatted in it"),
    ("cpio", "the lab's guest"),
    ("kmod", "the lab's guest: its kernel's modules"),
    ("xz-utils", "the lab's guest: its kernel is packed"),
    ("zstd", "the lab's guest: its kernel is packed"),
    ("util-linux", "the lab: namespaces, and processes that end with their parent"),
    ("openssl", "the lab: certificates"),
];

/// What every part needs, in an order that can be read.
pub fn needed() -> Vec<Package> {
    let package = |(name, why): (&str, &str)| Package {
        name: name.to_owned(),
        why: why.to_owned(),
    };
    NEEDED.map(package).into()
}

/// What of this is missing on this machine, in the same order.
pub fn missing(mut needed: Vec<Package>) -> Result<Vec<Package>, Error> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]);
    query.args(needed.iter().map(|package| &package.name));
    // It fails where a package is not even known; what it lists is what counts.
    let output = finish(&mut query, None)?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let old = emulator().is_none_or(|major| major < QEMU_AT_LEAST);
    needed.retain(|Package { name, .. }| {
        let renewed = old && (name.starts_with("qemu-") || name == "seabios");
        renewed || !is_installed(&listed, name)
    });
    Ok(needed)
}

fn is_installed(listed: &str, name: &str) -> bool {
    listed.lines().any(|line| line == format!("{name} installed"))
}

/// The major version of the QEMU on this machine: what the program says, whatever its package is called.
pub fn emulator() -> Option<u32> {
    let said = succeed(Command::new("qemu-system-x86_64").arg("--version"), None).ok()?;
    major(&said)
}

fn major(said: &str) -> Option<u32> {
    let (_, rest) = said.split_once("version ")?;
    rest.split(|sign: char| !sign.is_ascii_digit()).next()?.parse().ok()
}

/// Installs what every part needs and is missing; says what and why. Nothing is done where nothing is missing.
pub fn install(reporter: &dyn Reporter) -> Result<(), Error> {
    install_these(&missing(needed())?, reporter)
}

/// Installs these, of which none is there.
pub fn install_these(packages: &[Package], reporter: &dyn Reporter) -> Result<(), Error> {
    if !packages.is_empty() {
        for package in packages {
            reporter.say(&format!("installing {} ({})", package.name, package.why));
        }
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        Apt::ready()?.install(&names)?;
    }
    match emulator() {
        Some(major) if major >= QEMU_AT_LEAST => Ok(()),
        Some(major) => Err(Error::Unexpected(format!(
            "the QEMU of this machine is version {major}; {QEMU_AT_LEAST} or newer is needed"
        ))),
        None => Err(Error::Unexpected(
            "no `qemu-system-x86_64` answers after the packages were installed".into(),
        )),
    }
}

/// apt with sources and preferences of our own.
#[derive(Debug)]
pub struct Apt {
    home: PathBuf,
}

impl Apt {
    /// Reads the machine's own sources, adds the backports of the same release, and fetches the lists.
    pub fn ready() -> Result<Self, Error> {
        let home = cache::shared().join("apt");
        for folder in ["sources", "preferences", "lists/partial"] {
            let folder = home.join(folder);
            file("make", &folder, std::fs::create_dir_all(&folder))?;
        }
        let release = file("read", Path::new("/etc/os-release"), std::fs::read_to_string("/etc/os-release"))?;
        let codename = codename(&release)
            .ok_or_else(|| Error::Unexpected("this is no Debian: install by hand what `docs` lists under packages".into()))?;
        let apt = Self { home };
        apt.write_sources(&codename)?;
        let pin = format!("Package: libvirt* qemu* seabios\nPin: release n={codename}-backports\nPin-Priority: 600\n");
        let preferences = apt.home.join("preferences/dejima-lab");
        file("write", &preferences, std::fs::write(&preferences, pin))?;
        succeed(apt.command("apt-get").args(["-q", "update"]), None)?;
        Ok(apt)
    }

    fn write_sources(&self, codename: &str) -> Result<(), Error> {
        let mut found = vec![PathBuf::from("/etc/apt/sources.list")];
        let listed = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
        found.extend(listed.map(|entry| entry.path()));
        let (mut deb822, mut lines) = (String::new(), String::new());
        for path in found {
            // A file that is not there has no sources.
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            match path.extension().and_then(|end| end.to_str()) {
                Some("sources") => deb822.push_str(&with_backports(&text, codename, "\n\n", stanza)),
                Some("list") => lines.push_str(&with_backports(&text, codename, "\n", line)),
                Some(_) | None => {}
            }
        }
        for (name, text) in [("machine.sources", deb822), ("machine.list", lines)] {
            let path = self.home.join("sources").join(name);
            file("write", &path, std::fs::write(&path, text))?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        for (option, value) in [
            ("Dir::Etc::sourcelist", PathBuf::from("/dev/null")),
            ("Dir::Etc::sourceparts", self.home.join("sources")),
            ("Dir::Etc::preferencesparts", self.home.join("preferences")),
            ("Dir::State::lists", self.home.join("lists")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        command.args(["-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Use-Pty=0"]);
        command
    }

    /// Installs packages; their services are not started.
    fn install(&self, names: &[&str]) -> Result<(), Error> {
        let _quiet = Quiet::keep()?;
        let mut install = self.command("apt-get");
        install.args([
            "-q",
            "-y",
            "install",
            "--no-install-recommends",
            "-o",
            "Dpkg::Options::=--force-confold",
        ]);
        succeed(install.args(names), None).map(drop)
    }

    /// Fetches a package, checked by apt, and unpacks it into a directory; it is not installed.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<(), Error> {
        let fetched = into.join("fetched");
        file("make", &fetched, std::fs::create_dir_all(&fetched))?;
        let mut download = self.command("apt-get");
        // apt hands the download to a user of its own, who may not write here: as root it is said to be less safe, and nothing else.
        download
            .current_dir(&fetched)
            .args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
        succeed(download.arg(package), None)?;
        for entry in file("read", &fetched, std::fs::read_dir(&fetched))?.flatten() {
            succeed(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(into), None)?;
        }
        file("remove", &fetched, std::fs::remove_dir_all(&fetched))
    }

    /// The package that a meta package of a version series (such as `6.12`) stands for.
    pub fn behind(&self, meta: &str, series: &str, prefix: &str) -> Result<String, Error> {
        let offered = succeed(self.command("apt-cache").args(["madison", meta]), None)?;
        let version = offered
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(str::trim)
            .find(|version| version.strip_prefix(series).is_some_and(|rest| rest.starts_with('.')))
            .ok_or_else(|| Error::Unexpected(format!("no `{meta}` of series {series} is offered")))?;
        let depends = succeed(self.command("apt-cache").args(["depends", &format!("{meta}={version}")]), None)?;
        depends
            .split_whitespace()
            .find(|word| word.starts_with(prefix) && *word != meta)
            .map(str::to_owned)
            .ok_or_else(|| Error::Unexpected(format!("`{meta}` {version} stands for nothing that begins with `{prefix}`")))
    }
}

/// Services that a package brings are not started while this lives.
struct Quiet {
    made: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl Quiet {
    fn keep() -> Result<Self, Error> {
        let path = Path::new(POLICY);
        if path.exists() {
            return Ok(Self { made: false });
        }
        file("write", path, std::fs::write(path, "#!/bin/sh\nexit 101\n"))?;
        succeed(Command::new("chmod").arg("755").arg(path), None)?;
        Ok(Self { made: true })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.made {
            // Left behind it would only keep services from starting at their installation.
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

fn codename(release: &str) -> Option<String> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches('"').to_owned())
    };
    (value("ID=")? == "debian").then(|| value("VERSION_CODENAME="))?
}

/// A text of sources, and behind it each source of the release itself once more with the suite of its backports.
fn with_backports(text: &str, codename: &str, between: &str, edit: fn(&str, &str) -> Option<String>) -> String {
    let mut all = format!("{}{between}", text.trim_end());
    if !text.contains(&format!("{codename}-backports")) {
        for source in text.split(between) {
            if let Some(edited) = edit(source, codename) {
                all.push_str(&edited);
                all.push_str(between);
            }
        }
    }
    all
}

/// A stanza of the newer format, where it is one of the release itself.
fn stanza(source: &str, codename: &str) -> Option<String> {
    let suites = source.lines().find_map(|line| line.strip_prefix("Suites:"))?;
    suites.split_whitespace().find(|suite| *suite == codename)?;
    let lines: Vec<String> = source
        .lines()
        .map(|line| {
            if line.starts_with("Suites:") {
                format!("Suites: {codename}-backports")
            } else {
                line.to_owned()
            }
        })
        .collect();
    Some(lines.join("\n"))
}

/// A line of the older format, where it is one of the release itself.
fn line(source: &str, codename: &str) -> Option<String> {
    let words: Vec<&str> = source.split_whitespace().collect();
    let is_one = words.first() == Some(&"deb") && words.contains(&codename);
    let backports = format!("{codename}-backports");
    is_one.then(|| {
        let words: Vec<&str> = words
            .iter()
            .map(|word| if *word == codename { backports.as_str() } else { word })
            .collect();
        words.join(" ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_are_added_beside_the_release_and_nowhere_else() {
        let text = "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                    Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n";
        let all = with_backports(text, "bookworm", "\n\n", stanza);
        assert!(all.starts_with(text.trim_end()));
        assert_eq!(all.matches("Suites: bookworm-backports\n").count(), 1);
        assert_eq!(all.matches("mirror.test/security").count(), 1);
        let lines = with_backports(
            "deb [trusted=no] http://mirror.test/debian bookworm main\n# deb http://x bookworm main\n",
            "bookworm",
            "\n",
            line,
        );
        assert_eq!(
            lines
                .matches("deb [trusted=no] http://mirror.test/debian bookworm-backports main")
                .count(),
            1
        );
        assert_eq!(lines.matches("backports").count(), 1);
    }

    #[test]
    fn backports_that_are_there_are_not_added_twice() {
        let text = "deb http://mirror.test/debian bookworm main\ndeb http://mirror.test/debian bookworm-backports main\n";
        assert_eq!(with_backports(text, "bookworm", "\n", line), text);
    }

    #[test]
    fn an_emulator_is_known_by_what_it_says() {
        assert_eq!(major("QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7)"), Some(7));
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), Some(10));
        assert_eq!(major("something else"), None);
    }

    #[test]
    fn a_package_that_is_only_known_is_not_installed() {
        let listed = "cpio installed\nkmod config-files\n";
        assert!(is_installed(listed, "cpio"));
        assert!(!is_installed(listed, "kmod"));
        assert!(!is_installed(listed, "zstd"));
    }
}
