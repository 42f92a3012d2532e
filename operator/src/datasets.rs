//! Datasets: how far each has come, and the orders to seal.

use std::collections::BTreeMap;

use dejima_crds::act::{Act, Kind, Outcome, Phase};
use dejima_crds::condition::{ConditionDraft, ConditionKind, Truth, date, get, set};
use dejima_crds::dataset::Latest;
use dejima_crds::names::{self, PlanKind};
use dejima_crds::{Dataset, DatasetStatus, Host, HostPlan, receipt};
use dejima_plan::dataset::{Inputs, Next, Step, next};
use dejima_plan::effect::{Effect, through};
use dejima_plan::problems;
use dejima_policy::{facts, standing};
use jiff::Timestamp;
use kube::{Api, Resource as _, ResourceExt as _};

use crate::apply::finalize;
use crate::opened::open;
use crate::pass::{Error, Pass};
use crate::{Context, apply, events, projects, receipts};

/// The attestations of a namespace.
pub fn attestations(pass: &Pass<'_>, namespace: Option<&str>) -> Vec<dejima_crds::Attestation> {
    let all = pass.watched.attestations.state();
    all.iter()
        .filter(|attestation| attestation.namespace().as_deref() == namespace)
        .map(|attestation| attestation.as_ref().clone())
        .collect()
}

/// One pass over all datasets.
pub async fn pass(context: &Context, pass: &mut Pass<'_>) {
    for dataset in pass.watched.datasets.state() {
        if pass.watched.fresh(dataset.as_ref())
            && let Err(error) = one(context, pass, &dataset).await
        {
            pass.note(
                &format!("dataset {}/{}", dataset.namespace().unwrap_or_default(), dataset.name_any()),
                error,
            );
        }
    }
}

async fn one(context: &Context, pass: &mut Pass<'_>, dataset: &Dataset) -> Result<(), Error> {
    let name = names::plan_name(PlanKind::Intake, &dataset.uid().unwrap_or_default().as_str().into());
    let all = pass.watched.plans.state();
    let plans: Vec<&HostPlan> = all.iter().filter(|plan| plan.name_any() == name).map(AsRef::as_ref).collect();
    let hosts = pass.watched.hosts.state();
    let awaited = |host: &std::sync::Arc<Host>| {
        pass.watched
            .awaited(&pass.watched.plans, names::host_namespace(&host.name_any()).as_str(), &name)
    };
    if plans.iter().any(|plan| !pass.watched.fresh(*plan)) || hosts.iter().any(awaited) {
        return Ok(());
    }
    let hosts: Vec<&Host> = hosts.iter().map(AsRef::as_ref).collect();
    let deleted = dataset.metadata.deletion_timestamp.as_ref();
    let Next {
        steps,
        sealed,
        problem,
        end,
        again,
    } = next(&Inputs {
        dataset,
        hosts: &hosts,
        plans: &plans,
        held_until: deleted.map(|at| context.site.held_until(at.0)),
        horizon: &context.site.key_backup_horizon,
        now: pass.now,
    });
    pass.look_again(again);
    let mut status = dataset.status.clone().unwrap_or_default();
    if let Some((version, shards)) = sealed {
        status.shards.retain(|known| !shards.iter().any(|shard| shard.id == known.id));
        status.shards.extend(shards);
        status.versions.push(version);
    }
    if let Some(end) = end {
        set(&mut status.conditions, end, pass.now);
    }
    let mut current = dataset.clone();
    for step in steps {
        if let Step::Receipt(receipt) = &step {
            status.receipt = Some(receipt.id.as_str().into());
        }
        if matches!(step, Step::Forget { .. } | Step::Unfinalize) && deleted.is_some() {
            // What was done is said before the object may go, and before the plan goes that it was read from.
            current = say(context, pass, current, &status, problem.as_ref()).await?;
        }
        let destroys = matches!(step, Step::DestroyKeys { .. });
        let gone = step == Step::Unfinalize;
        current = match carry_out(context, pass, current.clone(), &plans, step).await {
            Ok(current) => current,
            Err(error) => return Err(Box::pin(stuck(context, pass, current, error)).await),
        };
        if gone {
            return Ok(());
        }
        if destroys {
            // The receipt says when: not before it was so.
            date(&mut status.conditions, ConditionKind::Destroyed, Timestamp::now());
        }
    }
    say(context, pass, current, &status, problem.as_ref()).await.map(drop)
}

/// A step failed: who is waited for is said, and nothing that is not so. The failure, for the pass.
async fn stuck(context: &Context, pass: &mut Pass<'_>, dataset: Dataset, error: Error) -> Error {
    let Some(wait) = error.wait() else { return error };
    let mut status = dataset.status.clone().unwrap_or_default();
    let mut problem = None;
    if dataset.metadata.deletion_timestamp.is_some() {
        // Whether its keys are destroyed, and since when, stays as it was written down.
        let known = get(&status.conditions, ConditionKind::Destroyed);
        let end = ConditionDraft {
            kind: ConditionKind::Destroyed,
            status: known.map_or(Truth::False, |known| known.status),
            reason: known.map_or_else(|| wait.reason.to_owned(), |known| known.reason.to_string()),
            message: wait.message,
            observed_generation: dataset.metadata.generation.unwrap_or(0),
        };
        set(&mut status.conditions, end, pass.now);
    } else if !status.versions.iter().any(|version| version.version >= dataset.spec.revision) {
        problem = Some((wait.reason, wait.message));
    }
    if let Err(other) = say(context, pass, dataset, &status, problem.as_ref()).await {
        pass.note("whom a dataset waits for", other);
    }
    error
}

fn act(dataset: &Dataset, phase: Phase) -> Act {
    let (namespace, name) = (dataset.namespace().unwrap_or_default(), dataset.name_any());
    let receipt = dataset.status.as_ref().and_then(|status| status.receipt.as_ref());
    let ended = phase == Phase::Ended;
    Act {
        activity: format!("destroy/{}", dataset.uid().unwrap_or_default()),
        phase,
        kind: Kind::Destroy,
        project: None,
        host: None,
        used: vec![format!("dataset/{namespace}/{name}")],
        generated: receipt
            .filter(|_| ended)
            .map(|id| receipt::entity(&id.as_str().into()))
            .into_iter()
            .collect(),
        outcome: ended.then_some(Outcome::Done),
        facts: BTreeMap::new(),
    }
}

/// Carries one step out; the dataset as it is after it.
async fn carry_out(context: &Context, pass: &mut Pass<'_>, dataset: Dataset, plans: &[&HostPlan], step: Step) -> Result<Dataset, Error> {
    let uid = dataset.uid().unwrap_or_default();
    match step {
        Step::Finalize => return finalize(context, pass, &dataset, true).await,
        Step::Unfinalize => {
            if dataset.status.as_ref().is_some_and(|status| status.receipt.is_some()) {
                projects::record(context, &act(&dataset, Phase::Ended)).await?;
            }
            pass.issued.remove(names::receipt_id(&uid.as_str().into()).as_str());
            return finalize(context, pass, &dataset, false).await;
        }
        Step::OpenKeys { host, keys } => {
            if !pass.has_opened(&host, &uid, &keys) {
                apply::confirm(context, &dataset).await?;
            }
            open(context, pass, &host, &uid, Some(keys.clone()), &keys).await?;
        }
        Step::CloseKeys { host } => open(context, pass, &host, &uid, None, &[]).await?,
        Step::DestroyKeys { keys } => {
            // Taking access away never waits for the ledger: what could not be recorded is recorded with the next try.
            let begun = projects::record(context, &act(&dataset, Phase::Begun)).await;
            for key in keys {
                let effect = Effect::new("key/shard", "destroy");
                through(context.gate.as_ref(), effect, context.keys.destroy(&key)).await?;
            }
            begun?;
        }
        Step::Receipt(receipt) => receipts::issue(context, pass, *receipt).await?,
        Step::Write { host, spec, from } => {
            let namespace = names::host_namespace(host.as_str());
            let api: Api<HostPlan> = Api::namespaced(context.client.clone(), namespace.as_str());
            let mut plan = HostPlan::new(&names::plan_name(PlanKind::Intake, &uid.as_str().into()), *spec);
            plan.metadata.namespace = Some(namespace.to_string());
            plan.meta_mut().resource_version.clone_from(&from);
            if from.is_some() {
                pass.watched.wrote(&apply::replace(context, &api, &plan).await?);
            } else {
                apply::confirm(context, &dataset).await?;
                if let Some(made) = apply::create(context, &api, &plan).await? {
                    pass.watched.wrote(&made);
                    pass.watched.made(&made);
                }
            }
        }
        Step::Forget { host } => {
            let namespace = names::host_namespace(host.as_str());
            let api: Api<HostPlan> = Api::namespaced(context.client.clone(), namespace.as_str());
            for plan in plans.iter().filter(|plan| plan.namespace().as_deref() == Some(namespace.as_str())) {
                apply::delete(context, &api, *plan).await?;
            }
        }
    }
    Ok(dataset)
}

/// Writes the status, where it changed. Nothing is judged while admission is missing, but what was sealed is kept.
async fn say(
    context: &Context,
    pass: &mut Pass<'_>,
    dataset: Dataset,
    status: &DatasetStatus,
    problem: Option<&(&'static str, String)>,
) -> Result<Dataset, Error> {
    let mut wanted = Dataset {
        status: Some(status.clone()),
        ..dataset.clone()
    };
    let observed_generation = dataset.metadata.generation.unwrap_or(0);
    let facts = facts::dataset(&wanted, &attestations(pass, dataset.namespace().as_deref()));
    let status = wanted.status.get_or_insert_default();
    set(&mut status.conditions, admitted(&dataset), pass.now);
    if pass.admission.is_empty() {
        for mut said in standing(&facts, pass.now, &context.site.time_zone()) {
            if let (ConditionKind::Ingested, Some((reason, message))) = (said.kind, problem) {
                (said.status, said.reason, said.message) = (Truth::False, *reason, message.clone());
            }
            let draft = ConditionDraft {
                kind: said.kind,
                status: said.status,
                reason: said.reason.to_owned(),
                message: said.message,
                observed_generation,
            };
            set(&mut status.conditions, draft, pass.now);
        }
    }
    let newest = dejima_policy::dataset::newest(&facts);
    status.measured_bytes = newest.map(|version| version.bytes);
    status.latest = newest.map(|version| Latest {
        version: version.version,
        files: version.files,
        bytes: version.bytes,
        short_digest: version.digest.short(12).into(),
    });
    if wanted.status == dataset.status {
        return Ok(dataset);
    }
    let api: Api<Dataset> = Api::namespaced(context.client.clone(), &dataset.namespace().unwrap_or_default());
    let written = apply::replace_status(context, &api, &wanted).await?;
    pass.watched.wrote(&written);
    let conditions = |dataset: &Dataset| dataset.status.clone().unwrap_or_default().conditions;
    events::announce(context, &dataset, &conditions(&dataset), &conditions(&wanted)).await;
    Ok(written)
}

/// Whether everything that it asks for is built: what is not is named, every field of it.
fn admitted(dataset: &Dataset) -> ConditionDraft {
    let not_built = problems::of_dataset(&dataset.spec);
    let (status, reason, message) = if not_built.is_empty() {
        (Truth::True, "Admitted", "it can be carried out as it stands".to_owned())
    } else {
        (Truth::False, "NotYetBuilt", not_built.join("; "))
    };
    ConditionDraft {
        kind: ConditionKind::Admitted,
        status,
        reason: reason.to_owned(),
        message,
        observed_generation: dataset.metadata.generation.unwrap_or(0),
    }
}
