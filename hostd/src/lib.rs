//! The hands: the agent of one host. It carries out host plans, and nothing that is not in one.
//!
//! ```text
//! host plan + what the drivers find --plan::host::next--> actions -> drivers -> look again -> HostPlan.status
//! ```
//! It dials out; nobody calls it. It knows its own namespace and its own host, and opens only the keys that it holds.

pub mod agent;
pub mod carry_out;
pub mod converge;
pub mod credentials;
pub mod doctor;
pub mod door;
pub mod drift;
pub mod driver;
pub mod fetch;
pub mod intake;
pub mod iso;
pub mod kept;
pub mod keys;
pub mod libvirt;
pub mod luks;
pub mod map;
pub mod memory;
pub mod network;
mod pace;
pub mod scan;
pub mod seal;
pub mod seed;
pub mod sweep;
pub mod volumes;

pub use agent::{Agent, run};
pub use driver::{Drivers, Error, Recorder};
