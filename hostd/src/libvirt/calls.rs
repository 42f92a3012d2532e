//! Calls to libvirt: each on a thread of its own, with a deadline. What did not answer in time is unknown, not gone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use virt::connect::Connect;

use crate::driver::Error;

/// Calls that may hang at the same time; more are refused.
const ROOM: usize = 8;
/// How long a look or an end may take while an earlier call hangs. A change waits as long as ever: a slow one is no silent libvirt.
const WHILE_STUCK: Duration = Duration::from_millis(1500);
/// What takes longer than this is a change.
const LOOK_OR_END: Duration = Duration::from_secs(5);

/// The way to one libvirt.
#[derive(Clone)]
pub(super) struct Calls {
    uri: Arc<str>,
    connection: Arc<Mutex<Option<Connect>>>,
    room: Arc<Semaphore>,
    stuck: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Calls {
    /// A way that was not gone yet.
    pub(super) fn new(uri: &str) -> Self {
        // Every error comes back from its call: libvirt need not print it as well.
        virt::error::clear_error_callback();
        Self {
            uri: uri.into(),
            connection: Arc::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            stuck: Arc::default(),
        }
    }

    fn connect(&self) -> Result<Connect, Error> {
        let kept = self.connection.lock().ok().and_then(|kept| kept.clone());
        if let Some(kept) = kept.filter(|kept| kept.is_alive().unwrap_or(false)) {
            return Ok(kept);
        }
        let fresh = Connect::open(Some(&self.uri)).map_err(|cause| Error::driver("reach", "libvirt", cause))?;
        if let Ok(mut kept) = self.connection.lock() {
            *kept = Some(fresh.clone());
        }
        Ok(fresh)
    }

    /// Does work on a connection, for at most so long. Work that is late may still take effect: look again.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        within: Duration,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let silent = || Error::Silent(what);
        let room = self.room.clone().try_acquire_owned().map_err(|_| silent())?;
        let within = if within < LOOK_OR_END && self.stuck.load(Ordering::SeqCst) > 0 {
            within.min(WHILE_STUCK)
        } else {
            within
        };
        let (send, receive) = oneshot::channel();
        let (calls, thread) = (self.clone(), std::thread::Builder::new().name("libvirt".to_owned()));
        let late = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = Arc::clone(&late);
        let started = thread.spawn(move || {
            let _room = room;
            let answer = calls.connect().and_then(|connection| work(&connection));
            // Nobody waits any more for what is late.
            let _ = send.send(answer);
            if told.swap(true, Ordering::SeqCst) {
                calls.stuck.fetch_sub(1, Ordering::SeqCst);
            }
        });
        started.map_err(|cause| Error::driver(what, "libvirt", cause))?;
        match tokio::time::timeout(within, receive).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Missing("a call to libvirt was lost in a panic".to_owned())),
            Err(_) => {
                // Whoever comes second of the two knows that the call was late and is over.
                if !late.swap(true, Ordering::SeqCst) {
                    self.stuck.fetch_add(1, Ordering::SeqCst);
                }
                if let Ok(mut kept) = self.connection.lock() {
                    *kept = None;
                }
                Err(silent())
            }
        }
    }
}
