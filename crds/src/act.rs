//! Acts: the wire form of what begins and ends. Plain types; `operator` and `hostd` write them, the ledger keeps them.
//!
//! *Begun* is in the ledger before an effect that gives access; *ended* after it. The writer of an act is the
//! authenticated caller and therefore no field here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::grant::ProjectRef;

/// Something that began or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Act {
    /// Chosen by the writer; the same for the beginning and the end, and the same when it is said again.
    pub activity: String,
    /// Beginning or end.
    pub phase: Phase,
    /// What kind of act.
    pub kind: Kind,
    /// The project that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectRef>,
    /// The host on which it happens, where it happens on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What was used: entities such as `dataset/jichi/ct-body@1`, `policy/sha256:…`, `grant/jichi/…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<String>,
    /// What came of it: entities such as `mount/…`, `receipt/…`, `version/…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generated: Vec<String>,
    /// Of an end: how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Whatever else is to be known: `until`, `reason`, `bytesRead`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// Beginning or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It begins: nothing has happened yet.
    Begun,
    /// It is over.
    Ended,
}

/// What kind of act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A project is placed and made.
    Provision,
    /// A dataset is sealed.
    Seal,
    /// A sealed version is mounted.
    Mount,
    /// A project is taken down.
    Delete,
    /// Keys are destroyed.
    Destroy,
    /// A receipt is issued.
    Receipt,
    /// A person is let into a machine.
    Visit,
}

/// How an act ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it was meant.
    Done,
    /// It failed.
    Failed,
    /// It was cut short: revoked, out of time, withdrawn.
    CutShort,
}

/// The entity of a dataset version.
pub fn version_entity(dataset: &str, version: u32) -> String {
    format!("dataset/{dataset}@{version}")
}
