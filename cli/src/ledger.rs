//! Acts over HTTP, under the identity of the part that writes them: the ledger knows its writer by its login.

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use dejima_crds::act::{Act, Kind, Phase};
use dejima_crds::receipt::Signed;
use kube::Config;

use crate::dial::token;

/// A part's way to the ledger.
#[derive(Clone)]
pub(crate) struct Records {
    client: reqwest::Client,
    url: String,
    config: Config,
}

#[derive(Debug)]
struct Answer(u16, String);

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the platform's API answered {}: {}", self.0, self.1)
    }
}

impl std::error::Error for Answer {}

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Records {
    /// To this address, with the token of this kubeconfig.
    pub(crate) fn new(url: &str, config: Config) -> Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(std::time::Duration::from_secs(10))
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self {
            client,
            url: format!("{}/api/v1", url.trim_end_matches('/')),
            config,
        })
    }

    fn token(&self) -> Result<String, Cause> {
        Ok(token(&self.config)?)
    }

    async fn append(&self, act: &Act) -> Result<(), Cause> {
        let url = format!("{}/records", self.url);
        let answer = self.client.post(url).bearer_auth(self.token()?).json(act).send().await?;
        let status = answer.status();
        // Said before, in other words (another generation of the project): the first word stands.
        if status.is_success() || status.as_u16() == 409 {
            return Ok(());
        }
        // Nobody came in: the beginning was refused, and so there is no end to record.
        if status.as_u16() == 422 && (act.kind, act.phase) == (Kind::Visit, Phase::Ended) {
            return Ok(());
        }
        Err(Box::new(Answer(status.as_u16(), answer.text().await.unwrap_or_default())))
    }

    async fn issue(&self, signed: &Signed) -> Result<Signed, Cause> {
        let url = format!("{}/receipts", self.url);
        let answer = self.client.post(url).bearer_auth(self.token()?).json(signed).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if status.is_success() {
            return Ok(Signed::read(&text)?.0);
        }
        Err(Box::new(Answer(status.as_u16(), text)))
    }
}

#[async_trait]
impl dejima_operator::Recorder for Records {
    async fn record(&self, act: &Act) -> Result<(), dejima_operator::records::Error> {
        let refused = |cause| dejima_operator::records::Error::Refused {
            activity: act.activity.clone(),
            cause,
        };
        self.append(act).await.map_err(refused)
    }

    async fn receipt(&self, signed: &Signed) -> Result<Signed, dejima_operator::records::Error> {
        let refused = |cause| dejima_operator::records::Error::Refused {
            activity: dejima_crds::receipt::entity(&signed.receipt.id),
            cause,
        };
        self.issue(signed).await.map_err(refused)
    }
}

#[async_trait]
impl dejima_hostd::Recorder for Records {
    async fn record(&self, act: &Act) -> Result<(), dejima_hostd::Error> {
        self.append(act)
            .await
            .map_err(|cause| dejima_hostd::Error::driver("record", act.activity.clone(), cause))
    }
}
