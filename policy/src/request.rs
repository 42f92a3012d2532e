//! Requests: what a project asks for, whether a grant still covers it, and for when.

use dejima_crds::bounded::Login;
use dejima_crds::grant::{Request, Window};
use dejima_crds::project::Purpose;
use dejima_crds::usage_policy::{Action, Covered, UsagePolicySpec};
use dejima_crds::when::When;
use jiff::tz::TimeZone;

use crate::facts::{ProjectFacts, same_person};

/// What a project asks for, as it stands: in an order that does not depend on how it was written.
pub fn wish(project: &ProjectFacts, actions: &[Action]) -> Request {
    let mut request = Request {
        purpose: project.purpose.clone(),
        institution: project.institution.value.clone(),
        org_kind: project.org_kind.value,
        country: project.country.value.clone(),
        members: project.members.iter().map(|member| member.subject.clone()).collect(),
        actions: [Action::Mount, Action::Read].into_iter().chain(actions.iter().copied()).collect(),
        egress: project.egress.iter().map(|entry| entry.value.clone()).collect(),
        l2vpn: project.l2vpn.iter().map(|entry| entry.value.clone()).collect(),
    };
    for purpose in &mut request.purpose {
        purpose.mondo.sort();
        purpose.actions.sort_unstable();
        purpose.actions.dedup();
    }
    request.purpose.sort();
    request.members.sort();
    request.actions.sort_unstable();
    request.actions.dedup();
    request.egress.sort();
    request.egress.dedup();
    request
}

/// The project's period within the policy's window, as it was written.
pub fn window(project: &ProjectFacts, policy: &UsagePolicySpec, zone: &TimeZone) -> Window {
    // A time that cannot be read does not narrow anything here: the verdict denies for it.
    let later = |one: &When, other: &When| match (one.begins(zone), other.begins(zone)) {
        (Ok(one_begins), Ok(other_begins)) if other_begins > one_begins => other.clone(),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => one.clone(),
    };
    let sooner = |one: &When, other: &When| match (one.ends(zone), other.ends(zone)) {
        (Ok(one_ends), Ok(other_ends)) if other_ends < one_ends => other.clone(),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => one.clone(),
    };
    let (from, until) = (&project.period.from, &project.period.until);
    Window {
        from: policy
            .when
            .not_before
            .as_ref()
            .map_or_else(|| from.clone(), |not_before| later(from, not_before)),
        until: policy
            .when
            .not_after
            .as_ref()
            .map_or_else(|| until.clone(), |not_after| sooner(until, not_after)),
    }
}

fn within(asked: &Purpose, reviewed: &Purpose) -> bool {
    asked.duo == reviewed.duo
        && asked.mondo.iter().all(|disease| reviewed.mondo.contains(disease))
        && (reviewed.mondo.is_empty() || !asked.mondo.is_empty())
        && asked.actions.iter().all(|action| reviewed.actions.contains(action))
}

fn known(member: &Login, reviewed: &[Login]) -> bool {
    reviewed.iter().any(|other| same_person(member, other))
}

/// In what the project asks for more than what was reviewed; empty where it does not.
pub fn overtaken(asked: &Request, reviewed: &Request, covers: &[Covered]) -> Vec<&'static str> {
    let mut parts = Vec::new();
    for covered in covers {
        let kept = match covered {
            Covered::Purpose => asked
                .purpose
                .iter()
                .all(|purpose| reviewed.purpose.iter().any(|other| within(purpose, other))),
            Covered::Institution => {
                asked.institution == reviewed.institution && asked.org_kind == reviewed.org_kind && asked.country == reviewed.country
            }
            Covered::Egress => {
                asked.egress.iter().all(|entry| reviewed.egress.contains(entry))
                    && asked.l2vpn.iter().all(|entry| reviewed.l2vpn.contains(entry))
            }
            Covered::Members => asked.members.iter().all(|member| known(member, &reviewed.members)),
        };
        if !kept {
            parts.push(match covered {
                Covered::Purpose => "purpose",
                Covered::Institution => "institution",
                Covered::Egress => "egress",
                Covered::Members => "members",
            });
        }
    }
    parts
}
