//! The serial console of a machine, with the moment at which each line came.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dejima_lab::Host;

pub(crate) struct Terminal {
    to: File,
    lines: Receiver<(Instant, String)>,
}

impl Terminal {
    /// Opens the console of a domain, and waits for its shell.
    pub(crate) fn open(host: &Host, domain: &str) -> Self {
        let path = host.ask(&["ttyconsole", domain], None).unwrap();
        let mut options = File::options();
        // O_NOCTTY (open(2)).
        options.read(true).write(true).custom_flags(0o400);
        let to = options.open(host.seen_at(path.trim())).unwrap();
        let mut from = to.try_clone().unwrap();
        let (send, lines) = channel();
        // It ends with the machine: its terminal is closed then.
        std::thread::spawn(move || {
            let (mut line, mut piece) = (Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = from.read(&mut piece) {
                let now = Instant::now();
                for byte in &piece[..count] {
                    if *byte != b'\n' {
                        line.push(*byte);
                    } else if send
                        .send((now, String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned()))
                        .is_err()
                    {
                        return;
                    }
                }
            }
        });
        let mut terminal = Self { to, lines };
        let end = Instant::now() + Duration::from_mins(1);
        // What is typed before there is a shell is lost.
        while !terminal.saw("shell-is-here", Duration::from_secs(1)) {
            assert!(Instant::now() < end, "no shell on the console of {domain}");
            terminal.line("stty -echo; echo shell-is-\"\"here");
        }
        terminal
    }

    /// Types a line.
    pub(crate) fn line(&mut self, line: &str) {
        self.to.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn saw(&self, mark: &str, patience: Duration) -> bool {
        self.when(mark, patience).is_some()
    }

    fn when(&self, mark: &str, patience: Duration) -> Option<Instant> {
        let end = Instant::now() + patience;
        while let Ok((at, line)) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains(mark) {
                return Some(at);
            }
        }
        None
    }

    /// The moment at which a line with this mark comes, within half a minute.
    #[track_caller]
    pub(crate) fn comes(&self, mark: &str) -> Instant {
        self.when(mark, Duration::from_secs(30))
            .unwrap_or_else(|| panic!("`{mark}` did not come"))
    }

    /// Runs a line of shell; what it says.
    #[track_caller]
    pub(crate) fn says(&mut self, line: &str) -> String {
        self.line(&format!("echo \"said: $({line})\"; echo it-is-\"\"said"));
        let end = Instant::now() + Duration::from_secs(30);
        while let Ok((_, line)) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if let Some((_, said)) = line.split_once("said: ") {
                return said.trim().to_owned();
            }
        }
        panic!("`{line}` said nothing")
    }
}
