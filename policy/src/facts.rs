//! From objects to facts: the one place where a claim becomes one.

use std::collections::BTreeMap;

use dejima_crds::attestation::{Claim, Sighting, SubjectKind};
use dejima_crds::bounded::{Digest, Label, Login, ObjectName, Ref, Ror, Uid};
use dejima_crds::country::Country;
use dejima_crds::dataset::{Agreement, Approval, ApprovalRole, Shard, Version, reference};
use dejima_crds::grant::{PolicyPin, ProjectRef, Request, ReviewDecision, Revoked, Window};
use dejima_crds::names::{COUNTRY_LABEL, INSTITUTION_LABEL, ORG_KIND_LABEL};
use dejima_crds::project::{EgressEntry, EthicsApproval, Exposure, L2vpn, OrgKind, ProjectPeriod, Purpose, Role};
use dejima_crds::usage_policy::UsagePolicySpec;
use dejima_crds::when::When;
use dejima_crds::{AccessGrant, Attestation, Dataset, IsolatedProject, UsagePolicy};
use jiff::Timestamp;
use serde::Serialize;

/// Whether somebody stands behind a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Vouched {
    /// Yes; until the end of this, where it has an end.
    By {
        /// Who.
        who: Login,
        /// Until when.
        until: Option<When>,
    },
    /// Nobody does.
    Nobody,
    /// Somebody did while an admission policy was missing: it counts for nothing until it is said again.
    InGap,
    /// What is known says something else.
    Otherwise(String),
}

/// A claim, and whether somebody stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claimed<T> {
    /// What is claimed.
    pub value: T,
    /// Who stands behind it.
    pub vouched: Vouched,
}

/// Why nobody stands behind an entry that an attestation would make a fact, in the words of conditions.
pub(crate) fn nobody_vouches(vouched: &Vouched) -> &'static str {
    match vouched {
        Vouched::InGap => {
            "its attestation was made while an admission policy was missing, and counts for nothing: delete it and make it again"
        }
        Vouched::By { .. } | Vouched::Nobody | Vouched::Otherwise(_) => "nobody has vouched for exactly this entry",
    }
}

/// A project, as far as law is concerned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProjectFacts {
    /// Which.
    pub of: ProjectRef,
    /// What for.
    pub purpose: Vec<Purpose>,
    /// Of which institution.
    pub institution: Claimed<Ror>,
    /// Of which kind.
    pub org_kind: Claimed<OrgKind>,
    /// In which country.
    pub country: Claimed<Country>,
    /// By whom.
    pub members: Vec<MemberFacts>,
    /// With which approvals.
    pub ethics: Vec<Claimed<EthicsApproval>>,
    /// What it wants to reach.
    pub egress: Vec<Claimed<EgressEntry>>,
    /// Its L2VPN.
    pub l2vpn: Option<Claimed<L2vpn>>,
    /// Its time.
    pub period: ProjectPeriod,
    /// Whether its hosts are its own.
    pub dedicated: bool,
    /// What was ever mounted in it.
    pub exposed: Vec<Exposure>,
}

/// A member, as far as law is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberFacts {
    /// Who.
    pub subject: Login,
    /// What he does.
    pub role: Role,
    /// Terms that he accepted, as far as that counts.
    pub terms: Vec<Digest>,
}

/// A dataset, as far as law is concerned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatasetFacts {
    /// `namespace/name`.
    pub of: Ref,
    /// Its UID.
    pub uid: Uid,
    /// Its ethics approvals; the provider's own is its word.
    pub approvals: Vec<Claimed<Approval>>,
    /// Its agreement.
    pub agreement: Option<Claimed<Agreement>>,
    /// When its transfer began.
    pub transferred: Option<When>,
    /// Why it is suspended.
    pub suspended: Option<String>,
    /// Withdrawn versions; `all` among them where all are.
    pub withdrawn: Vec<Label>,
    /// The revision that is ordered.
    pub revision: u32,
    /// Sealed versions.
    pub versions: Vec<Version>,
    /// Sealed shards.
    #[serde(skip)]
    pub shards: Vec<Shard>,
    /// How many bytes it was declared to have.
    pub declared_bytes: Option<u64>,
    /// The policy that it names.
    pub policy: ObjectName,
    /// It is being deleted.
    pub deleted: bool,
}

/// A policy with its digest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyFacts {
    /// Its name.
    pub name: ObjectName,
    /// Its digest.
    pub digest: Digest,
    /// What it says.
    pub spec: UsagePolicySpec,
}

/// A grant, as far as law is concerned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GrantFacts {
    /// Its name.
    pub name: ObjectName,
    /// When it was created.
    pub created: Timestamp,
    /// Which policy it pins.
    pub policy: PolicyPin,
    /// What was asked.
    pub request: Request,
    /// From when until when.
    pub window: Window,
    /// Reviews that count: seen while admission stood, unchanged since, under logins of printable ASCII.
    pub reviews: Vec<CountedReview>,
    /// Its revocation.
    pub revoked: Option<Revoked>,
}

/// A review that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CountedReview {
    /// By whom.
    pub reviewer: Login,
    /// For whom.
    pub org: Ror,
    /// What.
    pub decision: ReviewDecision,
}

/// Logins compared where the comparison excludes somebody. Only printable ASCII counts anywhere, and NFKC leaves it as it is.
pub fn same_person(one: &Login, other: &Login) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

/// Whether a login counts at all.
pub fn counts(login: &Login) -> bool {
    !login.as_str().is_empty() && login.as_str().bytes().all(|byte| byte.is_ascii_graphic())
}

/// The reference of a project object.
pub fn project_ref(project: &IsolatedProject) -> ProjectRef {
    let meta = &project.metadata;
    ProjectRef {
        namespace: Label::from(meta.namespace.clone().unwrap_or_default()),
        name: ObjectName::from(meta.name.clone().unwrap_or_default()),
        uid: Uid::from(meta.uid.clone().unwrap_or_default()),
    }
}

fn sighting(attestation: &Attestation) -> Option<&Sighting> {
    attestation.status.as_ref().and_then(|status| status.seen.as_ref())
}

/// Who vouches for exactly this value, among attestations of this object.
fn vouched<T: Serialize>(
    attestations: &[Attestation],
    kind: SubjectKind,
    uid: &str,
    claim: Claim,
    value: &T,
    excluded: &[Login],
) -> Vouched {
    let Ok(wanted) = serde_json_canonicalizer::to_vec(value) else {
        return Vouched::Nobody;
    };
    let fits = |attestation: &&Attestation| {
        let spec = &attestation.spec;
        spec.of.kind == kind
            && spec.of.uid == *uid
            && spec.claim == claim
            && attestation.metadata.deletion_timestamp.is_none()
            && counts(&spec.by)
            && !excluded.iter().any(|member| same_person(member, &spec.by))
            && serde_json_canonicalizer::to_vec(&spec.value).is_ok_and(|seen| seen == wanted)
    };
    let (counted, others): (Vec<&Attestation>, Vec<&Attestation>) = attestations
        .iter()
        .filter(fits)
        .partition(|attestation| sighting(attestation).is_some_and(|seen| seen.counts));
    let in_gap = others.into_iter().any(|attestation| sighting(attestation).is_some());
    // Of several, the one that lasts longest: none at all is longer than any, and times are compared where they are judged.
    let mut standing = counted;
    standing.sort_by(|one, other| {
        let key = |attestation: &Attestation| {
            attestation
                .spec
                .until
                .as_ref()
                .map_or((1, ""), |until| (0, until.as_str()))
                .1
                .to_owned()
        };
        let open = |attestation: &Attestation| attestation.spec.until.is_none();
        (open(one), key(one)).cmp(&(open(other), key(other)))
    });
    let nobody = if in_gap { Vouched::InGap } else { Vouched::Nobody };
    standing.last().map_or(nobody, |attestation| Vouched::By {
        who: attestation.spec.by.clone(),
        until: attestation.spec.until.clone(),
    })
}

/// The labels of a tenant's namespace, and what they are worth.
#[derive(Clone, Copy, Debug)]
pub enum Labels<'a> {
    /// They were seen while the admission policies stood: what they say is so.
    Count(&'a BTreeMap<String, String>),
    /// They were changed while one of the policies was missing, and not since.
    InGap,
}

fn label<T>(labels: Labels<'_>, name: &str, value: T, word: &str) -> Claimed<T> {
    let Labels::Count(labels) = labels else {
        return Claimed {
            value,
            vouched: Vouched::InGap,
        };
    };
    let vouched = match labels.get(name) {
        Some(known) if known == word => Vouched::By {
            who: Login::from("label"),
            until: None,
        },
        Some(known) => Vouched::Otherwise(known.clone()),
        None => Vouched::Nobody,
    };
    Claimed { value, vouched }
}

/// The facts of a project: from the object, the labels of its namespace, and the attestations beside it.
pub fn project(project: &IsolatedProject, labels: Labels<'_>, attestations: &[Attestation]) -> ProjectFacts {
    let (spec, of) = (&project.spec, project_ref(project));
    let status = project.status.clone().unwrap_or_default();
    let members: Vec<Login> = spec.members.iter().map(|member| member.subject.clone()).collect();
    let attested = |claim: Claim, value: &serde_json::Value| {
        vouched(attestations, SubjectKind::IsolatedProject, of.uid.as_str(), claim, value, &members)
    };
    // INVARIANT: entries of a spec came from JSON, so they have a JSON form; one that had none would be vouched for by nobody.
    let json = |value: serde_json::Result<serde_json::Value>| value.unwrap_or(serde_json::Value::Null);
    let accepted = |member: &Login| {
        let written = spec.terms_accepted.iter().filter(|line| line.member == *member);
        let seen = |digest: &Digest| {
            status
                .seen
                .iter()
                .any(|seen| seen.member == *member && seen.digest == *digest && seen.counts)
        };
        written.filter(|line| seen(&line.digest)).map(|line| line.digest.clone()).collect()
    };
    ProjectFacts {
        purpose: spec.purpose.clone(),
        institution: label(labels, INSTITUTION_LABEL, spec.institution.clone(), spec.institution.short()),
        org_kind: label(labels, ORG_KIND_LABEL, spec.org_kind, spec.org_kind.word()),
        country: label(labels, COUNTRY_LABEL, spec.country.clone(), spec.country.as_str()),
        members: spec
            .members
            .iter()
            .filter(|member| counts(&member.subject))
            .map(|member| MemberFacts {
                subject: member.subject.clone(),
                role: member.role,
                terms: accepted(&member.subject),
            })
            .collect(),
        ethics: spec
            .ethics
            .iter()
            .map(|entry| Claimed {
                vouched: attested(Claim::Ethics, &json(serde_json::to_value(entry))),
                value: entry.clone(),
            })
            .collect(),
        egress: spec
            .network
            .egress
            .iter()
            .map(|entry| Claimed {
                vouched: attested(Claim::Egress, &json(serde_json::to_value(entry))),
                value: entry.clone(),
            })
            .collect(),
        l2vpn: spec.network.l2vpn.as_ref().map(|entry| Claimed {
            vouched: attested(Claim::L2vpn, &json(serde_json::to_value(entry))),
            value: entry.clone(),
        }),
        period: spec.period.clone(),
        dedicated: spec.placement.dedicated,
        exposed: status.exposed,
        of,
    }
}

/// The facts of a dataset: from the object and the attestations beside it.
pub fn dataset(dataset: &Dataset, attestations: &[Attestation]) -> DatasetFacts {
    let meta = &dataset.metadata;
    let namespace = Label::from(meta.namespace.clone().unwrap_or_default());
    let name = ObjectName::from(meta.name.clone().unwrap_or_default());
    let uid = Uid::from(meta.uid.clone().unwrap_or_default());
    let status = dataset.status.clone().unwrap_or_default();
    let spec = &dataset.spec;
    let approvals = spec.approvals.iter().map(|approval| {
        let vouched = match approval.role {
            ApprovalRole::Provider => Vouched::By {
                who: Login::from("provider"),
                until: None,
            },
            ApprovalRole::Platform => vouched(attestations, SubjectKind::Dataset, uid.as_str(), Claim::Approval, approval, &[]),
        };
        Claimed {
            value: approval.clone(),
            vouched,
        }
    });
    DatasetFacts {
        of: reference(&namespace, &name),
        approvals: approvals.collect(),
        agreement: spec.agreement.as_ref().map(|agreement| Claimed {
            value: agreement.clone(),
            vouched: vouched(attestations, SubjectKind::Dataset, uid.as_str(), Claim::Agreement, agreement, &[]),
        }),
        transferred: spec.transfer.as_ref().and_then(|transfer| transfer.actual.clone()),
        suspended: spec.suspended.as_ref().map(|suspension| suspension.reason.to_string()),
        withdrawn: spec.withdrawn.iter().map(|withdrawal| withdrawal.version.clone()).collect(),
        revision: spec.revision,
        versions: status.versions,
        shards: status.shards,
        declared_bytes: spec.declared_bytes,
        policy: spec.policy_ref.clone(),
        deleted: meta.deletion_timestamp.is_some(),
        uid,
    }
}

/// The facts of a policy. One whose digest cannot be made is not there, which is a deny that says so.
pub fn policy(policy: &UsagePolicy) -> Option<PolicyFacts> {
    let digest = policy.spec.digest().ok()?;
    Some(PolicyFacts {
        name: ObjectName::from(policy.metadata.name.clone()?),
        digest,
        spec: policy.spec.clone(),
    })
}

/// The facts of a grant.
pub fn grant(grant: &AccessGrant) -> Option<GrantFacts> {
    let created = grant.metadata.creation_timestamp.as_ref()?.0;
    let seen = grant.status.as_ref().map(|status| status.seen.as_slice()).unwrap_or_default();
    let counted = grant.spec.reviews.iter().filter(|line| {
        counts(&line.reviewer)
            && seen
                .iter()
                .any(|seen| seen.counts && seen.reviewer == line.reviewer && seen.org == line.org && seen.decision == line.decision)
    });
    Some(GrantFacts {
        name: ObjectName::from(grant.metadata.name.clone()?),
        created,
        policy: grant.spec.policy.clone(),
        request: grant.spec.request.clone(),
        window: grant.spec.window.clone(),
        reviews: counted
            .map(|line| CountedReview {
                reviewer: line.reviewer.clone(),
                org: line.org.clone(),
                decision: line.decision,
            })
            .collect(),
        revoked: grant.spec.revoked.clone(),
    })
}
