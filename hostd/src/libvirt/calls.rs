//! Calls to libvirt: each on a thread of its own, with a deadline. What did not answer in time is unknown, not gone.
//!
//! ```text
//! a call is late -> is it that machine, or libvirt? (a question of its own, on a connection of its own)
//!   libvirt answers:  that machine's calls are refused until the late one is home; everybody else has all of his time
//!   it does not:      looks and ends are refused at once, until it does
//! a late call comes home -> the bell rings: what it did after all is found by the next look
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use virt::connect::Connect;

use crate::driver::{Bell, Error};

/// Calls that may hang at the same time; more are refused.
const ROOM: usize = 16;
/// How long libvirt may take to say that it is there, once a call is late.
const THERE: Duration = Duration::from_millis(1500);
/// What may take longer than this is a change: it waits for a libvirt that is silent, for as long as it may take.
const LOOK_OR_END: Duration = Duration::from_secs(5);

/// Whether libvirt answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// As far as anybody knows.
    Answers,
    /// A call is late: it was asked whether it is there.
    Asked,
    /// It did not say so in time.
    Silent,
}

/// The way to one libvirt.
#[derive(Clone)]
pub(super) struct Calls {
    uri: Arc<str>,
    connection: Arc<Mutex<Option<Connect>>>,
    room: Arc<Semaphore>,
    health: watch::Sender<Health>,
    // How many calls are late, by what they are about.
    late: Arc<Mutex<BTreeMap<String, usize>>>,
    bell: Bell,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Calls {
    /// A way that was not gone yet; the bell rings when a late call comes home.
    pub(super) fn new(uri: &str, bell: Bell) -> Self {
        // Every error comes back from its call: libvirt need not print it as well.
        virt::error::clear_error_callback();
        Self {
            uri: uri.into(),
            connection: Arc::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            health: watch::Sender::new(Health::Answers),
            late: Arc::default(),
            bell,
        }
    }

    fn connect(&self) -> Result<Connect, Error> {
        let kept = self.connection.lock().ok().and_then(|kept| kept.clone());
        if let Some(kept) = kept.filter(|kept| kept.is_alive().unwrap_or(false)) {
            return Ok(kept);
        }
        let fresh = self.open()?;
        if let Ok(mut kept) = self.connection.lock() {
            *kept = Some(fresh.clone());
        }
        Ok(fresh)
    }

    fn open(&self) -> Result<Connect, Error> {
        Connect::open(Some(&self.uri)).map_err(|cause| Error::driver("reach", "libvirt", cause))
    }

    /// Whether a call is late: what it does it may do at any time.
    pub(super) fn is_any_late(&self) -> bool {
        !self.late.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn is_late(&self, about: &str) -> bool {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).contains_key(about)
    }

    fn went_late(&self, about: &str) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        *late.entry(about.to_owned()).or_default() += 1;
    }

    fn came_home(&self, about: &str) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = late.get_mut(about) {
            *count -= 1;
            if *count == 0 {
                late.remove(about);
            }
        }
    }

    /// Asks libvirt whether it is there, unless it was asked already. Until it says so it is silent.
    fn ask(&self) {
        let first = |health: &mut Health| {
            let first = *health == Health::Answers;
            if first {
                *health = Health::Asked;
            }
            first
        };
        if !self.health.send_if_modified(first) {
            return;
        }
        let (calls, (send, answered)) = (self.clone(), oneshot::channel::<()>());
        let ask = move || {
            // An error is an answer too: then each call has an error of its own.
            let _said = calls.open().map(|connection| connection.lib_version().is_ok());
            if calls.health.send_replace(Health::Answers) == Health::Silent {
                tracing::info!("libvirt answers again");
                calls.bell.ring();
            }
            // Who waited has given it up.
            let _ = send.send(());
        };
        if std::thread::Builder::new().name("libvirt-ask".to_owned()).spawn(ask).is_err() {
            self.health.send_replace(Health::Answers);
            return;
        }
        let health = self.health.clone();
        tokio::spawn(async move {
            if tokio::time::timeout(THERE, answered).await.is_err() {
                // It may have answered just now: then it is not silent.
                let silent = |health: &mut Health| {
                    let asked = *health == Health::Asked;
                    if asked {
                        *health = Health::Silent;
                    }
                    asked
                };
                if health.send_if_modified(silent) {
                    tracing::warn!("libvirt is silent");
                }
            }
        });
    }

    /// Does work on a connection, for at most so long. `about` says whom it concerns, a machine or the whole host. Work that is
    /// late may still take effect: the bell rings when it is over.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        about: &str,
        within: Duration,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let silent = || Error::Silent(what);
        let mut health = self.health.subscribe();
        let change = within > LOOK_OR_END;
        let within = if change {
            let begun = tokio::time::Instant::now();
            let answers = tokio::time::timeout(within, health.wait_for(|health| *health != Health::Silent)).await;
            if answers.is_err() {
                return Err(silent());
            }
            within.saturating_sub(begun.elapsed())
        } else {
            within
        };
        if (!change && *self.health.borrow() == Health::Silent) || self.is_late(about) {
            return Err(silent());
        }
        let room = self.room.clone().try_acquire_owned().map_err(|_| silent())?;
        let (send, receive) = oneshot::channel();
        let (calls, thread) = (self.clone(), std::thread::Builder::new().name("libvirt".to_owned()));
        let late = Arc::new(AtomicBool::new(false));
        let (told, whom) = (Arc::clone(&late), about.to_owned());
        let started = thread.spawn(move || {
            let answer = calls.connect().and_then(|connection| work(&connection));
            drop(room);
            // Nobody waits any more for what is late.
            let _ = send.send(answer);
            if told.swap(true, Ordering::SeqCst) {
                calls.came_home(&whom);
                calls.bell.ring();
            }
        });
        started.map_err(|cause| Error::driver(what, "libvirt", cause))?;
        let answer = tokio::select! {
            answer = receive => Some(answer),
            () = tokio::time::sleep(within) => None,
            // A change is not given up: where it is silent for a while only, it is carried out.
            _ = health.wait_for(|health| *health == Health::Silent), if !change => None,
        };
        match answer {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(Error::Missing("a call to libvirt was lost in a panic".to_owned())),
            None => {
                self.went_late(about);
                // Whoever comes second of the two knows that the call was late and is over.
                if late.swap(true, Ordering::SeqCst) {
                    self.came_home(about);
                }
                if let Ok(mut kept) = self.connection.lock() {
                    *kept = None;
                }
                self.ask();
                Err(silent())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(20);

    /// libvirt's own pretended host, inside this process.
    fn calls() -> (Calls, Bell) {
        super::super::events::begin();
        let bell = Bell::default();
        (Calls::new("test:///default", bell.clone()), bell)
    }

    /// A call that hangs until it is let go, and takes effect then.
    async fn hang(calls: &Calls, about: &str) -> (mpsc::Sender<()>, mpsc::Receiver<&'static str>) {
        let ((go, held), (done, effect)) = (mpsc::channel::<()>(), mpsc::channel());
        let work = move |_: &Connect| {
            held.recv().unwrap();
            done.send("it took effect").unwrap();
            Ok(())
        };
        let late = calls.call("hang", about, SHORT, work).await;
        assert!(matches!(late, Err(Error::Silent(_))), "{late:?}");
        (go, effect)
    }

    #[tokio::test]
    async fn a_machine_that_hangs_takes_no_time_from_the_others_and_what_it_does_late_is_looked_at() {
        let (calls, bell) = calls();
        let mut ear = bell.listen();
        let (go, effect) = hang(&calls, "one").await;
        assert!(calls.is_any_late());
        // Its own calls are refused at once and take no room; the others have all of their time, longer than libvirt has to answer.
        for _ in 0..2 * ROOM {
            let began = std::time::Instant::now();
            assert!(calls.call("look", "one", LONG, |_| Ok(())).await.is_err());
            assert!(began.elapsed() < LONG / 2);
        }
        let slow = |_: &Connect| {
            std::thread::sleep(THERE + SHORT * 2);
            Ok("seen")
        };
        assert_eq!(calls.call("look", "two", LOOK_OR_END, slow).await.unwrap(), "seen");
        assert!(!ear.has_changed().unwrap(), "the control: nothing has happened yet");
        go.send(()).unwrap();
        tokio::time::timeout(LONG, ear.changed()).await.expect("the bell rings").unwrap();
        assert_eq!(effect.try_recv().unwrap(), "it took effect");
        assert!(!calls.is_any_late());
        calls.call("look", "one", LONG, |_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn while_libvirt_is_silent_looks_and_ends_do_not_wait_and_a_change_does() {
        let (calls, _) = calls();
        calls.health.send_replace(Health::Silent);
        let began = std::time::Instant::now();
        for _ in 0..10 {
            assert!(calls.call("look", "", LOOK_OR_END, |_| Ok(())).await.is_err());
        }
        assert!(began.elapsed() < THERE, "they waited in a row");
        let again = calls.health.clone();
        let change = calls.call("define", "one", LONG, |_| Ok(()));
        let answers = async { again.send_replace(Health::Answers) };
        let (changed, before) = tokio::join!(change, answers);
        changed.unwrap();
        assert_eq!(before, Health::Silent, "it waited");
    }
}
