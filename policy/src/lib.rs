//! The law: may this project use this data, and until when? Pure: no clock, no I/O; time and zone are arguments.
//!
//! ```text
//! objects --facts--> ProjectFacts, DatasetFacts, GrantFacts --judge(at, zone)--> Verdict {decision, every reason, until}
//! ```
//! The step from objects to facts stands here and nowhere else: what a requester says of himself is a claim, and a
//! claim is a fact only while somebody entitled vouches for exactly that.

pub mod clauses;
pub mod dataset;
pub mod egress;
pub mod facts;
pub mod grants;
pub mod remedy;
pub mod request;
pub mod unbuilt;
pub mod verdict;

pub use dataset::{Standing, standing};
pub use egress::{Opening, openings};
pub use facts::{Claimed, DatasetFacts, GrantFacts, MemberFacts, PolicyFacts, ProjectFacts, Vouched};
pub use verdict::{Case, Verdict, judge};
