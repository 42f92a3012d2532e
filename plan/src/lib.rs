//! The thought: pure functions from what is wanted and what was seen to what must be done. No clock, no I/O, no client.
//!
//! ```text
//! operator:  objects, observations, now --project::next--> steps, status          (which host, which keys, which plans)
//! hostd:     host plan, observed host, now --host::next--> actions, items         (which rules, disks, machines)
//! ```
//! Carried out, a plan leaves an empty plan; cut short, exactly its rest: both functions look only at what is there.

pub mod dataset;
pub mod drift;
pub mod effect;
pub mod host;
pub mod image;
pub mod manifest;
pub mod placement;
pub mod problems;
pub mod project;
pub mod seen;
pub mod segment;
pub mod sweep;

use dejima_crds::bounded::Period;
use jiff::{Span, Timestamp, tz::TimeZone};
pub use seen::Seen;

/// Until when something is held since this time, for this long (ISO 8601) by this zone's calendar. A retention that cannot be read is
/// the default one, 30 days; what lies beyond time itself is held for ever.
pub fn held_until(since: Timestamp, retention: &Period, zone: &TimeZone) -> Timestamp {
    let span: Span = retention.as_str().parse().unwrap_or_else(|_| Span::new().days(30));
    let end = since.to_zoned(zone.clone()).checked_add(span);
    end.map_or(Timestamp::MAX, |end| end.timestamp())
}

/// The generation of a plan that is made: the time in milliseconds, so that one that was deleted and is made again
/// under its name is not older than what its host has seen.
pub(crate) fn first_generation(now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond()).unwrap_or(1).max(1)
}
