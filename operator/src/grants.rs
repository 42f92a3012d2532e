//! Grants: what follows from their reviews, said in their status.

use dejima_crds::AccessGrant;
use dejima_crds::condition::{ConditionDraft, ConditionKind, Truth, set};
use dejima_crds::grant::AccessGrantStatus;
use dejima_crds::reason::Decision;
use kube::{Api, ResourceExt as _};

use crate::pass::Pass;
use crate::{Context, apply, events, projects, seen};

/// Writes what changed of each grant's status.
pub async fn pass(context: &Context, pass: &mut Pass<'_>) {
    if !pass.admission.is_empty() {
        return;
    }
    for grant in pass.watched.grants.state() {
        if !pass.watched.fresh(grant.as_ref()) {
            continue;
        }
        let mut wanted = grant.as_ref().clone();
        let status = wanted.status.get_or_insert_default();
        seen::reviews(&grant, status, pass.counts(grant.as_ref()), pass.now);
        status.project = Some(grant.spec.project.to_string().into());
        let seen = AccessGrant {
            status: Some(status.clone()),
            ..grant.as_ref().clone()
        };
        say(context, pass, &seen, status);
        if wanted.status == grant.status {
            continue;
        }
        let api: Api<AccessGrant> = Api::namespaced(context.client.clone(), &grant.namespace().unwrap_or_default());
        match apply::replace_status(context, &api, &wanted).await {
            Ok(written) => {
                pass.watched.wrote(&written);
                let conditions = |grant: &AccessGrant| grant.status.clone().unwrap_or_default().conditions;
                events::announce(context, &written, &conditions(&grant), &conditions(&wanted)).await;
            }
            Err(error) => pass.note(&format!("grant {}", grant.name_any()), error),
        }
    }
}

/// What follows for one grant: judged as the project that it is for would be.
fn say(context: &Context, pass: &Pass<'_>, grant: &AccessGrant, status: &mut AccessGrantStatus) {
    let (decision, applies, approvals, message) = match projects::judged(context, pass, grant) {
        Some(judged) => {
            let words: Vec<String> = judged
                .finding
                .reasons
                .iter()
                .map(|reason| format!("{:?}: {}", reason.code, reason.actual))
                .collect();
            (
                judged.decision,
                judged.applies,
                format!("{}/{}", judged.approvals.0, judged.approvals.1),
                words.join("; "),
            )
        }
        None => (
            Decision::NeedsReview,
            false,
            "0/0".to_owned(),
            "the project, the dataset or its policy is not there".to_owned(),
        ),
    };
    (status.decision, status.applies, status.approvals) = (Some(decision), Some(applies), Some(approvals.into()));
    let (truth, reason) = match decision {
        Decision::Permit => (Truth::True, "Granted"),
        Decision::NeedsReview => (Truth::False, "Waiting"),
        Decision::Deny => (Truth::False, "Denied"),
    };
    let observed_generation = grant.metadata.generation.unwrap_or(0);
    set(
        &mut status.conditions,
        ConditionDraft {
            kind: ConditionKind::Granted,
            status: truth,
            reason: reason.to_owned(),
            message,
            observed_generation,
        },
        pass.now,
    );
}
