//! Projects: gathers what the pure plan needs, carries its steps out in their order, then says what is true.

use std::collections::BTreeMap;

use dejima_crds::act::{Act, Kind, Outcome, Phase};
use dejima_crds::bounded::{KeyName, Label, ObjectName, Ref};
use dejima_crds::condition::{ConditionKind, date, holds};
use dejima_crds::dataset::reference;
use dejima_crds::names::{self, PlanKind};
use dejima_crds::project::DatasetWish;
use dejima_crds::reason::Decision;
use dejima_crds::receipt;
use dejima_crds::usage_policy::Action;
use dejima_crds::{AccessGrant, Host, HostPlan, IsolatedProject};
use dejima_plan::effect::{Effect, through};
use dejima_plan::placement::{Candidate, Hold};
use dejima_plan::project::{Inputs, Next, Step, Wish, next, taken_away, waits};
use dejima_policy::egress::Voice;
use dejima_policy::facts::Labels;
use dejima_policy::grants::Judged;
use dejima_policy::{Case, DatasetFacts, GrantFacts, PolicyFacts, ProjectFacts, facts, judge, openings};
use jiff::Timestamp;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use crate::opened::open;
use crate::pass::{Error, Pass};
use crate::{Context, apply, datasets, events, hosts, receipts, seen};

/// One pass over all projects.
pub async fn pass(context: &Context, pass: &mut Pass<'_>) {
    let mut projects = pass.watched.projects.state();
    // The eldest first: who waited longest for a host gets it.
    projects.sort_by_key(|project| {
        (
            project.creation_timestamp().map(|time| time.0),
            project.namespace(),
            project.name_any(),
        )
    });
    for project in projects {
        if pass.watched.fresh(project.as_ref())
            && let Err(error) = one(context, pass, &project).await
        {
            pass.note(
                &format!("project {}/{}", project.namespace().unwrap_or_default(), project.name_any()),
                error,
            );
        }
    }
}

fn project_facts(pass: &Pass<'_>, project: &IsolatedProject) -> ProjectFacts {
    let namespace = project.namespace().unwrap_or_default();
    let all = pass.watched.namespaces.state();
    let none = BTreeMap::new();
    let space = all.iter().find(|found| found.name_any() == namespace);
    let labels = space.map_or(Labels::Count(&none), |space| pass.memory.labels(space));
    facts::project(project, labels, &datasets::attestations(pass, Some(&namespace)))
}

/// The labels that say whether a project's namespace may hold a host: without those of ours that count for nothing.
fn labels(pass: &Pass<'_>, namespace: &str) -> BTreeMap<String, String> {
    let all = pass.watched.namespaces.state();
    let Some(space) = all.iter().find(|found| found.name_any() == namespace) else {
        return BTreeMap::new();
    };
    let mut labels = space.labels().clone();
    if matches!(pass.memory.labels(space), Labels::InGap) {
        labels.retain(|key, _| !key.starts_with("dejima.dev/"));
    }
    labels
}

/// What bears on one dataset for one project.
struct Bearing {
    dataset: Option<DatasetFacts>,
    policies: Vec<PolicyFacts>,
    grants: Vec<AccessGrant>,
    counted: Vec<GrantFacts>,
}

fn bearing(pass: &Pass<'_>, project: &ProjectFacts, namespace: &Label, name: &ObjectName) -> Bearing {
    let here = |other: Option<String>| other.as_deref() == Some(namespace.as_str());
    let dataset = pass
        .watched
        .datasets
        .state()
        .into_iter()
        .find(|dataset| here(dataset.namespace()) && dataset.name_any() == name.as_str());
    let policies = pass.watched.policies.state();
    let mut grants: Vec<AccessGrant> = pass
        .watched
        .grants
        .state()
        .iter()
        .filter(|grant| here(grant.namespace()) && grant.spec.dataset == *name && grant.spec.project.uid == project.of.uid)
        .map(|grant| grant.as_ref().clone())
        .collect();
    grants.sort_by_key(|grant| (grant.creation_timestamp().map(|time| time.0), grant.name_any()));
    Bearing {
        dataset: dataset.map(|dataset| facts::dataset(&dataset, &datasets::attestations(pass, Some(namespace.as_str())))),
        policies: policies
            .iter()
            .filter(|policy| here(policy.namespace()))
            .filter_map(|policy| facts::policy(policy))
            .collect(),
        counted: grants.iter().filter_map(facts::grant).collect(),
        grants,
    }
}

/// One grant, as its project's verdict has it.
pub fn judged(context: &Context, pass: &Pass<'_>, grant: &AccessGrant) -> Option<Judged> {
    let projects = pass.watched.projects.state();
    let project = projects
        .iter()
        .find(|project| project.uid().as_deref() == Some(grant.spec.project.uid.as_str()))?;
    let facts = project_facts(pass, project);
    let namespace = Label::from(grant.namespace()?);
    let mut bearing = bearing(pass, &facts, &namespace, &grant.spec.dataset);
    bearing.counted.retain(|known| known.name != grant.name_any().as_str());
    bearing.counted.extend(facts::grant(grant));
    let wished = project
        .spec
        .datasets
        .iter()
        .find(|wish| wish.namespace == namespace && wish.name == grant.spec.dataset);
    let actions: Vec<Action> = wished.map_or_else(|| grant.spec.request.actions.clone(), |wish| wish.actions.clone());
    let name = reference(&namespace, &grant.spec.dataset);
    let case = Case {
        project: &facts,
        dataset: bearing.dataset.as_ref(),
        reference: &name,
        version: None,
        actions: &actions,
        policies: &bearing.policies,
        grants: &bearing.counted,
    };
    let verdict = judge(case, pass.now, &context.site.time_zone());
    verdict.grants.into_iter().find(|judged| judged.name == grant.name_any().as_str())
}

/// Reads everything, thinks, carries out, says.
async fn one(context: &Context, pass: &mut Pass<'_>, project: &IsolatedProject) -> Result<(), Error> {
    let zone = context.site.time_zone();
    let facts = project_facts(pass, project);
    let namespace = project.namespace().unwrap_or_default();
    let plan_name = names::plan_name(PlanKind::Project, &facts.of.uid);
    let plans: Vec<HostPlan> = pass
        .watched
        .plans
        .state()
        .iter()
        .filter(|plan| plan.name_any() == plan_name)
        .map(|plan| plan.as_ref().clone())
        .collect();
    if plans.iter().any(|plan| !pass.watched.fresh(plan)) {
        return Ok(());
    }
    let said = project.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let ends = project.metadata.deletion_timestamp.is_some() || holds(said, ConditionKind::Terminating);
    if ends && !pass.watched.knows_hosts() {
        return Ok(());
    }
    let all_hosts = pass.watched.hosts.state();
    let alive: Vec<bool> = all_hosts
        .iter()
        .map(|host| hosts::alive_until(context, pass, &host.name_any()).is_some_and(|until| pass.now < until))
        .collect();
    if all_hosts.iter().any(|host| !pass.watched.fresh(host.as_ref())) {
        return Ok(());
    }
    for host in &all_hosts {
        // A plan that we made and have not seen yet would be made again.
        if pass
            .watched
            .awaited(&pass.watched.plans, names::host_namespace(&host.name_any()).as_str(), &plan_name)
        {
            return Ok(());
        }
    }
    let candidates: Vec<Candidate<'_>> = all_hosts
        .iter()
        .zip(alive)
        .map(|(host, alive)| Candidate {
            host: host.as_ref(),
            alive,
        })
        .collect();
    let images: Vec<_> = pass.watched.images.state().iter().map(|image| image.as_ref().clone()).collect();

    let bearings: Vec<(&DatasetWish, Bearing, Ref)> = project
        .spec
        .datasets
        .iter()
        .map(|wish| {
            (
                wish,
                bearing(pass, &facts, &wish.namespace, &wish.name),
                reference(&wish.namespace, &wish.name),
            )
        })
        .collect();
    let wishes: Vec<Wish<'_>> = bearings
        .iter()
        .map(|(wish, bearing, name)| {
            let dataset = bearing.dataset.as_ref();
            let case = Case {
                project: &facts,
                dataset,
                reference: name,
                version: wish.version,
                actions: &wish.actions,
                policies: &bearing.policies,
                grants: &bearing.counted,
            };
            let verdict = judge(case, pass.now, &zone);
            let policy = dataset.and_then(|dataset| bearing.policies.iter().find(|policy| policy.name == dataset.policy));
            Wish {
                wish,
                dataset,
                policy,
                verdict,
                grants: bearing.grants.iter().collect(),
            }
        })
        .collect();

    let exposed: Vec<(Ref, Bearing)> = facts
        .exposed
        .iter()
        .filter(|exposure| !bearings.iter().any(|(_, _, name)| *name == exposure.dataset))
        .filter_map(|exposure| {
            let (namespace, name) = exposure.dataset.as_str().split_once('/')?;
            Some((exposure.dataset.clone(), bearing(pass, &facts, &namespace.into(), &name.into())))
        })
        .collect();
    let everything = bearings
        .iter()
        .map(|(_, bearing, name)| (name, bearing))
        .chain(exposed.iter().map(|(name, bearing)| (name, bearing)));
    let approved: Vec<(&Ref, &Bearing, Vec<dejima_crds::project::EgressEntry>)> = everything
        .map(|(name, bearing)| (name, bearing, approved_egress(bearing, &wishes, name)))
        .collect();
    let voices: Vec<Voice<'_>> = approved
        .iter()
        .map(|(name, bearing, approved)| {
            let under = |policy: &&PolicyFacts| {
                bearing.dataset.as_ref().is_some_and(|dataset| dataset.policy == policy.name)
                    || facts
                        .exposed
                        .iter()
                        .any(|exposure| exposure.dataset == **name && exposure.policy_digest == policy.digest)
            };
            Voice {
                dataset: name,
                policies: bearing.policies.iter().filter(under).map(|policy| &policy.spec).collect(),
                approved,
            }
        })
        .collect();
    let openings = openings(&facts, &voices, pass.now, &zone);

    let inputs = Inputs {
        project,
        facts: &facts,
        namespace: &labels(pass, &namespace),
        candidates: &candidates,
        images: &images,
        plans: &plans,
        wishes: &wishes,
        openings: &openings,
        admission: &pass.admission.clone(),
        horizon: &context.site.key_backup_horizon,
        retention: &context.site.retention,
        now: pass.now,
        zone: &zone,
    };
    let Next { steps, mut status, again } = next(&inputs);
    pass.look_again(again);
    if pass.admission.is_empty() {
        seen::terms(project, &mut status, pass.counts(project), pass.now);
    }
    let mut current = project.clone();
    let mut gone = false;
    for step in steps {
        gone |= matches!(step, Step::Forget { .. } | Step::Unfinalize);
        if gone {
            // What was done is said before the object may go, and before the plans go that it was read from.
            current = say(context, pass, current, &status).await?;
        }
        let destroys = matches!(step, Step::DestroyKey { .. });
        current = match carry_out(context, pass, current.clone(), &plans, step.clone()).await {
            Ok(current) => current,
            Err(error) => return Err(Box::pin(stuck(context, pass, &inputs, current, &status, &step, error)).await),
        };
        if destroys {
            // The receipt says when: not before it was so.
            date(&mut status.conditions, ConditionKind::KeysReady, Timestamp::now());
        }
    }
    if !gone {
        say(context, pass, current, &status).await?;
    }
    Ok(())
}

/// A step failed: what must be taken away is, and who is waited for is said. The failure, for the pass.
async fn stuck(
    context: &Context,
    pass: &mut Pass<'_>,
    inputs: &Inputs<'_>,
    current: IsolatedProject,
    planned: &dejima_crds::IsolatedProjectStatus,
    step: &Step,
    error: Error,
) -> Error {
    let mut current = current;
    for less in taken_away(inputs, step) {
        match carry_out(context, pass, current.clone(), inputs.plans, less).await {
            Ok(after) => current = after,
            Err(other) => pass.note("what may be had no longer", other),
        }
    }
    let said = match (error.wait(), step) {
        (None, _) => return error,
        // What a provider's namespace says to a request is not for the project's eyes.
        (Some(_), Step::Request { .. } | Step::DropRequest { .. }) => planned.clone(),
        (Some(wait), _) => waits(inputs, planned, step, &wait),
    };
    if let Err(other) = say(context, pass, current, &said).await {
        pass.note("whom a project waits for", other);
    }
    error
}

/// The egress that the request names on which the permission of a dataset rests, or would rest.
fn approved_egress(bearing: &Bearing, wishes: &[Wish<'_>], name: &Ref) -> Vec<dejima_crds::project::EgressEntry> {
    let of_wish = wishes.iter().find(|wish| reference(&wish.wish.namespace, &wish.wish.name) == *name);
    let chosen = of_wish.and_then(|wish| {
        wish.verdict
            .grants
            .iter()
            .rev()
            .find(|judged| judged.applies && judged.decision == Decision::Permit)
    });
    let grant = match (of_wish, chosen) {
        (Some(_), Some(judged)) => bearing.counted.iter().find(|grant| grant.name == judged.name),
        (Some(_), None) => None,
        // Exposed and no longer wished: what was approved for it last.
        (None, _) => bearing
            .counted
            .iter()
            .rev()
            .find(|grant| grant.revoked.is_none() && !grant.reviews.is_empty()),
    };
    grant.map(|grant| grant.request.egress.clone()).unwrap_or_default()
}

/// Writes the status, where it changed.
async fn say(
    context: &Context,
    pass: &mut Pass<'_>,
    project: IsolatedProject,
    status: &dejima_crds::IsolatedProjectStatus,
) -> Result<IsolatedProject, Error> {
    if project.status.as_ref() == Some(status) {
        return Ok(project);
    }
    let api: Api<IsolatedProject> = Api::namespaced(context.client.clone(), &project.namespace().unwrap_or_default());
    let before = project.status.clone().unwrap_or_default().conditions;
    let wanted = IsolatedProject {
        status: Some(status.clone()),
        ..project
    };
    let written = apply::replace_status(context, &api, &wanted).await?;
    pass.watched.wrote(&written);
    events::announce(context, &written, &before, &status.conditions).await;
    Ok(written)
}

fn act(project: &IsolatedProject, kind: Kind, phase: Phase, host: Option<&ObjectName>) -> Act {
    let of = facts::project_ref(project);
    Act {
        activity: format!("{kind:?}/{}", of.uid).to_lowercase(),
        phase,
        kind,
        used: vec![format!("project/{of}@{}", project.metadata.generation.unwrap_or(0))],
        generated: Vec::new(),
        outcome: (phase == Phase::Ended).then_some(Outcome::Done),
        facts: BTreeMap::new(),
        host: host.map(ToString::to_string),
        project: Some(of),
    }
}

pub(crate) async fn record(context: &Context, act: &Act) -> Result<(), Error> {
    let verb = match act.phase {
        Phase::Begun => "begin",
        Phase::Ended => "end",
    };
    let name = format!("ledger/{:?}", act.kind).to_lowercase();
    Ok(through(context.gate.as_ref(), Effect::new(name, verb), context.recorder.record(act)).await?)
}

/// Carries one step out; the project as it is after it.
async fn carry_out(
    context: &Context,
    pass: &mut Pass<'_>,
    project: IsolatedProject,
    plans: &[HostPlan],
    step: Step,
) -> Result<IsolatedProject, Error> {
    let uid = project.uid().unwrap_or_default();
    match step {
        Step::Finalize | Step::Unfinalize => {
            let put_on = step == Step::Finalize;
            if !put_on {
                let mut end = act(&project, Kind::Delete, Phase::Ended, None);
                let receipt = project.status.as_ref().and_then(|status| status.receipt.as_ref());
                end.generated = receipt.map(|id| receipt::entity(&id.as_str().into())).into_iter().collect();
                record(context, &end).await?;
                pass.issued.remove(names::receipt_id(&uid.as_str().into()).as_str());
            }
            return apply::finalize(context, pass, &project, put_on).await;
        }
        Step::Hold { host, hold } => {
            let api: Api<Host> = Api::all(context.client.clone());
            let Some(object) = pass
                .watched
                .hosts
                .state()
                .into_iter()
                .find(|found| found.name_any() == host.as_str())
            else {
                return Ok(project);
            };
            record(context, &act(&project, Kind::Provision, Phase::Begun, Some(&host))).await?;
            let mut status = object.status.clone().unwrap_or_default();
            status.claims.retain(|claim| claim.uid != uid.as_str());
            match hold {
                Hold::Alone => status.held_by = Some(facts::project_ref(&project)),
                Hold::Share(claim) => status.claims.push(claim),
            }
            let change = json!({"status": {"heldBy": status.held_by, "claims": status.claims}});
            pass.watched
                .wrote(&apply::patch(context, &api, object.as_ref(), change, true, "hold").await?);
        }
        Step::Release { host } => {
            let api: Api<Host> = Api::all(context.client.clone());
            let Some(object) = pass
                .watched
                .hosts
                .state()
                .into_iter()
                .find(|found| found.name_any() == host.as_str())
            else {
                return Ok(project);
            };
            let mut status = object.status.clone().unwrap_or_default();
            status.claims.retain(|claim| claim.uid != uid.as_str());
            let held = status.held_by.filter(|held| held.uid != uid.as_str());
            let change = json!({"status": {"heldBy": held, "claims": status.claims}});
            pass.watched
                .wrote(&apply::patch(context, &api, object.as_ref(), change, true, "release").await?);
        }
        Step::Request { namespace, name, spec } => {
            let api: Api<AccessGrant> = Api::namespaced(context.client.clone(), namespace.as_str());
            let mut grant = AccessGrant::new(name.as_str(), *spec);
            grant.metadata.namespace = Some(namespace.to_string());
            apply::create(context, &api, &grant).await?;
        }
        Step::DropRequest { namespace, name } => {
            let api: Api<AccessGrant> = Api::namespaced(context.client.clone(), namespace.as_str());
            let all = pass.watched.grants.state();
            if let Some(grant) = all
                .iter()
                .find(|grant| grant.name_any() == name.as_str() && grant.namespace().as_deref() == Some(namespace.as_str()))
            {
                apply::delete(context, &api, grant.as_ref()).await?;
            }
        }
        Step::OpenKeys { host, keys } => {
            let make: Vec<KeyName> = keys.first().cloned().into_iter().collect();
            if !pass.has_opened(&host, &uid, &keys) {
                apply::confirm(context, &project).await?;
            }
            open(context, pass, &host, &uid, Some(keys), &make).await?;
        }
        Step::CloseKeys { host } => open(context, pass, &host, &uid, None, &[]).await?,
        Step::DestroyKey { key } => {
            // Taking access away never waits for the ledger: what could not be recorded is recorded with the next try.
            let begun = record(context, &act(&project, Kind::Delete, Phase::Begun, None)).await;
            through(
                context.gate.as_ref(),
                Effect::new("key/project", "destroy"),
                context.keys.destroy(&key),
            )
            .await?;
            begun?;
        }
        Step::Write { host, spec, from } => {
            let namespace = names::host_namespace(host.as_str());
            let api: Api<HostPlan> = Api::namespaced(context.client.clone(), namespace.as_str());
            let mut plan = HostPlan::new(&names::plan_name(PlanKind::Project, &uid.as_str().into()), *spec);
            plan.metadata.namespace = Some(namespace.to_string());
            plan.meta_mut().resource_version.clone_from(&from);
            let written = if from.is_some() {
                Some(apply::replace(context, &api, &plan).await?)
            } else {
                apply::confirm(context, &project).await?;
                apply::create(context, &api, &plan).await?
            };
            if let Some(written) = written {
                if from.is_none() {
                    pass.watched.made(&written);
                }
                pass.watched.wrote(&written);
            }
        }
        Step::Receipt(receipt) => receipts::issue(context, pass, *receipt).await?,
        Step::Forget { host } => {
            let namespace = names::host_namespace(host.as_str());
            let api: Api<HostPlan> = Api::namespaced(context.client.clone(), namespace.as_str());
            for plan in plans.iter().filter(|plan| plan.namespace().as_deref() == Some(namespace.as_str())) {
                apply::delete(context, &api, plan).await?;
            }
        }
    }
    Ok(project)
}
