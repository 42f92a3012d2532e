//! The verdict on one wish: every reason at once, the decision that follows, and the verdict's own end.

use dejima_crds::bounded::{Digest, Login, ObjectName, Ref};
use dejima_crds::reason::{Code, Decision, Reason};
use dejima_crds::usage_policy::{Action, Obligation};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::clauses::{self, View, earlier};
use crate::dataset::{is_withdrawn, newest, standing};
use crate::facts::{DatasetFacts, GrantFacts, PolicyFacts, ProjectFacts};
use crate::grants::{self, Judged};
use crate::remedy::reason;
use crate::unbuilt;

/// One wish and everything that bears on it.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The project.
    pub project: &'a ProjectFacts,
    /// The dataset; nothing where there is none of this name, or none that may be seen.
    pub dataset: Option<&'a DatasetFacts>,
    /// `namespace/name` that was asked for.
    pub reference: &'a Ref,
    /// The version that was asked for; the newest, where nothing is said.
    pub version: Option<u32>,
    /// What is to be done with it.
    pub actions: &'a [Action],
    /// The policies of the dataset's namespace.
    pub policies: &'a [PolicyFacts],
    /// The grants of this project for this dataset.
    pub grants: &'a [GrantFacts],
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The decision: the least of all reasons.
    pub decision: Decision,
    /// Every reason, in a fixed order.
    pub reasons: Vec<Reason>,
    /// The version that it is about.
    pub version: Option<u32>,
    /// The first instant at which it holds no longer of itself.
    pub until: Option<Timestamp>,
    /// The policy that the dataset names now.
    pub policy: Option<Digest>,
    /// The grant that it rests on.
    pub grant: Option<ObjectName>,
    /// Members who meet the clauses on persons.
    pub effective: Vec<Login>,
    /// Why the others do not.
    pub members: Vec<(Login, Vec<Reason>)>,
    /// What is owed in return.
    #[serde(skip)]
    pub obligations: Vec<Obligation>,
    /// Each grant, judged.
    #[serde(skip)]
    pub grants: Vec<Judged>,
}

/// Judges one wish at one time.
pub fn judge(case: Case<'_>, at: Timestamp, zone: &TimeZone) -> Verdict {
    let Some(dataset) = case.dataset else {
        let missing = reason(
            Code::NotMountable,
            case.reference,
            "datasets",
            "a dataset of this name",
            "none that this project may know of",
        );
        return Verdict::of(vec![missing]);
    };
    let version = case.version.or_else(|| newest(dataset).map(|version| version.version));
    let mut reasons = state(dataset, version, at, zone);
    let Some(current) = case.policies.iter().find(|policy| policy.name == dataset.policy) else {
        reasons.push(reason(
            Code::Unintelligible,
            &dataset.of,
            "policyRef",
            "a policy of this name",
            dataset.policy.as_str(),
        ));
        return Verdict {
            version,
            ..Verdict::of(reasons)
        };
    };
    let view = View {
        policy: &current.spec,
        project: case.project,
        dataset,
        actions: case.actions,
        at,
        zone,
    };
    let found = clauses::all(view);
    reasons.extend(found.reasons);
    reasons.extend(unbuilt::reasons(&dataset.of, &current.spec));
    let (granted, grant, judged) = grants::all(view, current, case.policies, case.grants);
    reasons.extend(granted.reasons);

    let mut effective = Vec::new();
    let mut members = Vec::new();
    for member in &case.project.members {
        let why = clauses::member(&dataset.of, &current.spec, member);
        if why.is_empty() {
            effective.push(member.subject.clone());
        } else {
            members.push((member.subject.clone(), why));
        }
    }
    if effective.is_empty() {
        let actual = members
            .iter()
            .flat_map(|(_, why)| why)
            .map(|reason| reason.actual.to_string())
            .collect::<Vec<_>>()
            .join("; ");
        reasons.push(reason(
            Code::NoEffectiveMember,
            &dataset.of,
            "prerequisites.terms",
            "one member at least who meets the clauses on persons",
            actual,
        ));
    }
    Verdict {
        version,
        until: earlier(found.until, granted.until),
        policy: Some(current.digest.clone()),
        grant,
        effective,
        members,
        obligations: current.spec.obligations.clone(),
        grants: judged,
        ..Verdict::of(reasons)
    }
}

/// What the dataset itself says against it.
fn state(dataset: &DatasetFacts, version: Option<u32>, at: Timestamp, zone: &TimeZone) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(why) = &dataset.suspended {
        reasons.push(reason(
            Code::Suspended,
            &dataset.of,
            "suspended",
            "a dataset that is not suspended",
            why.as_str(),
        ));
    }
    let all = dataset.deleted || dataset.withdrawn.iter().any(|withdrawn| *withdrawn == "all");
    if all || version.is_some_and(|version| is_withdrawn(dataset, version)) {
        let actual = version.map_or("all of it was withdrawn".to_owned(), |version| {
            format!("version {version} was withdrawn")
        });
        reasons.push(reason(Code::Withdrawn, &dataset.of, "withdrawn", "a version that stands", actual));
    }
    let sealed = version.is_some_and(|version| dataset.versions.iter().any(|known| known.version == version));
    let open: Vec<String> = standing(dataset, at, zone)
        .into_iter()
        .filter(|standing| {
            standing.status != dejima_crds::condition::Truth::True && standing.kind != dejima_crds::condition::ConditionKind::Mountable
        })
        .map(|standing| format!("{:?}: {}", standing.kind, standing.reason))
        .collect();
    if !open.is_empty() {
        reasons.push(reason(
            Code::NotMountable,
            &dataset.of,
            "Mountable",
            "a dataset that is registered, approved, agreed, sealed and verified",
            open.join(", "),
        ));
    } else if !sealed {
        let actual = version.map_or("none is".to_owned(), |version| format!("version {version} is not"));
        reasons.push(reason(Code::NotMountable, &dataset.of, "version", "a sealed version", actual));
    }
    reasons
}

impl Verdict {
    fn of(mut reasons: Vec<Reason>) -> Self {
        // A fixed order, and each thing once: nothing depends on the order in which objects were listed.
        reasons.sort_by(|one, other| (one.code, &one.clause, &one.actual).cmp(&(other.code, &other.clause, &other.actual)));
        reasons.dedup();
        let decision = reasons
            .iter()
            .map(|reason| reason.code.decision())
            .min()
            .unwrap_or(Decision::Permit);
        Self {
            decision,
            reasons,
            version: None,
            until: None,
            policy: None,
            grant: None,
            effective: Vec::new(),
            members: Vec::new(),
            obligations: Vec::new(),
            grants: Vec::new(),
        }
    }
}
