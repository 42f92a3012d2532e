//! A network namespace: programs, files and sockets in it. Every program has a deadline.

use std::fs::File;
use std::io::{Error, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// Seconds that a program may take.
const DEADLINE: &str = "20";

/// A network namespace, by its path.
#[derive(Clone, Debug)]
pub(super) struct Space {
    path: PathBuf,
}

/// Runs a program of this thread's own namespace to its end; what it wrote.
pub(super) fn run(program: &[&str], input: &str) -> Result<Vec<u8>, Error> {
    let mut child = Command::new("timeout")
        .args(["--signal=KILL", DEADLINE])
        .args(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // These programs read all of their input before they write. One that ended early says why on its own.
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = program.join(" ");
    Err(Error::other(format!("{program} ended with {}: {}", output.status, said.trim())))
}

impl Space {
    /// The namespace at this path.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Runs a program in it.
    pub(super) fn run(&self, program: &[&str], input: &str) -> Result<Vec<u8>, Error> {
        let net = format!("--net={}", self.path.display());
        let all: Vec<&str> = ["nsenter", net.as_str()].into_iter().chain(program.iter().copied()).collect();
        run(&all, input)
    }

    /// Several lines of `ip`, in order; the first that fails ends it.
    pub(super) fn ip(&self, lines: &[String]) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        self.run(&["ip", "-batch", "-"], &(lines.join("\n") + "\n")).map(drop)
    }

    /// What a program says, as JSON.
    pub(super) fn ask(&self, program: &[&str]) -> Result<Value, Error> {
        let said = self.run(program, "")?;
        if said.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_slice(&said).map_err(Error::other)
    }

    /// Does work on a thread that is in the namespace: sockets it opens stay there.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        let entered = || {
            setns(File::open(&self.path)?, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        let joined = std::thread::scope(|scope| scope.spawn(entered).join());
        joined.unwrap_or_else(|_| Err(Error::other("a thread in the namespace panicked")))
    }

    /// Sets switches below `/proc/sys/net`; one that the kernel does not have needs no setting.
    pub(super) fn switch(&self, switches: &[(String, &str)]) -> Result<(), Error> {
        self.within(|| {
            for (name, value) in switches {
                let path = Path::new("/proc/sys/net").join(name);
                match std::fs::read_to_string(&path) {
                    Ok(now) if now.trim() == *value => {}
                    Ok(_) => std::fs::write(&path, value)?,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    /// Whether all switches that the kernel has stand like this.
    pub(super) fn stand(&self, switches: &[(String, &str)]) -> Result<bool, Error> {
        self.within(|| {
            Ok(switches.iter().all(|(name, value)| {
                let now = std::fs::read_to_string(Path::new("/proc/sys/net").join(name));
                now.map_or_else(|error| error.kind() == ErrorKind::NotFound, |now| now.trim() == *value)
            }))
        })
    }
}
