//! Who must have agreed: approvals, terms, reviews.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Digest, Ror, Url};
use crate::dataset::ApprovalRole;

/// What must be there before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Prerequisites {
    /// Whose ethics approvals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub approvals: Vec<ApprovalOf>,
    /// Terms that each member accepts; one who has not is not effective.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub terms: Vec<Terms>,
}

/// Whose ethics approval a policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalOf {
    /// The provider's, for the dataset.
    Provider,
    /// The platform's, for the dataset.
    Platform,
    /// The user's, for the project.
    User,
}

impl ApprovalOf {
    /// The role that an approval of the dataset bears, where it is one of the dataset's.
    pub fn of_dataset(self) -> Option<ApprovalRole> {
        match self {
            Self::Provider => Some(ApprovalRole::Provider),
            Self::Platform => Some(ApprovalRole::Platform),
            Self::User => None,
        }
    }
}

/// Terms to be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terms {
    /// Where they can be read.
    pub url: Url,
    /// What exactly is accepted.
    pub digest: Digest,
}

/// Who must agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    /// Whether a review is needed at all.
    #[serde(default)]
    pub required: bool,
    /// How many.
    #[serde(default)]
    pub quorum: Quorum,
    /// Whose reviewers count; anybody's, where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub reviewer_orgs: Vec<Ror>,
    /// Whether one rejection denies.
    #[serde(default = "yes")]
    pub veto: bool,
    /// What of the request must still be as it was reviewed.
    #[serde(default = "covers")]
    #[schemars(length(max = 4))]
    pub covers: Vec<Covered>,
}

impl Default for Review {
    fn default() -> Self {
        Self {
            required: false,
            quorum: Quorum::default(),
            reviewer_orgs: Vec::new(),
            veto: true,
            covers: covers(),
        }
    }
}

pub(super) fn yes() -> bool {
    true
}

fn covers() -> Vec<Covered> {
    vec![Covered::Purpose, Covered::Institution, Covered::Egress]
}

/// How many approvals of how many organisations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quorum {
    /// Approvals.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub approvals: u32,
    /// Of how many organisations.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub distinct_orgs: u32,
}

impl Default for Quorum {
    fn default() -> Self {
        Self {
            approvals: 1,
            distinct_orgs: 1,
        }
    }
}

fn one() -> u32 {
    1
}

/// A part of a request that a review rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Covered {
    /// The purposes.
    Purpose,
    /// The institution, its kind and country.
    Institution,
    /// Egress and the L2VPN.
    Egress,
    /// The members.
    Members,
}
