//! One project: from the objects and what was observed to the steps that are possible now, and the status that is true now.
//!
//! Steps are in the order in which they are carried out; each looks only at what is there, so that a plan that was cut
//! short is simply continued. What takes access away never waits for what gives it.

mod ending;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use dejima_crds::bounded::{KeyName, Label, ObjectName, Period};
use dejima_crds::dataset::reference;
use dejima_crds::grant::{AccessGrantSpec, PolicyPin, ProjectRef};
use dejima_crds::host::Capacity;
use dejima_crds::host_plan::{DomainPlan, EgressRule, HostPlanSpec, ImagePlan, MountPlan, Power, ProjectPlan, ShardPlan, VolumePlan};
use dejima_crds::image::ImageFormat;
use dejima_crds::names;
use dejima_crds::project::{DatasetWish, Exposure, IsolatedProjectStatus, Machine};
use dejima_crds::reason::{Code, Decision};
use dejima_crds::receipt::Receipt;
use dejima_crds::{AccessGrant, HostPlan, IsolatedProject, MachineImage};
use dejima_policy::{DatasetFacts, Opening, PolicyFacts, ProjectFacts, Verdict, request};
use jiff::{Timestamp, tz::TimeZone};

use crate::placement::{self, Candidate, Hold, Need, Placed, name as host_name, place};
use crate::problems::{Problem, problems};
use crate::segment::{machine_names, segment};

/// One wish with all that bears on it.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The wish.
    pub wish: &'a DatasetWish,
    /// The dataset, where there is one.
    pub dataset: Option<&'a DatasetFacts>,
    /// The policy that it names, where there is one.
    pub policy: Option<&'a PolicyFacts>,
    /// The verdict.
    pub verdict: Verdict,
    /// The grants of this project for this dataset.
    pub grants: Vec<&'a AccessGrant>,
}

/// Everything that a project's next steps depend on.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The object.
    pub project: &'a IsolatedProject,
    /// Its facts.
    pub facts: &'a ProjectFacts,
    /// The labels of its namespace.
    pub namespace: &'a BTreeMap<String, String>,
    /// The hosts.
    pub candidates: &'a [Candidate<'a>],
    /// The images.
    pub images: &'a [MachineImage],
    /// The host plans of this project.
    pub plans: &'a [HostPlan],
    /// Its wishes, judged.
    pub wishes: &'a [Wish<'a>],
    /// Its egress entries, judged.
    pub openings: &'a [Opening],
    /// Which admission policies are missing; empty where all stand. Then nothing is judged.
    pub admission: &'a [String],
    /// How long a back-up of the key server may still hold a destroyed key.
    pub horizon: &'a Period,
    /// Now.
    pub now: Timestamp,
    /// The site's zone.
    pub zone: &'a TimeZone,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Our finalizer is put on.
    Finalize,
    /// A host is held, or a share of it claimed: compare and swap on the host.
    Hold {
        /// Which.
        host: ObjectName,
        /// How.
        hold: Hold,
    },
    /// A request is made in the provider's namespace.
    Request {
        /// Where.
        namespace: Label,
        /// Its name.
        name: ObjectName,
        /// What it says.
        spec: Box<AccessGrantSpec>,
    },
    /// A request that the project has overtaken is deleted.
    DropRequest {
        /// Where.
        namespace: Label,
        /// Its name.
        name: ObjectName,
    },
    /// The keys that the host may use of this project are exactly these; the project's key is made where it is not there.
    /// A statement rather than a change: it comes with every pass, and whoever carries it out knows whether it is news.
    OpenKeys {
        /// Which host.
        host: ObjectName,
        /// The project's key first.
        keys: Vec<KeyName>,
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
    /// The project's key is destroyed.
    DestroyKey {
        /// Which.
        key: KeyName,
    },
    /// The host may use no key of this project any more.
    CloseKeys {
        /// Which host.
        host: ObjectName,
    },
    /// The receipt says this. A statement, as of keys: it comes with every pass until it is final.
    Receipt(Box<Receipt>),
    /// A host plan that was carried out to its end is deleted.
    Forget {
        /// Of which host.
        host: ObjectName,
    },
    /// A host is free again.
    Release {
        /// Which.
        host: ObjectName,
    },
    /// Our finalizer is taken off.
    Unfinalize,
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// What can be done now, in this order.
    pub steps: Vec<Step>,
    /// What is true now. Exposure in it is written before a mount enters a host plan.
    pub status: IsolatedProjectStatus,
    /// When to look again although nothing happened: the next end of anything.
    pub again: Option<Timestamp>,
}

/// The host in whose namespace a plan stands.
pub fn host_of(plan: &HostPlan) -> Option<ObjectName> {
    names::host_of_namespace(plan.metadata.namespace.as_deref()?).map(ObjectName::from)
}

fn of(inputs: &Inputs<'_>) -> ProjectRef {
    inputs.facts.of.clone()
}

/// What to do for a project now.
pub fn next(inputs: &Inputs<'_>) -> Next {
    let meta = &inputs.project.metadata;
    let finalized = meta.finalizers.iter().flatten().any(|finalizer| finalizer == names::FINALIZER);
    let mut steps = Vec::new();
    if meta.deletion_timestamp.is_some() {
        if finalized {
            steps = ending::steps(inputs);
        }
        return Next {
            status: status::terminating(inputs, &steps),
            steps,
            again: None,
        };
    }
    let (missing, images) = images(inputs);
    let mut problems = problems(&inputs.project.spec);
    // An image that is not there may come; what is not built does not.
    if !problems.is_empty() || missing.iter().any(|problem| problem.reason == "NotYetBuilt") {
        problems.extend(missing);
        // An object that cannot be carried out is given nothing more; what it may have no longer is taken away all the same.
        return Next {
            steps: withdraw(inputs),
            status: status::refused(inputs, &problems),
            again: None,
        };
    }
    let placed = if missing.is_empty() {
        Some(place(&need(inputs), inputs.candidates))
    } else {
        None
    };
    let mut status = status::base(inputs, &missing, placed.as_ref());
    if let Some(Placed::On(host)) = &placed {
        if !finalized {
            steps.push(Step::Finalize);
        }
        steps.extend(hold(inputs, host));
        status.exposed = exposure(inputs);
        steps.extend(write(inputs, host, &images));
    } else {
        steps.extend(withdraw(inputs));
    }
    // Last: a request that cannot be made keeps nobody from losing what he may have no longer.
    steps.extend(requests(inputs));
    let again = inputs
        .wishes
        .iter()
        .filter_map(|wish| wish.verdict.until)
        .chain(inputs.openings.iter().filter_map(|opening| opening.until))
        .filter(|end| *end > inputs.now)
        .min();
    Next { steps, status, again }
}

/// What it needs of a host.
fn need<'a>(inputs: &'a Inputs<'_>) -> Need<'a> {
    let spec = &inputs.project.spec;
    let of_machines = |one: fn(&Machine) -> u64| {
        spec.machines
            .iter()
            .map(|machine| one(machine).saturating_mul(u64::from(machine.count)))
            .fold(0, u64::saturating_add)
    };
    let cpus = of_machines(|machine| u64::from(machine.cpu.unwrap_or(1)));
    Need {
        uid: &inputs.facts.of.uid,
        dedicated: spec.placement.dedicated,
        capacity: Capacity {
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory: of_machines(|machine| machine.memory.as_ref().and_then(dejima_crds::bounded::Bytes::count).unwrap_or(0)),
            bytes: spec
                .volumes
                .iter()
                .filter_map(|volume| volume.size.count())
                .fold(0, u64::saturating_add),
        },
        country: &spec.country,
        selector: &spec.placement.host_selector,
        sites: &spec.placement.sites,
        namespace: inputs.namespace,
    }
}

fn hold(inputs: &Inputs<'_>, host: &ObjectName) -> Option<Step> {
    let candidate = inputs.candidates.iter().find(|candidate| host_name(candidate.host) == *host)?;
    let status = candidate.host.status.clone().unwrap_or_default();
    let hold = placement::hold(&need(inputs), &status)?;
    Some(Step::Hold { host: host.clone(), hold })
}

/// Images that are missing, and the others resolved.
fn images(inputs: &Inputs<'_>) -> (Vec<Problem>, BTreeMap<ObjectName, ImagePlan>) {
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    for machine in &inputs.project.spec.machines {
        let image = inputs
            .images
            .iter()
            .find(|image| image.metadata.name.as_deref() == Some(machine.image.as_str()));
        if let Some(image) = image {
            let spec = &image.spec;
            if spec.format != ImageFormat::KernelInitrd {
                missing.push(Problem {
                    reason: "NotYetBuilt",
                    message: format!(
                        "machines[{}].image: image {} is a disk, which is not built yet: take one that is a kernel and an initrd",
                        machine.name, machine.image
                    ),
                });
            }
            let plan = ImagePlan {
                name: machine.image.clone(),
                format: spec.format,
                source: spec.source.clone(),
                digest: spec.digest.clone(),
                kernel: spec.boot.kernel.clone(),
                guest: spec.guest,
            };
            found.insert(machine.image.clone(), plan);
        } else {
            let message = format!(
                "machines[{}].image: there is no image {}; see kubectl get machineimages",
                machine.name, machine.image
            );
            missing.push(Problem {
                reason: "ImageMissing",
                message,
            });
        }
    }
    (missing, found)
}

/// Requests: one for each wish that waits for a review, none that the project has overtaken.
fn requests(inputs: &Inputs<'_>) -> Vec<Step> {
    if !inputs.admission.is_empty() {
        return Vec::new();
    }
    let mut steps = Vec::new();
    for wish in inputs.wishes {
        let (Some(_), Some(policy)) = (wish.dataset, wish.policy) else {
            continue;
        };
        let spec = AccessGrantSpec {
            project: of(inputs),
            dataset: wish.wish.name.clone(),
            policy: PolicyPin {
                name: policy.name.clone(),
                digest: policy.digest.clone(),
            },
            request: request::wish(inputs.facts, &wish.wish.actions),
            window: request::window(inputs.facts, &policy.spec, inputs.zone),
            reviews: Vec::new(),
            revoked: None,
        };
        let waits = wish.verdict.reasons.iter().any(|reason| reason.code == Code::ReviewPending);
        let same = |grant: &&&AccessGrant| {
            let other = &grant.spec;
            other.policy.digest == spec.policy.digest && other.request == spec.request && other.window == spec.window
        };
        let standing = wish.grants.iter().find(same);
        if waits && policy.spec.review.required && standing.is_none() {
            // INVARIANT: a request is strings and lists; without a name it is not made, and the project goes on waiting.
            if let Ok(name) = dejima_crds::grant::name(&spec) {
                steps.push(Step::Request {
                    namespace: wish.wish.namespace.clone(),
                    name,
                    spec: Box::new(spec.clone()),
                });
            }
        }
        // An open one of other content that no longer applies: nobody is to review what nobody asks for.
        for grant in &wish.grants {
            let open = grant.spec.revoked.is_none() && grant.spec.reviews.is_empty();
            let judged = wish
                .verdict
                .grants
                .iter()
                .find(|judged| Some(judged.name.as_str()) == grant.metadata.name.as_deref());
            if open && judged.is_some_and(|judged| !judged.applies) && grant.spec.request != spec.request {
                let name = ObjectName::from(grant.metadata.name.clone().unwrap_or_default());
                steps.push(Step::DropRequest {
                    namespace: wish.wish.namespace.clone(),
                    name,
                });
            }
        }
    }
    steps
}

/// Exposure as it must be written before the mounts that are permitted now: it only grows.
fn exposure(inputs: &Inputs<'_>) -> Vec<Exposure> {
    let mut exposed = inputs.facts.exposed.clone();
    for wish in inputs
        .wishes
        .iter()
        .filter(|wish| wish.verdict.decision == Decision::Permit && inputs.admission.is_empty())
    {
        let dataset = reference(&wish.wish.namespace, &wish.wish.name);
        let (Some(version), Some(policy)) = (wish.verdict.version, &wish.verdict.policy) else {
            continue;
        };
        if !exposed
            .iter()
            .any(|known| known.dataset == dataset && known.version == version && known.policy_digest == *policy)
        {
            exposed.push(Exposure {
                dataset,
                version,
                policy_digest: policy.clone(),
                since: dejima_crds::condition::seconds(inputs.now),
            });
        }
    }
    exposed
}

/// The mounts of the plan: permitted, and their exposure acknowledged. While nothing is judged, those that stand go on.
fn mounts(inputs: &Inputs<'_>, current: Option<&ProjectPlan>) -> Vec<MountPlan> {
    if !inputs.admission.is_empty() {
        return current.map(|plan| plan.mounts.clone()).unwrap_or_default();
    }
    let permitted = inputs.wishes.iter().filter(|wish| wish.verdict.decision == Decision::Permit);
    permitted.filter_map(|wish| mount(inputs, wish)).collect()
}

fn mount(inputs: &Inputs<'_>, wish: &Wish<'_>) -> Option<MountPlan> {
    let dataset = wish.dataset?;
    let (number, policy) = (wish.verdict.version?, wish.verdict.policy.clone()?);
    let acknowledged = inputs
        .facts
        .exposed
        .iter()
        .any(|known| known.dataset == dataset.of && known.version == number && known.policy_digest == policy);
    let version = dataset
        .versions
        .iter()
        .find(|version| version.version == number)
        .filter(|_| acknowledged)?;
    let shards: Option<Vec<ShardPlan>> = version
        .shards
        .iter()
        .map(|id| {
            let shard = dataset.shards.iter().find(|shard| shard.id == *id)?;
            Some(ShardPlan {
                id: id.clone(),
                serial: names::serial(&inputs.facts.of.uid, &format!("shard/{}/{id}", dataset.uid)).into(),
                digest: shard.digest.clone(),
                stored_digest: shard.stored_digest.clone(),
                key: shard.key.clone(),
                wrapped_key: shard.wrapped_key.clone(),
            })
        })
        .collect();
    let machines = wish.wish.attach_to.iter().flat_map(|name| {
        let count = inputs
            .project
            .spec
            .machines
            .iter()
            .find(|machine| machine.name == *name)
            .map_or(1, |machine| machine.count);
        machine_names(name, count)
    });
    Some(MountPlan {
        dataset: dataset.of.clone(),
        uid: dataset.uid.clone(),
        version: number,
        digest: version.digest.clone(),
        policy_digest: policy,
        machines: machines.collect(),
        path: wish.wish.mount_path.clone(),
        until: wish.verdict.until.map(dejima_crds::condition::seconds),
        shards: shards.filter(|shards| !shards.is_empty())?,
    })
}

/// The host plan, where it must change: keys before the plan that needs them.
fn write(inputs: &Inputs<'_>, host: &ObjectName, images: &BTreeMap<ObjectName, ImagePlan>) -> Vec<Step> {
    let existing = inputs.plans.iter().find(|plan| host_of(plan).as_ref() == Some(host));
    let current = existing.and_then(|plan| plan.spec.project.as_ref());
    let Some(wanted) = project_plan(inputs, images, current) else {
        return Vec::new();
    };
    if existing.is_some_and(|plan| plan.spec.ends) {
        return Vec::new();
    }
    let shards = |plan: &ProjectPlan| -> BTreeSet<KeyName> {
        plan.mounts
            .iter()
            .flat_map(|mount| &mount.shards)
            .map(|shard| shard.key.clone())
            .collect()
    };
    let before = current.map(shards).unwrap_or_default();
    let keys = std::iter::once(wanted.key.clone()).chain(shards(&wanted)).collect();
    // Said whether or not the plan changes: what was cut short between the two is made good.
    let open = Step::OpenKeys { host: host.clone(), keys };
    if current == Some(&wanted) {
        return vec![open];
    }
    let plan_generation = existing.map_or_else(|| crate::first_generation(inputs.now), |plan| plan.spec.plan_generation + 1);
    let spec = HostPlanSpec {
        plan_generation,
        ends: false,
        project: Some(wanted.clone()),
        intake: None,
    };
    let from = existing.and_then(|plan| plan.metadata.resource_version.clone());
    let write = Step::Write {
        host: host.clone(),
        spec: Box::new(spec),
        from,
    };
    // A plan that only takes away is written first: ending access waits for nobody, the key server included.
    let only_less = current.is_some() && shards(&wanted).is_subset(&before);
    if only_less { vec![write, open] } else { vec![open, write] }
}

/// The plans that stand, without what the project may have no longer: no edit of its own prolongs access.
fn withdraw(inputs: &Inputs<'_>) -> Vec<Step> {
    if !inputs.admission.is_empty() {
        return Vec::new();
    }
    let ended = inputs
        .project
        .spec
        .period
        .until
        .ends(inputs.zone)
        .is_ok_and(|end| inputs.now >= end);
    let open = |rule: &EgressRule| {
        let same = |opening: &&Opening| opening.entry.cidr == rule.cidr && opening.entry.ports == rule.ports;
        inputs.openings.iter().filter(same).any(|opening| opening.closed.is_none())
    };
    let mut steps = Vec::new();
    for plan in inputs.plans.iter().filter(|plan| !plan.spec.ends) {
        let (Some(host), Some(current)) = (host_of(plan), &plan.spec.project) else {
            continue;
        };
        let mut less = current.clone();
        less.mounts.retain_mut(|mount| {
            let permitted = inputs.wishes.iter().find(|wish| {
                let verdict = &wish.verdict;
                let same = verdict.version == Some(mount.version) && verdict.policy.as_ref() == Some(&mount.policy_digest);
                same && verdict.decision == Decision::Permit && wish.dataset.is_some_and(|dataset| dataset.of == mount.dataset)
            });
            if let Some(wish) = permitted {
                mount.until = wish.verdict.until.map(dejima_crds::condition::seconds);
            }
            permitted.is_some()
        });
        less.segment.egress.retain(open);
        for domain in less.domains.iter_mut().filter(|_| ended) {
            domain.power = Power::Stopped;
        }
        if less == *current {
            continue;
        }
        let keys = less.mounts.iter().flat_map(|mount| &mount.shards).map(|shard| shard.key.clone());
        let keys = std::iter::once(less.key.clone()).chain(keys).collect::<BTreeSet<_>>();
        steps.push(Step::Write {
            host: host.clone(),
            spec: Box::new(HostPlanSpec {
                plan_generation: plan.spec.plan_generation + 1,
                ends: false,
                project: Some(less.clone()),
                intake: None,
            }),
            from: plan.metadata.resource_version.clone(),
        });
        // The project's own key first, as everywhere.
        let rest = keys.into_iter().filter(|key| *key != less.key);
        let keys = std::iter::once(less.key.clone()).chain(rest).collect();
        steps.push(Step::OpenKeys { host, keys });
    }
    steps
}

/// The plan of one host; nothing while an image is missing.
fn project_plan(inputs: &Inputs<'_>, images: &BTreeMap<ObjectName, ImagePlan>, current: Option<&ProjectPlan>) -> Option<ProjectPlan> {
    let (spec, uid) = (&inputs.project.spec, &inputs.facts.of.uid);
    let ended = spec.period.until.ends(inputs.zone).is_ok_and(|end| inputs.now >= end);
    let mut domains = Vec::new();
    for machine in &spec.machines {
        for name in machine_names(&machine.name, machine.count) {
            domains.push(DomainPlan {
                uid: names::id(uid, &format!("domain/{name}")).to_string().into(),
                power: if ended { Power::Stopped } else { Power::Running },
                cpus: machine.cpu.unwrap_or(1),
                memory_mib: machine.memory.as_ref().and_then(dejima_crds::bounded::Bytes::count).unwrap_or(0) >> 20,
                image: images.get(&machine.image)?.clone(),
                user_data: machine.user_data.clone(),
                machine: name,
            });
        }
    }
    let names_of_all: Vec<Label> = domains.iter().map(|domain| domain.machine.clone()).collect();
    let mut egress: Vec<EgressRule> = inputs
        .openings
        .iter()
        .filter(|opening| opening.closed.is_none())
        .map(|opening| EgressRule {
            cidr: opening.entry.cidr.clone(),
            ports: opening.entry.ports.clone(),
        })
        .collect();
    egress.sort();
    if !inputs.admission.is_empty() {
        egress = current.map(|plan| plan.segment.egress.clone()).unwrap_or_default();
    }
    let mut volumes: Vec<VolumePlan> = spec
        .volumes
        .iter()
        .map(|volume| VolumePlan {
            name: volume.name.clone(),
            uid: names::id(uid, &format!("volume/{}", volume.name)).to_string().into(),
            serial: names::serial(uid, &format!("volume/{}", volume.name)).into(),
            bytes: volume.size.count().unwrap_or(0),
            attach_to: Some(volume.attach_to.clone()),
            mount_path: Some(volume.mount_path.clone()),
        })
        .collect();
    // One that left the spec is detached and kept, until the spec orders its destruction.
    for kept in current.iter().flat_map(|plan| &plan.volumes) {
        if !volumes.iter().any(|volume| volume.name == kept.name) && !spec.destroy_volumes.contains(&kept.name) {
            volumes.push(VolumePlan {
                attach_to: None,
                mount_path: None,
                ..kept.clone()
            });
        }
    }
    Some(ProjectPlan {
        of: of(inputs),
        dedicated: spec.placement.dedicated,
        key: names::project_key(uid),
        segment: segment(uid, &names_of_all, egress),
        volumes,
        destroy: spec.destroy_volumes.clone(),
        mounts: mounts(inputs, current),
        domains,
    })
}
