//! Lines that people wrote: when each was first seen, whether it counts, and what follows for a grant.

use dejima_crds::condition::{ConditionDraft, ConditionKind, Truth, seconds, set};
use dejima_crds::grant::{AccessGrantStatus, ReviewSeen};
use dejima_crds::project::{IsolatedProjectStatus, TermsSeen};
use dejima_crds::reason::Decision;
use dejima_crds::{AccessGrant, IsolatedProject};
use jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::pass::{Error, Pass};
use crate::{Context, apply, events, projects};

/// Stamps reviews that were not seen yet; forgets those that were taken back or changed. Whether anything changed.
fn see_reviews(grant: &AccessGrant, status: &mut AccessGrantStatus, counts: bool, now: Timestamp) {
    let lines = &grant.spec.reviews;
    status.seen.retain(|seen| {
        lines
            .iter()
            .any(|line| line.reviewer == seen.reviewer && line.org == seen.org && line.decision == seen.decision)
    });
    for line in lines {
        if !status.seen.iter().any(|seen| seen.reviewer == line.reviewer) {
            status.seen.push(ReviewSeen {
                reviewer: line.reviewer.clone(),
                org: line.org.clone(),
                decision: line.decision,
                first_seen: seconds(now),
                counts,
            });
        }
    }
}

/// The same for acceptances of terms.
pub fn see_terms(project: &IsolatedProject, status: &mut IsolatedProjectStatus, counts: bool, now: Timestamp) {
    let lines = &project.spec.terms_accepted;
    status
        .seen
        .retain(|seen| lines.iter().any(|line| line.member == seen.member && line.digest == seen.digest));
    for line in lines {
        if !status
            .seen
            .iter()
            .any(|seen| seen.member == line.member && seen.digest == line.digest)
        {
            status.seen.push(TermsSeen {
                member: line.member.clone(),
                digest: line.digest.clone(),
                first_seen: seconds(now),
                counts,
            });
        }
    }
}

/// Waits for a canary that each of the policies on lines refuses, then marks everything that was not seen yet as of the gap.
pub async fn close_gap(context: &Context, pass: &mut Pass<'_>, stamp: &str) -> Result<(), Error> {
    canary(context).await?;
    let failed = |what: &'static str| {
        move |cause| Error::Api {
            what,
            name: "lines".to_owned(),
            cause: Box::new(cause),
        }
    };
    // Asked of the server, not of our copy: everything that was written before the canary was refused is in the answer.
    let grants = Api::<AccessGrant>::all(context.client.clone())
        .list(&ListParams::default())
        .await
        .map_err(failed("list"))?;
    for grant in grants {
        let mut wanted = grant.clone();
        see_reviews(&grant, wanted.status.get_or_insert_default(), false, pass.now);
        if wanted.status != grant.status && !grant.spec.reviews.is_empty() {
            let api = Api::namespaced(context.client.clone(), &grant.namespace().unwrap_or_default());
            pass.watched.wrote(&apply::replace_status(context, &api, &wanted).await?);
        }
    }
    let projects = Api::<IsolatedProject>::all(context.client.clone())
        .list(&ListParams::default())
        .await
        .map_err(failed("list"))?;
    for project in projects {
        let mut wanted = project.clone();
        see_terms(&project, wanted.status.get_or_insert_default(), false, pass.now);
        if wanted.status != project.status && !project.spec.terms_accepted.is_empty() {
            let api = Api::namespaced(context.client.clone(), &project.namespace().unwrap_or_default());
            pass.watched.wrote(&apply::replace_status(context, &api, &wanted).await?);
        }
    }
    apply::write_stamp(context, stamp).await
}

/// Objects that only their annotation makes refusable, in the platform's own namespace, as a dry run.
async fn canary(context: &Context) -> Result<(), Error> {
    let zeros = format!("sha256:{}", "0".repeat(64));
    let ror = "https://ror.org/010hz0g26";
    let request = json!({"purpose": [], "institution": ror, "orgKind": "public", "country": "JP", "members": [], "actions": []});
    let grant = json!({
        "project": {"namespace": "none", "name": "none", "uid": "none"}, "dataset": "none", "policy": {"name": "none", "digest": zeros},
        "request": request, "window": {"from": "2026-01", "until": "2026-02"},
    });
    let project = json!({
        "title": {"en": "none"}, "purpose": [{"duo": "DUO:0000042"}], "institution": ror, "orgKind": "public", "country": "JP",
        "members": [{"subject": "nobody", "role": "lead"}], "period": {"from": "2026-01", "until": "2026-02"},
        "machines": [{"name": "one", "cpu": 1, "memory": "1Gi", "image": "none"}],
    });
    let attestation = json!({"of": {"kind": "Dataset", "name": "none", "uid": "none"}, "claim": "approval", "value": {}, "by": "nobody"});
    refused::<AccessGrant>(context, "dejima-reviews", grant).await?;
    refused::<IsolatedProject>(context, "dejima-terms", project).await?;
    refused::<dejima_crds::Attestation>(context, "dejima-attestations", attestation).await
}

async fn refused<K>(context: &Context, policy: &str, spec: serde_json::Value) -> Result<(), Error>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + serde::Serialize
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let name = format!("canary-{policy}");
    let not_yet = |text: String| Error::Api {
        what: "have refused the canary of",
        name: policy.to_owned(),
        cause: Box::new(kube::Error::Service(text.into())),
    };
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "spec": spec,
        "metadata": {"name": name, "namespace": apply::SYSTEM, "annotations": {"dejima.dev/canary": ""}},
    });
    let object: K = serde_json::from_value(object).map_err(|error| not_yet(error.to_string()))?;
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match Api::<K>::namespaced(context.client.clone(), apply::SYSTEM)
        .create(&parameters, &object)
        .await
    {
        Err(kube::Error::Api(status)) if status.message.contains(policy) => Ok(()),
        Err(error) => Err(not_yet(error.to_string())),
        Ok(_) => Err(not_yet("it was not refused".to_owned())),
    }
}

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
        see_reviews(&grant, status, true, pass.now);
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
    let message: String = message.chars().take(4000).collect();
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
