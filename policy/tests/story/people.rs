//! What people say: attestations, reviews, revocations, and under which policy they count.

use dejima_crds::AccessGrant;
use dejima_crds::grant::{ReviewDecision, Revoked};
use dejima_crds::reason::{Code, Decision};
use serde_json::json;

use crate::world::{JICHI, LEAD, ROIS, Story, with};

#[test]
fn an_attestation_counts_for_exactly_what_was_seen_and_by_nobody_of_the_project() {
    assert_eq!(
        with(|story| story.project.spec.ethics[0].protocol = "25-9999".into()),
        [Code::Unattested]
    );
    assert_eq!(with(|story| story.of_project[0].spec.by = LEAD.into()), [Code::Unattested]);
    assert_eq!(
        with(|story| story.of_project[0].spec.by = "Lead@OSAKA.example".into()),
        [Code::Unattested]
    );
    assert_eq!(
        with(|story| story.of_project[0].spec.by = "оffice-1@platform.example".into()),
        [Code::Unattested],
        "a Cyrillic letter"
    );
    assert_eq!(
        with(|story| story.of_project[0].spec.of.uid = "p-0".into()),
        [Code::Unattested],
        "an earlier project of this name"
    );
    assert_eq!(
        with(|story| story.of_project[0].spec.until = Some("2026-11-23".into())),
        [Code::Unattested]
    );
    // Made while an admission policy was missing, or not seen yet: it counts for nothing, and what to do is said.
    let mut story = Story::good();
    let again = story.of_project[0].clone();
    story.of_project[0].status.as_mut().unwrap().seen.as_mut().unwrap().counts = false;
    assert_eq!(story.codes(), [Code::Unattested]);
    assert!(story.verdict().reasons[0].actual.as_str().contains("delete it and make it again"));
    assert_eq!(with(|story| story.of_project[0].status = None), [Code::Unattested]);
    story.of_project.push(again);
    assert_eq!(story.verdict().decision, Decision::Permit, "made again, it counts");
    // Labels that were changed meanwhile: none of them counts.
    let mut story = Story::good();
    story.labels_count = false;
    assert_eq!(story.codes(), [Code::Unattested]);
    assert!(story.verdict().reasons[0].actual.as_str().contains("dejima.dev/confirmed"));
    let mut story = Story::good();
    story.of_project[0].spec.until = Some("2026-11-24".into());
    assert_eq!(
        story.verdict().until,
        Some("2026-11-24T15:00:00Z".parse().unwrap()),
        "the verdict ends with what it rests on"
    );
}

#[test]
fn a_quorum_is_counted_from_reviews_that_count() {
    let refuse = |change: fn(&mut AccessGrant)| with(|story| change(&mut story.grants[0]));
    assert_eq!(refuse(|grant| grant.spec.reviews.truncate(1)), [Code::QuorumNotReached]);
    assert_eq!(
        refuse(|grant| grant.status.as_mut().unwrap().seen[1].counts = false),
        [Code::QuorumNotReached]
    );
    assert_eq!(
        refuse(|grant| grant.spec.reviews[1].decision = ReviewDecision::Abstain),
        [Code::QuorumNotReached]
    );
    // Two of one organisation are two approvals of one organisation.
    let codes = with(|story| {
        let grant = &mut story.grants[0];
        grant.spec.reviews[1].org = JICHI.into();
        grant.status.as_mut().unwrap().seen[1].org = JICHI.into();
    });
    assert_eq!(codes, [Code::QuorumNotReached]);
    let codes = with(|story| {
        story.grants[0].spec.reviews.truncate(1);
        story.review(0, "LEAD@osaka.example", ROIS, ReviewDecision::Approve);
    });
    assert_eq!(codes, [Code::QuorumNotReached, Code::SelfReview]);
    let codes = with(|story| story.review(0, "board-2@jichi.example", JICHI, ReviewDecision::Reject));
    assert_eq!(codes, [Code::Rejected]);
}

#[test]
fn what_was_reviewed_must_still_be_so() {
    assert_eq!(
        with(|story| story
            .project
            .spec
            .purpose
            .push(serde_json::from_value(json!({"duo": "DUO:0000006"})).unwrap())),
        [Code::ReviewPending]
    );
    let fewer = |story: &mut Story| story.project.spec.purpose[0].actions.truncate(1);
    assert_eq!(with(fewer), [], "asking for less is covered");
    let member = json!({"subject": "new@osaka.example", "role": "engineer"});
    assert_eq!(
        with(|story| story.project.spec.members.push(serde_json::from_value(member).unwrap())),
        [],
        "members are not covered by default"
    );
    let more = |story: &mut Story| {
        story.project.spec.datasets[0]
            .actions
            .push(serde_json::from_value(json!("read")).unwrap());
    };
    assert_eq!(with(more), [], "read is part of every wish");
    let more = |story: &mut Story| {
        story.project.spec.datasets[0]
            .actions
            .push(serde_json::from_value(json!("publish")).unwrap());
    };
    assert_eq!(with(more), [Code::ActionNotAllowed]);
}

#[test]
fn a_revocation_denies_until_a_later_grant_permits() {
    let mut story = Story::good();
    story.grants[0].spec.revoked = Some(Revoked {
        by: "provider@jichi.example".into(),
        reason: "asked".into(),
    });
    assert_eq!(story.codes(), [Code::Revoked]);
    let later = story.ask("g-2", "2026-05-01T00:00:00Z");
    story.grants.push(later);
    assert_eq!(story.codes(), [Code::Revoked], "an open request does not help");
    story.review(1, "board-1@jichi.example", JICHI, ReviewDecision::Approve);
    assert_eq!(story.codes(), [Code::Revoked], "reviews never add up across grants");
    story.review(1, "board-1@platform.example", ROIS, ReviewDecision::Approve);
    assert_eq!(story.codes(), []);
    story.grants[0].metadata.creation_timestamp = serde_json::from_value(json!("2026-06-01T00:00:00Z")).unwrap();
    assert_eq!(story.codes(), [Code::Revoked], "one that came before does not help either");
}

#[test]
fn a_grant_is_judged_under_the_policy_it_pins_and_the_one_that_is_named_now() {
    let mut story = Story::good();
    let mut stricter = story.policies[0].clone();
    stricter.metadata.name = Some("ct-mr-2027".into());
    stricter.spec.review.quorum.approvals = 3;
    story.policies.push(stricter);
    assert_eq!(story.codes(), [], "the control: nobody names the new one yet");
    story.dataset.spec.policy_ref = "ct-mr-2027".into();
    assert_eq!(story.codes(), [Code::QuorumNotReached]);
    // A weaker one does not free a grant from what it was given under.
    let mut story = Story::good();
    let mut weaker = story.policies[0].clone();
    weaker.metadata.name = Some("ct-mr-2027".into());
    weaker.spec.place.min_isolation = None;
    story.policies.push(weaker);
    story.dataset.spec.policy_ref = "ct-mr-2027".into();
    story.project.spec.placement.dedicated = false;
    assert_eq!(story.codes(), [Code::IsolationTooWeak]);
}
