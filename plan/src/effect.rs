//! The seam for faults: every effect on the world has a name, and one place decides what becomes of it.
//!
//! In a running platform every effect simply happens. A test takes the place of [`Gate`] and lets the n-th of a name fail,
//! time out after it took effect, or be the last thing that the process did.

use std::fmt::Debug;

/// The name of an effect: what is done to what. Names bear no UIDs, so that two clean runs have the same names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Effect {
    /// On what: `domain/train`, `host-plan/host-a`.
    pub object: String,
    /// What: `define`, `write`.
    pub verb: &'static str,
}

impl Effect {
    /// A name.
    pub fn new(object: impl Into<String>, verb: &'static str) -> Self {
        Self {
            object: object.into(),
            verb,
        }
    }
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.object)
    }
}

/// What becomes of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It happens.
    Pass,
    /// It does not happen, and an error is returned.
    Fail,
    /// It happens, and an error is returned all the same.
    TimeOut,
    /// It happens, and the process is gone.
    Kill,
}

/// Who decides.
pub trait Gate: Send + Sync + Debug {
    /// What becomes of this effect.
    fn fate(&self, effect: &Effect) -> Fate;
}

/// Everything happens.
#[derive(Clone, Copy, Debug)]
pub struct Open;

impl Gate for Open {
    fn fate(&self, _: &Effect) -> Fate {
        Fate::Pass
    }
}
