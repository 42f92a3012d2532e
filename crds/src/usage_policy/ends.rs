//! What may leave, and how access ends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Quorum;
use crate::bounded::{Code, Period};

/// What may leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// Over the network.
    #[serde(default)]
    pub network: NetworkEgress,
    /// The smallest group a sum may speak of. Does not bear on mounting.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_cell: u32,
    /// The largest share, in percent, that one contributor may have in a sum. Does not bear on mounting.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub dominance: Option<u32>,
    /// Media types that never leave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub blocked_types: Vec<Code>,
    /// The most bytes that leave at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub max_bytes: Option<u64>,
    /// Who must agree before anything leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<Quorum>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            network: NetworkEgress::Attested,
            min_cell: ten(),
            dominance: None,
            blocked_types: Vec::new(),
            max_bytes: None,
            quorum: None,
        }
    }
}

fn ten() -> u32 {
    10
}

/// What may be opened to the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkEgress {
    /// Nothing.
    None,
    /// What is listed and attested.
    #[default]
    Attested,
}

/// How use ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// For how long a mount may go on without asking again.
    #[serde(default = "lease_ttl")]
    #[schemars(regex(pattern = "^[1-9][0-9]{0,5}(s|m|h)$"))]
    pub lease_ttl: Code,
    /// What is done at the end.
    #[serde(default)]
    pub action: EndAction,
    /// How long a job may save its state first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_for_checkpoint: Option<Period>,
    /// What is done when nobody answers.
    #[serde(default)]
    pub on_silence: OnSilence,
}

impl Default for Revocation {
    fn default() -> Self {
        Self {
            lease_ttl: lease_ttl(),
            action: EndAction::Detach,
            grace_for_checkpoint: None,
            on_silence: OnSilence::ContinueUntilLeaseEnd,
        }
    }
}

fn lease_ttl() -> Code {
    Code::from("10m")
}

/// What is done at the end of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndAction {
    /// The disk is taken away.
    #[default]
    Detach,
    /// The machine is paused first.
    PauseMachine,
}

/// What is done when nobody answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnSilence {
    /// The mount goes on until its lease ends.
    #[default]
    ContinueUntilLeaseEnd,
    /// The mount ends at once.
    Detach,
}
