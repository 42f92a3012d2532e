//! The clauses of one policy over the facts of one project and one dataset: each gives its reasons, none knows another.

use dejima_crds::bounded::Ref;
use dejima_crds::dataset::ApprovalRole;
use dejima_crds::reason::{Code, Reason};
use dejima_crds::usage_policy::{Action, ApprovalOf, Covered, Isolation, NetworkEgress, UsagePolicySpec};
use dejima_crds::when::{Unreadable, When};
use jiff::{Timestamp, tz::TimeZone};

use crate::facts::{Claimed, DatasetFacts, MemberFacts, ProjectFacts, Vouched, nobody_vouches};
use crate::remedy::reason;

/// DUO terms that permit kinds of research and need nothing beside them: no restriction, general research, health research,
/// populations and ancestry, care.
pub const PERMISSIONS: [&str; 5] = ["DUO:0000004", "DUO:0000042", "DUO:0000006", "DUO:0000011", "DUO:0000043"];

/// What every clause looks at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The policy.
    pub policy: &'a UsagePolicySpec,
    /// The project.
    pub project: &'a ProjectFacts,
    /// The dataset.
    pub dataset: &'a DatasetFacts,
    /// What is to be done with it.
    pub actions: &'a [Action],
    /// Now.
    pub at: Timestamp,
    /// The site's zone.
    pub zone: &'a TimeZone,
}

/// What a clause found: why not, and until when it holds where it does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// Why not.
    pub reasons: Vec<Reason>,
    /// The first instant at which it holds no longer.
    pub until: Option<Timestamp>,
}

impl Finding {
    fn of(reasons: Vec<Reason>) -> Self {
        Self { reasons, until: None }
    }

    /// Both.
    pub fn and(mut self, other: Self) -> Self {
        self.reasons.extend(other.reasons);
        self.until = earlier(self.until, other.until);
        self
    }
}

/// The earlier of two ends; none is later than any.
pub fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// All clauses that are evaluated.
pub fn all(view: View<'_>) -> Finding {
    [purpose, actions, institution, country, window, approvals, isolation, egress]
        .into_iter()
        .fold(Finding::default(), |found, clause| found.and(clause(view)))
}

fn unreadable(dataset: &Ref, clause: &str, error: &Unreadable) -> Reason {
    reason(Code::Unintelligible, dataset, clause, "a readable time", error.to_string())
}

/// What a DUO permission includes: general research includes research on health, that includes research on diseases.
fn includes(permitted: &str, asked: &str) -> bool {
    match permitted {
        "DUO:0000004" => true,
        "DUO:0000042" => ["DUO:0000042", "DUO:0000006", "DUO:0000007", "DUO:0000011"].contains(&asked),
        "DUO:0000006" => ["DUO:0000006", "DUO:0000007"].contains(&asked),
        other => other == asked,
    }
}

fn purpose(view: View<'_>) -> Finding {
    let permitted: Vec<&str> = view
        .policy
        .permits
        .duo
        .iter()
        .map(|term| term.id.as_str())
        .filter(|id| PERMISSIONS.contains(id))
        .collect();
    if view.policy.permits.duo.is_empty() {
        return Finding::default();
    }
    let refused = view
        .project
        .purpose
        .iter()
        .filter(|purpose| !permitted.iter().any(|term| includes(term, purpose.duo.as_str())));
    Finding::of(
        refused
            .map(|purpose| {
                let required = if permitted.is_empty() {
                    "what permits.duo says".to_owned()
                } else {
                    permitted.join(", ")
                };
                reason(
                    Code::PurposeNotAllowed,
                    &view.dataset.of,
                    "permits.duo",
                    required,
                    purpose.duo.as_str(),
                )
            })
            .collect(),
    )
}

fn actions(view: View<'_>) -> Finding {
    let permitted = &view.policy.permits.actions;
    if permitted.is_empty() {
        return Finding::default();
    }
    let words = |actions: &[Action]| actions.iter().map(|action| action.word()).collect::<Vec<_>>().join(", ");
    let wished = view
        .actions
        .iter()
        .chain(view.project.purpose.iter().flat_map(|purpose| &purpose.actions));
    let mut refused: Vec<Action> = wished.copied().filter(|action| !permitted.contains(action)).collect();
    refused.sort_unstable();
    refused.dedup();
    if refused.is_empty() {
        return Finding::default();
    }
    Finding::of(vec![reason(
        Code::ActionNotAllowed,
        &view.dataset.of,
        "permits.actions",
        words(permitted),
        words(&refused),
    )])
}

/// Of something that only a label of the namespace makes a fact.
fn unattested<T: std::fmt::Debug>(view: View<'_>, field: &str, shown: &str, claimed: &Claimed<T>) -> Option<Reason> {
    let actual = match &claimed.vouched {
        Vouched::By { .. } => return None,
        Vouched::Nobody => format!("{field} {shown} is the project's own word: the namespace has no label of it"),
        Vouched::InGap => format!(
            "the labels of the namespace that speak of {field} were set while an admission policy was missing, and count for nothing: the office \
             looks whether they are true and says so, e.g. kubectl label namespace {} --overwrite dejima.dev/confirmed=$(date +%s)",
            view.project.of.namespace
        ),
        Vouched::Otherwise(known) => format!("{field} {shown} is the project's own word: the namespace says {known}"),
    };
    Some(reason(
        Code::Unattested,
        &view.dataset.of,
        field,
        "what the platform's office put on the tenant's namespace",
        actual,
    ))
}

fn institution(view: View<'_>) -> Finding {
    let (who, project) = (&view.policy.who, view.project);
    let reviewed = view.policy.review.required && view.policy.review.covers.contains(&Covered::Institution);
    let mut reasons = Vec::new();
    if !who.orgs.is_empty() || reviewed {
        reasons.extend(unattested(
            view,
            "institution",
            project.institution.value.as_str(),
            &project.institution,
        ));
    }
    if !who.orgs.is_empty() && !who.orgs.contains(&project.institution.value) {
        let required = who.orgs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        reasons.push(reason(
            Code::InstitutionNotAllowed,
            &view.dataset.of,
            "who.orgs",
            required,
            project.institution.value.as_str(),
        ));
    }
    if !who.org_kind.is_empty() || reviewed {
        reasons.extend(unattested(view, "orgKind", project.org_kind.value.word(), &project.org_kind));
    }
    if !who.org_kind.is_empty() && !who.org_kind.contains(&project.org_kind.value) {
        let required = who.org_kind.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(", ");
        reasons.push(reason(
            Code::InstitutionNotAllowed,
            &view.dataset.of,
            "who.orgKind",
            required,
            project.org_kind.value.word(),
        ));
    }
    Finding::of(reasons)
}

fn country(view: View<'_>) -> Finding {
    let (countries, project) = (&view.policy.place.countries, view.project);
    let reviewed = view.policy.review.required && view.policy.review.covers.contains(&Covered::Institution);
    let mut reasons = Vec::new();
    if !countries.is_empty() || reviewed {
        reasons.extend(unattested(view, "country", project.country.value.as_str(), &project.country));
    }
    if !countries.is_empty() && !countries.contains(&project.country.value) {
        let required = countries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        reasons.push(reason(
            Code::CountryNotAllowed,
            &view.dataset.of,
            "where.countries",
            required,
            project.country.value.as_str(),
        ));
    }
    Finding::of(reasons)
}

/// The policy's window and the project's period.
fn window(view: View<'_>) -> Finding {
    let (when, period) = (&view.policy.when, &view.project.period);
    between(view, "period", Some(&period.from), Some(&period.until)).and(between(
        view,
        "when",
        when.not_before.as_ref(),
        when.not_after.as_ref(),
    ))
}

/// Whether now lies between two times.
pub fn between(view: View<'_>, clause: &str, from: Option<&When>, until: Option<&When>) -> Finding {
    let mut found = Finding::default();
    if let Some(from) = from {
        match from.begins(view.zone) {
            Ok(begins) if view.at < begins => found.reasons.push(reason(
                Code::BeforeWindow,
                &view.dataset.of,
                clause,
                format!("not before {from}"),
                "it has not begun",
            )),
            Ok(_) => {}
            Err(error) => found.reasons.push(unreadable(&view.dataset.of, clause, &error)),
        }
    }
    if let Some(until) = until {
        match until.ends(view.zone) {
            Ok(ends) if view.at >= ends => found.reasons.push(reason(
                Code::AfterWindow,
                &view.dataset.of,
                clause,
                format!("not after {until}"),
                "it has ended",
            )),
            Ok(ends) => found.until = Some(ends),
            Err(error) => found.reasons.push(unreadable(&view.dataset.of, clause, &error)),
        }
    }
    found
}

/// Whether an approval that is claimed is a fact now, and until when.
fn approval<T>(view: View<'_>, clause: &str, shown: &str, claimed: &Claimed<T>, approved_on: &When, valid_until: Option<&When>) -> Finding {
    let mut found = Finding::default();
    match approved_on.begins(view.zone) {
        Ok(begins) if view.at < begins => {
            found.reasons.push(reason(
                Code::EthicsMissing,
                &view.dataset.of,
                clause,
                "an approval that was given",
                format!("{shown} is dated {approved_on}"),
            ));
        }
        Ok(_) => {}
        Err(error) => found.reasons.push(unreadable(&view.dataset.of, clause, &error)),
    }
    let ends = match &claimed.vouched {
        Vouched::By { until, .. } => [
            until.as_ref().map(|until| (until, Code::Unattested)),
            valid_until.map(|until| (until, Code::EthicsExpired)),
        ],
        Vouched::Nobody | Vouched::InGap | Vouched::Otherwise(_) => {
            let actual = match claimed.vouched {
                Vouched::InGap => format!("{shown}: {}", nobody_vouches(&claimed.vouched)),
                Vouched::By { .. } | Vouched::Nobody | Vouched::Otherwise(_) => shown.to_owned(),
            };
            found.reasons.push(reason(
                Code::Unattested,
                &view.dataset.of,
                clause,
                "an attestation of exactly this entry",
                actual,
            ));
            [None, valid_until.map(|until| (until, Code::EthicsExpired))]
        }
    };
    for (until, code) in ends.into_iter().flatten() {
        match until.ends(view.zone) {
            Ok(ends) if view.at >= ends => found.reasons.push(reason(
                code,
                &view.dataset.of,
                clause,
                "what lasts until now",
                format!("{shown} ended with {until}"),
            )),
            Ok(ends) => found.until = earlier(found.until, Some(ends)),
            Err(error) => found.reasons.push(unreadable(&view.dataset.of, clause, &error)),
        }
    }
    found
}

/// Of several approvals the best: one without reasons that lasts longest, else the one with the fewest.
fn best(findings: impl Iterator<Item = Finding>) -> Option<Finding> {
    findings.min_by_key(|found| (found.reasons.len(), std::cmp::Reverse(found.until.unwrap_or(Timestamp::MAX))))
}

fn approvals(view: View<'_>) -> Finding {
    view.policy
        .prerequisites
        .approvals
        .iter()
        .fold(Finding::default(), |found, wanted| found.and(approval_of(view, *wanted)))
}

fn approval_of(view: View<'_>, wanted: ApprovalOf) -> Finding {
    let (word, found) = if let Some(role) = wanted.of_dataset() {
        let clause = match role {
            ApprovalRole::Provider => "prerequisites.approvals.provider",
            ApprovalRole::Platform => "prerequisites.approvals.platform",
        };
        let entries = view.dataset.approvals.iter().filter(|claimed| claimed.value.role == role);
        let found = entries.map(|claimed| {
            let entry = &claimed.value;
            approval(
                view,
                clause,
                entry.committee.as_str(),
                claimed,
                &entry.approved_on,
                entry.valid_until.as_ref(),
            )
        });
        (clause, best(found))
    } else {
        let clause = "prerequisites.approvals.user";
        let found = view.project.ethics.iter().map(|claimed| {
            let entry = &claimed.value;
            let shown = format!("{} {}", entry.committee, entry.protocol);
            approval(view, clause, &shown, claimed, &entry.approved_on, entry.valid_until.as_ref())
        });
        (clause, best(found))
    };
    found.unwrap_or_else(|| {
        Finding::of(vec![reason(
            Code::EthicsMissing,
            &view.dataset.of,
            word,
            "an approval by an ethics committee",
            "none",
        )])
    })
}

fn isolation(view: View<'_>) -> Finding {
    match view.policy.place.min_isolation {
        Some(Isolation::DedicatedHost) if !view.project.dedicated => Finding::of(vec![reason(
            Code::IsolationTooWeak,
            &view.dataset.of,
            "where.minIsolation",
            "dedicated-host",
            "shared-host",
        )]),
        Some(Isolation::DedicatedHost | Isolation::SharedHost) | None => Finding::default(),
    }
}

/// A policy that lets nothing leave, and a project that lists something: the two exclude each other, whichever came first.
fn egress(view: View<'_>) -> Finding {
    let listed: Vec<String> = view
        .project
        .egress
        .iter()
        .map(|entry| entry.value.cidr.to_string())
        .chain(view.project.l2vpn.iter().map(|_| "l2vpn".to_owned()))
        .collect();
    match view.policy.egress.network {
        NetworkEgress::None if !listed.is_empty() => Finding::of(vec![reason(
            Code::EgressForbidden,
            &view.dataset.of,
            "egress.network",
            "none",
            listed.join(", "),
        )]),
        NetworkEgress::None | NetworkEgress::Attested => Finding::default(),
    }
}

/// Why a member does not meet the clauses on persons; empty where he does.
pub fn member(dataset: &Ref, policy: &UsagePolicySpec, member: &MemberFacts) -> Vec<Reason> {
    let missing = policy
        .prerequisites
        .terms
        .iter()
        .filter(|terms| !member.terms.contains(&terms.digest));
    missing
        .map(|terms| {
            reason(
                Code::TermsNotAccepted,
                dataset,
                "prerequisites.terms",
                format!("{} ({})", terms.url, terms.digest),
                format!("{} has not accepted them", member.subject),
            )
        })
        .collect()
}
