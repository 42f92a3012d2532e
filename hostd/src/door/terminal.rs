//! One machine's terminal: its console is read, what it shows is kept, and keys go to it. Nothing of it is a file on a disk.

use std::io::ErrorKind;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use dejima_crds::bounded::Uid;
use dejima_crds::door::{COLUMNS, ROWS};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

/// How often what the terminal shows is put out.
const EACH: Duration = Duration::from_millis(50);
/// At most so many bytes are read between two of them: who prints faster waits, and costs the host nothing.
const BETWEEN: usize = 8 << 10;
/// Keys that wait while the guest takes none.
const KEYS_THAT_WAIT: usize = 64;

/// A terminal that shows nothing yet.
pub(super) fn blank() -> vt100::Parser {
    let size = |number| NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN);
    vt100::Parser::new(size(ROWS), size(COLUMNS), 0)
}

/// One machine's terminal, with who sits before it.
#[derive(Debug)]
pub(super) struct Terminal {
    seat: Seat,
    writer: watch::Sender<Option<Uid>>,
    // In the order in which they came, and whether they only watch.
    guests: Vec<(Uid, bool)>,
    reads: AbortHandle,
}

/// What one visitor has of a terminal.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// What it shows; closed once the console is.
    pub(super) screen: watch::Receiver<Arc<vt100::Screen>>,
    /// Keys.
    pub(super) keys: mpsc::Sender<Vec<u8>>,
    /// Whose keys reach the machine.
    pub(super) writer: watch::Receiver<Option<Uid>>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.reads.abort();
    }
}

impl Terminal {
    /// Over a console: a pty or a socket, which is read from now on.
    pub(super) fn over(console: OwnedFd) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&console, true)?;
        // Named after pipes; these read and write whatever the kernel can wait for.
        let keyboard = pipe::Sender::from_owned_fd_unchecked(console.try_clone()?)?;
        let console = pipe::Receiver::from_owned_fd_unchecked(console)?;
        let parser = blank();
        let (show, screen) = watch::channel(Arc::new(parser.screen().clone()));
        let (keys, typed) = mpsc::channel(KEYS_THAT_WAIT);
        let (writer, written) = watch::channel(None);
        let reads = tokio::spawn(read((console, keyboard), parser, show, typed)).abort_handle();
        let seat = Seat {
            screen,
            keys,
            writer: written,
        };
        Ok(Self {
            seat,
            writer,
            guests: Vec::new(),
            reads,
        })
    }

    /// Whether its console is still there.
    pub(super) fn is_there(&self) -> bool {
        self.seat.screen.has_changed().is_ok()
    }

    /// Somebody sits down.
    pub(super) fn join(&mut self, visit: &Uid, watch: bool) -> Seat {
        self.guests.push((visit.clone(), watch));
        self.appoint();
        self.seat.clone()
    }

    /// Somebody goes. Whether nobody is left.
    pub(super) fn leave(&mut self, visit: &Uid) -> bool {
        self.guests.retain(|(other, _)| other != visit);
        self.appoint();
        self.guests.is_empty()
    }

    /// One writes: the eldest of those who do not only watch.
    fn appoint(&self) {
        let eldest = self.guests.iter().find(|(_, watch)| !watch).map(|(visit, _)| visit.clone());
        self.writer.send_if_modified(|writer| {
            let changed = *writer != eldest;
            *writer = eldest;
            changed
        });
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Reads until the console is gone.
async fn read(
    (console, keyboard): (pipe::Receiver, pipe::Sender),
    mut parser: vt100::Parser,
    show: watch::Sender<Arc<vt100::Screen>>,
    mut typed: mpsc::Receiver<Vec<u8>>,
) {
    let mut tick = interval(EACH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut taken, mut dirty) = (0, false);
    let mut waiting: Vec<u8> = Vec::new();
    let mut piece = [0; 4096];
    loop {
        tokio::select! {
            _ = tick.tick() => {
                taken = 0;
                if std::mem::take(&mut dirty) {
                    show.send_replace(Arc::new(parser.screen().clone()));
                }
            }
            ready = console.readable(), if taken < BETWEEN => {
                match ready.and_then(|()| console.try_read(&mut piece)) {
                    // A pty gives an error when its other end is gone, a socket nothing.
                    Ok(0) => break,
                    Ok(count) => {
                        parser.process(piece.get(..count).unwrap_or_default());
                        taken += count;
                        dirty = true;
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(_) => break,
                }
            }
            ready = keyboard.writable(), if !waiting.is_empty() => {
                match ready.and_then(|()| keyboard.try_write(&waiting)) {
                    Ok(count) => drop(waiting.drain(..count)),
                    Err(error) if is_passing(&error) => {}
                    Err(_) => break,
                }
            }
            keys = typed.recv(), if waiting.is_empty() => match keys {
                Some(keys) => waiting = keys,
                None => break,
            }
        }
    }
    if dirty {
        // Its last words.
        show.send_replace(Arc::new(parser.screen().clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    async fn shows(seat: &mut Seat, text: &str) {
        let seen = seat.screen.wait_for(|screen| screen.contents().contains(text));
        tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_terminal_shows_what_is_printed_takes_keys_and_ends_with_its_console() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let mut terminal = Terminal::over(ours.into()).unwrap();
        let mut seat = terminal.join(&"a".into(), false);
        guest.write_all(b"login: ").unwrap();
        shows(&mut seat, "login:").await;
        seat.keys.send(b"root\r".to_vec()).await.unwrap();
        let typed = tokio::task::spawn_blocking(move || {
            let mut typed = [0; 5];
            guest.read_exact(&mut typed).unwrap();
            (typed, guest)
        });
        let (typed, mut guest) = typed.await.unwrap();
        assert_eq!(&typed, b"root\r");
        guest.write_all(b"last words").unwrap();
        drop(guest);
        shows(&mut seat, "last words").await;
        let closed = async { while seat.screen.changed().await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
        assert!(!terminal.is_there());
    }

    #[tokio::test]
    async fn the_eldest_writes_and_who_only_watches_never_does() {
        let (ours, _guest) = UnixStream::pair().unwrap();
        let mut terminal = Terminal::over(ours.into()).unwrap();
        let writer = |terminal: &Terminal| terminal.writer.borrow().clone();
        terminal.join(&"watches".into(), true);
        assert_eq!(writer(&terminal), None);
        terminal.join(&"first".into(), false);
        terminal.join(&"second".into(), false);
        assert_eq!(writer(&terminal), Some("first".into()));
        assert!(!terminal.leave(&"first".into()));
        assert_eq!(writer(&terminal), Some("second".into()));
        assert!(!terminal.leave(&"second".into()));
        assert_eq!(writer(&terminal), None);
        assert!(terminal.leave(&"watches".into()));
    }
}
