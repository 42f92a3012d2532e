//! One visit while it lasts: what the terminal shows is recorded, then said; keys are recorded, then typed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dejima_crds::bounded::Uid;
use dejima_crds::door::{Difference, Farewell, FromHost, KEYS_AT_ONCE, ToPerson, Why, render};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::recording::Recording;
use super::screen::{Budget, Shown};
use super::terminal::Seat;

/// At most ten differences a second.
const EACH: Duration = Duration::from_millis(100);
/// Keys that a person may send in a minute: enough to type and to paste a script, and no way to carry files in.
pub(super) const KEYS_A_MINUTE: u64 = 16 << 10;

/// What one person may take from one machine, and give to it, in however many visits: who leaves and comes again gains nothing.
#[derive(Debug)]
pub(super) struct Purse {
    shown: Budget,
    typed: Budget,
}

impl Purse {
    pub(super) fn new(bytes_a_minute: u64) -> Self {
        Self {
            shown: Budget::new(bytes_a_minute),
            typed: Budget::new(KEYS_A_MINUTE),
        }
    }
}

/// What the API says to a visit.
#[derive(Debug)]
pub(super) enum Order {
    /// Keys.
    Keys(String),
    /// It is over.
    Leave(Farewell),
}

/// One visit.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) id: Uid,
    pub(super) seat: Seat,
    pub(super) recording: Recording,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) out: mpsc::Sender<FromHost>,
    pub(super) purse: Arc<Mutex<Purse>>,
    // What the purse counts from.
    pub(super) since: Instant,
}

impl Visit {
    async fn say(&self, says: ToPerson) -> bool {
        let visit = self.id.clone();
        self.out.send(FromHost { visit, says }).await.is_ok()
    }

    /// Records on a thread that may wait for a disk. What cannot be recorded is not shown, and not typed.
    async fn record(mut self, at: u64, code: &'static str, text: String) -> Result<Self, (Option<Recording>, Farewell)> {
        let task = tokio::task::spawn_blocking(move || {
            let done = self.recording.event(at, code, &text);
            (self, done)
        });
        let not = |why: String| Farewell::new(Why::NotRecorded, format!("the visit cannot be recorded: {why}"));
        match task.await {
            Ok((own, Ok(()))) => Ok(own),
            Ok((own, Err(error))) => {
                tracing::error!(visit = %own.id, error = %crate::agent::chain(&error), "a visit ends: it cannot be recorded");
                Err((Some(own.recording), not(error.to_string())))
            }
            Err(_) => Err((None, not("it was lost in a panic".to_owned()))),
        }
    }

    /// Until somebody ends it: the recording, where it is still there, and why.
    pub(super) async fn run(mut self) -> (Option<Recording>, Farewell) {
        let begun = Instant::now();
        let now = || milliseconds(begun);
        let (purse, since) = (Arc::clone(&self.purse), self.since);
        // Every change of a purse is one step: what was lost in a panic is none of it.
        let purse = || purse.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown = Shown::default();
        let mut tick = interval(EACH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writes = self.seat.writer.borrow_and_update().as_ref() == Some(&self.id);
        if !self.say(ToPerson::Entered(writes)).await {
            return (Some(self.recording), gone());
        }
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Keys(typed)) => {
                        if !writes {
                            continue;
                        }
                        // The guard ends with its line: nothing waits while it is held.
                        let paid = typed.len() <= KEYS_AT_ONCE && purse().typed.spend(typed.len(), milliseconds(since));
                        if !paid {
                            let notice = format!("keys were not taken: at most {KEYS_A_MINUTE} bytes a minute, a quarter of it at once");
                            self.say(ToPerson::Notice(notice)).await;
                            continue;
                        }
                        let bytes = typed.clone().into_bytes();
                        self = match self.record(now(), "i", typed).await {
                            Ok(own) => own,
                            Err(end) => return end,
                        };
                        if self.seat.keys.try_send(bytes).is_err() {
                            self.say(ToPerson::Notice("keys were not taken: the machine takes none now".to_owned())).await;
                        }
                    }
                    Some(Order::Leave(farewell)) => return (Some(self.recording), farewell),
                    None => return (Some(self.recording), gone()),
                },
                changed = self.seat.writer.changed() => {
                    let now_writes = changed.is_ok() && self.seat.writer.borrow_and_update().as_ref() == Some(&self.id);
                    if now_writes && !writes {
                        self.say(ToPerson::Writes).await;
                    }
                    writes = now_writes;
                    if changed.is_err() {
                        return (Some(self.recording), machine_gone());
                    }
                }
                _ = tick.tick() => {
                    let screen = self.seat.screen.borrow().clone();
                    let difference = take(&mut purse().shown, &mut shown, &screen, milliseconds(since));
                    if let Some(difference) = difference {
                        self = match self.record(now(), "o", render(&difference)).await {
                            Ok(own) => own,
                            Err(end) => return end,
                        };
                        if !self.show(difference).await {
                            return (Some(self.recording), gone());
                        }
                    } else if self.seat.screen.has_changed().is_err() {
                        return (Some(self.recording), machine_gone());
                    }
                }
            }
        }
    }

    async fn show(&self, difference: Difference) -> bool {
        self.say(ToPerson::Screen(difference)).await
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What there is room for, paid.
fn take(budget: &mut Budget, shown: &mut Shown, screen: &vt100::Screen, now: u64) -> Option<Difference> {
    let (difference, cost) = shown.next(screen, budget.room(now));
    difference.filter(|_| budget.spend(cost, now))
}

fn gone() -> Farewell {
    Farewell::new(Why::HostGone, "the host and the platform's API do not reach each other")
}

pub(super) fn machine_gone() -> Farewell {
    Farewell::new(
        Why::MachineGone,
        "the machine's console is gone: it was stopped, or it is starting anew",
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::super::recording::tests::{kept, key};
    use super::super::terminal::Terminal;
    use super::*;

    /// A visit before a terminal, its guest's end of the console, and both ends of what passes.
    struct Scene {
        visit: Visit,
        guest: UnixStream,
        orders: mpsc::Sender<Order>,
        said: mpsc::Receiver<FromHost>,
        _terminal: Terminal,
        _folder: tempfile::TempDir,
    }

    fn scene() -> Scene {
        let (ours, guest) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        let mut terminal = Terminal::over(ours.into()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let recording = Recording::begin(&folder.path().join("v"), &kept(), &key(7), 0).unwrap();
        let (order, orders) = mpsc::channel(8);
        let (out, said) = mpsc::channel(64);
        let visit = Visit {
            id: "v".into(),
            seat: terminal.join(&"v".into(), false),
            recording,
            orders,
            out,
            purse: Arc::new(Mutex::new(Purse::new(256 << 10))),
            since: Instant::now(),
        };
        Scene {
            visit,
            guest,
            orders: order,
            said,
            _terminal: terminal,
            _folder: folder,
        }
    }

    async fn hears(said: &mut mpsc::Receiver<FromHost>) -> Option<ToPerson> {
        let heard = tokio::time::timeout(Duration::from_secs(10), said.recv()).await;
        heard.unwrap().map(|word| word.says)
    }

    fn shows(word: Option<ToPerson>, text: &str) -> bool {
        matches!(word, Some(ToPerson::Screen(difference)) if render(&difference).contains(text))
    }

    #[tokio::test]
    async fn what_cannot_be_recorded_is_neither_shown_nor_typed() {
        // The control: with room on the disk it is shown, and typed.
        let mut scene = scene();
        let running = tokio::spawn(scene.visit.run());
        assert_eq!(hears(&mut scene.said).await, Some(ToPerson::Entered(true)));
        assert!(
            matches!(hears(&mut scene.said).await, Some(ToPerson::Screen(_))),
            "where the cursor is"
        );
        scene.guest.write_all(b"prompt").unwrap();
        assert!(shows(hears(&mut scene.said).await, "prompt"));
        scene.orders.send(Order::Keys("ls".to_owned())).await.unwrap();
        let mut typed = [0; 2];
        while scene.guest.read(&mut typed).is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(&typed, b"ls");
        let farewell = Farewell::new(Why::Left, "you left");
        scene.orders.send(Order::Leave(farewell.clone())).await.unwrap();
        assert_eq!(running.await.unwrap().1, farewell);

        for keys in [None, Some("ls")] {
            let mut scene = self::scene();
            scene.visit.recording.fill_the_disk();
            match keys {
                Some(keys) => scene.orders.send(Order::Keys(keys.to_owned())).await.unwrap(),
                None => scene.guest.write_all(b"prompt").unwrap(),
            }
            let (_, farewell) = scene.visit.run().await;
            assert_eq!(farewell.why, Why::NotRecorded);
            assert_eq!(hears(&mut scene.said).await, Some(ToPerson::Entered(true)));
            assert_eq!(hears(&mut scene.said).await, None, "nothing was shown");
            assert!(scene.guest.read(&mut typed).is_err(), "nothing was typed");
        }
    }
}
