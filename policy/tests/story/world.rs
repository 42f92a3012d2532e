//! Everything that a verdict rests on, as objects, and what is made of them.

use std::collections::BTreeMap;

use dejima_crds::attestation::{AttestationSpec, Claim, Subject, SubjectKind};
use dejima_crds::bounded::Ref;
use dejima_crds::grant::{AccessGrantSpec, AccessGrantStatus, PolicyPin, ReviewDecision, ReviewLine, ReviewSeen};
use dejima_crds::project::{IsolatedProjectStatus, TermsAccepted, TermsSeen};
use dejima_crds::reason::Code;
use dejima_crds::{AccessGrant, Attestation, Dataset, DatasetStatus, IsolatedProject, UsagePolicy};
use dejima_policy::facts::{self, GrantFacts, Labels, PolicyFacts};
use dejima_policy::{Case, Verdict, judge, request};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::json;

pub(crate) const OFFICE: &str = "office-1@platform.example";
pub(crate) const LEAD: &str = "lead@osaka.example";
pub(crate) const JICHI: &str = "https://ror.org/010hz0g26";
pub(crate) const ROIS: &str = "https://ror.org/04ksd4g47";

/// Everything that the verdict rests on, as objects.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) project: IsolatedProject,
    pub(crate) dataset: Dataset,
    pub(crate) policies: Vec<UsagePolicy>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) labels_count: bool,
    pub(crate) of_project: Vec<Attestation>,
    pub(crate) of_dataset: Vec<Attestation>,
    pub(crate) grants: Vec<AccessGrant>,
    pub(crate) at: Timestamp,
}

pub(crate) fn example<T: serde::de::DeserializeOwned>(name: &str, uid: &str) -> T {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let path = format!("{here}/../examples/{name}");
    let mut value: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    value["metadata"]["uid"] = uid.into();
    serde_json::from_value(value).unwrap()
}

pub(crate) fn attest<T: serde::Serialize>(kind: SubjectKind, uid: &str, claim: Claim, value: &T, by: &str) -> Attestation {
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
    let mut attestation = Attestation::new("a", spec);
    attestation.status = serde_json::from_value(json!({"seen": {"firstSeen": "2026-04-02T00:00:00Z", "counts": true}})).unwrap();
    attestation
}

impl Story {
    /// Everything in order: `permit`.
    pub(crate) fn good() -> Self {
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
            labels_count: true,
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

    pub(crate) fn labels(&self) -> Labels<'_> {
        if self.labels_count {
            Labels::Count(&self.labels)
        } else {
            Labels::InGap
        }
    }

    /// A request as the operator makes it from the wish.
    pub(crate) fn ask(&self, name: &str, created: &str) -> AccessGrant {
        let project = facts::project(&self.project, self.labels(), &self.of_project);
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

    pub(crate) fn review(&mut self, grant: usize, reviewer: &str, org: &str, decision: ReviewDecision) {
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

    pub(crate) fn verdict(&self) -> Verdict {
        let project = facts::project(&self.project, self.labels(), &self.of_project);
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

    pub(crate) fn codes(&self) -> Vec<Code> {
        let mut codes: Vec<Code> = self.verdict().reasons.iter().map(|reason| reason.code).collect();
        codes.dedup();
        codes
    }
}

pub(crate) fn tokyo() -> TimeZone {
    TimeZone::get("Asia/Tokyo").unwrap()
}

/// The story with one thing changed: the codes of the verdict. The control is the story itself.
pub(crate) fn with(change: impl FnOnce(&mut Story)) -> Vec<Code> {
    let mut story = Story::good();
    change(&mut story);
    story.codes()
}
