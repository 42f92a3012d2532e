//! The local platform: the real parts, started and stopped. Imports nothing of ours.
//!
//! ```text
//! binaries (built or fetched once into the user's cache)
//!    -> ControlPlane: etcd, kube-apiserver, kube-controller-manager      on loopback
//!    -> KeyServer:    OpenBao with raft storage, transit and AppRole     on loopback
//! packages (from the distribution)
//!    -> Host:         libvirt and QEMU                                   in namespaces of its own
//!    -> Guest:        kernel and initramfs that a machine boots; Agent looks into it
//!    -> dicom:        real CT and MR images
//! the binary `dejima`, given by its path
//!    -> Platform:     all of that, with operator, API and each host's agent
//! ```
//! Everything that is started dies with the process that started it (`children`), unless it was asked to stay.

pub mod binaries;
pub mod cache;
pub mod children;
pub mod control_plane;
pub mod dicom;
pub mod guest;
pub mod guestagent;
pub mod host;
pub mod key_server;
pub mod packages;
pub mod people;
pub mod platform;
pub mod run;
pub mod world;

pub use binaries::Binaries;
pub use control_plane::ControlPlane;
pub use guest::Guest;
pub use guestagent::Agent;
pub use host::Host;
pub use key_server::KeyServer;
pub use people::Person;
pub use platform::{Platform, Setup};
pub use run::Error;
pub use world::World;

/// Where progress is told: one line at a time.
pub trait Reporter: Sync {
    /// Says what is being done.
    fn say(&self, line: &str);
}

/// Progress on standard error.
#[derive(Clone, Copy, Debug)]
pub struct ToStderr;

impl Reporter for ToStderr {
    fn say(&self, line: &str) {
        use std::io::Write as _;
        // Progress that cannot be shown is no reason to stop.
        let _ = writeln!(std::io::stderr(), "lab: {line}");
    }
}
