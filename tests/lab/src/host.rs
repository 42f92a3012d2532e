//! A hypervisor host in namespaces of its own (network, mount, PID, UTS, IPC): its own libvirt, its own `/dev` without KVM.
//!
//! Nothing of it is seen outside but its directory and its processes; it ends, whole, with one process. What may hold a secret of a running
//! domain (libvirt's state and master keys, firmware variables, `/run/dejima`) lies on a memory file system of the host.
//!
//! ```text
//! inside                       seen from the machine
//! /run/libvirt/libvirt-sock    DIRECTORY/run/libvirt-sock       Host::socket, Host::uri
//! DIRECTORY/images             DIRECTORY/images                 the same path: QEMU and hostd agree
//! /run/dejima                  /proc/PID/root/run/dejima        Host::seen_at
//! /proc/1/ns/net               /proc/PID/ns/net                 Host::namespace
//! ```
//! A program that must see pids, pid files and sockets as on a real host is started by [`Host::command`].

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;

pub use crate::children::child_of;
use crate::children::{Running, Stay, send, start_for};
use crate::run::{Error, await_until, file, finish, succeed};

const INIT: &str = include_str!("../host/init.sh");
/// Where the directories of hosts lie.
pub const STATE: &str = "/var/lib/dejima-lab";

/// Which network a program started on a host sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The machine's own: loopback with the API server and the key server.
    Machine,
    /// The host's: bridges and ports of projects.
    Host,
}

/// A running host.
#[derive(Debug)]
pub struct Host {
    name: String,
    dir: PathBuf,
    init: u32,
    child: Running,
}

/// The directory of one part of a platform, readable by the user that QEMU runs as: `/var/lib/dejima-lab/PLATFORM/NAME`.
pub fn folder(platform: &str, name: &str) -> Result<PathBuf, Error> {
    let mut path = PathBuf::from(STATE);
    for part in [platform, name] {
        path.push(part);
    }
    file("make", &path, std::fs::create_dir_all(&path))?;
    let mut mode = Command::new("chmod");
    mode.arg("755").arg(STATE).arg(Path::new(STATE).join(platform)).arg(&path);
    succeed(&mut mode, None)?;
    Ok(path)
}

impl Host {
    /// Starts a host; what its directory holds already (definitions, images) is gone on with, as after a power cut. Up in 1 to 3 s.
    pub fn start(platform: &str, name: &str) -> Result<Self, Error> {
        Self::start_for(Stay::WithStarter, platform, name)
    }

    /// The same, for as long as it is to stay.
    pub fn start_for(stay: Stay, platform: &str, name: &str) -> Result<Self, Error> {
        let dir = folder(platform, name)?;
        prepare(&dir)?;
        let mut command = Command::new("unshare");
        command
            .args([
                "--net",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child=KILL",
                "--",
                "bash",
            ])
            .arg(dir.join("init.sh"))
            .arg(name)
            .arg(&dir);
        let child = start_for(stay, name, &command, &dir.join("log/init.log"))?;
        let mut host = Self {
            name: name.to_owned(),
            dir,
            init: 0,
            child,
        };
        let log = host.dir.join("log").display().to_string();
        let mark = host.dir.join("init.pid");
        await_until(&format!("the first process of host `{name}`"), 20, &log, || {
            std::fs::read_to_string(&mark).is_ok_and(|text| text.ends_with('\n')) || !host.child.is_running()
        })?;
        host.init = number(&mark)?;
        host.await_libvirt()?;
        Ok(host)
    }

    /// The one that an earlier process started to stay; nothing where it runs no more.
    pub fn again(platform: &str, name: &str) -> Option<Self> {
        let dir = Path::new(STATE).join(platform).join(name);
        let child = Running::again(name, &dir.join("log/init.log"))?;
        Some(Self {
            name: name.to_owned(),
            init: number(&dir.join("init.pid")).ok()?,
            dir,
            child,
        })
    }

    fn await_libvirt(&mut self) -> Result<(), Error> {
        let log = self.dir.join("log").display().to_string();
        let what = format!("libvirt on host `{}`", self.name);
        let mut ended = false;
        await_until(&what, 40, &log, || {
            ended = !self.child.is_running();
            ended
                || (self.socket().exists()
                    && self
                        .virsh(&["version", "--daemon"], None)
                        .is_ok_and(|output| output.status.success()))
        })?;
        if ended {
            return Err(Error::Unexpected(format!("host `{}` ended as it started; see {log}", self.name)));
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory: the same path inside and outside.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where images of volumes and datasets lie: the same path inside and outside.
    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// libvirt's socket, seen from the machine.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/libvirt-sock")
    }

    /// libvirt's address, seen from the machine; inside it is `qemu:///system`.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket().display())
    }

    /// The pid of its first process, seen from the machine.
    pub fn pid(&self) -> u32 {
        self.init
    }

    /// One of its namespaces (`net`, `mnt`, `pid`), seen from the machine.
    pub fn namespace(&self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.init))
    }

    /// Where an absolute path of the host is seen from the machine.
    pub fn seen_at(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// A program on the host: its mounts, pids and name. It is killed when the process that starts it ends.
    ///
    /// The process that is started is `nsenter`; the program is its child ([`child_of`]).
    pub fn command(&self, program: &Path, network: Network) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command.args(["--mount", "--uts", "--ipc", "--pid"]);
        if network == Network::Host {
            command.arg("--net");
        }
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Runs a program on the host, in its network, to its end.
    pub fn run(&self, words: &[&str], input: Option<&[u8]>) -> Result<String, Error> {
        let (program, rest) = words
            .split_first()
            .ok_or_else(|| Error::Unexpected("no program was named".into()))?;
        succeed(self.command(Path::new(program), Network::Host).args(rest), input)
    }

    /// Runs `virsh` against its libvirt, whatever way it ends.
    pub fn virsh(&self, arguments: &[&str], input: Option<&str>) -> Result<Output, Error> {
        let mut command = Command::new("virsh");
        finish(
            command.args(["--quiet", "--connect", &self.uri()]).args(arguments),
            input.map(str::as_bytes),
        )
    }

    /// Runs `virsh`, which must succeed; what it says.
    pub fn ask(&self, arguments: &[&str], input: Option<&str>) -> Result<String, Error> {
        let mut command = Command::new("virsh");
        succeed(
            command.args(["--quiet", "--connect", &self.uri()]).args(arguments),
            input.map(str::as_bytes),
        )
    }

    /// The pid of its libvirt, seen from the machine; nothing where it does not run.
    pub fn libvirt_pid(&self) -> Option<u32> {
        self.outer(&self.dir.join("run/libvirtd.pid"))
    }

    /// The pid of the QEMU of a domain, seen from the machine; nothing where it does not run.
    pub fn domain_pid(&self, domain: &str) -> Option<u32> {
        self.outer(&self.seen_at(&format!("/run/libvirt/qemu/{domain}.pid")))
    }

    fn outer(&self, pid_file: &Path) -> Option<u32> {
        let inner: u32 = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
        let space = std::fs::read_link(self.namespace("pid")).ok()?;
        let all = std::fs::read_dir("/proc").ok()?.flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        numbers.into_iter().find(|pid| {
            // A process that ends while we look is not the one.
            let inside = std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link == space);
            inside && std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| innermost(&status) == Some(inner))
        })
    }

    /// Stops libvirt; domains go on. With `freeze` it stays and no longer answers.
    pub fn stop_libvirt(&self, freeze: bool) -> Result<(), Error> {
        let pid = self
            .libvirt_pid()
            .ok_or_else(|| Error::Unexpected(format!("libvirt does not run on host `{}`", self.name)))?;
        send(pid, if freeze { Signal::SIGSTOP } else { Signal::SIGKILL });
        if freeze {
            return Ok(());
        }
        await_until("the end of libvirt", 20, &self.dir.display().to_string(), || {
            !Path::new("/proc").join(pid.to_string()).exists()
        })
    }

    /// Starts libvirt again after [`Host::stop_libvirt`], or lets it go on; returns when it answers.
    pub fn start_libvirt(&mut self) -> Result<(), Error> {
        match self.libvirt_pid() {
            Some(pid) => send(pid, Signal::SIGCONT),
            None => {
                self.run(&["libvirtd", "-d", "-p", "/run/libvirt/libvirtd.pid"], None)?;
            }
        }
        self.await_libvirt()
    }

    /// Pulls the plug: everything on the host ends; its directory stays.
    pub fn stop(&mut self) -> Result<(), Error> {
        // The first process of a PID namespace takes all others with it; `unshare` ends when the last is gone.
        if self.init != 0 && self.child.is_running() {
            send(self.init, Signal::SIGKILL);
        }
        let log = self.dir.join("log").display().to_string();
        await_until(&format!("the end of host `{}`", self.name), 20, &log, || !self.child.is_running())?;
        self.child.kill();
        Ok(())
    }

    /// Pulls the plug and removes the directory with all images.
    pub fn remove(mut self) -> Result<(), Error> {
        self.stop()?;
        file("remove", &self.dir, std::fs::remove_dir_all(&self.dir))
    }
}

fn number(path: &Path) -> Result<u32, Error> {
    let text = file("read", path, std::fs::read_to_string(path))?;
    text.trim()
        .parse()
        .map_err(|_| Error::Unexpected(format!("`{}` holds no number: `{}`", path.display(), text.trim())))
}

/// The pid that a process has in the innermost of its PID namespaces.
fn innermost(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// The directories and settings of libvirt; what a host that ended has left of its run is cleared.
fn prepare(dir: &Path) -> Result<(), Error> {
    for gone in ["run", "init.pid"] {
        let path = dir.join(gone);
        // What is not there need not go.
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
    for name in ["run", "etc/qemu/autostart", "lib/qemu", "log", "cache", "lock", "dev", "images"] {
        let path = dir.join(name);
        file("make", &path, std::fs::create_dir_all(&path))?;
        succeed(Command::new("chmod").arg("755").arg(&path), None)?;
    }
    let identity = dir.join("uuid");
    if !identity.exists() {
        let source = Path::new("/proc/sys/kernel/random/uuid");
        let uuid = file("read", source, std::fs::read_to_string(source))?;
        file("write", &identity, std::fs::write(&identity, uuid))?;
    }
    let uuid = file("read", &identity, std::fs::read_to_string(&identity))?;
    let libvirtd = format!(
        "unix_sock_group = \"root\"\nunix_sock_rw_perms = \"0770\"\nauth_unix_rw = \"none\"\nlisten_tls = 0\nlisten_tcp = 0\nhost_uuid = \"{}\"\n\
         log_filters = \"4:qemu.qemu_domain 3:*\"\nlog_outputs = \"1:file:/var/log/libvirt/libvirtd.log\"\n",
        uuid.trim()
    );
    // Control groups of the first version are left alone here: libvirt would leave directories behind.
    let qemu = "security_driver = \"none\"\nstdio_handler = \"logd\"\nremember_owner = 0\ndump_guest_core = 0\ncgroup_controllers = [ ]\n";
    let virtlogd = "log_outputs = \"3:file:/var/log/libvirt/virtlogd.log\"\n";
    for (name, text) in [
        ("etc/libvirtd.conf", libvirtd.as_str()),
        ("etc/qemu.conf", qemu),
        ("etc/virtlogd.conf", virtlogd),
        ("init.sh", INIT),
    ] {
        let path = dir.join(name);
        file("write", &path, std::fs::write(&path, text))?;
    }
    Ok(())
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.child.stays() == Stay::WithStarter {
            // The directory stays for whoever wants to know what happened.
            let _ = self.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_innermost_pid_is_the_last_one() {
        assert_eq!(super::innermost("Name:\tx\nNSpid:\t4711\t12\nNSsid:\t1\n"), Some(12));
        assert_eq!(super::innermost("Name:\tx\n"), None);
    }
}
