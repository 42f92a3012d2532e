//! Datasets: how far each has come, and the orders to seal.

use dejima_crds::condition::{ConditionDraft, ConditionKind, Truth, set};
use dejima_crds::dataset::Latest;
use dejima_crds::names::{self, PlanKind};
use dejima_crds::{Dataset, DatasetStatus, Host, HostPlan};
use dejima_plan::dataset::{Next, Step, next};
use dejima_policy::{facts, standing};
use kube::{Api, Resource as _, ResourceExt as _};

use crate::opened::open;
use crate::pass::{Error, Pass};
use crate::{Context, apply, events};

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
    let Next { steps, sealed, problem } = next(dataset, &hosts, &plans, pass.now);
    let mut status = dataset.status.clone().unwrap_or_default();
    if let Some((version, shards)) = sealed {
        status.shards.retain(|known| !shards.iter().any(|shard| shard.id == known.id));
        status.shards.extend(shards);
        status.versions.push(version);
    }
    for step in steps {
        carry_out(context, pass, dataset, &plans, step).await?;
    }
    say(context, pass, dataset, status, problem).await
}

async fn carry_out(context: &Context, pass: &mut Pass<'_>, dataset: &Dataset, plans: &[&HostPlan], step: Step) -> Result<(), Error> {
    let uid = dataset.uid().unwrap_or_default();
    match step {
        Step::OpenKeys { host, keys } => open(context, pass, &host, &uid, Some(keys.clone()), &keys).await,
        Step::CloseKeys { host } => open(context, pass, &host, &uid, None, &[]).await,
        Step::Write { host, spec, from } => {
            let namespace = names::host_namespace(host.as_str());
            let api: Api<HostPlan> = Api::namespaced(context.client.clone(), namespace.as_str());
            let mut plan = HostPlan::new(&names::plan_name(PlanKind::Intake, &uid.as_str().into()), *spec);
            plan.metadata.namespace = Some(namespace.to_string());
            plan.meta_mut().resource_version.clone_from(&from);
            if from.is_some() {
                pass.watched.wrote(&apply::replace(context, &api, &plan).await?);
            } else if let Some(made) = apply::create(context, &api, &plan).await? {
                pass.watched.wrote(&made);
                pass.watched.made(&made);
            }
            Ok(())
        }
        Step::Forget { host } => {
            let namespace = names::host_namespace(host.as_str());
            let api: Api<HostPlan> = Api::namespaced(context.client.clone(), namespace.as_str());
            for plan in plans.iter().filter(|plan| plan.namespace().as_deref() == Some(namespace.as_str())) {
                apply::delete(context, &api, *plan).await?;
            }
            Ok(())
        }
    }
}

/// Writes the status, where it changed. Nothing is judged while admission is missing, but what was sealed is kept.
async fn say(
    context: &Context,
    pass: &mut Pass<'_>,
    dataset: &Dataset,
    status: DatasetStatus,
    problem: Option<(&'static str, String)>,
) -> Result<(), Error> {
    let mut wanted = Dataset {
        status: Some(status),
        ..dataset.clone()
    };
    let observed_generation = dataset.metadata.generation.unwrap_or(0);
    let facts = facts::dataset(&wanted, &attestations(pass, dataset.namespace().as_deref()));
    let status = wanted.status.get_or_insert_default();
    if pass.admission.is_empty() {
        for mut said in standing(&facts, pass.now, &context.site.time_zone()) {
            if let (ConditionKind::Ingested, Some((reason, message))) = (said.kind, &problem) {
                (said.status, said.reason, said.message) = (Truth::False, reason, message.chars().take(4000).collect());
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
        return Ok(());
    }
    let api: Api<Dataset> = Api::namespaced(context.client.clone(), &dataset.namespace().unwrap_or_default());
    pass.watched.wrote(&apply::replace_status(context, &api, &wanted).await?);
    let conditions = |dataset: &Dataset| dataset.status.clone().unwrap_or_default().conditions;
    events::announce(context, dataset, &conditions(dataset), &conditions(&wanted)).await;
    Ok(())
}
