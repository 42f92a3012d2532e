//! The seam for faults: every effect on the world has a name, and one place decides what becomes of it.
//!
//! In a running platform every effect simply happens. A test takes the place of [`Gate`] and lets the n-th of a name fail,
//! time out after it took effect, or be the last thing that the process did.

use std::fmt::Debug;
use std::future::Future;

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

/// An effect that a test lets fail.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` was made to fail")]
pub struct Injected(pub String);

/// Carries an effect out, as the gate says. The future is the caller's; nothing is done here but to ask for it.
pub async fn through<T, E, F>(gate: &dyn Gate, effect: Effect, act: F) -> Result<T, E>
where
    E: From<Injected>,
    F: Future<Output = Result<T, E>> + Send,
{
    match gate.fate(&effect) {
        Fate::Pass => act.await,
        Fate::Fail => Err(Injected(effect.to_string()).into()),
        Fate::TimeOut => {
            act.await?;
            Err(Injected(effect.to_string()).into())
        }
        Fate::Kill => {
            // The answer is nobody's any more.
            let _ = act.await;
            std::process::abort()
        }
    }
}
