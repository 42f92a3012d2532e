//! `Attestation`: somebody entitled vouches for one claim, exactly as he saw it, until a time. It never changes.

#![expect(clippy::duplicated_attributes, reason = "each printer column has a name and a type of its own")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Digest, Line, Login, ObjectName, Uid};
use crate::dataset::{Agreement, Approval};
use crate::project::{EgressEntry, EthicsApproval, L2vpn, Training};
use crate::when::When;

/// One claim, vouched for.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "Attestation",
    namespaced,
    status = "AttestationStatus",
    shortname = "attest",
    category = "dejima",
    derive = "PartialEq",
    printcolumn(name = "Of", type_ = "string", json_path = ".spec.of.name"),
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claim"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.until"),
    printcolumn(name = "Counts", type_ = "boolean", json_path = ".status.seen.counts"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("an attestation never changes: delete it and make another"),
    validation = Rule::new("self.of.kind == 'Dataset' ? self.claim in ['approval', 'agreement'] : self.claim in ['ethics', 'training', 'egress', 'l2vpn']")
        .message("of a project: ethics, training, egress, l2vpn; of a dataset: approval, agreement")
)]
pub struct AttestationSpec {
    /// What it is about; in this namespace.
    pub of: Subject,
    /// Which claim.
    pub claim: Claim,
    /// The entry exactly as it was seen: it counts for an equal entry, and for no other.
    #[schemars(schema_with = "value_schema")]
    pub value: serde_json::Value,
    /// The digest of the document that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_digest: Option<Digest>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<When>,
    /// Who vouches: the login that made it.
    pub by: Login,
}

/// The value is an entry of another object: it has the fields of all of them, each as it is there, and requires none. Not a field
/// without a form: what the API server takes and nobody here can read would stop everybody.
fn value_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut properties = serde_json::Map::new();
    let mut add = |schema: schemars::Schema| {
        let found = schema.get("properties").and_then(serde_json::Value::as_object).cloned();
        properties.extend(found.unwrap_or_default());
    };
    add(EthicsApproval::json_schema(generator));
    add(Training::json_schema(generator));
    add(EgressEntry::json_schema(generator));
    add(L2vpn::json_schema(generator));
    add(Approval::json_schema(generator));
    add(Agreement::json_schema(generator));
    properties.insert("subject".to_owned(), Login::json_schema(generator).into());
    schemars::json_schema!({ "type": "object", "properties": properties })
}

/// What is attested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// Its kind.
    pub kind: SubjectKind,
    /// Its name.
    pub name: ObjectName,
    /// Its UID.
    pub uid: Uid,
}

/// What can be attested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubjectKind {
    /// A project.
    IsolatedProject,
    /// A dataset.
    Dataset,
}

/// A claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// Of a project: an entry of `ethics`.
    Ethics,
    /// Of a project: {subject, course, passedOn}.
    Training,
    /// Of a project: an entry of `network.egress`.
    Egress,
    /// Of a project: `network.l2vpn`.
    L2vpn,
    /// Of a dataset: the platform's entry of `approvals`.
    Approval,
    /// Of a dataset: `agreement`.
    Agreement,
}

/// What the platform says of an attestation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttestationStatus {
    /// When it was first seen, and whether it counts; it counts for nothing until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Sighting>,
}

/// An attestation as it was first seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sighting {
    /// When (RFC 3339).
    pub first_seen: Line,
    /// Whether it counts: not where it was made while an admission policy was missing. Then it is deleted and made again.
    pub counts: bool,
}

impl Claim {
    /// The word in specs, and the name of the virtual resource that a login needs the verb `attest` on.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ethics => "ethics",
            Self::Training => "training",
            Self::Egress => "egress",
            Self::L2vpn => "l2vpn",
            Self::Approval => "approval",
            Self::Agreement => "agreement",
        }
    }
}
