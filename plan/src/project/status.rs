//! The status of a project: what is true now, in conditions, columns and lists.

use dejima_crds::bounded::{Label, Line};
use dejima_crds::condition::{ConditionDraft, ConditionKind, Truth, seconds, set};
use dejima_crds::dataset::reference;
use dejima_crds::host_plan::{HostPlanStatus, ItemState};
use dejima_crds::project::{DatasetWishStatus, IsolatedProjectStatus, MachineStatus, MemberStatus, Summary};
use dejima_crds::reason::{Decision, Reason};
use dejima_crds::receipt::State;

use super::after::Stage;
use super::{Inputs, MOST_EXPOSED, Step, after, ending, host_of, kept};
use crate::placement::Placed;
use crate::problems::Problem;
use crate::segment::machine_names;

pub(super) fn say(
    inputs: &Inputs<'_>,
    status: &mut IsolatedProjectStatus,
    kind: ConditionKind,
    truth: Truth,
    reason: &str,
    message: impl Into<String>,
) {
    let observed_generation = inputs.project.metadata.generation.unwrap_or(0);
    let message = message.into();
    set(
        &mut status.conditions,
        ConditionDraft {
            kind,
            status: truth,
            reason: reason.to_owned(),
            message,
            observed_generation,
        },
        inputs.now,
    );
}

pub(super) fn before(inputs: &Inputs<'_>) -> IsolatedProjectStatus {
    inputs.project.status.clone().unwrap_or_default()
}

/// A project that cannot be carried out as it stands: everything that is wrong, at once.
pub(super) fn refused(inputs: &Inputs<'_>, problems: &[Problem]) -> IsolatedProjectStatus {
    let mut status = before(inputs);
    let reason = if problems.iter().any(|problem| problem.reason == "Invalid") {
        "Invalid"
    } else {
        "NotYetBuilt"
    };
    let message = problems
        .iter()
        .map(|problem| problem.message.clone())
        .collect::<Vec<_>>()
        .join("; ");
    say(inputs, &mut status, ConditionKind::Admitted, Truth::False, reason, message.clone());
    say(inputs, &mut status, ConditionKind::Ready, Truth::False, reason, message);
    status
}

/// A project that goes. Written after the steps were carried out: what they do is done then.
pub(super) fn terminating(inputs: &Inputs<'_>, steps: &[Step]) -> IsolatedProjectStatus {
    let mut status = before(inputs);
    let issued = steps.iter().find_map(|step| match step {
        Step::Receipt(receipt) => Some(receipt),
        Step::Finalize
        | Step::Hold { .. }
        | Step::Request { .. }
        | Step::DropRequest { .. }
        | Step::OpenKeys { .. }
        | Step::Write { .. }
        | Step::DestroyKey { .. }
        | Step::CloseKeys { .. }
        | Step::Forget { .. }
        | Step::Release { .. }
        | Step::Unfinalize => None,
    });
    if let Some(receipt) = issued {
        status.receipt = Some(receipt.id.as_str().into());
    }
    let concluded = ending::concluded(&status) || issued.is_some_and(|receipt| receipt.state == State::Final);
    let waits: Vec<String> = inputs
        .plans
        .iter()
        .filter(|plan| !ending::swept(plan))
        .filter_map(host_of)
        .map(|host| host.to_string())
        .collect();
    let receipt = match (concluded, &status.receipt) {
        (true, _) => "the receipt is final",
        (false, Some(_)) => "the receipt is partial",
        (false, None) => "there is no receipt yet",
    };
    let message = if waits.is_empty() {
        format!("nothing is left on any host; {receipt}")
    } else {
        format!("waiting for {}; {receipt}", waits.join(", "))
    };
    let reason = if concluded { ending::FINAL } else { "Terminating" };
    say(
        inputs,
        &mut status,
        ConditionKind::Terminating,
        Truth::True,
        reason,
        message.clone(),
    );
    say(inputs, &mut status, ConditionKind::Ready, Truth::False, "Terminating", message);
    if steps.iter().any(|step| matches!(step, Step::DestroyKey { .. })) {
        say(
            inputs,
            &mut status,
            ConditionKind::KeysReady,
            Truth::False,
            ending::DESTROYED,
            "the project's key is destroyed",
        );
    }
    status
}

/// A project that is, or is to be.
pub(super) fn base(inputs: &Inputs<'_>, missing: &[Problem], placed: Option<&Placed>, stage: Stage) -> IsolatedProjectStatus {
    let mut status = before(inputs);
    if inputs.admission.is_empty() {
        say(
            inputs,
            &mut status,
            ConditionKind::Admitted,
            Truth::True,
            "Admitted",
            "it can be carried out as it stands",
        );
    } else {
        let message = format!(
            "nothing new is permitted while admission policies are missing or differ: {}",
            inputs.admission.join(", ")
        );
        say(
            inputs,
            &mut status,
            ConditionKind::Admitted,
            Truth::Unknown,
            "AdmissionMissing",
            message,
        );
    }
    let (truth, reason, message) = match placed {
        None if missing.is_empty() => (
            Truth::False,
            after::ENDED,
            "its period has ended: it gets no host any more".to_owned(),
        ),
        None => (
            Truth::False,
            missing.first().map_or("ImageMissing", |problem| problem.reason),
            missing.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; "),
        ),
        Some(Placed::On(host)) => (Truth::True, "Placed", format!("on {host}")),
        Some(Placed::Waits(refusals)) if refusals.is_empty() => {
            (Truth::False, "NoHost", "there is no host with the role machines".to_owned())
        }
        Some(Placed::Waits(refusals)) => {
            let all = refusals
                .iter()
                .map(|(host, why)| format!("{host}: {why}"))
                .collect::<Vec<_>>()
                .join("; ");
            (Truth::False, "NoHost", format!("waiting for a host: {all}"))
        }
    };
    say(inputs, &mut status, ConditionKind::Placed, truth, reason, message);
    let placed_on = match placed {
        Some(Placed::On(host)) => Some(host.clone()),
        Some(Placed::Waits(_)) | None => None,
    };
    status.hosts = placed_on.iter().cloned().collect();
    let reported = placed_on
        .as_ref()
        .and_then(|host| inputs.plans.iter().find(|plan| host_of(plan).as_ref() == Some(host)));
    let report = reported.and_then(|plan| plan.status.clone()).unwrap_or_default();
    let current = reported.is_some_and(|plan| report.plan_generation == plan.spec.plan_generation);
    // Keys are opened before the plan is written, and status is said after both.
    items(inputs, &mut status, &report, current, placed_on.is_some());
    machines(inputs, &mut status, &report, placed_on.as_ref(), stage);
    status.kept_volumes = kept::volumes(inputs);
    datasets(inputs, &mut status, &report);
    members(inputs, &mut status);
    summary(inputs, &mut status, placed_on.as_ref().map(ToString::to_string));
    ready(inputs, &mut status, stage);
    status
}

fn state(report: &HostPlanStatus, item: &str) -> ItemState {
    report
        .items
        .iter()
        .find(|known| known.item == item)
        .map_or(ItemState::Pending, |known| known.state)
}

/// Why an item is not ready, where its host says so.
fn why<'a>(report: &'a HostPlanStatus, item: &str) -> Option<&'a str> {
    let found = report.items.iter().find(|known| known.item == item)?;
    found.message.as_ref().map(dejima_crds::bounded::Prose::as_str)
}

fn items(inputs: &Inputs<'_>, status: &mut IsolatedProjectStatus, report: &HostPlanStatus, current: bool, planned: bool) {
    let (truth, reason) = if planned {
        (Truth::True, "Open")
    } else {
        (Truth::False, "Pending")
    };
    say(
        inputs,
        status,
        ConditionKind::KeysReady,
        truth,
        reason,
        if planned {
            "the host may use the project's keys"
        } else {
            "no host yet"
        },
    );
    let network = state(report, "network");
    let proof = report
        .isolation
        .as_ref()
        .map(|proof| format!("{} forbidden frames refused, {} permitted ones passed", proof.refused, proof.passed));
    let closed: Vec<String> = inputs
        .openings
        .iter()
        .filter_map(|opening| Some(format!("{} is closed: {}", opening.entry.cidr, opening.closed.as_ref()?)))
        .collect();
    let message = std::iter::once(proof.unwrap_or_else(|| "not proved yet".to_owned()))
        .chain(closed)
        .collect::<Vec<_>>()
        .join("; ");
    say(
        inputs,
        status,
        ConditionKind::NetworkSealed,
        truth_of(network),
        if network == ItemState::Ready { "Proved" } else { "Pending" },
        message,
    );
    let volumes: Vec<(&Label, ItemState)> = inputs
        .project
        .spec
        .volumes
        .iter()
        .map(|volume| (&volume.name, state(report, &format!("volume/{}", volume.name))))
        .collect();
    let waits: Vec<String> = volumes
        .iter()
        .filter(|(_, state)| *state != ItemState::Ready)
        .map(|(name, _)| match why(report, &format!("volume/{name}")) {
            Some(why) => format!("{name} ({why})"),
            None => name.to_string(),
        })
        .collect();
    let truth = if waits.is_empty() { Truth::True } else { Truth::False };
    say(
        inputs,
        status,
        ConditionKind::VolumesReady,
        truth,
        if waits.is_empty() { "Ready" } else { "Pending" },
        waits.join(", "),
    );
    if let (Some(problem), true) = (&report.problem, current) {
        say(
            inputs,
            status,
            ConditionKind::Degraded,
            Truth::True,
            problem.as_str(),
            "the host cannot go on with the plan",
        );
    } else if dejima_crds::condition::holds(&status.conditions, ConditionKind::Degraded) {
        say(inputs, status, ConditionKind::Degraded, Truth::False, "Resolved", "");
    }
    if !report.drift.is_empty() {
        let message = report
            .drift
            .iter()
            .map(|drift| format!("{}: {}", drift.item, drift.message))
            .collect::<Vec<_>>()
            .join("; ");
        say(inputs, status, ConditionKind::Drifted, Truth::True, "Drifted", message);
    } else if dejima_crds::condition::holds(&status.conditions, ConditionKind::Drifted) {
        say(inputs, status, ConditionKind::Drifted, Truth::False, "Repaired", "");
    }
}

fn truth_of(state: ItemState) -> Truth {
    match state {
        ItemState::Ready => Truth::True,
        ItemState::Unknown => Truth::Unknown,
        ItemState::Pending | ItemState::Failed | ItemState::Ended => Truth::False,
    }
}

fn machines(
    inputs: &Inputs<'_>,
    status: &mut IsolatedProjectStatus,
    report: &HostPlanStatus,
    host: Option<&dejima_crds::bounded::ObjectName>,
    stage: Stage,
) {
    let ended = matches!(stage, Stage::Held { .. });
    let wanted: Vec<Label> = inputs
        .project
        .spec
        .machines
        .iter()
        .flat_map(|machine| machine_names(&machine.name, machine.count))
        .collect();
    let segment = crate::segment::segment(&inputs.facts.of.uid, &wanted, Vec::new());
    let one = |machine: &Label| {
        let word = match state(report, &format!("domain/{machine}")) {
            ItemState::Ready if ended => "stopped",
            ItemState::Ready => "running",
            ItemState::Pending | ItemState::Failed | ItemState::Unknown | ItemState::Ended => "pending",
        };
        let address = segment
            .ports
            .iter()
            .find(|port| port.machine == *machine)
            .map(|port| port.address.clone());
        MachineStatus {
            name: machine.clone(),
            host: host.cloned(),
            address,
            state: Some(word.into()),
        }
    };
    status.machines = wanted.iter().map(one).collect();
    let waits: Vec<String> = wanted
        .iter()
        .filter(|machine| state(report, &format!("domain/{machine}")) != ItemState::Ready)
        .map(ToString::to_string)
        .collect();
    let (truth, reason, message) = if ended {
        (
            Truth::False,
            after::ENDED,
            "its period has ended: its machines are stopped".to_owned(),
        )
    } else if waits.is_empty() {
        (Truth::True, "Running", String::new())
    } else {
        (Truth::False, "Pending", waits.join(", "))
    };
    say(inputs, status, ConditionKind::MachinesRunning, truth, reason, message);
}

fn datasets(inputs: &Inputs<'_>, status: &mut IsolatedProjectStatus, report: &HostPlanStatus) {
    let mut waiting = Vec::new();
    let old = std::mem::take(&mut status.datasets);
    let each = (DATASETS_REASONS / inputs.wishes.len().max(1)).clamp(1, 64);
    for wish in inputs.wishes {
        let name = reference(&wish.wish.namespace, &wish.wish.name);
        let version = wish.verdict.version;
        let machines = super::attached_to(inputs, wish.wish);
        let item = |machine: &Label| version.map(|version| format!("mount/{name}@{version}/{machine}"));
        let on = |machine: &&Label| item(machine).is_some_and(|item| state(report, &item) == ItemState::Ready);
        let mounted: Vec<Label> = machines.iter().filter(on).cloned().collect();
        // What keeps a permitted one from being mounted, such as a shard that is not what was sealed, its host says.
        let mut kept: Vec<&str> = machines.iter().filter_map(|machine| why(report, &item(machine)?)).collect();
        kept.dedup();
        if mounted.is_empty() || !kept.is_empty() {
            let exposed = inputs
                .facts
                .exposed
                .iter()
                .any(|known| known.dataset == name && Some(known.version) == version);
            let full = wish.verdict.decision == Decision::Permit && !exposed && inputs.facts.exposed.len() >= MOST_EXPOSED;
            let first = if full {
                format!(
                    "permitted, but this project has seen {MOST_EXPOSED} versions, the most that are written down: make another project"
                )
            } else {
                words(&wish.verdict.reasons, wish.verdict.decision)
            };
            let all: Vec<String> = std::iter::once(first).chain(kept.into_iter().map(str::to_owned)).collect();
            waiting.push(format!("{name}: {}", all.join("; ")));
        }
        let since = old
            .iter()
            .find(|old| old.name == wish.wish.name && old.namespace == wish.wish.namespace && old.verdict == wish.verdict.decision)
            .and_then(|old| old.since.clone());
        status.datasets.push(DatasetWishStatus {
            namespace: wish.wish.namespace.clone(),
            name: wish.wish.name.clone(),
            version,
            verdict: wish.verdict.decision,
            reasons: wish.verdict.reasons.iter().take(each).cloned().collect(),
            since: if mounted.is_empty() {
                None
            } else {
                since.or_else(|| Some(seconds(inputs.now)))
            },
            mounted_on: mounted,
            until: wish.verdict.until.map(seconds),
        });
    }
    let (truth, reason) = if waiting.is_empty() {
        (Truth::True, "Mounted")
    } else {
        (Truth::False, "Waiting")
    };
    say(inputs, status, ConditionKind::DatasetsMounted, truth, reason, waiting.join("; "));
}

fn words(reasons: &[Reason], decision: Decision) -> String {
    if decision == Decision::Permit {
        return "permitted, being mounted".to_owned();
    }
    let mut codes: Vec<String> = reasons
        .iter()
        .map(|reason| format!("{:?} ({})", reason.code, reason.clause))
        .collect();
    codes.dedup();
    codes.join(", ")
}

/// How many reasons a status tells of all members, and of all datasets, together: an object has an end (etcd takes 1.5 MiB).
const MEMBERS_REASONS: usize = 256;
const DATASETS_REASONS: usize = 512;

/// A member is effective while he is so for everything that is mounted, or about to be.
fn members(inputs: &Inputs<'_>, status: &mut IsolatedProjectStatus) {
    let each = (MEMBERS_REASONS / inputs.facts.members.len().max(1)).clamp(1, 64);
    let one = |member: &dejima_policy::MemberFacts| {
        let reasons: Vec<Reason> = inputs
            .wishes
            .iter()
            .flat_map(|wish| &wish.verdict.members)
            .filter(|(subject, _)| *subject == member.subject)
            .flat_map(|(_, why)| why.clone())
            .take(each)
            .collect();
        MemberStatus {
            subject: member.subject.clone(),
            effective: reasons.is_empty(),
            terms_seen: member.terms.iter().take(64).cloned().collect(),
            reasons,
        }
    };
    status.members = inputs.facts.members.iter().map(one).collect();
}

fn summary(inputs: &Inputs<'_>, status: &mut IsolatedProjectStatus, host: Option<String>) {
    let running = status
        .machines
        .iter()
        .filter(|machine| machine.state.as_ref().is_some_and(|state| *state == "running"))
        .count();
    let mounted = status.datasets.iter().filter(|dataset| !dataset.mounted_on.is_empty()).count();
    status.summary = Some(Summary {
        host: host.map(Line::from),
        machines: Some(format!("{running}/{}", status.machines.len()).into()),
        datasets: Some(format!("{mounted}/{}", inputs.project.spec.datasets.len()).into()),
    });
}

/// Ready: the environment is there and sealed. Datasets that wait do not keep it from being used.
fn ready(inputs: &Inputs<'_>, status: &mut IsolatedProjectStatus, stage: Stage) {
    if let Some(words) = after::words(stage) {
        say(inputs, status, ConditionKind::Ready, Truth::False, after::ENDED, words);
        return;
    }
    let order = [
        ConditionKind::Placed,
        ConditionKind::KeysReady,
        ConditionKind::NetworkSealed,
        ConditionKind::VolumesReady,
        ConditionKind::MachinesRunning,
    ];
    let first = order.iter().find_map(|kind| {
        let condition = dejima_crds::condition::get(&status.conditions, *kind)?;
        (condition.status != Truth::True).then(|| {
            (
                condition.status,
                condition.kind,
                condition.reason.to_string(),
                condition.message.to_string(),
            )
        })
    });
    match first {
        None => say(
            inputs,
            status,
            ConditionKind::Ready,
            Truth::True,
            "Ready",
            "the environment is there and sealed",
        ),
        Some((truth, kind, reason, message)) => {
            let reason = if reason == "Pending" { format!("{kind:?}Pending") } else { reason };
            say(inputs, status, ConditionKind::Ready, truth, &reason, message);
        }
    }
}
