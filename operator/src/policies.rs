//! Usage policies: whether everything that one asks for is evaluated, and that none goes which something still names.

use dejima_crds::UsagePolicy;
use dejima_crds::condition::{Condition, ConditionDraft, ConditionKind, Truth, set};
use dejima_crds::names::FINALIZER;
use dejima_policy::unbuilt;
use kube::{Api, ResourceExt as _};

use crate::pass::{Error, Pass};
use crate::{Context, apply, events};

/// One pass over all policies.
pub async fn pass(context: &Context, pass: &mut Pass<'_>) {
    for policy in pass.watched.policies.state() {
        if pass.watched.fresh(policy.as_ref())
            && let Err(error) = one(context, pass, &policy).await
        {
            pass.note(
                &format!("policy {}/{}", policy.namespace().unwrap_or_default(), policy.name_any()),
                error,
            );
        }
    }
}

async fn one(context: &Context, pass: &mut Pass<'_>, policy: &UsagePolicy) -> Result<(), Error> {
    let finalized = policy.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let named = named(pass, policy);
    let deleted = policy.metadata.deletion_timestamp.is_some();
    if deleted && named.is_empty() {
        if finalized {
            apply::finalize(context, pass, policy, false).await?;
        }
        return Ok(());
    }
    let mut current = policy.clone();
    if !deleted && !finalized {
        current = apply::finalize(context, pass, &current, true).await?;
    }
    let before = current.status.clone().unwrap_or_default();
    let mut status = before.clone();
    set(&mut status.conditions, admitted(&current), pass.now);
    if deleted {
        set(&mut status.conditions, held(&current, &named), pass.now);
    }
    if status == before {
        return Ok(());
    }
    let wanted = UsagePolicy {
        status: Some(status),
        ..current
    };
    let api = Api::namespaced(context.client.clone(), &wanted.namespace().unwrap_or_default());
    pass.watched.wrote(&apply::replace_status(context, &api, &wanted).await?);
    let after: &[Condition] = wanted.status.as_ref().map_or(&[], |status| &status.conditions);
    events::announce(context, &wanted, &before.conditions, after).await;
    Ok(())
}

/// What still names a policy: datasets that are under it, grants that pin it, in whatever state. In the order of their names.
fn named(pass: &Pass<'_>, policy: &UsagePolicy) -> Vec<String> {
    let (namespace, name) = (policy.namespace(), policy.name_any());
    let datasets = pass.watched.datasets.state();
    let grants = pass.watched.grants.state();
    let datasets = datasets
        .iter()
        .filter(|dataset| dataset.namespace() == namespace && dataset.spec.policy_ref == *name)
        .map(|dataset| format!("dataset {}", dataset.name_any()));
    let grants = grants
        .iter()
        .filter(|grant| grant.namespace() == namespace && grant.spec.policy.name == *name)
        .map(|grant| format!("grant {}", grant.name_any()));
    let mut all: Vec<String> = datasets.chain(grants).collect();
    all.sort();
    all
}

/// Whether every clause is evaluated: each that is not denies, and is named.
fn admitted(policy: &UsagePolicy) -> ConditionDraft {
    let not_built = unbuilt::clauses(&policy.spec);
    let (status, reason, message) = if not_built.is_empty() {
        (Truth::True, "Admitted", "every clause is evaluated".to_owned())
    } else {
        let message = format!("not evaluated yet, hence nothing is permitted under it: {}", not_built.join(", "));
        (Truth::False, "NotYetBuilt", message)
    };
    draft(policy, ConditionKind::Admitted, status, reason, &message)
}

fn held(policy: &UsagePolicy, named: &[String]) -> ConditionDraft {
    let message = format!(
        "it was deleted and goes once nothing names it any more: {}. Move a dataset's policyRef to another policy; a grant goes with its namespace",
        named.join(", ")
    );
    draft(policy, ConditionKind::Terminating, Truth::True, "Pinned", &message)
}

fn draft(policy: &UsagePolicy, kind: ConditionKind, status: Truth, reason: &str, message: &str) -> ConditionDraft {
    ConditionDraft {
        kind,
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: policy.metadata.generation.unwrap_or(0),
    }
}
