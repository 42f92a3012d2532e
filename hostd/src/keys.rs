//! The key server as a host uses it: data keys for what it holds, nothing else. It logs in as itself (AppRole).

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use base64::Engine as _;
use dejima_crds::bounded::{KeyName, WrappedKey};
use tokio::sync::Mutex;
use vaultrs::api::transit::requests::DataKeyType;
use vaultrs::auth::approle::role::secret;
use vaultrs::client::{Client as _, VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use zeroize::Zeroizing;

use crate::driver::{Error, Keys, PlainKey};
use crate::kept::write_whole;

/// The transit engine of OpenBao or Vault, under this host's own identity.
pub struct VaultKeys {
    client: Mutex<VaultClient>,
    role_id: String,
    // Read at each login: it is renewed, by us or by an admin.
    secret_id_file: PathBuf,
}

impl std::fmt::Debug for VaultKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VaultKeys")
    }
}

const MOUNT: &str = "transit";
const APPROLE: &str = "approle";

fn failed(what: &'static str, on: &str) -> impl FnOnce(ClientError) -> Error {
    let on = on.to_owned();
    move |cause| Error::driver(what, format!("`{on}` at the key server"), cause)
}

/// Whether the token is at its end, or was never there.
fn expired(error: &ClientError) -> bool {
    matches!(error, ClientError::APIError { code: 403, .. })
}

impl VaultKeys {
    /// A client that has not logged in yet.
    pub fn new(address: &str, role_id: &str, secret_id_file: &Path) -> Result<Self, Error> {
        let settings = VaultClientSettingsBuilder::default()
            .address(address)
            .token("")
            .timeout(Some(std::time::Duration::from_secs(10)))
            .build();
        let settings = settings.map_err(|error| Error::Missing(format!("the address of the key server: {error}")))?;
        let client = VaultClient::new(settings).map_err(failed("reach", address))?;
        Ok(Self {
            client: Mutex::new(client),
            role_id: role_id.to_owned(),
            secret_id_file: secret_id_file.to_owned(),
        })
    }

    /// The file with the secret id.
    pub fn secret_id_file(&self) -> &Path {
        &self.secret_id_file
    }

    fn secret_id(&self) -> Result<Zeroizing<String>, Error> {
        let read = std::fs::read_to_string(&self.secret_id_file).map(Zeroizing::new);
        let text = read.map_err(|cause| Error::driver("read", self.secret_id_file.display().to_string(), cause))?;
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    async fn login(&self, client: &mut VaultClient) -> Result<(), Error> {
        let login = vaultrs::auth::approle::login(client, APPROLE, &self.role_id, &self.secret_id()?).await;
        client.set_token(&login.map_err(failed("log in as", "this host"))?.client_token);
        Ok(())
    }

    /// A new secret id in place of the one that there is, which is destroyed once a login with the new one has succeeded. The role
    /// lets its holder do so (`auth/approle/role/ROLE/secret-id`).
    pub async fn renew(&self, role: &str) -> Result<(), Error> {
        let mut client = self.client.lock().await;
        let old = self.secret_id()?;
        self.login(&mut client).await?;
        let made = secret::generate(&*client, APPROLE, role, None).await;
        let new = Zeroizing::new(made.map_err(failed("make a secret id of", role))?.secret_id);
        let kept = write_whole(&self.secret_id_file, new.as_bytes());
        kept.map_err(|cause| Error::driver("keep", self.secret_id_file.display().to_string(), cause))?;
        self.login(&mut client).await?;
        let destroyed = secret::delete(&*client, APPROLE, role, &old).await;
        destroyed.map_err(failed("destroy the old secret id of", role))
    }
}

fn plain(text: String, key: &KeyName) -> Result<PlainKey, Error> {
    let text = Zeroizing::new(text);
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text.as_bytes())
        .map(Zeroizing::new);
    match bytes {
        Ok(bytes) if bytes.len() == 32 => Ok(text),
        Ok(_) | Err(_) => Err(Error::Missing(format!("what `{key}` opens is no key of 256 bits"))),
    }
}

#[async_trait]
impl Keys for VaultKeys {
    async fn data_key(&self, key: &KeyName) -> Result<(PlainKey, WrappedKey), Error> {
        let mut client = self.client.lock().await;
        let mut answer = vaultrs::transit::generate::data_key(&*client, MOUNT, key.as_str(), DataKeyType::Plaintext, None).await;
        if answer.as_ref().is_err_and(expired) {
            self.login(&mut client).await?;
            answer = vaultrs::transit::generate::data_key(&*client, MOUNT, key.as_str(), DataKeyType::Plaintext, None).await;
        }
        let answer = answer.map_err(failed("make a data key under", key.as_str()))?;
        let text = answer
            .plaintext
            .ok_or_else(|| Error::Missing(format!("`{key}` gave no plain data key")))?;
        Ok((plain(text, key)?, answer.ciphertext.into()))
    }

    async fn unwrap(&self, key: &KeyName, wrapped: &WrappedKey) -> Result<PlainKey, Error> {
        let mut client = self.client.lock().await;
        let mut answer = vaultrs::transit::data::decrypt(&*client, MOUNT, key.as_str(), wrapped.as_str(), None).await;
        if answer.as_ref().is_err_and(expired) {
            self.login(&mut client).await?;
            answer = vaultrs::transit::data::decrypt(&*client, MOUNT, key.as_str(), wrapped.as_str(), None).await;
        }
        plain(answer.map_err(failed("open a data key under", key.as_str()))?.plaintext, key)
    }
}
