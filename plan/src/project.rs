//! One project: from the objects and what was observed to the steps that are possible now, and the status that is true now.
//!
//! Steps are in the order in which they are carried out; each looks only at what is there, so that a plan that was cut
//! short is simply continued. What takes access away never waits for what gives it.

mod after;
mod ending;
mod host_plan;
mod kept;
mod less;
mod status;
mod waits;

pub(crate) use ending::said;
pub use waits::{Wait, taken_away, waits};

use std::collections::BTreeMap;

use dejima_crds::bounded::{KeyName, Label, ObjectName, Period};
use dejima_crds::condition::{ConditionKind, Truth, get};
use dejima_crds::dataset::reference;
use dejima_crds::grant::{AccessGrantSpec, PolicyPin, ProjectRef};
use dejima_crds::host::Capacity;
use dejima_crds::host_plan::{HostPlanSpec, ImagePlan};
use dejima_crds::names;
use dejima_crds::project::{DatasetWish, Exposure, IsolatedProjectStatus, Machine};
use dejima_crds::reason::{Code, Decision};
use dejima_crds::receipt::Receipt;
use dejima_crds::{AccessGrant, HostPlan, IsolatedProject, MachineImage};
use dejima_policy::{DatasetFacts, Opening, PolicyFacts, ProjectFacts, Verdict, request};
use jiff::{Timestamp, tz::TimeZone};

use self::after::Stage;
use self::host_plan::write;
use crate::placement::{self, Candidate, Hold, Need, Placed, name as host_name, place};
use crate::problems::{Problem, problems};
use crate::segment::machine_names;

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
    /// Which admission policies are missing; empty where all stand. Until they do nothing new is permitted.
    pub admission: &'a [String],
    /// How long a back-up of the key server may still hold a destroyed key.
    pub horizon: &'a Period,
    /// How long volumes and keys stay after the end of the period.
    pub retention: &'a Period,
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
    let stage = after::stage(inputs);
    if stage == Stage::Over {
        return after::over(inputs, finalized);
    }
    let (missing, images) = images(inputs);
    let mut problems = problems(&inputs.project.spec);
    problems.extend(kept::too_many(inputs));
    // An image that is not there may come; what is not built does not.
    if !problems.is_empty() || missing.iter().any(|problem| problem.reason == "NotYetBuilt") {
        problems.extend(missing);
        // An object that cannot be carried out is given nothing more; what it may have no longer is taken away all the same.
        let mut status = status::refused(inputs, &problems);
        after::notice(inputs, stage, &mut status);
        return Next {
            steps: less::steps(inputs),
            status,
            again: after::again(inputs.now, stage),
        };
    }
    // One whose period has ended gets no host any more; what it has on one stays there.
    let has_none = inputs.plans.is_empty() && inputs.project.status.as_ref().is_none_or(|status| status.hosts.is_empty());
    let waits = matches!(stage, Stage::Held { .. }) && has_none;
    let placed = if missing.is_empty() && !waits {
        Some(place(&need(inputs), inputs.candidates))
    } else {
        None
    };
    let mut status = status::base(inputs, &missing, placed.as_ref(), stage);
    if let Some(Placed::On(host)) = &placed {
        if !finalized {
            steps.push(Step::Finalize);
        }
        steps.extend(hold(inputs, host));
        status.exposed = exposure(inputs);
        steps.extend(write(inputs, host, &images));
    } else {
        steps.extend(less::steps(inputs));
    }
    after::notice(inputs, stage, &mut status);
    // Once the host plan says that it is gone.
    steps.extend(kept::receipts(inputs));
    // Last: a request that cannot be made keeps nobody from losing what he may have no longer.
    steps.extend(requests(inputs));
    let again = inputs
        .wishes
        .iter()
        .filter_map(|wish| wish.verdict.until)
        .chain(inputs.openings.iter().filter_map(|opening| opening.until))
        .chain(after::again(inputs.now, stage))
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
            if let Some(problem) = crate::image::not_built(spec) {
                missing.push(Problem {
                    reason: "NotYetBuilt",
                    message: format!("machines[{}].image: image {} {problem}", machine.name, machine.image),
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
            let conditions = image.status.as_ref().map_or(&[][..], |status| &status.conditions);
            let unavailable =
                get(conditions, ConditionKind::Available).filter(|said| said.status == Truth::False && said.reason != "NotYetBuilt");
            // What a machine has booted from is on its host, whatever became of the store.
            let booted = inputs.plans.iter().filter_map(|plan| plan.spec.project.as_ref());
            let booted = booted.flat_map(|plan| &plan.domains).any(|domain| domain.image == plan);
            if let Some(said) = unavailable.filter(|_| !booted) {
                missing.push(Problem {
                    reason: "ImageUnavailable",
                    message: format!(
                        "machines[{}].image: image {} is not available: {}",
                        machine.name, machine.image, said.message
                    ),
                });
            }
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

/// How many versions a project can have been exposed to (the bound of `status.exposed`).
const MOST_EXPOSED: usize = 256;

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
        // What has no room to be written down is not mounted.
        if exposed.len() < MOST_EXPOSED
            && !exposed
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

/// The machines that a wish names, one by one.
fn attached_to(inputs: &Inputs<'_>, wish: &DatasetWish) -> Vec<Label> {
    let count = |name: &Label| {
        let machine = inputs.project.spec.machines.iter().find(|machine| machine.name == *name);
        machine.map_or(1, |machine| machine.count)
    };
    wish.attach_to.iter().flat_map(|name| machine_names(name, count(name))).collect()
}
