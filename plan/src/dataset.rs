//! One dataset: when its source must be sealed, which keys that takes, and what is sealed when it is done.

use dejima_crds::bounded::{KeyName, ObjectName, Period, ShardId};
use dejima_crds::condition::{ConditionDraft, seconds};
use dejima_crds::dataset::{DatasetStatus, Shard, Version};
use dejima_crds::host::HostRole;
use dejima_crds::host_plan::{DatasetIdentity, HostPlanSpec, IntakePlan, KnownShard, ShardKey};
use dejima_crds::receipt::Receipt;
use dejima_crds::{Dataset, Host, HostPlan, names};
use jiff::Timestamp;

use crate::problems;
use crate::project::host_of;

mod ending;

/// Everything that a dataset's next steps depend on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The object.
    pub dataset: &'a Dataset,
    /// The hosts.
    pub hosts: &'a [&'a Host],
    /// Its host plans.
    pub plans: &'a [&'a HostPlan],
    /// Of one that was deleted: until when it is held before its keys are destroyed.
    pub held_until: Option<Timestamp>,
    /// How long a back-up of the key server may still hold a destroyed key.
    pub horizon: &'a Period,
    /// Now.
    pub now: Timestamp,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Our finalizer is put on: before anything is made that must be destroyed one day.
    Finalize,
    /// Keys of shards are destroyed: every copy of theirs is noise.
    DestroyKeys {
        /// The keys.
        keys: Vec<KeyName>,
    },
    /// The receipt says this. A statement: it comes with every pass until the end.
    Receipt(Box<Receipt>),
    /// Our finalizer is taken off.
    Unfinalize,
    /// Keys of new shards are made, and opened to the intake host.
    OpenKeys {
        /// Which host.
        host: ObjectName,
        /// The keys.
        keys: Vec<KeyName>,
    },
    /// The intake host may use no key of this dataset any more.
    CloseKeys {
        /// Which host.
        host: ObjectName,
    },
    /// A host plan is written.
    Write {
        /// For which host.
        host: ObjectName,
        /// What it says.
        spec: Box<HostPlanSpec>,
        /// The resource version it was planned from; absent where it is made.
        from: Option<String>,
    },
    /// A host plan that was carried out is deleted.
    Forget {
        /// Of which host.
        host: ObjectName,
    },
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// What can be done now, in this order.
    pub steps: Vec<Step>,
    /// A version that was sealed, with its new shards: it goes into the status before the plan is forgotten.
    pub sealed: Option<(Version, Vec<Shard>)>,
    /// Why nothing can be sealed.
    pub problem: Option<(&'static str, String)>,
    /// Of one that was deleted: how far its end is.
    pub end: Option<ConditionDraft>,
    /// When to look again although nothing happened.
    pub again: Option<Timestamp>,
}

fn nothing(problem: Option<(&'static str, String)>) -> Next {
    Next {
        steps: Vec::new(),
        sealed: None,
        problem,
        end: None,
        again: None,
    }
}

pub(crate) fn is_finalized(dataset: &Dataset) -> bool {
    let finalizers = dataset.metadata.finalizers.iter().flatten();
    finalizers.into_iter().any(|finalizer| finalizer == names::FINALIZER)
}

fn identity(dataset: &Dataset) -> DatasetIdentity {
    let meta = &dataset.metadata;
    DatasetIdentity {
        namespace: meta.namespace.clone().unwrap_or_default().as_str().into(),
        name: ObjectName::from(meta.name.clone().unwrap_or_default()),
        uid: meta.uid.clone().unwrap_or_default().as_str().into(),
    }
}

/// Digests that other shards of the same content have: what a new version shares.
fn known(status: &DatasetStatus) -> Vec<KnownShard> {
    status
        .shards
        .iter()
        .map(|shard| KnownShard {
            id: shard.id.clone(),
            digest: shard.digest.clone(),
            stored_digest: shard.stored_digest.clone(),
        })
        .collect()
}

/// What to do for a dataset now.
pub fn next(inputs: &Inputs<'_>) -> Next {
    let Inputs {
        dataset,
        hosts,
        plans,
        now,
        held_until: _,
        horizon: _,
    } = *inputs;
    let (spec, meta) = (&dataset.spec, &dataset.metadata);
    if meta.deletion_timestamp.is_some() {
        return ending::next(inputs);
    }
    let status = dataset.status.clone().unwrap_or_default();
    let plan = plans.iter().find(|plan| plan.spec.intake.is_some());
    let mut steps: Vec<Step> = (!is_finalized(dataset)).then_some(Step::Finalize).into_iter().collect();
    let done = status.versions.iter().any(|version| version.version >= spec.revision);
    if done {
        let forget = plan.and_then(|plan| host_of(plan));
        steps.extend(
            forget
                .into_iter()
                .flat_map(|host| [Step::CloseKeys { host: host.clone() }, Step::Forget { host }]),
        );
        return Next { steps, ..nothing(None) };
    }
    let not_built = problems::of_dataset(spec);
    if !not_built.is_empty() {
        return nothing(Some(("NotYetBuilt", not_built.join("; "))));
    }
    let Some(source) = &spec.source.directory else {
        return nothing(None);
    };
    let namespace = meta.namespace.clone().unwrap_or_default();
    let host = hosts
        .iter()
        .find(|host| host.metadata.name.as_deref() == Some(source.host.as_str()) && host.spec.roles.contains(&HostRole::Intake));
    let root = host.and_then(|host| host.spec.intake.iter().find(|root| root.namespace == namespace.as_str()));
    let Some(root) = root else {
        return nothing(Some((
            "NoIntake",
            format!(
                "host {} has no intake root for namespace {namespace}: ask the platform's admins",
                source.host
            ),
        )));
    };
    let host = ObjectName::from(source.host.as_str());
    let mut wanted = IntakePlan {
        dataset: identity(dataset),
        version: spec.revision,
        source: source.clone(),
        root: root.path.clone(),
        shard_bytes: spec.source.shard_bytes,
        known: known(&status),
        keys: Vec::new(),
    };
    let current = plan.and_then(|plan| plan.spec.intake.as_ref());
    let report = plan.and_then(|plan| plan.status.clone()).unwrap_or_default();
    // What was read counts for the plan that ordered it: the same version of the same source, cut in the same way.
    let same = current.is_some_and(|current| {
        IntakePlan {
            keys: Vec::new(),
            ..current.clone()
        } == wanted
    });
    let scanned = report.scanned.as_ref().filter(|scanned| same && scanned.version == spec.revision);
    if let Some(scanned) = scanned {
        let new = scanned
            .shards
            .iter()
            .filter(|shard| !wanted.known.iter().any(|known| known.id == shard.id));
        wanted.keys = new
            .map(|shard| ShardKey {
                shard: shard.id.clone(),
                key: names::shard_key(&wanted.dataset.uid, &shard.id),
            })
            .collect();
        wanted.keys.sort_by(|one, other| one.shard.cmp(&other.shard));
        wanted.keys.dedup();
        if current == Some(&wanted)
            && wanted
                .keys
                .iter()
                .all(|key| report.sealed.iter().any(|shard| shard.id == key.shard))
        {
            let version = Version {
                version: scanned.version,
                digest: scanned.manifest_digest.clone(),
                bytes: scanned.bytes,
                files: scanned.files,
                shards: scanned.shards.iter().map(|shard| shard.id.clone()).collect(),
                sealed_at: seconds(now),
                withdrawn_at: None,
            };
            let of_version = |id: &ShardId| wanted.keys.iter().any(|key| key.shard == *id);
            let shards = report.sealed.iter().filter(|shard| of_version(&shard.id)).cloned().collect();
            return Next {
                sealed: Some((version, shards)),
                ..nothing(None)
            };
        }
    }
    let problem = report.problem.as_ref().filter(|_| same).map(|_| {
        let item = report
            .items
            .iter()
            .find(|item| item.item == "seal")
            .and_then(|item| item.message.clone());
        ("SealingFailed", item.map(|message| message.to_string()).unwrap_or_default())
    });
    let keys: Vec<KeyName> = wanted.keys.iter().map(|key| key.key.clone()).collect();
    steps.push(Step::OpenKeys { host: host.clone(), keys });
    if current != Some(&wanted) {
        let plan_generation = plan.map_or_else(|| crate::first_generation(now), |plan| plan.spec.plan_generation + 1);
        let spec = HostPlanSpec {
            plan_generation,
            ends: false,
            project: None,
            intake: Some(wanted),
        };
        steps.push(Step::Write {
            host,
            spec: Box::new(spec),
            from: plan.and_then(|plan| plan.metadata.resource_version.clone()),
        });
    }
    Next { steps, ..nothing(problem) }
}
