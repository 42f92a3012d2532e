//! The operator's side of the key server: it makes and destroys keys, says which host may use which, and lets receipts be
//! signed. It opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dejima_crds::bounded::{KeyName, Signature};
use dejima_crds::receipt;
use vaultrs::api::transit::requests::UpdateKeyConfigurationRequest;
use vaultrs::api::transit::responses::ReadKeyData;
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;

use dejima_plan::effect::Injected;

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key server refused, or did not answer.
    #[error("cannot {what} `{name}` at the key server")]
    Server {
        /// What was attempted.
        what: &'static str,
        /// On which key or policy.
        name: String,
        /// What happened.
        #[source]
        cause: Box<ClientError>,
    },
    /// The key that signs receipts is another kind of key.
    #[error("the key `{0}` at the key server signs nothing: it must be of the type ed25519")]
    NoSigner(&'static str),
    /// A test let it fail.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl Error {
    /// Who is waited for, in words for people; nothing where a test let it fail.
    pub fn who(&self) -> Option<&'static str> {
        let cause = match self {
            Self::Server { cause, .. } => cause.as_ref(),
            Self::NoSigner(_) => return Some("a key that signs receipts"),
            Self::Injected(_) => return None,
        };
        // OpenBao, HTTP API, "HTTP status codes": 503 where it is sealed or in maintenance.
        let code = if let ClientError::APIError { code, .. } = cause {
            *code
        } else {
            return Some("the key server, which does not answer");
        };
        Some(if code == 503 {
            "the key server, which is sealed"
        } else {
            "the key server, which refused"
        })
    }
}

/// What the operator may do with keys.
#[async_trait]
pub trait Keys: Send + Sync {
    /// A key is there.
    async fn make(&self, key: &KeyName) -> Result<(), Error>;
    /// A key is gone, and everything that was wrapped with it is noise.
    async fn destroy(&self, key: &KeyName) -> Result<(), Error>;
    /// A host may use exactly these keys, from now on.
    async fn allow(&self, host: &str, keys: &BTreeSet<KeyName>) -> Result<(), Error>;
    /// The signature of a receipt; the same bytes have the same signature.
    async fn sign(&self, bytes: &[u8]) -> Result<Signature, Error>;
    /// The public keys of receipts (base64 of 32 bytes), by version.
    async fn public_keys(&self) -> Result<BTreeMap<String, String>, Error>;
}

/// The transit engine of OpenBao or Vault.
pub struct VaultKeys {
    client: VaultClient,
    mount: String,
}

impl std::fmt::Debug for VaultKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VaultKeys").field("mount", &self.mount).finish_non_exhaustive()
    }
}

fn failed(what: &'static str, name: &str) -> impl FnOnce(ClientError) -> Error {
    let name = name.to_owned();
    move |cause| Error::Server {
        what,
        name,
        cause: Box::new(cause),
    }
}

/// Whether the key server said that something is not there.
fn absent(error: &ClientError) -> bool {
    matches!(error, ClientError::APIError { code: 400 | 404, errors } if errors.is_empty() || errors.iter().any(|text| text.contains("not found") || text.contains("no existing key")))
}

impl VaultKeys {
    /// A client for an address with a token whose policies allow what this trait does and no more.
    pub fn new(address: &str, token: &str) -> Result<Self, Error> {
        let settings = VaultClientSettingsBuilder::default()
            .address(address)
            .token(token)
            .timeout(Some(std::time::Duration::from_secs(10)))
            .build();
        let settings = settings.map_err(|error| Error::Server {
            what: "use the address",
            name: address.to_owned(),
            cause: Box::new(ClientError::FileNotFoundError { path: error.to_string() }),
        })?;
        let client = VaultClient::new(settings).map_err(failed("reach", address))?;
        Ok(Self {
            client,
            mount: "transit".to_owned(),
        })
    }
}

/// The name of the policy whose content says what a host may use.
pub fn policy_name(host: &str) -> String {
    format!("dejima-host-{host}")
}

/// The content of that policy: a project's key makes data keys and opens them, a shard's key opens.
pub fn policy_text(mount: &str, keys: &BTreeSet<KeyName>) -> String {
    let mut text = String::from("# Written by the operator. Exactly the keys of what this host holds.\n");
    let mut path = |verb: &str, key: &KeyName| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "path \"{mount}/{verb}/{key}\" {{ capabilities = [\"update\"] }}");
    };
    for key in keys {
        path("decrypt", key);
        path("datakey/plaintext", key);
    }
    text
}

#[async_trait]
impl Keys for VaultKeys {
    async fn make(&self, key: &KeyName) -> Result<(), Error> {
        // Making a key that is there changes nothing (OpenBao, transit, "create key").
        vaultrs::transit::key::create(&self.client, &self.mount, key.as_str(), None)
            .await
            .map_err(failed("make key", key.as_str()))
    }

    async fn destroy(&self, key: &KeyName) -> Result<(), Error> {
        let mut allow = UpdateKeyConfigurationRequest::builder();
        allow.deletion_allowed(true);
        match vaultrs::transit::key::update(&self.client, &self.mount, key.as_str(), Some(&mut allow)).await {
            Err(error) if absent(&error) => return Ok(()),
            other => other.map_err(failed("open for destruction the key", key.as_str()))?,
        }
        match vaultrs::transit::key::delete(&self.client, &self.mount, key.as_str()).await {
            Err(error) if absent(&error) => Ok(()),
            other => other.map_err(failed("destroy key", key.as_str())),
        }
    }

    async fn allow(&self, host: &str, keys: &BTreeSet<KeyName>) -> Result<(), Error> {
        let name = policy_name(host);
        vaultrs::sys::policy::set(&self.client, &name, &policy_text(&self.mount, keys))
            .await
            .map_err(failed("write policy", &name))
    }

    async fn sign(&self, bytes: &[u8]) -> Result<Signature, Error> {
        let answer = vaultrs::transit::data::sign(&self.client, &self.mount, receipt::KEY, &BASE64.encode(bytes), None)
            .await
            .map_err(failed("sign with the key", receipt::KEY))?;
        // As the key server writes it: `vault:v<version of the key>:<base64>`. The version is not signed, hence not kept.
        let signature = answer.signature.rsplit(':').next().unwrap_or_default();
        Ok(Signature::from(signature))
    }

    async fn public_keys(&self) -> Result<BTreeMap<String, String>, Error> {
        let answer = vaultrs::transit::key::read(&self.client, &self.mount, receipt::KEY)
            .await
            .map_err(failed("read the public part of the key", receipt::KEY))?;
        match answer.keys {
            ReadKeyData::Asymmetric(keys) => Ok(keys.into_iter().map(|(version, key)| (version, key.public_key)).collect()),
            ReadKeyData::Symmetric(_) => Err(Error::NoSigner(receipt::KEY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_opens_exactly_the_keys_that_are_named() {
        let text = policy_text("transit", &BTreeSet::from(["project-u".into()]));
        assert!(text.contains("\"transit/decrypt/project-u\"") && text.contains("\"transit/datakey/plaintext/project-u\""));
        assert_eq!(text.matches("path").count(), 2);
        assert_eq!(policy_text("transit", &BTreeSet::new()).matches("path").count(), 0);
    }
}
