//! Verdicts as a whole: all reasons at once, each clause by itself, and what nobody evaluates.

use dejima_crds::grant::{ReviewDecision, Revoked};
use dejima_crds::reason::{Code, Decision};
use dejima_crds::{AccessGrant, UsagePolicy};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{JICHI, LEAD, ROIS, Story, example, with};

#[test]
fn with_everything_in_order_it_is_permitted_until_the_earliest_end() {
    let verdict = Story::good().verdict();
    assert_eq!(verdict.decision, Decision::Permit, "{:?}", verdict.reasons);
    assert_eq!(
        verdict.until,
        Some("2027-03-31T15:00:00Z".parse().unwrap()),
        "the period's last instant in Tokyo"
    );
    assert_eq!(verdict.effective, [LEAD]);
    assert_eq!(verdict.grant.as_ref().map(dejima_crds::bounded::ObjectName::as_str), Some("g-1"));
    assert_eq!(verdict.obligations.len(), 2);
}

#[test]
fn a_fresh_project_is_told_everything_at_once() {
    let mut story = Story::good();
    story.grants.clear();
    story.of_project.clear();
    story.labels.clear();
    story.project.spec.terms_accepted.clear();
    let verdict = story.verdict();
    assert_eq!(verdict.decision, Decision::NeedsReview);
    assert_eq!(story.codes(), [Code::Unattested, Code::ReviewPending, Code::NoEffectiveMember]);
    let clauses: Vec<&str> = verdict.reasons.iter().map(|reason| reason.clause.as_str()).collect();
    assert_eq!(
        clauses,
        [
            "country",
            "institution",
            "orgKind",
            "prerequisites.approvals.user",
            "review.required",
            "prerequisites.terms"
        ]
    );
    assert!(
        verdict
            .reasons
            .iter()
            .all(|reason| reason.remedy.ja.is_some() && reason.remedy.en.is_some())
    );
}

#[test]
fn each_clause_refuses_for_its_own_reason() {
    assert_eq!(with(|_| {}), []);
    assert_eq!(
        with(|story| story.project.spec.purpose[0].duo = "DUO:0000043".into()),
        [Code::ReviewPending, Code::PurposeNotAllowed]
    );
    assert_eq!(
        with(|story| story.policies[0].spec.permits.actions.retain(|action| action.word() != "train")),
        [Code::ActionNotAllowed, Code::Unintelligible]
    );
    assert_eq!(
        with(|story| story.project.spec.placement.dedicated = false),
        [Code::IsolationTooWeak]
    );
    assert_eq!(with(|story| story.project.spec.ethics.clear()), [Code::EthicsMissing]);
    assert_eq!(with(|story| story.of_project.clear()), [Code::Unattested]);
    assert_eq!(with(|story| story.of_dataset.clear()), [Code::Unattested, Code::NotMountable]);
    assert_eq!(with(|story| story.labels.clear()), [Code::Unattested]);
    assert_eq!(with(|story| story.dataset.status = None), [Code::NotMountable]);
    assert_eq!(
        with(|story| story.dataset.spec.suspended = Some(serde_json::from_value(json!({"by": "jichi", "reason": "incident"})).unwrap())),
        [Code::Suspended]
    );
    let withdrawn = json!([{"version": "1", "by": "jichi", "reason": "a subject asked"}]);
    assert_eq!(
        with(|story| story.dataset.spec.withdrawn = serde_json::from_value(withdrawn).unwrap()),
        [Code::NotMountable]
    );
    assert_eq!(with(|story| story.policies.clear()), [Code::Unintelligible]);
    assert_eq!(with(|story| story.project.spec.terms_accepted.clear()), [Code::NoEffectiveMember]);
    assert_eq!(
        with(|story| story.at = "2026-03-31T14:59:59Z".parse().unwrap()),
        [Code::BeforeWindow]
    );
    assert_eq!(
        with(|story| story.at = "2027-03-31T15:00:00Z".parse().unwrap()),
        [Code::AfterWindow]
    );
    assert_eq!(with(|story| story.at = "2027-03-31T14:59:59Z".parse().unwrap()), []);
}

#[test]
fn what_a_verdict_says_changes_with_what_turns_and_not_with_every_moment() {
    let said = |at: &str| {
        let mut story = Story::good();
        story.at = at.parse().unwrap();
        story.verdict().reasons
    };
    let (before, after) = (said("2026-03-01T00:00:00Z"), said("2027-04-01T00:00:00Z"));
    assert_eq!(before, said("2026-03-01T00:00:01.5Z"));
    assert_eq!(after, said("2027-04-01T00:00:01.5Z"));
    assert_ne!(before, after, "the control");
}

#[test]
fn a_version_that_was_asked_for_by_number_and_withdrawn_is_denied() {
    let codes = with(|story| {
        story.project.spec.datasets[0].version = Some(1);
        story.dataset.spec.withdrawn = serde_json::from_value(json!([{"version": "1", "by": "jichi", "reason": "asked"}])).unwrap();
    });
    assert_eq!(codes, [Code::Withdrawn, Code::NotMountable]);
}

#[test]
fn a_clause_that_nobody_evaluates_is_a_deny_that_names_it() {
    let policy = |change: serde_json::Value| {
        let mut story = Story::good();
        let mut spec = serde_json::to_value(&story.policies[0].spec).unwrap();
        for (key, value) in change.as_object().unwrap() {
            for (inner, value) in value.as_object().unwrap() {
                spec[key][inner] = value.clone();
            }
        }
        story.policies[0].spec = serde_json::from_value(spec).unwrap();
        let verdict = story.verdict();
        let named: Vec<String> = verdict
            .reasons
            .iter()
            .filter(|reason| reason.code == Code::Unintelligible && reason.clause != "policy")
            .map(|reason| reason.clause.to_string())
            .collect();
        (verdict.decision, named)
    };
    for (change, clause) in [
        (
            json!({"permits": {"duo": [{"id": "DUO:0000007", "mondo": ["MONDO:0004992"]}]}}),
            "permits.duo[DUO:0000007]",
        ),
        (json!({"who": {"training": [{"course": "research-ethics"}]}}), "who.training"),
        (json!({"who": {"roles": ["lead"]}}), "who.roles"),
        (json!({"where": {"sites": ["kashiwa"]}}), "where.sites"),
        (json!({"when": {"embargoUntil": "2026-12"}}), "when.embargoUntil"),
        (json!({"when": {"maxDuration": "P1Y"}}), "when.maxDuration"),
        (json!({"combination": {"forbidWith": ["a/b"]}}), "combination.forbidWith"),
        (json!({"combination": {"linkWith": "none"}}), "combination.linkWith"),
        (json!({"egress": {"maxBytes": 1}}), "egress.maxBytes"),
        (json!({"revocation": {"leaseTtl": "5m"}}), "revocation"),
    ] {
        let (decision, named) = policy(change);
        assert_eq!((decision, named), (Decision::Deny, vec![clause.to_owned()]));
    }
    // At its default, or without a bearing on mounting, a clause is absent.
    for change in [
        json!({"revocation": {"leaseTtl": "10m"}}),
        json!({"egress": {"minCell": 20}}),
        json!({"when": {"moratoriumUntil": "2030"}}),
        json!({"combination": {"noReidentification": false}}),
    ] {
        assert_eq!(policy(change).1, Vec::<String>::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Nothing depends on the order in which objects were listed.
    #[test]
    fn a_verdict_does_not_depend_on_order(
        created in proptest::collection::vec(0_u32..5, 1..5),
        fates in proptest::collection::vec(0_u8..4, 5),
        keys in proptest::collection::vec(any::<u32>(), 5),
    ) {
        let mut story = Story::good();
        story.grants.clear();
        for (at, month) in created.iter().enumerate() {
            let grant = story.ask(&format!("g-{at}"), &format!("2026-0{}-01T00:00:00Z", month + 1));
            story.grants.push(grant);
            if fates[at] & 1 == 1 {
                story.review(at, "board-1@jichi.example", JICHI, ReviewDecision::Approve);
                story.review(at, "board-1@platform.example", ROIS, ReviewDecision::Approve);
            }
            if fates[at] & 2 == 2 {
                story.grants[at].spec.revoked = Some(Revoked { by: "p@jichi.example".into(), reason: "asked".into() });
            }
        }
        let one = story.verdict();
        let mut keyed: Vec<(u32, AccessGrant)> = keys.iter().copied().zip(story.grants.iter().cloned()).collect();
        keyed.sort_by_key(|(key, _)| *key);
        story.grants = keyed.into_iter().map(|(_, grant)| grant).collect();
        story.of_dataset.reverse();
        let other = story.verdict();
        prop_assert_eq!(one.decision, other.decision);
        prop_assert_eq!(one.reasons, other.reasons);
        prop_assert_eq!(one.until, other.until);
    }

    /// More approvals, attestations or time never make a verdict worse; one revocation of the latest grant always denies.
    #[test]
    fn revoking_the_latest_grant_always_denies(count in 1_usize..4) {
        let mut story = Story::good();
        story.grants.clear();
        for at in 0..count {
            let grant = story.ask(&format!("g-{at}"), &format!("2026-0{}-01T00:00:00Z", at + 1));
            story.grants.push(grant);
            story.review(at, "board-1@jichi.example", JICHI, ReviewDecision::Approve);
            story.review(at, "board-1@platform.example", ROIS, ReviewDecision::Approve);
        }
        prop_assert_eq!(story.verdict().decision, Decision::Permit);
        story.grants[count - 1].spec.revoked = Some(Revoked { by: "p@jichi.example".into(), reason: "asked".into() });
        prop_assert_eq!(story.codes(), vec![Code::Revoked]);
    }
}

#[test]
fn the_example_that_names_a_disease_is_denied_clause_by_clause() {
    let named = |policy: &str| {
        let mut story = Story::good();
        let spec: UsagePolicy = example(policy, "u-policy");
        story.policies[0].spec = spec.spec;
        let verdict = story.verdict();
        let unread = verdict.reasons.iter().filter(|reason| reason.code == Code::Unintelligible);
        let mut all: Vec<String> = unread.map(|reason| reason.clause.to_string()).collect();
        all.sort();
        (verdict.decision == Decision::Deny, all)
    };
    let (denied, clauses) = named("usagepolicy-disease.yaml");
    assert!(denied);
    for clause in [
        "permits.duo[DUO:0000007]",
        "permits.duo[DUO:0000022]",
        "who.training",
        "combination.forbidWith",
    ] {
        assert!(clauses.iter().any(|named| named == clause), "{clause} is not named: {clauses:?}");
    }
    assert_eq!(
        named("usagepolicy-story.yaml").1,
        Vec::<String>::new(),
        "the control: every clause of the story is read"
    );
}
