//! `UsagePolicy`: the conditions of use, machine-readable. Its spec never changes: a new version is a new object.

#![expect(clippy::duplicated_attributes, reason = "each printer column has a name and a type of its own")]

mod agreement;
mod duties;
mod ends;
mod permits;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use self::agreement::{ApprovalOf, Covered, Prerequisites, Quorum, Review, Terms};
pub use self::duties::{Combination, DeleteWithin, Derivatives, Inheritance, LinkWith, NotifyIncident, Obligation, Publish, Report};
pub use self::ends::{Egress, EndAction, NetworkEgress, OnSilence, Revocation};
pub use self::permits::{Action, DuoTerm, Encryption, Isolation, Permits, Renewal, TrainingClause, WhenClause, WhereClause, WhoClause};
use crate::bounded::Digest;
use crate::condition::Condition;
use crate::text::Text;

/// Conditions of use.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "UsagePolicy",
    plural = "usagepolicies",
    namespaced,
    status = "UsagePolicyStatus",
    shortname = "upol",
    category = "dejima",
    derive = "PartialEq",
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title.en"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.when.notAfter"),
    printcolumn(name = "Approvals", type_ = "integer", json_path = ".spec.review.quorum.approvals"),
    printcolumn(name = "Egress", type_ = "string", json_path = ".spec.egress.network"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "名称", type_ = "string", priority = 1, json_path = ".spec.title.ja")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a policy never changes: make a new object and move the dataset's policyRef to it"))]
pub struct UsagePolicySpec {
    /// What it is called.
    #[serde(default)]
    pub title: Text,
    /// What is permitted.
    #[serde(default)]
    pub permits: Permits,
    /// To whom.
    #[serde(default)]
    pub who: WhoClause,
    /// Where.
    #[serde(default, rename = "where")]
    pub place: WhereClause,
    /// When.
    #[serde(default)]
    pub when: WhenClause,
    /// What must be there before.
    #[serde(default)]
    pub prerequisites: Prerequisites,
    /// Who must agree.
    #[serde(default)]
    pub review: Review,
    /// What is owed in return. Does not bear on mounting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub obligations: Vec<Obligation>,
    /// With what it may be used together.
    #[serde(default)]
    pub combination: Combination,
    /// What becomes of what is made from it. Does not bear on mounting.
    #[serde(default)]
    pub derivatives: Derivatives,
    /// What may leave the sealed network.
    #[serde(default)]
    pub egress: Egress,
    /// How it ends.
    #[serde(default)]
    pub revocation: Revocation,
}

/// What the platform says of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsagePolicyStatus {
    /// The conditions: Admitted, and Terminating while something still names a policy that was deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

impl UsagePolicySpec {
    /// What a grant pins: SHA-256 of the RFC 8785 JSON of the spec after the defaults.
    pub fn digest(&self) -> Result<Digest, crate::digest::NotJson> {
        crate::digest::of_value(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_out_at_its_default_has_the_digest_of_what_is_left_out() {
        let short: UsagePolicySpec = serde_json::from_str("{}").unwrap();
        let long: UsagePolicySpec = serde_json::from_str(
            r#"{"review": {"required": false, "veto": true}, "egress": {"network": "attested"}, "revocation": {"leaseTtl": "10m"}}"#,
        )
        .unwrap();
        assert_eq!(short.digest().unwrap(), long.digest().unwrap());
        let other: UsagePolicySpec = serde_json::from_str(r#"{"egress": {"network": "none"}}"#).unwrap();
        assert_ne!(short.digest().unwrap(), other.digest().unwrap());
    }
}
