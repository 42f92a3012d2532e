//! Grants: each is judged alone, the best one counts, and one that is rejected or revoked denies until a later one permits.

use dejima_crds::bounded::{Digest, ObjectName, Ror};
use dejima_crds::grant::ReviewDecision;
use dejima_crds::reason::{Code, Decision, Reason};
use dejima_crds::usage_policy::UsagePolicySpec;

use crate::clauses::{self, Finding, View};
use crate::facts::{CountedReview, GrantFacts, PolicyFacts, ProjectFacts, same_person};
use crate::remedy::reason;
use crate::request::{overtaken, wish};
use crate::unbuilt;

/// One grant, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Which.
    pub name: ObjectName,
    /// Whether the project asks for no more than it.
    pub applies: bool,
    /// What follows from it.
    pub decision: Decision,
    /// Counted and needed: approvals.
    pub approvals: (u32, u32),
    /// Why not, and until when.
    pub finding: Finding,
    /// Whether it is rejected or revoked: then it denies what came before it.
    pub ends: bool,
}

/// Approvals that count under a policy: not by somebody of the project, of an organisation that the policy names.
fn approving<'a>(
    policy: &UsagePolicySpec,
    project: &ProjectFacts,
    grant: &'a GrantFacts,
) -> (Vec<&'a CountedReview>, Vec<&'a CountedReview>, Vec<&'a CountedReview>) {
    let own = |line: &&CountedReview| project.members.iter().any(|member| same_person(&member.subject, &line.reviewer));
    let named = |line: &&CountedReview| policy.review.reviewer_orgs.is_empty() || policy.review.reviewer_orgs.contains(&line.org);
    let (selves, others): (Vec<_>, Vec<_>) = grant.reviews.iter().partition(own);
    let others: Vec<&CountedReview> = others.into_iter().filter(named).collect();
    let with = |decision: ReviewDecision| others.iter().copied().filter(|line| line.decision == decision).collect();
    (with(ReviewDecision::Approve), with(ReviewDecision::Reject), selves)
}

fn orgs(lines: &[&CountedReview]) -> u32 {
    let mut orgs: Vec<&Ror> = lines.iter().map(|line| &line.org).collect();
    orgs.sort();
    orgs.dedup();
    u32::try_from(orgs.len()).unwrap_or(u32::MAX)
}

/// What the reviews of a grant come to under one policy.
fn reviews(view: View<'_>, grant: &GrantFacts) -> (Vec<Reason>, bool, (u32, u32)) {
    let review = &view.policy.review;
    let (approvals, rejections, selves) = approving(view.policy, view.project, grant);
    let count = u32::try_from(approvals.len()).unwrap_or(u32::MAX);
    if !review.required {
        return (Vec::new(), false, (count, 0));
    }
    let mut reasons = Vec::new();
    let rejected = review.veto && !rejections.is_empty();
    if rejected {
        let who = rejections
            .iter()
            .map(|line| format!("{} ({})", line.reviewer, line.org))
            .collect::<Vec<_>>()
            .join(", ");
        reasons.push(reason(
            Code::Rejected,
            &view.dataset.of,
            "review.veto",
            "no rejection",
            format!("rejected by {who}"),
        ));
    }
    let quorum = &review.quorum;
    if count < quorum.approvals || orgs(&approvals) < quorum.distinct_orgs {
        let required = format!("{} approvals of {} organisations", quorum.approvals, quorum.distinct_orgs);
        let actual = format!(
            "{count} of {}, of {} of {} organisations",
            quorum.approvals,
            orgs(&approvals),
            quorum.distinct_orgs
        );
        // A request that nobody has looked at yet is pending; one that somebody has is short of a quorum.
        let code = if grant.reviews.is_empty() {
            Code::ReviewPending
        } else {
            Code::QuorumNotReached
        };
        reasons.push(reason(code, &view.dataset.of, "review.quorum", required, actual));
        for line in selves {
            reasons.push(reason(
                Code::SelfReview,
                &view.dataset.of,
                "review.quorum",
                "a reviewer outside of the project",
                line.reviewer.as_str(),
            ));
        }
    }
    (reasons, rejected, (count, quorum.approvals))
}

/// One grant, under the policy it pins and the one the dataset names now: the lower verdict counts.
pub fn judge(now: View<'_>, current: &PolicyFacts, pinned: Option<&PolicyFacts>, grant: &GrantFacts) -> Judged {
    let mut found = Finding::default();
    let asked = wish(now.project, now.actions);
    let policies: Vec<&PolicyFacts> = match pinned {
        Some(pinned) if pinned.digest == current.digest => vec![current],
        Some(pinned) => vec![pinned, current],
        None => {
            let actual = format!("{} ({}) is not there", grant.policy.name, grant.policy.digest);
            found.reasons.push(reason(
                Code::Unintelligible,
                &now.dataset.of,
                "policy",
                "the policy that the grant pins",
                actual,
            ));
            vec![current]
        }
    };
    let mut parts: Vec<&str> = policies
        .iter()
        .flat_map(|policy| overtaken(&asked, &grant.request, &policy.spec.review.covers))
        .collect();
    parts.sort_unstable();
    parts.dedup();
    let applies = parts.is_empty();
    let mut ends = false;
    let mut approvals = (u32::MAX, 0);
    for policy in &policies {
        let view = View {
            policy: &policy.spec,
            ..now
        };
        if policy.digest != current.digest {
            // The clauses of the current policy are judged once, for all grants.
            found = found.and(clauses::all(view));
            found.reasons.extend(unbuilt::reasons(&now.dataset.of, &policy.spec));
        }
        let (reasons, rejected, (count, needed)) = reviews(view, grant);
        found.reasons.extend(reasons);
        ends |= rejected;
        approvals = (approvals.0.min(count), approvals.1.max(needed));
    }
    if !applies {
        let required = "what the approved request says of it";
        found.reasons.push(reason(
            Code::ReviewPending,
            &now.dataset.of,
            "review.covers",
            required,
            format!("the project now asks for more: {}", parts.join(", ")),
        ));
    }
    let more: Vec<&str> = asked
        .actions
        .iter()
        .filter(|action| !grant.request.actions.contains(action))
        .map(|action| action.word())
        .collect();
    if !more.is_empty() {
        let granted = grant
            .request
            .actions
            .iter()
            .map(|action| action.word())
            .collect::<Vec<_>>()
            .join(", ");
        found.reasons.push(reason(
            Code::ActionNotAllowed,
            &now.dataset.of,
            "request.actions",
            granted,
            more.join(", "),
        ));
    }
    if let Some(revoked) = &grant.revoked {
        ends = true;
        found.reasons.push(reason(
            Code::Revoked,
            &now.dataset.of,
            "revoked",
            "a grant that stands",
            format!("revoked by {}: {}", revoked.by, revoked.reason),
        ));
    }
    found = found.and(clauses::between(now, "window", Some(&grant.window.from), Some(&grant.window.until)));
    let decision = found
        .reasons
        .iter()
        .map(|reason| reason.code.decision())
        .min()
        .unwrap_or(Decision::Permit);
    Judged {
        name: grant.name.clone(),
        applies,
        decision,
        approvals,
        finding: found,
        ends,
    }
}

/// All grants together.
pub fn all(
    now: View<'_>,
    current: &PolicyFacts,
    pinned: &[PolicyFacts],
    grants: &[GrantFacts],
) -> (Finding, Option<ObjectName>, Vec<Judged>) {
    let mut grants: Vec<&GrantFacts> = grants.iter().collect();
    // The later one wins; of two of the same second the name decides, so that the order in which they are listed does not.
    grants.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
    let pin = |digest: &Digest| pinned.iter().find(|policy| policy.digest == *digest);
    let judged: Vec<Judged> = grants
        .iter()
        .map(|grant| judge(now, current, pin(&grant.policy.digest), grant))
        .collect();
    let permits = judged.iter().rposition(|grant| grant.applies && grant.decision == Decision::Permit);
    let ends = judged.iter().rposition(|grant| grant.applies && grant.ends);
    let chosen = match (permits, ends) {
        (Some(permits), Some(ends)) if ends > permits => Some(ends),
        (Some(permits), _) => Some(permits),
        (None, Some(ends)) => Some(ends),
        // The best of those that apply; of those the latest.
        (None, None) => (0..judged.len())
            .filter(|at| judged.get(*at).is_some_and(|grant| grant.applies))
            .max_by_key(|at| (judged.get(*at).map(|grant| grant.decision), *at)),
    };
    let chosen = chosen.and_then(|at| judged.get(at));
    let finding = match chosen {
        Some(grant) => grant.finding.clone(),
        None if !current.spec.review.required => Finding::default(),
        None => {
            let actual = match judged.last() {
                Some(grant) => grant
                    .finding
                    .reasons
                    .iter()
                    .find(|reason| reason.code == Code::ReviewPending)
                    .map_or("none that applies".to_owned(), |reason| reason.actual.to_string()),
                None => "no request was reviewed yet".to_owned(),
            };
            Finding {
                reasons: vec![reason(
                    Code::ReviewPending,
                    &now.dataset.of,
                    "review.required",
                    "a grant for this request",
                    actual,
                )],
                until: None,
            }
        }
    };
    let name = chosen.map(|grant| grant.name.clone());
    (finding, name, judged)
}
