//! The story's own manifests, judged: each clause with the control that shows it is the one that refuses.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code stops where it cannot go on, and reads the examples"
)]

use std::collections::BTreeMap;

use dejima_crds::attestation::{AttestationSpec, Claim, Subject, SubjectKind};
use dejima_crds::bounded::Ref;
use dejima_crds::grant::{AccessGrantSpec, AccessGrantStatus, PolicyPin, ReviewDecision, ReviewLine, ReviewSeen, Revoked};
use dejima_crds::project::{EgressEntry, IsolatedProjectStatus, TermsAccepted, TermsSeen};
use dejima_crds::reason::{Code, Decision};
use dejima_crds::{AccessGrant, Attestation, Dataset, DatasetStatus, IsolatedProject, UsagePolicy};
use dejima_policy::egress::Voice;
use dejima_policy::facts::{self, GrantFacts, PolicyFacts};
use dejima_policy::{Case, Verdict, judge, openings, request, standing};
use jiff::{Timestamp, tz::TimeZone};
use proptest::prelude::*;
use serde_json::json;

const OFFICE: &str = "office-1@platform.example";
const LEAD: &str = "lead@osaka.example";
const JICHI: &str = "https://ror.org/010hz0g26";
const ROIS: &str = "https://ror.org/04ksd4g47";

/// Everything that the verdict rests on, as objects.
#[derive(Clone)]
struct Story {
    project: IsolatedProject,
    dataset: Dataset,
    policies: Vec<UsagePolicy>,
    labels: BTreeMap<String, String>,
    of_project: Vec<Attestation>,
    of_dataset: Vec<Attestation>,
    grants: Vec<AccessGrant>,
    at: Timestamp,
}

fn example<T: serde::de::DeserializeOwned>(name: &str, uid: &str) -> T {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let path = format!("{here}/../examples/{name}");
    let mut value: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    value["metadata"]["uid"] = uid.into();
    serde_json::from_value(value).unwrap()
}

fn attest<T: serde::Serialize>(kind: SubjectKind, uid: &str, claim: Claim, value: &T, by: &str) -> Attestation {
    let spec = AttestationSpec {
        of: Subject {
            kind,
            name: "any".into(),
            uid: uid.into(),
        },
        claim,
        value: serde_json::to_value(value).unwrap(),
        document_digest: None,
        until: None,
        by: by.into(),
    };
    Attestation::new("a", spec)
}

impl Story {
    /// Everything in order: `permit`.
    fn good() -> Self {
        let mut project: IsolatedProject = example("isolatedproject-story.yaml", "p-1");
        let mut dataset: Dataset = example("dataset-story.yaml", "d-1");
        let policy: UsagePolicy = example("usagepolicy-story.yaml", "u-1");
        let terms = policy.spec.prerequisites.terms[0].digest.clone();
        project.spec.terms_accepted = vec![TermsAccepted {
            member: LEAD.into(),
            digest: terms.clone(),
        }];
        let seen = TermsSeen {
            member: LEAD.into(),
            digest: terms,
            first_seen: "2026-04-02T00:00:00Z".into(),
            counts: true,
        };
        project.status = Some(IsolatedProjectStatus {
            seen: vec![seen],
            ..IsolatedProjectStatus::default()
        });
        let version = json!({"version": 1, "digest": format!("sha256:{}", "a".repeat(64)), "bytes": 1, "files": 1, "shards": [], "sealedAt": "2026-04-01T00:00:00Z"});
        dataset.status = Some(DatasetStatus {
            versions: vec![serde_json::from_value(version).unwrap()],
            ..DatasetStatus::default()
        });
        let of_dataset = vec![
            attest(SubjectKind::Dataset, "d-1", Claim::Approval, &dataset.spec.approvals[1], OFFICE),
            attest(SubjectKind::Dataset, "d-1", Claim::Agreement, &dataset.spec.agreement, OFFICE),
        ];
        let of_project = vec![attest(
            SubjectKind::IsolatedProject,
            "p-1",
            Claim::Ethics,
            &project.spec.ethics[0],
            OFFICE,
        )];
        let labels = [("institution", "035t8zc32"), ("org-kind", "public"), ("country", "JP")];
        let labels = labels
            .iter()
            .map(|(name, value)| (format!("dejima.dev/{name}"), (*value).to_owned()))
            .collect();
        let mut story = Self {
            project,
            dataset,
            policies: vec![policy],
            labels,
            of_project,
            of_dataset,
            grants: vec![],
            at: "2026-11-24T00:00:00Z".parse().unwrap(),
        };
        let grant = story.ask("g-1", "2026-04-02T00:00:00Z");
        story.grants.push(grant);
        story.review(0, "board-1@jichi.example", JICHI, ReviewDecision::Approve);
        story.review(0, "board-1@platform.example", ROIS, ReviewDecision::Approve);
        story
    }

    /// A request as the operator makes it from the wish.
    fn ask(&self, name: &str, created: &str) -> AccessGrant {
        let project = facts::project(&self.project, &self.labels, &self.of_project);
        let policy = facts::policy(&self.policies[0]).unwrap();
        let spec = AccessGrantSpec {
            project: project.of.clone(),
            dataset: "ct-mr".into(),
            policy: PolicyPin {
                name: policy.name.clone(),
                digest: policy.digest.clone(),
            },
            request: request::wish(&project, &self.project.spec.datasets[0].actions),
            window: request::window(&project, &policy.spec, &tokyo()),
            reviews: vec![],
            revoked: None,
        };
        let mut grant = AccessGrant::new(name, spec);
        grant.metadata.creation_timestamp = serde_json::from_value(json!(created)).unwrap();
        grant.status = Some(AccessGrantStatus::default());
        grant
    }

    fn review(&mut self, grant: usize, reviewer: &str, org: &str, decision: ReviewDecision) {
        let grant = &mut self.grants[grant];
        grant.spec.reviews.push(ReviewLine {
            reviewer: reviewer.into(),
            org: org.into(),
            decision,
            comment: None,
        });
        let seen = ReviewSeen {
            reviewer: reviewer.into(),
            org: org.into(),
            decision,
            first_seen: "2026-04-03T00:00:00Z".into(),
            counts: true,
        };
        grant.status.as_mut().unwrap().seen.push(seen);
    }

    fn verdict(&self) -> Verdict {
        let project = facts::project(&self.project, &self.labels, &self.of_project);
        let dataset = facts::dataset(&self.dataset, &self.of_dataset);
        let policies: Vec<PolicyFacts> = self.policies.iter().filter_map(facts::policy).collect();
        let grants: Vec<GrantFacts> = self.grants.iter().filter_map(facts::grant).collect();
        let wish = &self.project.spec.datasets[0];
        let reference = Ref::from("jichi/ct-mr");
        let case = Case {
            project: &project,
            dataset: Some(&dataset),
            reference: &reference,
            version: wish.version,
            actions: &wish.actions,
            policies: &policies,
            grants: &grants,
        };
        judge(case, self.at, &tokyo())
    }

    fn codes(&self) -> Vec<Code> {
        let mut codes: Vec<Code> = self.verdict().reasons.iter().map(|reason| reason.code).collect();
        codes.dedup();
        codes
    }
}

fn tokyo() -> TimeZone {
    TimeZone::get("Asia/Tokyo").unwrap()
}

/// The story with one thing changed: the codes of the verdict. The control is the story itself.
fn with(change: impl FnOnce(&mut Story)) -> Vec<Code> {
    let mut story = Story::good();
    change(&mut story);
    story.codes()
}

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
fn a_version_that_was_asked_for_by_number_and_withdrawn_is_denied() {
    let codes = with(|story| {
        story.project.spec.datasets[0].version = Some(1);
        story.dataset.spec.withdrawn = serde_json::from_value(json!([{"version": "1", "by": "jichi", "reason": "asked"}])).unwrap();
    });
    assert_eq!(codes, [Code::Withdrawn, Code::NotMountable]);
}

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

fn egress(story: &mut Story, cidr: &str) -> EgressEntry {
    let entry = EgressEntry {
        cidr: cidr.into(),
        ports: vec![443],
        why: "updates".into(),
    };
    story.project.spec.network.egress.push(entry.clone());
    entry
}

#[test]
fn a_policy_that_lets_nothing_leave_and_a_listed_address_exclude_each_other() {
    let mut story = Story::good();
    let entry = egress(&mut story, "192.0.2.1/32");
    story
        .of_project
        .push(attest(SubjectKind::IsolatedProject, "p-1", Claim::Egress, &entry, OFFICE));
    assert_eq!(story.codes(), [Code::ReviewPending, Code::EgressForbidden]);
    let project = facts::project(&story.project, &story.labels, &story.of_project);
    let dataset = Ref::from("jichi/ct-mr");
    let voice = |approved| Voice {
        dataset: &dataset,
        policies: vec![&story.policies[0].spec],
        approved,
    };
    let opened = openings(&project, &[voice(std::slice::from_ref(&entry))], story.at, &tokyo());
    assert!(opened[0].closed.as_ref().unwrap().contains("EgressForbidden"));
    assert_eq!(
        openings(&project, &[], story.at, &tokyo())[0].closed,
        None,
        "the control: without the dataset it is open"
    );
}

#[test]
fn an_address_opens_once_it_is_listed_attested_and_where_covered_approved() {
    let mut story = Story::good();
    let entry = egress(&mut story, "192.0.2.1/32");
    let mut policy = story.policies[0].spec.clone();
    policy.egress.network = dejima_crds::usage_policy::NetworkEgress::Attested;
    let dataset = Ref::from("jichi/ct-mr");
    let closed = |story: &Story, policy: &dejima_crds::UsagePolicySpec, approved: &[EgressEntry]| {
        let project = facts::project(&story.project, &story.labels, &story.of_project);
        openings(
            &project,
            &[Voice {
                dataset: &dataset,
                policies: vec![policy],
                approved,
            }],
            story.at,
            &tokyo(),
        )[0]
        .closed
        .clone()
    };
    let approved = [entry.clone()];
    assert!(closed(&story, &policy, &approved).unwrap().contains("Unattested"));
    story
        .of_project
        .push(attest(SubjectKind::IsolatedProject, "p-1", Claim::Egress, &entry, OFFICE));
    assert_eq!(closed(&story, &policy, &approved), None);
    assert!(
        closed(&story, &policy, &[]).unwrap().contains("ReviewPending"),
        "covered by default"
    );
    policy
        .review
        .covers
        .retain(|covered| *covered != dejima_crds::usage_policy::Covered::Egress);
    assert_eq!(closed(&story, &policy, &[]), None, "a policy that leaves it out of covers");
    story.project.spec.network.egress[0].ports = vec![443, 80];
    assert!(
        closed(&story, &policy, &approved).unwrap().contains("Unattested"),
        "the attested entry was edited"
    );
}

#[test]
fn the_conditions_of_a_dataset_follow_its_approvals_in_order() {
    let story = Story::good();
    let said = |story: &Story| {
        let dataset = facts::dataset(&story.dataset, &story.of_dataset);
        let all = standing(&dataset, story.at, &tokyo());
        let last = all.last().unwrap();
        (format!("{:?}", last.status), last.reason, last.message.clone())
    };
    assert_eq!(said(&story).1, "Mountable");
    let mut late = story.clone();
    late.dataset.spec.approvals[0].approved_on = "2025-03".into();
    let (status, reason, message) = said(&late);
    assert_eq!((status.as_str(), reason), ("False", "OutOfOrder"), "{message}");
    let mut unsigned = story;
    unsigned.of_dataset.truncate(1);
    assert_eq!(said(&unsigned).1, "Unattested");
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
