//! What is permitted: which use, to whom, where and when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Code, Mondo, Period, Ref, Ror};
use crate::country::Country;
use crate::duo::DuoId;
use crate::project::{OrgKind, Role};
use crate::when::When;

/// What may be done with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Make it present in a machine.
    Mount,
    /// Read it.
    Read,
    /// Train a model on it.
    Train,
    /// Go on training one that is there.
    Finetune,
    /// Measure a model with it.
    Evaluate,
    /// Build an index over it.
    Index,
    /// Answer questions from it.
    Rag,
    /// Carry sums out.
    ExportAggregate,
    /// Carry a model out.
    ExportModel,
    /// Publish results.
    Publish,
    /// Pass it on.
    Redistribute,
    /// Use it in care.
    Clinical,
}

impl Action {
    /// The word in specs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Read => "read",
            Self::Train => "train",
            Self::Finetune => "finetune",
            Self::Evaluate => "evaluate",
            Self::Index => "index",
            Self::Rag => "rag",
            Self::ExportAggregate => "export-aggregate",
            Self::ExportModel => "export-model",
            Self::Publish => "publish",
            Self::Redistribute => "redistribute",
            Self::Clinical => "clinical",
        }
    }
}

/// What is permitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Permits {
    /// Kinds of research and conditions, DUO terms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub duo: Vec<DuoTerm>,
    /// Actions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub actions: Vec<Action>,
}

/// A DUO term with what some terms need beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DuoTerm {
    /// The term.
    pub id: DuoId,
    /// For DUO:0000007: the diseases, and what descends from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub mondo: Vec<Mondo>,
    /// For DUO:0000022: countries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 249))]
    pub regions: Vec<Country>,
    /// For DUO:0000028: institutions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub orgs: Vec<Ror>,
    /// For DUO:0000027: projects, `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub projects: Vec<Ref>,
    /// For DUO:0000025: months.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1200))]
    pub months: Option<u32>,
    /// For DUO:0000024 and DUO:0000025: until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<When>,
}

/// To whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhoClause {
    /// Institutions; any, where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub orgs: Vec<Ror>,
    /// Kinds of institutions; any, where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub org_kind: Vec<OrgKind>,
    /// Roles of members; any, where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub roles: Vec<Role>,
    /// Trainings that a member must have passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub training: Vec<TrainingClause>,
}

/// A training that a member must have passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingClause {
    /// Which.
    pub course: Code,
    /// How long ago at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
}

/// Where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhereClause {
    /// Countries; any, where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 249))]
    pub countries: Vec<Country>,
    /// Sites; any, where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub sites: Vec<Code>,
    /// The least isolation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_isolation: Option<Isolation>,
    /// Whether storage must be encrypted; here it always is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// How far a project is kept apart; the later the stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Other projects may have machines on the same host.
    SharedHost,
    /// The host is held by this project alone.
    DedicatedHost,
}

/// Whether storage must be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// It must.
    Required,
}

/// When.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhenClause {
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<When>,
    /// Not after; inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<When>,
    /// How long one grant lasts at most, from its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Period>,
    /// No mount before the end of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embargo_until: Option<When>,
    /// No publication before the end of this. Does not bear on mounting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moratorium_until: Option<When>,
    /// How often a grant may be renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Renewal>,
}

/// How a grant is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Renewal {
    /// How often at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub max: Option<u32>,
    /// Whether it is reviewed anew.
    #[serde(default)]
    pub re_review: bool,
    /// Whether an overdue obligation stands in its way.
    #[serde(default)]
    pub blocked_by_overdue: bool,
}
