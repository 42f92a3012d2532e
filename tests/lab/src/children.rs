//! Processes that are started and stay: each is ended by the pid that was started, and waited for.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::{Error, await_until, file};

/// A process that was started; it is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    log: String,
}

/// Starts a program with its output in a log file. It dies with this process, however this process ends.
pub fn start(name: &str, command: &Command, log: &Path) -> Result<Running, Error> {
    let out = file("open", log, File::options().create(true).append(true).open(log))?;
    let err = file("open", log, out.try_clone())?;
    // setpriv (util-linux) sets the signal that the kernel sends when the parent is gone.
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped.stdin(Stdio::null()).stdout(out).stderr(err);
    let shown = name.to_owned();
    // The kernel counts the *thread* as the parent: one that never ends starts the process, not a test's own.
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = send.send(wrapped.spawn());
        loop {
            std::thread::park();
        }
    });
    let child = match receive.recv() {
        Ok(Ok(child)) => child,
        Ok(Err(cause)) => return Err(Error::Start { command: shown, cause }),
        Err(_) => return Err(Error::Unexpected(format!("nobody started `{shown}`"))),
    };
    Ok(Running {
        child,
        name: shown,
        log: log.display().to_string(),
    })
}

impl Running {
    /// The pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // A process that is gone already needs no signal.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, waits, and kills it where it does not.
    pub fn stop(&mut self, within: Duration) -> Result<(), Error> {
        self.signal(Signal::SIGTERM);
        let gone = await_until(&format!("the end of {}", self.name), within.as_secs(), &self.log.clone(), || {
            !self.is_running()
        });
        if gone.is_err() {
            self.kill();
        }
        Ok(())
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
