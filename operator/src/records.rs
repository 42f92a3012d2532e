//! Where acts go. `cli` says how: straight into the ledger, or over HTTP.

use async_trait::async_trait;
use dejima_crds::act::Act;
use dejima_crds::receipt::Signed;

use dejima_plan::effect::Injected;

/// An act that could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger did not take it.
    #[error("cannot record `{activity}`")]
    Refused {
        /// The activity.
        activity: String,
        /// What happened.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A test let it fail.
    #[error(transparent)]
    Injected(#[from] Injected),
}

/// Takes acts; returns when they are durable. The same act twice is one.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Records an act.
    async fn record(&self, act: &Act) -> Result<(), Error>;
    /// Records a receipt; the one that stands: the final one where there is one, otherwise the first of this state.
    async fn receipt(&self, signed: &Signed) -> Result<Signed, Error>;
}
