//! The QEMU process of a machine, known beyond doubt: its pid, when it started, and the machine's UUID on its command line.
//!
//! It is ended directly where libvirt does not answer (pidfd_open(2): the process that is meant, or none).

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pid: i32,
    // In clock ticks since the machine started (proc_pid_stat(5), field 22).
    started: u64,
    uuid: String,
}

/// The state and the start of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl Process {
    /// The process that a pid file names, where it is that machine's.
    pub(super) fn find(pid_file: &Path, uuid: &str) -> Option<Self> {
        let pid: i32 = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
        let (_, started) = stat(pid)?;
        let found = Self {
            pid,
            started,
            uuid: uuid.to_owned(),
        };
        found.is_there().then_some(found)
    }

    /// Whether it is still there.
    pub(super) fn is_there(&self) -> bool {
        let same = stat(self.pid).is_some_and(|(state, started)| started == self.started && state != 'Z' && state != 'X');
        let command = || std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        same && command()
            .windows(self.uuid.len())
            .any(|window| window.eq_ignore_ascii_case(self.uuid.as_bytes()))
    }

    /// Kills it and waits for its end, for at most so long. Whether it is gone.
    pub(super) fn end(&self, within: Duration) -> std::io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(true) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // What the descriptor holds is looked at after it is held: the pid may have been given to another.
            Ok(held) if self.is_there() => pidfd_send_signal(&held, Signal::KILL)?,
            Ok(_) | Err(rustix::io::Errno::SRCH) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let end = Instant::now() + within;
        while self.is_there() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(!self.is_there())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ended_only_where_it_is_the_one_that_is_meant() {
        let mut child = std::process::Command::new("sleep").arg("4711.25").spawn().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        std::fs::write(&file, format!("{}\n", child.id())).unwrap();
        // It may not have become `sleep` yet.
        while Process::find(&file, "4711.25").is_none() {
            std::thread::yield_now();
        }
        let found = Process::find(&file, "4711.25").unwrap();
        assert_eq!(Process::find(&file, "another"), None, "another machine's");
        let elder = Process {
            started: found.started + 1,
            ..found.clone()
        };
        assert!(!elder.is_there() && elder.end(Duration::ZERO).unwrap());
        assert!(found.is_there(), "the control: it was left alone");
        assert!(found.end(Duration::from_secs(5)).unwrap());
        child.wait().unwrap();
        assert!(!found.is_there());
    }
}
