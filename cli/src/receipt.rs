//! Receipts are checked by whoever has one and the public key: nothing of the platform is asked.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Subcommand;
use dejima_crds::bounded::Label;
use dejima_crds::receipt::{DOCUMENT, Receipt, Signed, State};
use dejima_crds::text::Language;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;

use crate::print;

/// What stands before the 32 bytes of an Ed25519 key in its DER form (RFC 8410, section 4).
const DER_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// About receipts.
#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Checks that a receipt was signed by the platform's key, and says what it says
    Verify {
        /// The document, or the ConfigMap that bears it (JSON or YAML)
        file: PathBuf,
        /// The public key: PEM, base64, or what the key server says of the key dejima-receipts
        #[arg(long)]
        key: PathBuf,
    },
}

/// Checks a receipt.
pub(crate) fn run(command: ReceiptCommand, lang: Language) -> Result<()> {
    let ReceiptCommand::Verify { file, key } = command;
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()));
    let receipt = verify(&document(&read(&file)?)?, &public_keys(&read(&key)?)).with_context(|| match lang {
        Language::Ja => format!("`{}` は検証に失敗した", file.display()),
        Language::En => format!("`{}` does not hold", file.display()),
    })?;
    said(&receipt, lang).iter().try_for_each(|line| print(line))
}

/// The document itself, where a ConfigMap bears it.
fn document(text: &str) -> Result<String> {
    // The document of a receipt is JSON; only what bears one may be YAML.
    if serde_json::from_str::<Value>(text).is_ok_and(|value| value.get("receipt").is_some()) {
        return Ok(text.to_owned());
    }
    let value: Value = serde_yaml::from_str(text).context("this is neither JSON nor YAML")?;
    let borne = value.get("data").and_then(|data| data.get(DOCUMENT)).and_then(Value::as_str);
    Ok(borne.unwrap_or(text).to_owned())
}

/// Every public key that a text names: PEM, base64, or the key server's own words (JSON or plain).
fn public_keys(text: &str) -> Vec<Vec<u8>> {
    // In JSON the lines of a PEM are divided by an escaped line feed.
    let text = text.replace("\\n", "\n");
    let base64 = |text: &str| {
        let digits: String = text.chars().filter(|digit| !digit.is_whitespace()).collect();
        BASE64.decode(digits).ok()
    };
    let pem = text.split("-----BEGIN PUBLIC KEY-----").skip(1);
    let pem = pem.filter_map(|rest| base64(rest.split("-----END").next()?));
    let named = text.split("public_key").skip(1).filter_map(|rest| {
        let digits = rest.trim_start_matches(['"', ':', ' ', '\t']);
        base64(
            digits
                .split(|digit: char| !(digit.is_ascii_alphanumeric() || "+/=".contains(digit)))
                .next()?,
        )
    });
    let raw = |key: Vec<u8>| match key.strip_prefix(&DER_HEAD) {
        Some(raw) => raw.to_vec(),
        None => key,
    };
    pem.chain(named)
        .chain(base64(&text))
        .map(raw)
        .filter(|key| key.len() == 32)
        .collect()
}

/// The receipt, if one of these keys signed it.
fn verify(document: &str, keys: &[Vec<u8>]) -> Result<Receipt> {
    if keys.is_empty() {
        bail!("there is no Ed25519 public key in the file of the key");
    }
    let (signed, bytes) = Signed::read(document)?;
    let signature = BASE64.decode(signed.signature.as_str()).context("its signature is not base64")?;
    let holds = |key: &Vec<u8>| UnparsedPublicKey::new(&ED25519, key).verify(&bytes, &signature).is_ok();
    if !keys.iter().any(holds) {
        bail!("its signature is not of this key, or something in it was changed");
    }
    Ok(signed.receipt)
}

/// The name and the UID of what a receipt is about.
fn named(receipt: &Receipt) -> (String, String) {
    let of = receipt.about();
    of.map_or_else(Default::default, |of| (of.to_string(), of.uid.to_string()))
}

/// What a receipt says, in plain words.
fn said(receipt: &Receipt, lang: Language) -> Vec<String> {
    let Receipt {
        id,
        key_destroyed_at: destroyed,
        key_server_backup_horizon: horizon,
        ..
    } = receipt;
    let of = receipt.about();
    let (project, uid) = named(receipt);
    let volumes = receipt.volumes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(volume) = &receipt.volume {
        return of_volume(receipt, volume, lang);
    }
    let mut lines = vec![match (receipt.state, lang) {
        (State::Final, Language::En) => format!("verified: the receipt {id} of {project} (UID {uid}) is final"),
        (State::Partial, Language::En) => format!("verified: the receipt {id} of {project} (UID {uid}) is partial"),
        (State::Final, Language::Ja) => format!("検証済み: {project} (UID {uid}) の受領証 {id} は確定している"),
        (State::Partial, Language::Ja) => format!("検証済み: {project} (UID {uid}) の受領証 {id} はまだ一部である"),
    }];
    let shards = receipt.shards.len();
    lines.push(match lang {
        Language::En if of.is_some_and(|of| of.is_dataset) => {
            format!("  keys of {shards} shards destroyed at {destroyed}; a back-up of the key server may hold them for {horizon}")
        }
        Language::Ja if of.is_some_and(|of| of.is_dataset) => {
            format!("  シャード {shards} 個の鍵の破棄: {destroyed}; 鍵サーバのバックアップに残りうる期間: {horizon}")
        }
        Language::En => {
            format!("  key destroyed at {destroyed}; a back-up of the key server may hold it for {horizon}; volumes: {volumes}")
        }
        Language::Ja => format!("  鍵の破棄: {destroyed}; 鍵サーバのバックアップに残りうる期間: {horizon}; ボリューム: {volumes}"),
    });
    for host in &receipt.hosts {
        lines.push(match (&host.closed_at, &host.unconfirmed_since, lang) {
            (Some(at), _, Language::En) => format!("  {}: closed at {at}", host.host),
            (Some(at), _, Language::Ja) => format!("  {}: 閉鎖を確認 {at}", host.host),
            (None, Some(since), Language::En) => format!("  {}: unconfirmed since {since}", host.host),
            (None, Some(since), Language::Ja) => format!("  {}: 未確認 ({since} から)", host.host),
            (None, None, Language::En) => format!("  {}: unconfirmed", host.host),
            (None, None, Language::Ja) => format!("  {}: 未確認", host.host),
        });
    }
    lines
}

/// What the receipt of one volume says: the project, and the key that its key was wrapped with, go on.
fn of_volume(receipt: &Receipt, volume: &Label, lang: Language) -> Vec<String> {
    let Receipt {
        id,
        key_destroyed_at: at,
        hosts,
        ..
    } = receipt;
    let (project, uid) = named(receipt);
    let hosts = hosts.iter().map(|host| host.host.to_string()).collect::<Vec<_>>().join(", ");
    match lang {
        Language::En => vec![
            format!("verified: the receipt {id} of volume {volume} of {project} (UID {uid}) is final"),
            format!("  its key and its bytes were gone from {hosts} at {at}"),
            "  a copy that somebody took of both before can be opened as long as the project's own key lives".to_owned(),
        ],
        Language::Ja => vec![
            format!("検証済み: {project} (UID {uid}) のボリューム {volume} の受領証 {id} は確定している"),
            format!("  鍵とデータの消滅を確認: {hosts} {at}"),
            "  事前に両方の写しを取った者は、プロジェクトの鍵があるかぎり開くことができる".to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    fn pair() -> Ed25519KeyPair {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    }

    fn signed(pair: &Ed25519KeyPair) -> Signed {
        let receipt: Receipt = serde_json::from_value(serde_json::json!({
            "id": "r-1", "project": {"namespace": "osaka", "name": "liver", "uid": "p-1"}, "state": "final",
            "keyDestroyedAt": "2026-11-24T00:00:00Z", "hosts": [{"host": "host-a", "closedAt": "2026-11-24T00:00:01Z"}],
            "sweptAt": "2026-11-24T00:00:02Z", "volumes": ["work"], "keyServerBackupHorizon": "P0D", "issuedAt": "2026-11-24T00:00:02Z",
        }))
        .unwrap();
        let bytes = dejima_crds::digest::canonical(&receipt).unwrap();
        let signature = BASE64.encode(pair.sign(&bytes)).into();
        Signed { receipt, signature }
    }

    #[test]
    fn a_receipt_holds_under_its_key_alone_and_with_no_byte_changed() {
        let (ours, fresh) = (pair(), pair());
        let keys = |pair: &Ed25519KeyPair| vec![pair.public_key().as_ref().to_vec()];
        let document = signed(&ours).document().unwrap();
        let receipt = verify(&document, &keys(&ours)).unwrap();
        assert!(said(&receipt, Language::En)[0].contains("is final") && said(&receipt, Language::Ja)[0].contains("確定"));
        let of_volume = Receipt {
            volume: Some("more".into()),
            ..receipt
        };
        assert!(said(&of_volume, Language::En).join(" ").contains("volume more of osaka/liver"));
        assert!(verify(&document, &keys(&fresh)).is_err());
        assert!(verify(&signed(&fresh).document().unwrap(), &keys(&ours)).is_err());
        assert!(verify(&document, &[]).is_err());
        for at in 0..document.len() {
            let mut bytes = document.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(verify(&changed, &keys(&ours)).is_err(), "byte {at}: {changed}");
            }
        }
    }

    #[test]
    fn a_key_is_read_in_every_form_in_which_people_have_it() {
        let raw: Vec<u8> = (0..32).collect();
        let (text, der) = (BASE64.encode(&raw), BASE64.encode([DER_HEAD.as_slice(), &raw].concat()));
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
        for form in [
            format!("{text}\n"),
            pem.clone(),
            serde_json::json!({"keys": {"1": pem}}).to_string(),
            serde_json::json!({"data": {"keys": {"1": {"public_key": text}}}}).to_string(),
            format!("keys    map[1:map[creation_time:2026-11-24T00:00:00Z name:ed25519 public_key:{text}]]\n"),
        ] {
            assert_eq!(public_keys(&form), vec![raw.clone()], "{form}");
        }
        assert!(public_keys("nothing").is_empty());
    }

    #[test]
    fn a_config_map_gives_its_document() {
        let document = signed(&pair()).document().unwrap();
        let object = serde_json::json!({"kind": "ConfigMap", "data": {DOCUMENT: document}});
        assert_eq!(super::document(&object.to_string()).unwrap(), document);
        assert_eq!(super::document(&serde_yaml::to_string(&object).unwrap()).unwrap(), document);
        assert_eq!(super::document(&document).unwrap(), document);
    }
}
