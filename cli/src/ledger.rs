//! Acts straight into the ledger, under the name of the part that wrote them.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use dejima_crds::act::Act;
use dejima_ledger::Ledger;
use jiff::Timestamp;

/// A part's way into the ledger of this process.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    ledger: Arc<Ledger>,
    name: String,
}

impl Writer {
    /// Opens the ledger for one part.
    pub(crate) fn open(path: &Path, name: &str) -> Result<Self, dejima_ledger::Error> {
        Ok(Self {
            ledger: Arc::new(Ledger::open(path)?),
            name: name.to_owned(),
        })
    }
}

#[async_trait]
impl dejima_operator::Recorder for Writer {
    async fn record(&self, act: &Act) -> Result<(), dejima_operator::records::Error> {
        let refused = |cause: Box<dyn std::error::Error + Send + Sync>| dejima_operator::records::Error::Refused {
            activity: act.activity.clone(),
            cause,
        };
        let value = serde_json::to_value(act).map_err(|error| refused(error.into()))?;
        let (ledger, name) = (Arc::clone(&self.ledger), self.name.clone());
        let appended = tokio::task::spawn_blocking(move || ledger.append(&name, &value, Timestamp::now())).await;
        match appended {
            // Said before, in other words (another generation, another host): the first word stands.
            Ok(Ok(_) | Err(dejima_ledger::Error::Conflict { .. })) => Ok(()),
            Ok(Err(error)) => Err(refused(error.into())),
            Err(error) => Err(refused(error.into())),
        }
    }
}

/// A host without a way to the ledger: it gives no access, and says why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoLedger;

#[async_trait]
impl dejima_hostd::Recorder for NoLedger {
    async fn record(&self, act: &Act) -> Result<(), dejima_hostd::Error> {
        Err(dejima_hostd::Error::Missing(format!(
            "`{}` cannot be recorded: this host has no way to the ledger, so nothing is mounted",
            act.activity
        )))
    }
}
