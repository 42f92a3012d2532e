//! The story's own manifests, judged: each clause with the control that shows it is the one that refuses.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code stops where it cannot go on, and reads the examples"
)]

mod dataset;
mod egress;
mod people;
mod verdict;
mod world;
