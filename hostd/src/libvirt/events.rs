//! Domain events: a bell that rings when something may have happened to a machine by somebody else's hand.
//!
//! ```text
//! libvirtd --socket--> the loop of libvirt's client (one thread of this process) -> callback -> bell -> a look
//! a thread that subscribes: connect, subscribe, ring; once the connection is gone: ring, and again
//! ```
//! An event only says that there is something to look at: what it is, the look finds out. So nothing of an event is read, and one
//! that was missed costs a later look and nothing else. No other thread waits for these two, whatever libvirt does.
//!
//! The crate `virt` has no safe way to register a callback, so this module, and no other, calls libvirt's C library itself.

#![expect(unsafe_code, reason = "registering a callback is a call of C; each block says why it is sound")]

use std::ffi::{c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::Once;
use std::time::Duration;

use virt::connect::Connect;
use virt::{event, sys};

use super::domains::libvirt;
use crate::driver::{Bell, Error, FarBell};

/// How long until a connection that went is opened again, and how soon it is seen that it went.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the loop in which libvirt's client calls back. It stands before the first connection is opened: one that is opened
/// earlier has no events.
pub(super) fn begin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = event::event_register_default_impl() {
            tracing::warn!(error = %error, "there are no events of libvirt: machines are looked at in time all the same");
            return;
        }
        let turn = || {
            loop {
                if event::event_run_default_impl().is_err() {
                    std::thread::sleep(PAUSE);
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("libvirt-loop".to_owned()).spawn(turn) {
            tracing::warn!(error = %error, "there is no thread for events of libvirt");
        }
    });
}

/// Rings a bell at each event of this libvirt, for as long as somebody holds the bell.
pub(super) fn listen(uri: &str, bell: &Bell) {
    let (uri, far) = (uri.to_owned(), bell.far());
    let keep = move || {
        while far.is_held() {
            match Subscription::new(&uri, &far) {
                Ok(subscription) => {
                    tracing::debug!("libvirt's events are heard");
                    // What happened before is found by a look; so is what becomes of a libvirt that went.
                    far.ring();
                    while far.is_held() && subscription.connection.is_alive().unwrap_or(false) {
                        std::thread::sleep(PAUSE);
                    }
                    far.ring();
                }
                Err(error) => tracing::debug!(error = %error, "libvirt's events cannot be heard yet"),
            }
            std::thread::sleep(PAUSE);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("libvirt-events".to_owned()).spawn(keep) {
        tracing::warn!(error = %error, "there is no thread for events of libvirt");
    }
}

/// A connection with our callbacks.
struct Subscription {
    connection: Connect,
    ids: Vec<c_int>,
}

type Lifecycle = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type Removed = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
type Any = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

impl Subscription {
    fn new(uri: &str, far: &FarBell) -> Result<Self, Error> {
        let connection = Connect::open(Some(uri)).map_err(libvirt("reach", "libvirt"))?;
        let mut subscription = Self {
            connection,
            ids: Vec::new(),
        };
        // SAFETY: libvirt calls the callback of an event by the signature of that event, whatever type it is registered under
        // (libvirt-domain.h, VIR_DOMAIN_EVENT_CALLBACK); `Lifecycle` is `virConnectDomainEventCallback`, that of LIFECYCLE.
        let lifecycle = unsafe { transmute::<Lifecycle, Any>(happened) };
        // SAFETY: as above; `Removed` is `virConnectDomainEventDeviceRemovedCallback`, that of DEVICE_REMOVED.
        let removed = unsafe { transmute::<Removed, Any>(lost) };
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, far)?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, removed, far)?;
        Ok(subscription)
    }

    fn register(&mut self, event: sys::virDomainEventID, callback: Any, far: &FarBell) -> Result<(), Error> {
        let event = c_int::try_from(event).map_err(|cause| Error::driver("subscribe to", "events", cause))?;
        let bell = Box::into_raw(Box::new(far.clone())).cast::<c_void>();
        // SAFETY: the connection is open, since `self` holds it; no domain means all of them; `bell` stays valid until libvirt
        // gives it to `forget`, which it does once, after the last call of `callback`.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(self.connection.as_ptr(), null_mut(), event, Some(callback), bell, Some(forget))
        };
        if id < 0 {
            let cause = virt::error::Error::last_error();
            // SAFETY: where libvirt refuses it keeps nothing and frees nothing: the box is ours as before.
            drop(unsafe { Box::from_raw(bell.cast::<FarBell>()) });
            return Err(libvirt("subscribe to", "events")(cause));
        }
        self.ids.push(id);
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for id in &self.ids {
            // SAFETY: the connection is held until this is over, and the id is one that it gave. Where it is gone already, libvirt
            // says so and frees what it holds with the connection.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connection.as_ptr(), *id) };
        }
    }
}

/// A machine was defined, undefined, started, suspended, resumed, ended, or crashed.
unsafe extern "C" fn happened(_: sys::virConnectPtr, _: sys::virDomainPtr, _: c_int, _: c_int, bell: *mut c_void) -> c_int {
    // SAFETY: it is what `register` gave, and is not freed before the last call (`forget`).
    unsafe { &*bell.cast::<FarBell>() }.ring();
    0
}

/// A machine lost a device.
unsafe extern "C" fn lost(_: sys::virConnectPtr, _: sys::virDomainPtr, _: *const c_char, bell: *mut c_void) {
    // SAFETY: as above.
    unsafe { &*bell.cast::<FarBell>() }.ring();
}

/// Nobody calls back any more.
unsafe extern "C" fn forget(bell: *mut c_void) {
    // SAFETY: it is the box of `register`, and libvirt gives it here once.
    drop(unsafe { Box::from_raw(bell.cast::<FarBell>()) });
}
