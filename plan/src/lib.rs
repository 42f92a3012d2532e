//! The thought: pure functions from what is wanted and what was seen to what must be done. No clock, no I/O, no client.
//!
//! ```text
//! operator:  objects, observations, now --project::next--> steps, status          (which host, which keys, which plans)
//! hostd:     host plan, observed host, now --host::next--> actions, items         (which rules, disks, machines)
//! ```
//! Carried out, a plan leaves an empty plan; cut short, exactly its rest: both functions look only at what is there.

pub mod effect;
pub mod host;
pub mod placement;
pub mod problems;
pub mod project;
pub mod seen;
pub mod segment;

pub use seen::Seen;
