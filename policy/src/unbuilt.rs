//! Clauses that are present and that nobody evaluates yet: each is a `deny` that names it. A clause at its default counts as absent.

use dejima_crds::bounded::Ref;
use dejima_crds::reason::{Code, Reason};
use dejima_crds::usage_policy::{Combination, DuoTerm, Egress, LinkWith, Revocation, UsagePolicySpec};

use crate::clauses::PERMISSIONS;
use crate::remedy::reason;

/// Names every clause that is present and not evaluated.
pub fn clauses(spec: &UsagePolicySpec) -> Vec<String> {
    // Destructured without `..`: a new field does not compile until somebody says whether it is evaluated.
    let UsagePolicySpec {
        title: _,
        permits,
        who,
        place,
        when,
        prerequisites: _,
        review: _,
        obligations: _,
        combination,
        derivatives: _,
        egress,
        revocation,
    } = spec;
    let mut names = Vec::new();
    let mut note = |present: bool, name: &str| {
        if present {
            names.push(name.to_owned());
        }
    };
    for DuoTerm {
        id,
        mondo,
        regions,
        orgs,
        projects,
        months,
        until,
    } in &permits.duo
    {
        let bare = mondo.is_empty() && regions.is_empty() && orgs.is_empty() && projects.is_empty() && months.is_none() && until.is_none();
        note(!PERMISSIONS.contains(&id.as_str()), &format!("permits.duo[{id}]"));
        note(
            PERMISSIONS.contains(&id.as_str()) && !bare,
            &format!("permits.duo[{id}] with conditions of its own"),
        );
    }
    note(!who.roles.is_empty(), "who.roles");
    note(!who.training.is_empty(), "who.training");
    note(!place.sites.is_empty(), "where.sites");
    note(when.max_duration.is_some(), "when.maxDuration");
    note(when.embargo_until.is_some(), "when.embargoUntil");
    note(when.renewal.is_some(), "when.renewal");
    let Combination {
        link_with,
        link_list,
        forbid_with,
        no_reidentification: _,
    } = combination;
    note(*link_with != LinkWith::Any || !link_list.is_empty(), "combination.linkWith");
    note(!forbid_with.is_empty(), "combination.forbidWith");
    let Egress {
        network: _,
        min_cell: _,
        dominance: _,
        blocked_types,
        max_bytes,
        quorum,
    } = egress;
    note(!blocked_types.is_empty(), "egress.blockedTypes");
    note(max_bytes.is_some(), "egress.maxBytes");
    note(quorum.is_some(), "egress.quorum");
    note(*revocation != Revocation::default(), "revocation");
    names
}

/// One reason for each such clause.
pub fn reasons(dataset: &Ref, spec: &UsagePolicySpec) -> Vec<Reason> {
    let all = clauses(spec).into_iter();
    all.map(|name| {
        reason(
            Code::Unintelligible,
            dataset,
            &name,
            "a clause that the platform evaluates",
            "a clause that it does not evaluate yet",
        )
    })
    .collect()
}
