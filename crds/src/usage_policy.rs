//! `UsagePolicy`: the conditions of use, machine-readable. Its spec never changes: a new version is a new object.

#![expect(clippy::duplicated_attributes, reason = "each printer column has a name and a type of its own")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Code, Digest, Mondo, ObjectName, Period, Ref, Ror, Url};
use crate::country::Country;
use crate::dataset::ApprovalRole;
use crate::duo::DuoId;
use crate::project::{OrgKind, Role};
use crate::text::Text;
use crate::when::When;

/// Conditions of use.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "UsagePolicy",
    plural = "usagepolicies",
    namespaced,
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

fn yes() -> bool {
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

/// One obligation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.attribute), has(self.publish), has(self.report), has(self.returnDerived), has(self.deleteWithin), has(self.notifyIncident)].filter(x, x).size() == 1").message("an obligation is exactly one of attribute, publish, report, returnDerived, deleteWithin, notifyIncident"))]
pub struct Obligation {
    /// Say where the data is from, in these words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<Text>,
    /// Publish the results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
    /// Report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// Give back what was derived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_derived: Option<Publish>,
    /// Delete after the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_within: Option<DeleteWithin>,
    /// Tell of incidents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_incident: Option<NotifyIncident>,
}

/// To publish, or to give back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Publish {
    /// Within what time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
}

/// To report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// How often.
    pub every: Period,
}

/// To delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeleteWithin {
    /// Within what time after the end.
    pub period: Period,
    /// Whether a certificate is owed.
    #[serde(default)]
    pub certify: bool,
}

/// To tell of incidents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotifyIncident {
    /// Within what time.
    pub within: Period,
}

/// With what it may be used together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Combination {
    /// With which datasets it may be linked.
    #[serde(default)]
    pub link_with: LinkWith,
    /// The list, where `linkWith` is `list`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub link_list: Vec<Ref>,
    /// Datasets with which it must not be in one project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub forbid_with: Vec<Ref>,
    /// Nobody may try to find out whose data it is. Does not bear on mounting.
    #[serde(default = "yes")]
    pub no_reidentification: bool,
}

impl Default for Combination {
    fn default() -> Self {
        Self {
            link_with: LinkWith::Any,
            link_list: Vec::new(),
            forbid_with: Vec::new(),
            no_reidentification: true,
        }
    }
}

/// With what data may be linked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LinkWith {
    /// With any.
    #[default]
    Any,
    /// With none.
    None,
    /// With those of the list.
    List,
}

/// What becomes of what is made from the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Derivatives {
    /// Of models.
    #[serde(default = "review_first")]
    pub model: Inheritance,
    /// Of adapters.
    #[serde(default = "review_first")]
    pub adapter: Inheritance,
    /// Of indices.
    #[serde(default = "review_first")]
    pub embedding_index: Inheritance,
    /// Of made-up data.
    #[serde(default = "review_first")]
    pub synthetic: Inheritance,
    /// Of sums.
    #[serde(default = "review_first")]
    pub aggregate: Inheritance,
}

impl Default for Derivatives {
    fn default() -> Self {
        Self {
            model: Inheritance::Review,
            adapter: Inheritance::Review,
            embedding_index: Inheritance::Review,
            synthetic: Inheritance::Review,
            aggregate: Inheritance::Review,
        }
    }
}

fn review_first() -> Inheritance {
    Inheritance::Review
}

/// What a derivative takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Inheritance {
    /// All conditions.
    Inherit,
    /// The obligations.
    ObligationsOnly,
    /// Nothing.
    None,
    /// All conditions, and a review before it leaves.
    Review,
}

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

impl UsagePolicySpec {
    /// What a grant pins: SHA-256 of the RFC 8785 JSON of the spec after the defaults.
    pub fn digest(&self) -> Result<Digest, crate::digest::NotJson> {
        crate::digest::of_value(self)
    }
}

/// The name of a policy beside a dataset of the same namespace.
pub type PolicyName = ObjectName;

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
