//! Steps 7 and 8: the project ends with a receipt, and everything is said in plain words.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use dejima_lab::run::{finish, succeed};
use serde_json::{Value, json};

use super::screen::{says, screen, took};
use super::{Story, Tenant, items, text};

impl Story<'_> {
    /// A tenant's lead deletes the project and waits until it is gone.
    pub(super) fn delete(&self, tenant: &Tenant) -> Result<()> {
        let words = ["delete", "isolatedproject", tenant.project, "-n", &tenant.space, "--timeout=60s"];
        self.platform.world.run(tenant.lead, &words).ok()?;
        Ok(())
    }

    /// The plain key of a project's volume, as the key server opens it.
    pub(super) fn volume_key(&self, uid: &str, wrapped: &str) -> Result<String> {
        let path = format!("transit/decrypt/project-{uid}");
        let wrapped = format!("ciphertext={wrapped}");
        let key = self.platform.keys.run(&["write", "-field=plaintext", &path, &wrapped], None)?;
        Ok(key.trim().to_owned())
    }

    pub(super) fn the_project_ends(&mut self) -> Result<()> {
        self.chapter(7, "The project is deleted")?;
        let osaka = self.osaka.clone();
        let object = self.object(&osaka);
        let (uid, host) = (text(&object, "/metadata/uid"), text(&object, "/status/summary/host"));
        // What a thief would have kept.
        let volume = self.platform.volumes(&host).join(&uid).join("work.luks");
        let thief = self.platform.dir().join("thief.luks");
        std::fs::copy(&volume, &thief).with_context(|| format!("cannot copy `{}`", volume.display()))?;
        let wrapped = volume.with_extension("key");
        let wrapped = std::fs::read_to_string(&wrapped).with_context(|| format!("cannot read `{}`", wrapped.display()))?;
        if !opens(&thief, &self.volume_key(&uid, &wrapped)?)? {
            bail!("the control: the volume does not open with its key either");
        }
        let held = || {
            let object = self.platform.world.get("", "host", &host)?;
            Ok::<_, anyhow::Error>(text(&object, "/status/heldBy/uid") == uid)
        };
        if !held()? {
            bail!("the control: {host} is not held by the project before either");
        }
        let begun = Instant::now();
        self.delete(&osaka)?;
        took("network, mounts, machine and key are gone, then the bytes", begun)?;
        if self.volume_key(&uid, &wrapped).is_ok() || volume.exists() {
            bail!("the volume of a project that is gone can still be opened");
        }
        std::fs::remove_file(&thief).context("cannot remove the copy")?;
        says("a copy of the host's disk opened a moment ago; the key server opens its key no more")?;
        if held()? {
            bail!("{host} is still held");
        }
        self.receipt(&osaka)?;
        says(&format!("{host} is free"))
    }

    /// The receipt is final, holds under the platform's key, and under no other.
    fn receipt(&self, tenant: &Tenant) -> Result<()> {
        let world = &self.platform.world;
        let words = [
            "get",
            "configmaps",
            "-n",
            &tenant.space,
            "-l",
            "dejima.dev/receipt=final",
            "-o",
            "json",
        ];
        let find = || -> Option<Value> {
            let listed: Value = serde_json::from_str(&world.run(tenant.lead, &words).text).ok()?;
            items(&listed, "/items").into_iter().next()
        };
        self.awaits("a final receipt", 30, || find().is_some())?;
        let borne = find().context("a receipt stays")?;
        let published = world.get("dejima-system", "configmap", "dejima-receipts")?;
        let keep = |name: String, text: &str| -> Result<PathBuf> {
            let path = self.platform.dir().join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
            Ok(path)
        };
        let receipt = keep(format!("receipt-{}.json", tenant.space), &borne.to_string())?;
        let key = keep("dejima-receipts.pem".to_owned(), &text(&published, "/data/1.pem"))?;
        let said = self.verify(&receipt, &key)?;
        let Some(said) = said else {
            bail!("the receipt does not hold under the platform's key");
        };
        let shown = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let command = format!("kubectl dejima receipt verify {} --key {}", shown(&receipt), shown(&key));
        screen(&command, "anybody", &said)?;

        // The same words under a fresh key.
        let document: Value = serde_json::from_str(&text(&borne, "/data/receipt.json")).context("a receipt is JSON")?;
        let words = document.get("receipt").cloned().unwrap_or_default();
        let keys = &self.platform.keys;
        keys.run(&["write", "transit/keys/story-stranger", "type=ed25519"], None)?;
        let encoded = succeed(Command::new("base64").arg("-w0"), Some(words.to_string().as_bytes()))?;
        let input = format!("input={encoded}");
        let signed = keys.run(&["write", "-field=signature", "transit/sign/story-stranger", &input], None)?;
        let forged = json!({"receipt": words, "signature": signed.trim().rsplit(':').next()});
        let forged = keep("forged.json".to_owned(), &forged.to_string())?;
        let public = keys.run(&["read", "-format=json", "transit/keys/story-stranger"], None)?;
        let strange = keep("stranger.json".to_owned(), &public)?;
        if self.verify(&forged, &strange)?.is_none() {
            bail!("the control: the forged receipt holds under no key at all");
        }
        if self.verify(&forged, &key)?.is_some() || self.verify(&receipt, &strange)?.is_some() {
            bail!("a receipt holds under a key that did not sign it");
        }
        says("refused: the same words signed with a fresh key")
    }

    /// What a receipt says, where it holds under a key.
    fn verify(&self, receipt: &Path, key: &Path) -> Result<Option<String>> {
        let mut command = Command::new(self.platform.program());
        command.env_remove("KUBECONFIG").args(["--lang", "en", "receipt", "verify"]);
        let output = finish(command.arg(receipt).arg("--key").arg(key), None)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success().then_some(said))
    }

    pub(super) fn in_plain_words(&mut self) -> Result<()> {
        self.chapter(8, "What waits for what, and whose turn it is")?;
        let kyoto = self.kyoto.clone();
        for lang in ["ja", "en"] {
            self.dejima_shows(kyoto.lead, &["explain", "project", &kyoto.reference(), "--lang", lang])?;
        }
        let osaka = &self.osaka;
        let words = ["get", "events", "-n", &osaka.space, "--sort-by=.metadata.creationTimestamp"];
        self.shows(osaka.lead, &words)
    }
}

/// Whether a key opens a volume.
fn opens(volume: &Path, key: &str) -> Result<bool> {
    let mut command = Command::new("cryptsetup");
    command
        .args(["open", "--test-passphrase", "--type", "luks1", "--key-file", "-"])
        .arg(volume);
    Ok(finish(&mut command, Some(key.as_bytes()))?.status.success())
}
