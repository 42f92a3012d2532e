//! A network namespace: programs, files and sockets in it. Every program has a deadline.

use std::fs::File;
use std::io::{Error, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

/// How long a program may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A network namespace, by its path.
#[derive(Clone, Debug)]
pub(super) struct Space {
    path: PathBuf,
}

/// Runs a program of this thread's own namespace to its end; what it wrote. One that takes too long is killed.
pub(super) fn run(program: &[&str], input: &str) -> Result<Vec<u8>, Error> {
    let (name, arguments) = program.split_first().ok_or_else(|| Error::other("no program was named"))?;
    let command = match *name {
        "bridge" => Command::new("bridge"),
        "conntrack" => Command::new("conntrack"),
        "ip" => Command::new("ip"),
        "nft" => Command::new("nft"),
        other => return Err(Error::other(format!("{other} is none of the programs that networks are made with"))),
    };
    finish(command, arguments, input, DEADLINE)
}

fn finish(mut command: Command, arguments: &[&str], input: &str, deadline: Duration) -> Result<Vec<u8>, Error> {
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // It is the process that is meant, or none: nobody has waited for it yet.
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(Error::other)?).ok_or_else(|| Error::other("a program without a pid"))?;
    let held = pidfd_open(pid, PidfdFlags::empty())?;
    let (ended, is_over) = mpsc::channel::<()>();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            if is_over.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                // One that ended just now needs no signal.
                let _ = pidfd_send_signal(&held, Signal::KILL);
            }
        });
        // These programs read all of their input before they write. One that ended early says why on its own.
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output();
        drop(ended);
        match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            Ok(()) | Err(_) => output,
        }
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = [&[command.get_program().to_string_lossy().as_ref()], arguments].concat().join(" ");
    Err(Error::other(format!("{program} ended with {}: {}", output.status, said.trim())))
}

impl Space {
    /// The namespace at this path.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Runs a program in it.
    pub(super) fn run(&self, program: &[&str], input: &str) -> Result<Vec<u8>, Error> {
        // A child is born in the namespace of the thread that starts it.
        self.within(|| run(program, input))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_takes_too_long_is_killed_and_what_one_says_is_heard() {
        let long = Duration::from_mins(1);
        let of = |name: &str, arguments: &[&str], input: &str, deadline| finish(Command::new(name), arguments, input, deadline);
        assert_eq!(of("cat", &[], "what is said", long).unwrap(), b"what is said");
        let shell = |line: &str, input: &str| of("sh", &["-c", line], input, long);
        let much = shell("cat >/dev/null; head -c 1000000 /dev/zero", &"x".repeat(1 << 20));
        assert_eq!(much.unwrap().len(), 1_000_000, "more than a pipe holds");
        let begun = std::time::Instant::now();
        let error = of("sleep", &["60"], "", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("sleep 60 ended with signal: 9"), "{error}");
        assert!(begun.elapsed() < long);
        let error = shell("echo why >&2; exit 3", "").unwrap_err();
        assert!(error.to_string().contains("exit status: 3: why"), "{error}");
        assert!(of("no-such-program", &[], "", long).is_err());
        assert!(run(&["cat"], "").is_err(), "nothing but what networks are made with");
    }
}
