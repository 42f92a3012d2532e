//! Receipts: signed proof that the keys of a project, of one of its volumes, or of a dataset, were destroyed. Plain types, the wire form.
//!
//! What is signed is the RFC 8785 form of [`Receipt`]. The same facts always make the same receipt, byte for byte, and
//! an Ed25519 signature is a function of key and message: a receipt that is issued twice is one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Label, Line, ObjectName, Period, ShardId, Signature, Uid};
use crate::digest::{NotJson, canonical};
use crate::grant::ProjectRef;
use crate::host_plan::DatasetIdentity;
use crate::names;

/// The transit key that signs receipts; it never leaves the key server.
pub const KEY: &str = "dejima-receipts";
/// The ConfigMap of the platform's namespace that says the public keys.
pub const PUBLIC_KEYS: &str = "dejima-receipts";
/// Under this name a ConfigMap bears the document.
pub const DOCUMENT: &str = "receipt.json";
/// Label of such a ConfigMap: how far it is.
pub const STATE_LABEL: &str = "dejima.dev/receipt";
/// Label of such a ConfigMap: the project's UID.
pub const PROJECT_LABEL: &str = "dejima.dev/project";
/// Label of such a ConfigMap: the dataset's UID.
pub const DATASET_LABEL: &str = "dejima.dev/dataset";

/// What became of the keys of a project or dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// Its id: made from what it is about, so that a project has one, a dataset, and each volume that a project has destroyed.
    pub id: Uid,
    /// The project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectRef>,
    /// The dataset, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetIdentity>,
    /// The one volume that it is about, while the project goes on; absent where it is about the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Label>,
    /// How far it is.
    pub state: State,
    /// When the project's key, or those of the shards, were destroyed (RFC 3339). Of a volume: when its own key, which lay wrapped
    /// beside it, was seen to be gone. The project's key, with which it was wrapped, lives on.
    pub key_destroyed_at: Line,
    /// Every host that had a plan of the project; of a dataset the one that takes it out of the image store.
    pub hosts: Vec<HostEnd>,
    /// When the bytes were gone from all hosts (RFC 3339); absent while they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swept_at: Option<Line>,
    /// The volumes that nobody can open any more.
    pub volumes: Vec<Label>,
    /// The shards that nobody can open any more, wherever a copy lies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub shards: Vec<ShardId>,
    /// How long a back-up of the key server may still hold the key (ISO 8601).
    pub key_server_backup_horizon: Period,
    /// Since when it says what it says: the latest of its times (RFC 3339). When it was recorded, the ledger says.
    pub issued_at: Line,
}

/// What a receipt is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// Whether it is a dataset; else a project.
    pub is_dataset: bool,
    /// Its namespace.
    pub namespace: &'a Label,
    /// Its name.
    pub name: &'a ObjectName,
    /// Its UID.
    pub uid: &'a Uid,
}

impl std::fmt::Display for About<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Receipt {
    /// What it is about: exactly one thing, or it is no receipt.
    pub fn about(&self) -> Option<About<'_>> {
        match (&self.project, &self.dataset) {
            (Some(of), None) => Some(About {
                is_dataset: false,
                namespace: &of.namespace,
                name: &of.name,
                uid: &of.uid,
            }),
            (None, Some(of)) => Some(About {
                is_dataset: true,
                namespace: &of.namespace,
                name: &of.name,
                uid: &of.uid,
            }),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }

    /// The id that a receipt about this has.
    pub fn own_id(&self) -> Option<Uid> {
        let of = self.about()?;
        Some(match &self.volume {
            None => names::receipt_id(of.uid),
            Some(volume) => names::volume_receipt_id(of.uid, volume, &self.key_destroyed_at),
        })
    }

    /// The name of the ConfigMap that bears it.
    pub fn object_name(&self) -> Option<ObjectName> {
        let of = self.about()?;
        Some(match &self.volume {
            None => names::receipt_name(of.name, of.uid),
            Some(volume) => names::volume_receipt_name(of.name, volume, &self.id),
        })
    }
}

/// How far a receipt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A host has not confirmed.
    Partial,
    /// Every host has confirmed that no process of it holds a key.
    Final,
}

impl State {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Final => "final",
        }
    }
}

/// One host: it has confirmed, or it has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostEnd {
    /// Which.
    pub host: ObjectName,
    /// When no process of it held a key any more (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Line>,
    /// Since when it is asked and has not confirmed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed_since: Option<Line>,
}

/// A receipt with its signature: the document that people keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signed {
    /// What is signed.
    pub receipt: Receipt,
    /// The Ed25519 signature (base64 of 64 bytes), of any version of the key.
    pub signature: Signature,
}

/// A document that is no receipt.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Its form is another one.
    #[error("this is no signed receipt")]
    Form(#[from] serde_json::Error),
    /// It says more than a receipt says: what is not understood is not vouched for.
    #[error("this receipt holds what no receipt holds")]
    More,
    /// It has no canonical form.
    #[error(transparent)]
    NotJson(#[from] NotJson),
}

impl Signed {
    /// The document: canonical JSON.
    pub fn document(&self) -> Result<String, NotJson> {
        Ok(String::from_utf8_lossy(&canonical(self)?).into_owned())
    }

    /// Reads a document; with it the bytes that must have been signed. Unknown and doubled fields are refused.
    pub fn read(text: &str) -> Result<(Self, Vec<u8>), Unreadable> {
        let signed: Self = serde_json::from_str(text)?;
        let bytes = canonical(&signed.receipt)?;
        let value: serde_json::Value = serde_json::from_str(text)?;
        if canonical(&value.get("receipt"))? != bytes {
            return Err(Unreadable::More);
        }
        Ok((signed, bytes))
    }
}

/// The entity of a receipt, and the activity that issues it.
pub fn entity(id: &Uid) -> String {
    format!("receipt/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> Signed {
        Signed {
            receipt: Receipt {
                id: "r-1".into(),
                project: Some(ProjectRef {
                    namespace: "osaka".into(),
                    name: "liver".into(),
                    uid: "p-1".into(),
                }),
                dataset: None,
                volume: None,
                state: State::Partial,
                key_destroyed_at: "2026-11-24T00:00:00Z".into(),
                hosts: vec![HostEnd {
                    host: "host-a".into(),
                    closed_at: None,
                    unconfirmed_since: Some("2026-11-24T00:00:00Z".into()),
                }],
                swept_at: None,
                volumes: vec!["work".into()],
                shards: Vec::new(),
                key_server_backup_horizon: "P0D".into(),
                issued_at: "2026-11-24T00:00:00Z".into(),
            },
            signature: "YQ==".into(),
        }
    }

    #[test]
    fn a_document_is_read_as_it_was_written_whatever_its_spaces() {
        let document = signed().document().unwrap();
        let (read, bytes) = Signed::read(&document).unwrap();
        assert_eq!((read, bytes), (signed(), canonical(&signed().receipt).unwrap()));
        let spaced = serde_json::to_string_pretty(&signed()).unwrap();
        assert_eq!(Signed::read(&spaced).unwrap().1, canonical(&signed().receipt).unwrap());
    }

    #[test]
    fn what_no_receipt_holds_and_what_stands_twice_is_refused() {
        let document = signed().document().unwrap();
        for (from, to) in [
            ("\"state\":\"partial\"", "\"state\":\"final\",\"state\":\"partial\""),
            ("\"state\":\"partial\"", "\"state\":\"partial\",\"note\":\"\""),
            ("\"uid\":\"p-1\"", "\"uid\":\"p-1\",\"note\":\"\""),
            ("\"signature\"", "\"note\":\"\",\"signature\""),
        ] {
            assert!(document.contains(from), "{from}");
            assert!(Signed::read(&document.replace(from, to)).is_err(), "{to}");
        }
    }
}
