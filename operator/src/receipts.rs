//! Receipts: signed at the key server, kept in the ledger, and, while the tenant's namespace stands, as a ConfigMap there.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dejima_crds::digest;
use dejima_crds::receipt::{DATASET_LABEL, DOCUMENT, PROJECT_LABEL, PUBLIC_KEYS, Receipt, STATE_LABEL, Signed, State};
use dejima_plan::effect::{Effect, through};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use kube::{Api, ResourceExt as _};

use crate::apply::SYSTEM;
use crate::pass::{Error, Pass};
use crate::{Context, apply};

/// What stands before the 32 bytes of an Ed25519 key in its DER form (RFC 8410, section 4).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Issues a receipt that says this, where the last one said something else.
pub(crate) async fn issue(context: &Context, pass: &mut Pass<'_>, receipt: Receipt) -> Result<(), Error> {
    let bytes = digest::canonical(&receipt)?;
    let digest = digest::of_bytes(&bytes);
    if pass.issued.get(receipt.id.as_str()) == Some(&digest) {
        return Ok(());
    }
    let gate = context.gate.as_ref();
    let signature = through(gate, Effect::new("receipt", "sign"), context.keys.sign(&bytes)).await?;
    let signed = Signed { receipt, signature };
    let standing = through(gate, Effect::new("ledger/receipt", "issue"), context.recorder.receipt(&signed)).await?;
    // Of final receipts there is one, and no partial one after it; a partial one is overtaken as more hosts confirm.
    let kept = match standing.receipt.state {
        State::Final => standing,
        State::Partial => signed,
    };
    keep(context, pass, &kept).await?;
    pass.issued.insert(kept.receipt.id.to_string(), digest);
    Ok(())
}

/// Lays a receipt down beside what it is about. It is a copy: where nothing can be laid down, the ledger has it, and nothing waits.
async fn keep(context: &Context, pass: &Pass<'_>, signed: &Signed) -> Result<(), Error> {
    // INVARIANT: the plan makes receipts of one project or one dataset; one of nothing lies beside nothing.
    let (Some(of), Some(name)) = (signed.receipt.about(), signed.receipt.object_name()) else {
        return Ok(());
    };
    let spaces = pass.watched.namespaces.state();
    let stands = |space: &k8s_openapi::api::core::v1::Namespace| space.metadata.deletion_timestamp.is_none();
    if !spaces
        .iter()
        .any(|space| space.name_any() == of.namespace.as_str() && stands(space))
    {
        return Ok(());
    }
    let label = if of.is_dataset { DATASET_LABEL } else { PROJECT_LABEL };
    let labels = BTreeMap::from([
        (STATE_LABEL.to_owned(), signed.receipt.state.word().to_owned()),
        (label.to_owned(), of.uid.to_string()),
    ]);
    let wanted = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_string()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(DOCUMENT.to_owned(), signed.document()?)])),
        ..ConfigMap::default()
    };
    let effect = format!("configmap/{}/receipt", of.namespace);
    match apply::config_map(context, of.namespace.as_str(), &wanted, &effect, "apply").await {
        // The namespace goes away, its quota is used up, or somebody made such a ConfigMap unchangeable.
        Err(Error::Api { cause, .. }) if matches!(cause.as_ref(), kube::Error::Api(status) if [403, 404, 422].contains(&status.code)) => {
            tracing::warn!(%of, error = %cause, "the receipt stands in the ledger alone");
            Ok(())
        }
        other => other,
    }
}

/// Says the public keys where people look for them, if they do not stand there yet.
pub(crate) async fn publish(context: &Context) -> Result<(), Error> {
    let keys = context.keys.public_keys().await?;
    let data: BTreeMap<String, String> = keys.iter().map(|(version, key)| (format!("{version}.pem"), pem(key))).collect();
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), SYSTEM);
    let standing = api.get_opt(PUBLIC_KEYS).await.ok().flatten();
    if standing.is_some_and(|standing| standing.data.as_ref() == Some(&data)) {
        return Ok(());
    }
    let wanted = ConfigMap {
        metadata: ObjectMeta {
            name: Some(PUBLIC_KEYS.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    };
    apply::config_map(context, SYSTEM, &wanted, "receipt-keys", "publish").await
}

/// The PEM form of a key that the key server wrote as base64.
fn pem(key: &str) -> String {
    let raw = BASE64.decode(key).unwrap_or_default();
    let der = [ED25519.as_slice(), raw.as_slice()].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_has_the_form_that_other_programs_read() {
        // RFC 8410, section 10.1.
        let raw = BASE64.encode(hex("19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"));
        assert!(pem(&raw).contains("\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"));
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap())
            .collect()
    }
}
