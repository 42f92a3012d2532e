//! What a host logs in with is short-lived: the host renews it long before it ends, in the file in which it was brought.
//!
//! ```text
//! Kubernetes:  a token request for our own service account -> token file
//! key server:  a new secret id -> its file -> a login with it -> the old one destroyed
//! ```
//! A file is due once it is as old as the interval. Whoever was off for longer than what it has lasts is brought a new one by its admin.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dejima_crds::names;
use dejima_plan::effect::{Effect, Gate, through};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

use crate::agent::chain;
use crate::driver::Error;
use crate::kept::write_whole;
use crate::keys::VaultKeys;

/// The service account of a host, in the host's own namespace.
const ACCOUNT: &str = "hostd";
/// How many intervals a token of Kubernetes lasts: two renewals may fail.
const LASTS: u32 = 3;
/// The shortest life that Kubernetes gives to a token, in seconds (TokenRequest, expirationSeconds).
const SHORTEST: i64 = 600;

/// The credentials of a host.
pub struct Credentials {
    /// Kubernetes, as this host.
    pub client: Client,
    /// The name of the host.
    pub host: String,
    /// The file with the token of Kubernetes, where the kubeconfig names one.
    pub token_file: Option<PathBuf>,
    /// The key server, as this host.
    pub keys: Arc<VaultKeys>,
    /// How old a credential may become.
    pub every: Duration,
    /// Whom each effect goes through.
    pub gate: Arc<dyn Gate>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials of {}", self.host)
    }
}

/// How long a file may still stay as it is: not at all where nobody can tell how old it is.
fn left(file: &Path, every: Duration, now: SystemTime) -> Duration {
    let written = std::fs::metadata(file).and_then(|found| found.modified());
    let age = written.map_or(every, |written| now.duration_since(written).unwrap_or_default());
    every.saturating_sub(age)
}

impl Credentials {
    async fn token(&self, file: &Path) -> Result<(), Error> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), names::host_namespace(&self.host).as_str());
        let seconds = i64::try_from(self.every.saturating_mul(LASTS).as_secs()).unwrap_or(i64::MAX);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(seconds.max(SHORTEST)),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let asked = api.create_token_request(ACCOUNT, &PostParams::default(), &request).await;
        let answer = asked.map_err(|cause| Error::driver("renew", "the token of Kubernetes", cause))?;
        let token = answer.status.and_then(|status| status.token);
        let token = token.ok_or_else(|| Error::Missing("the API server gave no token".to_owned()))?;
        write_whole(file, token.as_bytes()).map_err(|cause| Error::driver("keep", file.display().to_string(), cause))
    }

    /// Renews what is due; when to look again.
    async fn renew(&self) -> Duration {
        let gate = self.gate.as_ref();
        let mut next = self.every;
        if let Some(file) = &self.token_file {
            let due = self.due("the token of Kubernetes", file, async || {
                through(gate, Effect::new("credential/kubernetes", "renew"), self.token(file)).await
            });
            next = next.min(due.await);
        }
        let role = format!("dejima-host-{}", self.host);
        let due = self.due("the secret id at the key server", self.keys.secret_id_file(), async || {
            through(gate, Effect::new("credential/keys", "renew"), self.keys.renew(&role)).await
        });
        next.min(due.await).max(Duration::from_secs(1))
    }

    /// Renews one credential, where it is due; when to look at it again.
    async fn due(&self, what: &str, file: &Path, renew: impl AsyncFnOnce() -> Result<(), Error>) -> Duration {
        let left = left(file, self.every, SystemTime::now());
        if !left.is_zero() {
            return left;
        }
        match renew().await {
            Ok(()) => {
                tracing::info!(what, file = %file.display(), "renewed");
                self.every
            }
            Err(error) => {
                tracing::warn!(what, error = %chain(&error), "not renewed; it is tried again, and what there is lasts a while");
                self.every / 20
            }
        }
    }
}

/// Renews until told to stop.
pub async fn keep(credentials: Credentials, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let pause = credentials.renew().await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_due_when_it_is_as_old_as_the_interval() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "x").unwrap();
        let written = std::fs::metadata(&file).unwrap().modified().unwrap();
        let every = Duration::from_hours(8);
        let hours = |hours| written + Duration::from_hours(hours);
        assert_eq!(left(&file, every, written), every);
        assert_eq!(left(&file, every, hours(6)), Duration::from_hours(2));
        assert_eq!(left(&file, every, hours(8)), Duration::ZERO);
        assert_eq!(left(&file, every, hours(800)), Duration::ZERO);
        // A clock that was put back.
        assert_eq!(left(&file, every, written - Duration::from_hours(1)), every);
        assert_eq!(
            left(&folder.path().join("none"), every, written),
            Duration::ZERO,
            "one that is not there is due"
        );
    }
}
