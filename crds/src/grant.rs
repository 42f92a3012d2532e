//! `AccessGrant`: one project's request for one dataset as it was put, the reviews, the window, the revocation.

#![expect(clippy::duplicated_attributes, reason = "each printer column has a name and a type of its own")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Digest, Label, Line, Login, ObjectName, Prose, Ror, Uid};
use crate::condition::Condition;
use crate::country::Country;
use crate::project::{EgressEntry, L2vpn, OrgKind, Purpose};
use crate::reason::Decision;
use crate::usage_policy::Action;
use crate::when::When;

/// One project's request for one dataset.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "AccessGrant",
    namespaced,
    status = "AccessGrantStatus",
    shortname = "agrant",
    category = "dejima",
    derive = "PartialEq",
    printcolumn(name = "Project", type_ = "string", json_path = ".status.project"),
    printcolumn(name = "Dataset", type_ = "string", json_path = ".spec.dataset"),
    printcolumn(name = "Decision", type_ = "string", json_path = ".status.decision"),
    printcolumn(name = "Approvals", type_ = "string", json_path = ".status.approvals"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.window.until"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Granted\")].message"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.project == oldSelf.project && self.dataset == oldSelf.dataset && self.policy == oldSelf.policy && self.request == oldSelf.request && self.window == oldSelf.window")
        .message("what is under review never changes: the project asks anew and another request is made"),
    validation = Rule::new("!has(oldSelf.revoked) || (has(self.revoked) && self.revoked == oldSelf.revoked)").message("a revocation is final")
)]
pub struct AccessGrantSpec {
    /// Whose request.
    pub project: ProjectRef,
    /// For which dataset of this namespace.
    pub dataset: ObjectName,
    /// Under which policy.
    pub policy: PolicyPin,
    /// What was asked, as it stood.
    pub request: Request,
    /// From when until when.
    pub window: Window,
    /// The reviews: each line is written, changed and taken back only by the login it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["reviewer".to_owned()]))]
    pub reviews: Vec<ReviewLine>,
    /// The revocation; final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revoked>,
}

/// A project, exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ProjectRef {
    /// Its namespace.
    pub namespace: Label,
    /// Its name.
    pub name: ObjectName,
    /// Its UID: another project of the same name is another project.
    pub uid: Uid,
}

impl std::fmt::Display for ProjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A policy, exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyPin {
    /// Its name in this namespace.
    pub name: ObjectName,
    /// The digest of its spec.
    pub digest: Digest,
}

/// What was asked, as it stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The purposes.
    #[schemars(length(max = 16))]
    pub purpose: Vec<Purpose>,
    /// The institution.
    pub institution: Ror,
    /// Its kind.
    pub org_kind: OrgKind,
    /// Its country.
    pub country: Country,
    /// The members' subjects.
    #[schemars(length(max = 256))]
    pub members: Vec<Login>,
    /// The actions, `mount` and `read` among them.
    #[schemars(length(max = 16))]
    pub actions: Vec<Action>,
    /// The egress entries.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub egress: Vec<EgressEntry>,
    /// The L2VPN entries.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub l2vpn: Vec<L2vpn>,
}

/// From when until when a grant holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    /// Its beginning.
    pub from: When,
    /// Its end, inclusive.
    pub until: When,
}

/// One review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewLine {
    /// Who: this line is written only under this login.
    pub reviewer: Login,
    /// For which organisation: a group of this login.
    pub org: Ror,
    /// What he says.
    pub decision: ReviewDecision,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<Prose>,
}

/// A reviewer's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReviewDecision {
    /// Yes.
    Approve,
    /// No.
    Reject,
    /// Neither.
    Abstain,
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revoked {
    /// By whom: the login that wrote it.
    pub by: Login,
    /// Why.
    pub reason: Prose,
}

/// What the platform says of a grant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessGrantStatus {
    /// `namespace/name` of the project, for the column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<Line>,
    /// What follows from the reviews.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Counted and needed: `1/2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Line>,
    /// Whether the project still asks for no more than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applies: Option<bool>,
    /// The reviews as they were first seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub seen: Vec<ReviewSeen>,
    /// The conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// A review as it was first seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReviewSeen {
    /// Who.
    pub reviewer: Login,
    /// For which organisation.
    pub org: Ror,
    /// What he said.
    pub decision: ReviewDecision,
    /// When the operator first saw it (RFC 3339).
    pub first_seen: Line,
    /// Whether it counts: the admission policies stood when it came.
    pub counts: bool,
}

/// The name of a request: made twice, it is made once.
pub fn name(spec: &AccessGrantSpec) -> Result<ObjectName, crate::digest::NotJson> {
    let digest = crate::digest::of_value(&(&spec.project.uid, &spec.dataset, &spec.policy.digest, &spec.request, &spec.window))?;
    let dataset = crate::names::shortened(spec.dataset.as_str(), 200);
    Ok(ObjectName::from(format!("{dataset}-{}", digest.short(12))))
}
