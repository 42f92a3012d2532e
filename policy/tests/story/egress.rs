//! What may leave.

use dejima_crds::attestation::{Claim, SubjectKind};
use dejima_crds::bounded::Ref;
use dejima_crds::project::EgressEntry;
use dejima_crds::reason::Code;
use dejima_policy::egress::Voice;
use dejima_policy::facts;
use dejima_policy::openings;

use crate::world::{OFFICE, Story, attest, tokyo};

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
    let project = facts::project(&story.project, story.labels(), &story.of_project);
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
        let project = facts::project(&story.project, story.labels(), &story.of_project);
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
