//! Where every effect of the operator passes: the gate decides whether it happens, fails, or is the last.

use std::future::Future;

use dejima_plan::effect::{Effect, Fate, Gate};

/// An effect that a test lets fail.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` was made to fail")]
pub struct Injected(pub String);

/// Carries an effect out, as the gate says.
pub async fn through<T, E, F>(gate: &dyn Gate, effect: Effect, act: F) -> Result<T, E>
where
    E: From<Injected>,
    F: Future<Output = Result<T, E>> + Send,
{
    tracing::debug!(effect = %effect, "effect");
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
