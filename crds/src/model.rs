//! `Model`: one version of a model, the digests of its files, and what it was made of.

#![expect(clippy::duplicated_attributes, reason = "each printer column has a name and a type of its own")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Code, Digest, Licence, Line, ObjectName, Prose, Ref, SubPath};
use crate::condition::Condition;

/// One version of a model.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "Model",
    namespaced,
    status = "ModelStatus",
    category = "dejima",
    derive = "PartialEq",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.name"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(
        name = "Registered",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Registered\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Registered\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Its name.
    pub name: Line,
    /// Its version.
    pub version: Code,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Code>,
    /// The format of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Code>,
    /// Its files.
    #[schemars(length(min = 1, max = 1000))]
    pub artifacts: Vec<Artifact>,
    /// What it was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub base_models: Vec<BaseModel>,
    /// Which datasets it says it was made with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub declares: Vec<Declared>,
    /// The project it was made in, of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ObjectName>,
    /// The licence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<Licence>,
    /// The model card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card: Option<Prose>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// Its path.
    pub path: SubPath,
    /// Its digest.
    pub digest: Digest,
    /// How many bytes.
    pub bytes: u64,
}

/// A model that this one was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BaseModel {
    /// `namespace/name`, or a name elsewhere.
    #[serde(rename = "ref")]
    pub reference: Line,
    /// How.
    pub relation: Relation,
}

/// How a model came from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// Trained on.
    Finetune,
    /// An adapter of it.
    Adapter,
    /// Merged with others.
    Merge,
    /// Made smaller.
    Quantized,
    /// Another format.
    Conversion,
}

/// A dataset that a model says it was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Declared {
    /// `namespace/name`.
    pub dataset: Ref,
    /// The version.
    pub version: u32,
    /// What for: train, validate, test, rag.
    pub role: Code,
}

/// What the platform says of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// The digest of the manifest of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Datasets that were mounted while it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub observed: Vec<Observed>,
    /// Of those, the ones it does not declare.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub undeclared: Vec<Ref>,
    /// The digest of the policy that follows from all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_policy: Option<Digest>,
    /// What is owed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub obligations: Vec<Prose>,
    /// Datasets that it reached and that were withdrawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub withdrawal_debt: Vec<Ref>,
    /// The conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// A dataset that was mounted while a model was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// `namespace/name`.
    pub dataset: Ref,
    /// The version.
    pub version: u32,
    /// How many bytes were read.
    pub bytes_read: u64,
    /// From when (RFC 3339).
    pub from: Line,
    /// Until when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Line>,
}
