//! `cargo xtask up` on a terminal: it says what it will install and asks once. A package that no distribution has is what is missing.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dejima_tests::parts::{built, program};
use dejima_tests::place;
use nix::pty::openpty;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const PACKAGE: &str = "dejima-is-no-package";
const QUESTION: &str = "Go on? [Y/n]";
const PATIENCE: Duration = Duration::from_mins(2);

/// A run of `up` at a terminal of its own.
struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    child: Child,
    shown: String,
}

impl Terminal {
    fn up(dir: &Path, arguments: &[&str]) -> Self {
        Self::run(up(dir, arguments), true)
    }

    /// Whether what is typed here is what it reads: otherwise its input is empty, and it only shows here what it says.
    fn run(mut command: Command, is_read: bool) -> Self {
        let pair = openpty(None, None).unwrap();
        let (master, slave) = (File::from(pair.master), File::from(pair.slave));
        let end = || Stdio::from(slave.try_clone().unwrap());
        let input = if is_read { end() } else { Stdio::null() };
        // A group of its own: whatever it has started ends with it.
        let child = command.stdin(input).stdout(end()).stderr(end()).process_group(0).spawn().unwrap();
        // What is left of its end in here would keep the terminal open after the program has ended.
        drop((command, slave));
        let mut reading = master.try_clone().unwrap();
        let (say, screen) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // A terminal whose last program has ended says so as an error.
            while let Ok(count @ 1..) = reading.read(&mut piece) {
                if say.send(piece[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keyboard: master,
            screen,
            child,
            shown: String::new(),
        }
    }

    /// Waits until a text is shown.
    #[track_caller]
    fn shows(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.shown.contains(text) {
            let piece = self.screen.recv_timeout(end.saturating_duration_since(Instant::now()));
            assert!(piece.is_ok(), "`{text}` is not shown: {}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&piece.unwrap()));
        }
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for its end; whether it ended well, and all that it showed.
    #[track_caller]
    fn ends(mut self) -> (bool, String) {
        let end = Instant::now() + PATIENCE;
        while let Ok(piece) = self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.shown.push_str(&String::from_utf8_lossy(&piece));
        }
        assert!(Instant::now() < end, "it goes on: {}", self.shown);
        (self.child.wait().unwrap().success(), std::mem::take(&mut self.shown))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where it has ended already, nothing is left to end.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn up(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(built("xtask", "cargo build -p xtask"));
    command
        .args(["up", "--also-needs", PACKAGE, "--without-story", "--program"])
        .arg(program());
    command.arg("--dir").arg(dir).args(arguments).env_remove("CI");
    command
}

/// What it says when it goes ahead.
fn goes_ahead() -> String {
    format!("installing {PACKAGE}")
}

#[test]
fn up_says_what_it_will_install_and_asks_once_where_somebody_is_there_to_be_asked() {
    let out = place("up-asks");
    std::fs::create_dir_all(&out).unwrap();
    let dir = out.join("platform");
    // No, and a terminal that is closed instead of an answer.
    for answer in ["n\n", "\u{4}"] {
        let mut terminal = Terminal::up(&dir, &[]);
        terminal.shows(QUESTION);
        terminal.types(answer);
        let (well, said) = terminal.ends();
        assert!(
            said.contains(PACKAGE) && said.contains("none of their services is started"),
            "{said}"
        );
        assert_eq!(said.matches(QUESTION).count(), 1, "{said}");
        assert!(!well && said.contains("nothing was installed, and nothing was changed"), "{said}");
        assert!(!said.contains("==>") && !said.contains("installing"), "a step was begun: {said}");
        assert_eq!(out.read_dir().unwrap().count(), 0, "something was made");
    }
    // The control: a yes goes ahead, and a bare line is one. What then fails is apt: nobody has a package of this name.
    let mut terminal = Terminal::up(&dir, &[]);
    terminal.shows(QUESTION);
    terminal.types("\n");
    let (well, said) = terminal.ends();
    assert!(said.contains(&goes_ahead()), "{said}");
    assert!(
        !well && said.contains("step `packages`") && said.contains("Unable to locate package"),
        "{said}"
    );
    // Nobody is asked who said yes beforehand, in CI, or where nobody can answer.
    let mut in_ci = up(&dir, &[]);
    in_ci.env("CI", "true");
    for (command, is_read) in [(up(&dir, &["--yes"]), true), (in_ci, true), (up(&dir, &[]), false)] {
        let mut terminal = Terminal::run(command, is_read);
        terminal.shows(&goes_ahead());
        assert!(!terminal.shown.contains(QUESTION), "{}", terminal.shown);
    }
}
