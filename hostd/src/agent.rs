//! The loop of one host: signs of life, plans, actions, status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::ExponentialBuilder;
use dejima_crds::bounded::{Digest, Label, Prose, Uid};
use dejima_crds::condition::seconds;
use dejima_crds::host_plan::{HostPlanSpec, HostPlanStatus, ProjectPlan};
use dejima_crds::names::PlanKind;
use dejima_crds::{Host, HostPlan, names};
use dejima_plan::Seen;
use dejima_plan::drift::drift;
use dejima_plan::effect::{Effect, through};
use dejima_plan::host::{Action, Observed, items, next};
use dejima_plan::sweep::{Owned, others, unplanned};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::ExponentialBackoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::carry_out::{carry_out, settle};
use crate::converge::{Converged, converge};
use crate::drift::Repaired;
use crate::driver::{Drivers, Error};
use crate::intake;
use crate::kept::Kept;
use crate::pace::Pace;
use crate::seal::Intake;
use crate::sweep;

/// How many drifts a status has room for.
const MOST_DRIFT: usize = 64;

/// One host's agent.
#[derive(Clone)]
pub struct Agent {
    /// The API server, under this host's own identity.
    pub client: Client,
    /// The host's name.
    pub host: String,
    /// Its drivers.
    pub drivers: Drivers,
    /// What it keeps on its disk.
    pub kept: Arc<Kept>,
    /// What it seals with, where it has the role intake.
    pub intake: Option<Intake>,
    /// After a failure the next try comes after so many milliseconds, doubled each time up to a minute.
    pub retry_ms: u64,
    /// A look at everything after so many seconds even if nothing happened.
    pub resync_seconds: u64,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("host", &self.host).finish_non_exhaustive()
    }
}

fn api_error(what: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |cause| Error::Api {
        what,
        cause: Box::new(cause),
    }
}

/// How long a watch that was interrupted waits before it begins again: what it sees takes access away (see the operator's).
pub(crate) fn patience() -> impl Backoff {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(800))
        .with_max_delay(Duration::from_secs(3));
    ExponentialBackoff::from(pauses.with_jitter().without_max_times())
}

/// Runs until told to stop.
pub async fn run(agent: Agent, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
    let mut tasks = JoinSet::new();
    let namespace = names::host_namespace(&agent.host);
    let changed = Arc::new(Notify::new());
    let (store, writer) = reflector::store();
    let api: Api<HostPlan> = Api::namespaced(agent.client.clone(), namespace.as_str());
    let ends = Arc::new(Notify::new());
    let (events, hasten) = (Arc::clone(&changed), Arc::clone(&ends));
    tasks.spawn(async move {
        let mut stream = std::pin::pin!(reflector::reflector(
            writer,
            watcher(api, watcher::Config::default()).backoff(patience())
        ));
        while let Some(event) = stream.next().await {
            match event {
                Ok(_) => {
                    events.notify_one();
                    hasten.notify_one();
                }
                Err(error) => tracing::warn!(error = %error, "the watch was interrupted"),
            }
        }
    });
    if let Some(intake) = &agent.intake
        && let Err(error) = crate::seal::clear(&intake.scratch).await
    {
        tracing::warn!(error = %chain(&error), "what an earlier life left in the scratch space stays");
    }
    tasks.spawn(signs_of_life(agent.clone()));
    tasks.spawn(introduce(agent.clone()));
    // Until the plans are known nothing is begun: what runs goes on.
    while tokio::time::timeout(Duration::from_secs(10), store.wait_until_ready())
        .await
        .is_err()
        && !*stop.borrow()
    {
        tracing::warn!("the plans cannot be read yet");
    }
    tracing::info!(host = agent.host, "hostd is at work");
    tasks.spawn(keep_ends(agent.clone(), store.clone(), ends, Arc::clone(&changed)));
    let mut failures: u32 = 0;
    let mut life = Life::default();
    let mut bell = agent.drivers.machines.bell().listen();
    let calm = Duration::from_secs(agent.resync_seconds);
    let mut pace = Pace::new(calm);
    let mut rang = false;
    while !*stop.borrow() {
        let looked = look(&agent, &store, &mut life).await;
        if rang && (looked.acted || looked.failed) {
            pace.answered(Instant::now());
        }
        failures = if looked.failed { failures + 1 } else { 0 };
        let back_off = Duration::from_millis(agent.retry_ms.saturating_mul(1 << failures.min(10)).min(60_000));
        let usual = if looked.failed { back_off } else { calm };
        let pause = usual.min(until(looked.again));
        let heard = async {
            if bell.changed().await.is_err() {
                // Nobody can ring it any more.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(pace.wait(Instant::now())).await;
        };
        rang = tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = changed.notified() => false,
            _ = stop.changed() => false,
            () = heard => true,
        };
    }
    tasks.shutdown().await;
    tracing::info!(host = agent.host, "hostd has stopped; what it holds goes on");
    Ok(())
}

/// What one life of hostd remembers between two looks.
#[derive(Debug, Default)]
struct Life {
    /// The resource version of each status that was written: an older plan that still comes is not carried out again.
    written: BTreeMap<String, u64>,
    /// What was repaired lately.
    repaired: Repaired,
    /// Projects without a plan that were said to be here; nothing until something was said in this life.
    unplanned: Option<BTreeSet<Uid>>,
}

/// What came of a look.
#[derive(Debug, Default)]
struct Looked {
    /// Whether anything failed.
    failed: bool,
    /// Whether anything was done.
    acted: bool,
    /// When the next look is due, whatever happens: the next end of a mount, the next thing that is said no longer.
    again: Option<Timestamp>,
}

/// How long it is until a moment; for ever where there is none.
fn until(at: Option<Timestamp>) -> Duration {
    let left = at.map(|at| Duration::try_from(Timestamp::now().duration_until(at)).unwrap_or(Duration::ZERO));
    left.unwrap_or(Duration::MAX)
}

/// The ends that a plan sets to its mounts.
fn ends_of(plan: &HostPlan) -> impl Iterator<Item = Timestamp> {
    let mounts = plan.spec.project.iter().flat_map(|project| &project.mounts);
    mounts.filter_map(|mount| mount.until.as_ref()?.as_str().parse::<Timestamp>().ok())
}

/// Takes access away, and nothing else, beside everything that may take long: a fetch, a key server, a start, an answer of the
/// API. Nobody's mount outlives its end because of what somebody else is being given.
async fn keep_ends(agent: Agent, store: Store<HostPlan>, changed: Arc<Notify>, look_again: Arc<Notify>) {
    store
        .wait_until_ready()
        .await
        .unwrap_or_else(|_| tracing::warn!("the plans can be read no more"));
    let mut bell = agent.drivers.machines.bell().listen();
    loop {
        let mut again: Option<Timestamp> = None;
        let mut failed = false;
        for plan in store.state() {
            let Some(project) = plan.spec.project.as_ref() else { continue };
            // An older plan than was seen says nothing; one that cannot be kept still takes access away.
            if !agent.kept.admit(&plan.name_any(), plan.spec.plan_generation).unwrap_or(true) {
                continue;
            }
            let seen = Observed {
                network: Seen::Unknown,
                volumes: Seen::Unknown,
                domains: agent.drivers.machines.observe(&project.of.uid).await,
                // An end asks nobody else.
                others: Seen::Absent,
                attached: attached(&agent.kept, &project.of.uid),
            };
            let now = Timestamp::now();
            again = ends_of(&plan).chain(again).filter(|end| *end > now).min();
            for action in next(&plan.spec, project, &seen, now).actions {
                if !matches!(action, Action::Detach(..) | Action::Destroy(_)) {
                    continue;
                }
                if let Err(error) = carry_out(&agent.drivers, &agent.kept, &agent.host, project, &action).await {
                    failed = true;
                    tracing::warn!(plan = plan.name_any(), error = %chain(&error), "an end will be tried again");
                }
                // What ended is said, and what a newer plan permits again comes back.
                look_again.notify_one();
            }
        }
        let pause = Duration::from_millis(if failed { agent.retry_ms } else { 10_000 });
        tokio::select! {
            () = tokio::time::sleep(pause.min(until(again))) => {}
            () = changed.notified() => {}
            Ok(()) = bell.changed() => {}
        }
    }
}

/// What this host attached to the machines of a project and has not seen leave.
pub(crate) fn attached(kept: &Kept, uid: &Uid) -> BTreeMap<Label, BTreeSet<Label>> {
    let mut all: BTreeMap<Label, BTreeSet<Label>> = BTreeMap::new();
    for mount in kept.mounts() {
        if mount.begun.project.as_ref().is_some_and(|of| of.uid == *uid) {
            all.entry(mount.machine).or_default().extend(mount.serials);
        }
    }
    all
}

/// Renews the lease: a host says that it lives through it, never through status.
async fn signs_of_life(agent: Agent) {
    let namespace = names::host_namespace(&agent.host);
    let leases: Api<Lease> = Api::namespaced(agent.client.clone(), namespace.as_str());
    loop {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "hostd"},
            "spec": {"holderIdentity": agent.kept.machine_id(), "renewTime": now, "leaseDurationSeconds": 40},
        });
        let renewed = through(agent.drivers.gate.as_ref(), Effect::new("lease/hostd", "renew"), async {
            let parameters = PatchParams::apply(names::HOSTD).force();
            let written = leases.patch("hostd", &parameters, &Patch::Apply(&lease)).await;
            written.map(drop).map_err(api_error("renew the lease"))
        });
        if let Err(error) = renewed.await {
            tracing::warn!(error = %chain(&error), "this host has not said that it lives");
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

/// Says what this host is, has, and finds in the image store, whenever that is news. Apart from the signs of life: a large
/// store takes long to read.
async fn introduce(agent: Agent) {
    let mut said = None;
    loop {
        let news = async {
            let images = agent.drivers.machines.images().await?;
            if said.as_ref() != Some(&images) {
                say_what_it_is(&agent, &images).await?;
            }
            Ok::<_, Error>(images)
        };
        match news.await {
            Ok(images) => said = Some(images),
            Err(error) => tracing::warn!(error = %chain(&error), "cannot say what this host is and finds"),
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

/// Writes what this host is and has, where it changed.
async fn say_what_it_is(agent: &Agent, images: &BTreeSet<Digest>) -> Result<(), Error> {
    // As many as the schema takes.
    let images: Vec<&Digest> = images.iter().take(256).collect();
    let hosts: Api<Host> = Api::all(agent.client.clone());
    let (capacity, engine) = agent.drivers.machines.capacity().await?;
    let host = hosts.get(&agent.host).await.map_err(api_error("read this host"))?;
    let status = host.status.unwrap_or_default();
    let machine_id = agent.kept.machine_id();
    if status.machine_id.as_ref() == Some(&machine_id)
        && status.capacity.as_ref() == Some(&capacity)
        && status.engine.as_ref() == Some(&engine)
        && status.images.iter().eq(images.iter().copied())
    {
        return Ok(());
    }
    let change = json!({"status": {"machineId": machine_id, "capacity": capacity, "engine": engine, "images": images}});
    through(agent.drivers.gate.as_ref(), Effect::new("host", "say"), async {
        let written = hosts
            .patch_status(&agent.host, &PatchParams::default(), &Patch::Merge(&change))
            .await;
        written.map(drop).map_err(api_error("say what this host is"))
    })
    .await
}

/// One look at every plan, then at what has none.
async fn look(agent: &Agent, store: &Store<HostPlan>, life: &mut Life) -> Looked {
    let mut looked = Looked::default();
    let plans = store.state();
    for plan in &plans {
        looked.again = ends_of(plan).chain(looked.again).filter(|end| *end > Timestamp::now()).min();
        let version: Option<u64> = plan.resource_version().and_then(|version| version.parse().ok());
        if version < life.written.get(&plan.name_any()).copied() {
            continue;
        }
        let beside: Vec<&HostPlanSpec> = plans
            .iter()
            .filter(|other| other.name_any() != plan.name_any())
            .map(|other| &other.spec)
            .collect();
        match one(agent, plan, &beside, &mut life.repaired, &mut looked.acted).await {
            Ok(None) => {}
            Ok(Some(version)) => {
                life.written.insert(plan.name_any(), version);
            }
            Err(error) => {
                looked.failed = true;
                tracing::warn!(plan = plan.name_any(), error = %chain(&error), "will be tried again");
            }
        }
    }
    let specs: Vec<&HostPlanSpec> = plans.iter().map(|plan| &plan.spec).collect();
    if let Err(error) = without_plan(agent, &specs, &mut life.unplanned).await {
        looked.failed = true;
        tracing::warn!(error = %chain(&error), "what is nobody's will be looked at again");
    }
    if let Err(error) = agent.kept.forget(&plans.iter().map(|plan| plan.name_any()).collect()) {
        tracing::warn!(error = %chain(&error), "plans that are over are remembered");
    }
    looked.again = looked.again.into_iter().chain(life.repaired.until()).min();
    looked
}

/// What is here without a plan: mounts end, machines and volumes are said and stay, the rest is swept.
async fn without_plan(agent: &Agent, plans: &[&HostPlanSpec], said: &mut Option<BTreeSet<Uid>>) -> Result<(), Error> {
    let here = unplanned(plans, &sweep::owned(&agent.drivers).await);
    let planned = |uid: &Uid| {
        plans
            .iter()
            .any(|plan| plan.project.as_ref().is_some_and(|plan| plan.of.uid == *uid))
    };
    let begun = agent.kept.mounts().into_iter().filter_map(|mount| Some(mount.begun.project?.uid));
    let mounts: BTreeSet<Uid> = begun.filter(|uid| !planned(uid)).chain(here.iter().cloned()).collect();
    let mut done = Ok(());
    for uid in &mounts {
        done = done.and(sweep::end_mounts(&agent.drivers, &agent.kept, uid).await);
    }
    if said.as_ref() != Some(&here) {
        for uid in &here {
            tracing::warn!(project = %uid, "machines or volumes are here and no plan: nothing of them is destroyed without an order");
        }
        done = done.and(say_unplanned(agent, &here).await);
        if done.is_ok() {
            *said = Some(here);
        }
    }
    done.and(sweep::sweep(&agent.drivers, plans).await)
}

/// Says which projects are here without a plan, where that is not said already: an earlier life may have said more.
async fn say_unplanned(agent: &Agent, here: &BTreeSet<Uid>) -> Result<(), Error> {
    let hosts: Api<Host> = Api::all(agent.client.clone());
    // As many as the status has room for.
    let here: Vec<&Uid> = here.iter().take(256).collect();
    let host = hosts.get(&agent.host).await.map_err(api_error("read this host"))?;
    if host.status.unwrap_or_default().unplanned.iter().eq(here.iter().copied()) {
        return Ok(());
    }
    let change = json!({"status": {"unplanned": here}});
    through(agent.drivers.gate.as_ref(), Effect::new("host", "say-unplanned"), async {
        let written = hosts
            .patch_status(&agent.host, &PatchParams::default(), &Patch::Merge(&change))
            .await;
        written.map(drop).map_err(api_error("say what is here without a plan"))
    })
    .await
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source()).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What the drivers find of one project, and of all others.
pub async fn observe(drivers: &Drivers, kept: &Kept, plan: &ProjectPlan) -> (Observed, Owned) {
    let uid = &plan.of.uid;
    // They ask different programs, and none needs what another says.
    let (owned, mut network, volumes, domains) = tokio::join!(
        sweep::owned(drivers),
        drivers.network.observe(uid),
        drivers.storage.observe(uid),
        drivers.machines.observe(uid),
    );
    if let Seen::Present(found) = &mut network {
        // A proof whose numbers nobody has is none: it is made again, so that it can be said.
        let proof = kept.proof(&names::plan_name(PlanKind::Project, uid));
        found.proved = found
            .proved
            .take()
            .filter(|rules| proof.is_some_and(|proof| proof.rules_digest == *rules));
    }
    let seen = Observed {
        attached: attached(kept, uid),
        network,
        volumes,
        domains,
        others: others(&owned, Some(plan)),
    };
    (seen, owned)
}

/// One plan: look, compare, act, look again, until nothing is left or something fails; then say how it stands.
/// The resource version of the status that was written, where it was.
async fn one(
    agent: &Agent,
    plan: &HostPlan,
    beside: &[&HostPlanSpec],
    repaired: &mut Repaired,
    acted: &mut bool,
) -> Result<Option<u64>, Error> {
    if !agent.kept.admit(&plan.name_any(), plan.spec.plan_generation)? {
        tracing::warn!(
            plan = plan.name_any(),
            generation = plan.spec.plan_generation,
            "an older plan than was seen is refused"
        );
        return Ok(None);
    }
    if let Some(order) = plan.spec.intake.as_ref() {
        let before = plan.status.clone().unwrap_or_default();
        // Who cannot be told apart from nobody holds it.
        let held = others(&sweep::owned(&agent.drivers).await, None) != Seen::Absent;
        let (status, failure) = intake::look(
            &agent.drivers,
            agent.intake.as_ref(),
            &plan.spec,
            order,
            &before,
            held,
            Timestamp::now(),
        )
        .await;
        let same = status == before;
        let version = if same { None } else { say(agent, plan, status.clone()).await? };
        if let Some(error) = failure {
            return Err(error);
        }
        if let Some(intake) = agent.intake.as_ref().filter(|_| same || version.is_some()) {
            intake::tidy(agent.drivers.gate.as_ref(), intake, order, &status).await?;
        }
        return Ok(version);
    }
    let Some(project) = plan.spec.project.as_ref() else {
        return Ok(None);
    };
    let before = plan.status.clone().unwrap_or_default();
    let name = plan.name_any();
    let converged = converge(&agent.drivers, &agent.kept, (&agent.host, &name), &plan.spec, project, &before).await?;
    *acted |= converged.acted;
    if converged.is_overtaken {
        tracing::info!(plan = name, "a newer plan came while this one was carried out: it goes no further");
        return Ok(None);
    }
    let Converged { drifted, mut failure, .. } = converged;
    let now = Timestamp::now();
    let (seen, owned) = observe(&agent.drivers, &agent.kept, project).await;
    let mut left = next(&plan.spec, project, &seen, now);
    // Of a plan that ends nothing is left either that only it had use for.
    if left.swept
        && failure.is_none()
        && let Err(error) = sweep::sweep(&agent.drivers, beside).await
    {
        left.swept = false;
        failure = Some((error, ("stray".to_owned(), "sweep")));
    }
    // Taking access away waited for nobody; that it ended is said now.
    let settled = settle(&agent.drivers, &agent.kept, project, &seen, plan.spec.ends).await;
    let standing = drift(&plan.spec, project, &before, &seen, &owned, now);
    let mut status = HostPlanStatus {
        plan_generation: plan.spec.plan_generation,
        items: items(&left, &before.items, now),
        // After a reboot everything has drifted: as much of it as has room is said.
        drift: repaired
            .say(&plan.name_any(), drifted, standing, now)
            .into_iter()
            .take(MOST_DRIFT)
            .collect(),
        ..before.clone()
    };
    status.problem = failure.as_ref().map(|(error, _)| error.reason()).or(left.problem).map(Into::into);
    if let Some((error, (object, verb))) = &failure {
        for item in status.items.iter_mut().filter(|item| concerns(object, item.item.as_str())) {
            item.reason = Some(error.reason().into());
            item.message = Some(Prose::cut(&format!("{verb}: {error}")));
        }
    }
    status.isolation = agent.kept.proof(&plan.name_any()).or(status.isolation);
    if left.closed && status.closed_at.is_none() {
        status.closed_at = Some(seconds(now));
    }
    if left.swept && status.swept_at.is_none() {
        status.swept_at = Some(seconds(now));
    }
    if status.swept_at.is_some() {
        agent.kept.swept(&plan.name_any())?;
    }
    let version = if status == before { None } else { say(agent, plan, status).await? };
    match failure {
        None => settled.map(|()| version),
        Some((error, _)) => Err(error),
    }
}

/// Whether what is done to an object is about an item: `domain/train` is not about `domain/train-2`.
fn concerns(object: &str, item: &str) -> bool {
    object
        .strip_prefix(item)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Writes the status of a plan, if the plan is still the one that was carried out.
async fn say(agent: &Agent, plan: &HostPlan, status: HostPlanStatus) -> Result<Option<u64>, Error> {
    let api: Api<HostPlan> = Api::namespaced(agent.client.clone(), plan.namespace().as_deref().unwrap_or_default());
    let swept = status.swept_at.is_some();
    let wanted = HostPlan {
        status: Some(status),
        ..plan.clone()
    };
    let parameters = PostParams {
        field_manager: Some(names::HOSTD.to_owned()),
        ..PostParams::default()
    };
    let written = through(agent.drivers.gate.as_ref(), Effect::new("hostplan/status", "write"), async {
        match api.replace_status(&plan.name_any(), &parameters, &wanted).await {
            Ok(written) => Ok(Some(written)),
            // A newer plan is on its way to us.
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(None),
            Err(error) => Err(api_error("say how a plan stands")(error)),
        }
    })
    .await?;
    if swept && written.is_some() {
        tracing::info!(plan = plan.name_any(), "nothing is left of it on this host");
    }
    Ok(written.and_then(|written| written.resource_version()?.parse().ok()))
}
