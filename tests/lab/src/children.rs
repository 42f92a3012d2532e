//! Processes that are started and stay: each is ended by the pid that was started, and waited for.
//!
//! A pid alone may by now be another process: one that is found again is known by its pid, the time of its start and the boot of the machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::{Error, await_until, file};

/// How long a process that was started goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Until the process that started it ends, however that ends.
    WithStarter,
    /// Until it is stopped; a file beside its log tells a later process which one it is.
    UntilStopped,
}

/// A process that was started; one that ends with its starter is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    // Nothing where another process started it.
    child: Option<Child>,
    pid: u32,
    since: u64,
    stay: Stay,
    behind: bool,
    name: String,
    log: PathBuf,
}

/// Starts a program with its output in a log file. It dies with this process, however this process ends.
pub fn start(name: &str, command: &Command, log: &Path) -> Result<Running, Error> {
    start_for(Stay::WithStarter, name, command, log)
}

/// Starts a program with its output in a log file, for as long as it is to stay.
pub fn start_for(stay: Stay, name: &str, command: &Command, log: &Path) -> Result<Running, Error> {
    let out = file("open", log, File::options().create(true).append(true).open(log))?;
    let err = file("open", log, out.try_clone())?;
    let mut wrapped = match stay {
        // setpriv (util-linux) sets the signal that the kernel sends when the parent is gone.
        Stay::WithStarter => {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]);
            command
        }
        // A session of its own: a terminal that is closed, or Ctrl-C on it, is nothing to it.
        Stay::UntilStopped => Command::new("setsid"),
    };
    wrapped.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    match (command.get_current_dir(), stay) {
        (Some(folder), _) => {
            wrapped.current_dir(folder);
        }
        // What stays holds no directory of whoever started it.
        (None, Stay::UntilStopped) => {
            wrapped.current_dir("/");
        }
        (None, Stay::WithStarter) => {}
    }
    wrapped.stdin(Stdio::null()).stdout(out).stderr(err);
    let shown = name.to_owned();
    let spawned = match stay {
        Stay::UntilStopped => wrapped.spawn(),
        // The kernel counts the *thread* as the parent: one that never ends starts the process, not a test's own.
        Stay::WithStarter => {
            let (send, receive) = mpsc::channel();
            std::thread::spawn(move || {
                let _ = send.send(wrapped.spawn());
                loop {
                    std::thread::park();
                }
            });
            match receive.recv() {
                Ok(spawned) => spawned,
                Err(_) => return Err(Error::Unexpected(format!("nobody started `{shown}`"))),
            }
        }
    };
    let child = match spawned {
        Ok(child) => child,
        Err(cause) => return Err(Error::Start { command: shown, cause }),
    };
    let pid = child.id();
    let running = Running {
        child: Some(child),
        pid,
        since: begun(pid).unwrap_or_default(),
        stay,
        behind: false,
        name: shown,
        log: log.to_owned(),
    };
    if stay == Stay::UntilStopped {
        let mark = running.mark();
        file(
            "write",
            &mark,
            std::fs::write(&mark, format!("{pid} {} {}\n", running.since, boot())),
        )?;
    }
    Ok(running)
}

/// When a process began, in the kernel's ticks since boot; nothing where it is gone or has ended.
fn begun(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything, brackets too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Which boot of the machine this is.
fn boot() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.unwrap_or_default().trim().to_owned()
}

impl Running {
    /// The process that an earlier one started to stay; nothing where it runs no more.
    pub fn again(name: &str, log: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(log.with_extension("pid")).ok()?;
        let mut words = text.split_whitespace();
        let (pid, since): (u32, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        if words.next()? != boot() || begun(pid) != Some(since) {
            return None;
        }
        Some(Self {
            child: None,
            pid,
            since,
            stay: Stay::UntilStopped,
            behind: false,
            name: name.to_owned(),
            log: log.to_owned(),
        })
    }

    /// What is meant is the child of the process that was started, such as the program behind `nsenter`: signals go to it.
    #[must_use]
    pub fn behind(mut self) -> Self {
        self.behind = true;
        self
    }

    fn mark(&self) -> PathBuf {
        self.log.with_extension("pid")
    }

    /// The pid.
    pub fn pid(&self) -> u32 {
        if self.behind {
            return child_of(self.pid).unwrap_or(self.pid);
        }
        self.pid
    }

    /// Whether this is its name.
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// How long it stays.
    pub fn stays(&self) -> Stay {
        self.stay
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => begun(self.pid) == Some(self.since),
        }
    }

    /// Asks it to end, waits, and kills it where it does not.
    pub fn stop(&mut self, within: Duration) -> Result<(), Error> {
        if self.is_running() {
            self.signal(Signal::SIGTERM);
        }
        let log = self.log.display().to_string();
        let gone = await_until(&format!("the end of {}", self.name), within.as_secs(), &log, || !self.is_running());
        if gone.is_err() {
            self.kill();
        }
        self.forget();
        Ok(())
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        if self.is_running() {
            self.signal(Signal::SIGKILL);
            send(self.pid, Signal::SIGKILL);
        }
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        } else {
            // What a killed process still has to do in the kernel is done in moments.
            let _ = await_until("its end", 10, "none", || begun(self.pid) != Some(self.since));
        }
        self.forget();
    }

    fn forget(&self) {
        if self.stay == Stay::UntilStopped {
            // Where the file is gone already, nobody finds the process by it.
            let _ = std::fs::remove_file(self.mark());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stay == Stay::WithStarter {
            self.kill();
        }
    }
}

/// The only child of a process that was started, such as the program behind `nsenter`.
pub fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Sends a signal to a process.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // A process that is gone already needs no signal.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stays_is_found_again_and_another_of_its_pid_is_not() {
        let folder = std::env::temp_dir().join(format!("dejima-children-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("sleep.log");
        let mut command = Command::new("sleep");
        let mut first = start_for(Stay::UntilStopped, "sleep", command.arg("60"), &log).unwrap();
        let pid = first.pid();
        assert!(first.is_running());
        let mut again = Running::again("sleep", &log).unwrap();
        assert_eq!(again.pid(), pid);
        let mark = log.with_extension("pid");
        let text = std::fs::read_to_string(&mark).unwrap();
        std::fs::write(&mark, text.replacen(' ', " 1", 1)).unwrap();
        assert!(Running::again("sleep", &log).is_none(), "another start");
        std::fs::write(&mark, text).unwrap();
        again.stop(Duration::from_secs(5)).unwrap();
        assert!(!first.is_running());
        assert!(Running::again("sleep", &log).is_none());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
