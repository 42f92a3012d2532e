//! One plan of a project, carried out: look, compare, act, look again.
//!
//! Access is taken away beside this, as soon as a newer plan is seen: what that took away is not given again by the older one,
//! which may be in the midst of its actions.

use std::time::Instant;

use dejima_crds::host_plan::{Drift, HostPlanSpec, HostPlanStatus, ProjectPlan};
use dejima_plan::drift::drift;
use dejima_plan::host::{Action, next};
use jiff::Timestamp;

use crate::agent::observe;
use crate::carry_out::carry_out;
use crate::driver::{Drivers, Error};
use crate::kept::Kept;

/// What came of it.
#[derive(Debug, Default)]
pub struct Converged {
    /// Whether anything was done.
    pub acted: bool,
    /// What was not as it was made at the first look.
    pub drifted: Vec<Drift>,
    /// What failed first, and at which action.
    pub failure: Option<(Error, (String, &'static str))>,
    /// Whether a newer plan was seen meanwhile: this one went no further.
    pub is_overtaken: bool,
}

/// Carries a plan out until nothing is left to do, something fails, or a newer plan was seen. `names` are the host's and the plan's.
pub async fn converge(
    drivers: &Drivers,
    kept: &Kept,
    names: (&str, &str),
    spec: &HostPlanSpec,
    project: &ProjectPlan,
    before: &HostPlanStatus,
) -> Result<Converged, Error> {
    let (host, name) = names;
    let mut converged = Converged::default();
    let mut last: Option<Vec<Action>> = None;
    loop {
        let begun = Instant::now();
        let (seen, owned) = observe(drivers, kept, project).await;
        tracing::debug!(plan = name, took = ?begun.elapsed(), "looked");
        if last.is_none() {
            converged.drifted = drift(spec, project, before, &seen, &owned, Timestamp::now());
        }
        let todo = next(spec, project, &seen, Timestamp::now()).actions;
        // What was done and still is to be done waits for the next look: nobody can tell yet whether it took effect.
        if todo.is_empty() || last.as_ref() == Some(&todo) {
            return Ok(converged);
        }
        for action in &todo {
            if !kept.admit(name, spec.plan_generation)? {
                converged.is_overtaken = true;
                return Ok(converged);
            }
            converged.acted = true;
            let begun = Instant::now();
            let done = carry_out(drivers, kept, host, project, action).await;
            let (object, verb) = action.name();
            tracing::debug!(plan = name, object, verb, took = ?begun.elapsed(), "acted");
            match done {
                Ok(()) => {}
                // What takes access away goes on although something else fails.
                Err(error) => converged.failure = converged.failure.or(Some((error, action.name()))),
            }
            if converged.failure.is_some() && !matches!(action, Action::Detach(..) | Action::Destroy(_)) {
                break;
            }
        }
        if converged.failure.is_some() {
            return Ok(converged);
        }
        last = Some(todo);
    }
}
