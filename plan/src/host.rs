//! One host and one project: from the host plan and what the drivers found to the actions that are possible now.
//!
//! ```text
//! key, network (rules before ports), volumes, define, start paused, datasets, prove isolation, resume
//! ```
//! Each call gives what can be done *now*; the caller does it, looks again, and calls again, until nothing is left.
//! What nobody can tell about is neither made nor taken away.

use std::collections::{BTreeMap, BTreeSet};

use dejima_crds::bounded::{Digest, Label, Uid, WrappedKey};
use dejima_crds::digest;
use dejima_crds::host_plan::{
    DomainPlan, HostPlanSpec, Item, ItemState, MountPlan, Power, ProjectPlan, Segment, ShardPlan, VolumePlan, mount_item,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::seen::Seen;

mod volumes;

/// What the drivers found of one project on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The network.
    pub network: Seen<NetworkSeen>,
    /// The volumes.
    pub volumes: Seen<Vec<VolumeSeen>>,
    /// The machines.
    pub domains: Seen<Vec<DomainSeen>>,
    /// Other projects of which something is on this host. Who cannot be told apart from nobody holds it.
    pub others: Seen<BTreeSet<Uid>>,
    /// What this host attached to which machine and has not seen leave: known although nobody can tell about the machine.
    pub attached: BTreeMap<Label, BTreeSet<Label>>,
}

/// A network, as found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSeen {
    /// The digest of the segment whose rules are in force.
    pub rules: Digest,
    /// The digest of the segment under which isolation was last proved, as long as nothing was reloaded since.
    pub proved: Option<Digest>,
}

/// A volume, as found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSeen {
    /// Its name.
    pub name: Label,
    /// How large, in bytes.
    pub bytes: u64,
    /// Its data key, wrapped, as it is kept beside it.
    pub wrapped_key: Option<WrappedKey>,
    /// Whether it has a LUKS header.
    pub formatted: bool,
}

/// A machine, as found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSeen {
    /// Its name.
    pub machine: Label,
    /// Its state.
    pub state: DomainState,
    /// The digest of what it was defined from.
    pub definition: Digest,
    /// The serials of shards that are attached.
    pub shards: BTreeSet<Label>,
    /// Its volumes, and how large each is in it, in bytes. Of a machine that is off: those that it was defined with.
    #[serde(default)]
    pub volumes: BTreeMap<Label, u64>,
    /// The digest of the map of mounts that it was last told.
    pub map: Option<Digest>,
    /// Whether the guest said that it did what this map says, and uses nothing any more that the map does not name.
    #[serde(default)]
    pub answered: bool,
    /// Whether somebody else changed its definition since it was started.
    #[serde(default)]
    pub changed: bool,
}

/// The state of a machine, libvirt's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// It is defined and does not run.
    Shutoff,
    /// It is there, and its processors stand still.
    Paused,
    /// It runs.
    Running,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Rules, then the bridge.
    SealNetwork(Segment),
    /// Send forbidden and permitted frames; only what nobody got is proof.
    ProveIsolation(Segment),
    /// A data key, its wrapped form kept and synced, then the header.
    MakeVolume(VolumePlan),
    /// Larger.
    GrowVolume(VolumePlan),
    /// Give a volume to a machine that runs.
    AttachVolume(Label, VolumePlan),
    /// Let a machine that runs see all of a volume that has grown.
    ResizeVolume(Label, VolumePlan),
    /// Take a volume from a machine that runs and uses it no more.
    DetachVolume(Label, Label),
    /// Define a machine; its volumes' keys are given first.
    Define(DomainPlan),
    /// Start it with its processors standing still.
    Start(DomainPlan),
    /// Fetch a shard, check it, and attach it.
    Attach(Label, MountPlan, ShardPlan),
    /// Replace the map of mounts of a machine.
    Tell(Label, Vec<MapEntry>),
    /// Let it run.
    Resume(Label),
    /// Take a shard away, whether or not the guest agrees.
    Detach(Label, Label),
    /// Pull the plug.
    Destroy(Label),
    /// Forget a machine.
    Undefine(Label),
    /// Destroy a volume's wrapped key, then its bytes.
    RemoveVolume(Label),
    /// Take the network away, its rules last.
    RemoveNetwork,
}

impl Action {
    /// The thing and the verb, as effects and logs name them.
    pub fn name(&self) -> (String, &'static str) {
        match self {
            Self::SealNetwork(_) => ("network".into(), "seal"),
            Self::ProveIsolation(_) => ("network".into(), "prove"),
            Self::MakeVolume(volume) => (format!("volume/{}", volume.name), "make"),
            Self::GrowVolume(volume) => (format!("volume/{}", volume.name), "grow"),
            Self::AttachVolume(machine, volume) => (format!("volume/{}/{machine}", volume.name), "attach"),
            Self::ResizeVolume(machine, volume) => (format!("volume/{}/{machine}", volume.name), "resize"),
            Self::DetachVolume(machine, name) => (format!("volume/{name}/{machine}"), "detach"),
            Self::Define(domain) => (format!("domain/{}", domain.machine), "define"),
            Self::Start(domain) => (format!("domain/{}", domain.machine), "start"),
            Self::Attach(machine, mount, shard) => (
                format!("mount/{}@{}/{machine}/{}", mount.dataset, mount.version, shard.id),
                "attach",
            ),
            Self::Tell(machine, _) => (format!("domain/{machine}"), "tell"),
            Self::Resume(machine) => (format!("domain/{machine}"), "resume"),
            // A serial is made from UIDs.
            Self::Detach(machine, _) => (format!("domain/{machine}"), "detach"),
            Self::Destroy(machine) => (format!("domain/{machine}"), "destroy"),
            Self::Undefine(machine) => (format!("domain/{machine}"), "undefine"),
            Self::RemoveVolume(name) => (format!("volume/{name}"), "remove"),
            Self::RemoveNetwork => ("network".into(), "remove"),
        }
    }
}

/// One line of the map of mounts: which serials belong at which path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MapEntry {
    /// Where.
    pub path: String,
    /// `volume` or `dataset`.
    pub kind: MapKind,
    /// The serials, in order.
    pub serials: Vec<String>,
}

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapKind {
    /// A volume: read and written.
    Volume,
    /// A dataset: read.
    Dataset,
}

/// What follows: what to do now, and how each thing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// What can be done now, in this order.
    pub actions: Vec<Action>,
    /// Why nothing more can be done, although the plan is not carried out: one word.
    pub problem: Option<&'static str>,
    /// How each thing stands, as far as can be told.
    pub items: Vec<(String, ItemState, Option<WrappedKey>)>,
    /// Of a plan that ends: no process holds a key any more.
    pub closed: bool,
    /// Of a plan that ends: nothing is left.
    pub swept: bool,
}

/// The digest of a segment: what the rules are made from.
pub fn segment_digest(segment: &Segment) -> Digest {
    // INVARIANT: a segment is strings, numbers and lists, which always have a JSON form.
    digest::of_value(segment).unwrap_or_else(|_| digest::of_bytes(b"segment"))
}

/// The digest of what a machine is defined from: all of its plan but whether it is to run, and what comes and goes while it runs.
pub fn definition(plan: &ProjectPlan, domain: &DomainPlan) -> Digest {
    let port = plan.segment.ports.iter().find(|port| port.machine == domain.machine);
    // INVARIANT: as above.
    digest::of_value(&(
        &domain.uid,
        domain.cpus,
        domain.memory_mib,
        &domain.image,
        &domain.user_data,
        port,
        &plan.segment.bridge,
    ))
    .unwrap_or_else(|_| digest::of_bytes(b"domain"))
}

/// The map of mounts of a machine.
pub fn map(plan: &ProjectPlan, machine: &Label, now: Timestamp) -> Vec<MapEntry> {
    map_with(plan, machine, volumes::wanted(plan, machine), now)
}

/// The map that a machine is to be told now: a volume that it does not have yet is named once it has it, since whether it is new
/// is seen at its disk.
fn wanted_map(plan: &ProjectPlan, found: &DomainSeen, now: Timestamp) -> Vec<MapEntry> {
    let has = |volume: &&VolumePlan| found.volumes.contains_key(&volume.name);
    map_with(plan, &found.machine, volumes::wanted(plan, &found.machine).filter(has), now)
}

/// Whether a machine was told the map that it is to be told.
fn is_told(plan: &ProjectPlan, found: &DomainSeen, now: Timestamp) -> bool {
    found.map.as_ref() == Some(&map_digest(&wanted_map(plan, found, now)))
}

fn map_with<'a>(plan: &ProjectPlan, machine: &Label, volumes: impl Iterator<Item = &'a VolumePlan>, now: Timestamp) -> Vec<MapEntry> {
    let volumes = volumes.filter_map(|volume| {
        Some(MapEntry {
            path: volume.mount_path.as_ref()?.to_string(),
            kind: MapKind::Volume,
            serials: vec![volume.serial.to_string()],
        })
    });
    let datasets = wanted(plan, machine, now).into_iter().map(|mount| MapEntry {
        path: mount.path.to_string(),
        kind: MapKind::Dataset,
        serials: mount.shards.iter().map(|shard| shard.serial.to_string()).collect(),
    });
    let mut map: Vec<MapEntry> = volumes.chain(datasets).collect();
    map.sort();
    map
}

/// The digest of a map.
pub fn map_digest(map: &[MapEntry]) -> Digest {
    // INVARIANT: as above.
    digest::of_value(&map).unwrap_or_else(|_| digest::of_bytes(b"map"))
}

/// Mounts that a machine is to have now: those whose end has not come. One whose end cannot be read has ended.
pub(crate) fn wanted<'a>(plan: &'a ProjectPlan, machine: &Label, now: Timestamp) -> Vec<&'a MountPlan> {
    let lives = |mount: &&MountPlan| match &mount.until {
        None => true,
        Some(until) => until.as_str().parse::<Timestamp>().is_ok_and(|until| now < until),
    };
    plan.mounts
        .iter()
        .filter(|mount| mount.machines.contains(machine))
        .filter(lives)
        .collect()
}

/// What to do for a project on a host.
pub fn next(spec: &HostPlanSpec, plan: &ProjectPlan, seen: &Observed, now: Timestamp) -> Next {
    if spec.ends {
        return end(plan, seen);
    }
    let problem = match &seen.others {
        Seen::Present(others) if plan.dedicated && !others.is_empty() => Some("HostHeldByAnother"),
        Seen::Unknown if plan.dedicated => Some("DriverSilent"),
        Seen::Present(_) | Seen::Absent | Seen::Unknown => None,
    };
    let held = problem.is_some();
    let mut next = Next {
        actions: Vec::new(),
        problem,
        items: Vec::new(),
        closed: false,
        swept: false,
    };
    // What takes access away comes first, and waits for nothing.
    detach(plan, seen, now, &mut next);
    remove(plan, seen, &mut next);
    if held {
        return next;
    }
    let sealed = network(plan, seen, &mut next);
    let ready = volumes::make(plan, seen, &mut next);
    volumes::attach(plan, seen, &ready, &mut next);
    for domain in &plan.domains {
        machine(plan, domain, seen, now, sealed, &ready, &mut next);
    }
    mounts(plan, seen, now, &mut next);
    // Last: one that does not leave keeps nothing else from being done.
    volumes::detach(plan, seen, now, &mut next);
    next
}

/// Shards that no living mount wants leave their machines. A machine that nobody can tell about ends, where one of its mounts must.
fn detach(plan: &ProjectPlan, seen: &Observed, now: Timestamp, next: &mut Next) {
    if seen.domains == Seen::Unknown {
        for (machine, serials) in &seen.attached {
            let living: BTreeSet<&Label> = wanted(plan, machine, now)
                .into_iter()
                .flat_map(|mount| &mount.shards)
                .map(|shard| &shard.serial)
                .collect();
            if serials.iter().any(|serial| !living.contains(serial)) {
                next.actions.push(Action::Destroy(machine.clone()));
            }
        }
    }
    for domain in seen.domains.present().into_iter().flatten() {
        let wanted: BTreeSet<&Label> = wanted(plan, &domain.machine, now)
            .into_iter()
            .flat_map(|mount| &mount.shards)
            .map(|shard| &shard.serial)
            .collect();
        for serial in domain.shards.iter().filter(|serial| !wanted.contains(serial)) {
            next.actions.push(Action::Detach(domain.machine.clone(), serial.clone()));
        }
    }
}

/// Machines that left the plan are taken down; volumes go only where the plan names them in `destroy`.
fn remove(plan: &ProjectPlan, seen: &Observed, next: &mut Next) {
    for domain in seen.domains.present().into_iter().flatten() {
        if plan.domains.iter().any(|wanted| wanted.machine == domain.machine) {
            continue;
        }
        match domain.state {
            DomainState::Shutoff => next.actions.push(Action::Undefine(domain.machine.clone())),
            DomainState::Paused | DomainState::Running => next.actions.push(Action::Destroy(domain.machine.clone())),
        }
    }
    volumes::destroy(plan, seen, next);
}

/// Whether the rules in force are the plan's.
fn network(plan: &ProjectPlan, seen: &Observed, next: &mut Next) -> bool {
    let wanted = segment_digest(&plan.segment);
    let state = match &seen.network {
        Seen::Unknown => ItemState::Unknown,
        Seen::Present(network) if network.rules == wanted => {
            if network.proved.as_ref() == Some(&wanted) {
                ItemState::Ready
            } else {
                next.actions.push(Action::ProveIsolation(plan.segment.clone()));
                ItemState::Pending
            }
        }
        Seen::Present(_) | Seen::Absent => {
            next.actions.push(Action::SealNetwork(plan.segment.clone()));
            ItemState::Pending
        }
    };
    next.items.push(("network".to_owned(), state, None));
    matches!(&seen.network, Seen::Present(network) if network.rules == wanted)
}

fn machine(
    plan: &ProjectPlan,
    domain: &DomainPlan,
    seen: &Observed,
    now: Timestamp,
    sealed: bool,
    ready: &BTreeSet<Label>,
    next: &mut Next,
) {
    let item = format!("domain/{}", domain.machine);
    let Some(found) = seen.domains.present() else {
        let state = if seen.domains == Seen::Unknown {
            ItemState::Unknown
        } else {
            ItemState::Pending
        };
        if seen.domains == Seen::Absent && sealed && volumes::are_free(plan, domain, ready, seen) {
            next.actions.push(Action::Define(domain.clone()));
        }
        next.items.push((item, state, None));
        return;
    };
    let Some(found) = found.iter().find(|found| found.machine == domain.machine) else {
        // A domain does not start without its disks, and has no port before there are rules.
        if sealed && volumes::are_free(plan, domain, ready, seen) {
            next.actions.push(Action::Define(domain.clone()));
        }
        next.items.push((item, ItemState::Pending, None));
        return;
    };
    // What somebody else changed is made anew before it is started.
    let current = found.definition == definition(plan, domain) && !found.changed && volumes::are_defined(plan, found);
    let proved = is_proved(plan, seen);
    let state = match (found.state, domain.power) {
        (DomainState::Shutoff, Power::Stopped) if current => ItemState::Ready,
        (DomainState::Shutoff, Power::Stopped | Power::Running) if !current => {
            next.actions.push(Action::Undefine(domain.machine.clone()));
            ItemState::Pending
        }
        (DomainState::Shutoff, Power::Stopped | Power::Running) => {
            if sealed && volumes::are_free(plan, domain, ready, seen) {
                next.actions.push(Action::Start(domain.clone()));
            }
            ItemState::Pending
        }
        (DomainState::Paused | DomainState::Running, Power::Stopped) => {
            next.actions.push(Action::Destroy(domain.machine.clone()));
            ItemState::Pending
        }
        (DomainState::Paused, Power::Running) => {
            if !is_told(plan, found, now) {
                next.actions
                    .push(Action::Tell(domain.machine.clone(), wanted_map(plan, found, now)));
            } else if proved {
                next.actions.push(Action::Resume(domain.machine.clone()));
            }
            ItemState::Pending
        }
        (DomainState::Running, Power::Running) => {
            // A definition that changed is taken at the next start: nothing that runs is harmed by an edit.
            ItemState::Ready
        }
    };
    next.items.push((item, state, None));
}

/// Whether isolation was proved under the rules that the plan wants, and nothing was reloaded since.
fn is_proved(plan: &ProjectPlan, seen: &Observed) -> bool {
    let wanted = segment_digest(&plan.segment);
    matches!(&seen.network, Seen::Present(network) if network.rules == wanted && network.proved.as_ref() == Some(&wanted))
}

/// Mounts go into machines that are there; the map is told before the first and after the last shard of a change.
fn mounts(plan: &ProjectPlan, seen: &Observed, now: Timestamp, next: &mut Next) {
    for mount in &plan.mounts {
        for machine in &mount.machines {
            let item = mount_item(mount, machine);
            let lives = wanted(plan, machine, now).contains(&mount);
            let runs = plan
                .domains
                .iter()
                .any(|domain| domain.machine == *machine && domain.power == Power::Running);
            let found = seen
                .domains
                .present()
                .and_then(|all| all.iter().find(|found| found.machine == *machine));
            let state = match (found, lives) {
                (_, false) => ItemState::Ended,
                (None, true) if seen.domains == Seen::Unknown => ItemState::Unknown,
                (None, true) => ItemState::Pending,
                (Some(found), true) if found.state == DomainState::Shutoff || !runs => ItemState::Pending,
                // What runs gets data only on a network that is proved; what stands still is proved before it runs.
                (Some(found), true) if found.state == DomainState::Running && !is_proved(plan, seen) => ItemState::Pending,
                (Some(found), true) => {
                    let missing: Vec<&ShardPlan> = mount.shards.iter().filter(|shard| !found.shards.contains(&shard.serial)).collect();
                    for shard in &missing {
                        next.actions.push(Action::Attach(machine.clone(), mount.clone(), (*shard).clone()));
                    }
                    if missing.is_empty() && is_told(plan, found, now) {
                        ItemState::Ready
                    } else {
                        ItemState::Pending
                    }
                }
            };
            next.items.push((item, state, None));
        }
    }
    for found in seen
        .domains
        .present()
        .into_iter()
        .flatten()
        .filter(|found| found.state == DomainState::Running)
    {
        let planned = plan
            .domains
            .iter()
            .any(|domain| domain.machine == found.machine && domain.power == Power::Running);
        if planned && !is_told(plan, found, now) {
            next.actions.push(Action::Tell(found.machine.clone(), wanted_map(plan, found, now)));
        }
    }
}

/// Everything goes: machines at once, then their definitions, the network when nothing has a port, the bytes last.
fn end(plan: &ProjectPlan, seen: &Observed) -> Next {
    let mut actions = Vec::new();
    if seen.domains == Seen::Unknown {
        actions.extend(plan.domains.iter().map(|domain| Action::Destroy(domain.machine.clone())));
    }
    for domain in seen.domains.present().into_iter().flatten() {
        match domain.state {
            DomainState::Shutoff => actions.push(Action::Undefine(domain.machine.clone())),
            DomainState::Paused | DomainState::Running => actions.push(Action::Destroy(domain.machine.clone())),
        }
    }
    let none = |domains: &Vec<DomainSeen>| domains.is_empty();
    let no_domain = seen.domains == Seen::Absent || seen.domains.present().is_some_and(none);
    let off = |domains: &Vec<DomainSeen>| domains.iter().all(|domain| domain.state == DomainState::Shutoff);
    let closed = seen.domains == Seen::Absent || seen.domains.present().is_some_and(off);
    if no_domain && seen.network.present().is_some() {
        actions.push(Action::RemoveNetwork);
    }
    if closed {
        actions.extend(
            seen.volumes
                .present()
                .into_iter()
                .flatten()
                .map(|volume| Action::RemoveVolume(volume.name.clone())),
        );
    }
    let no_volume = seen.volumes == Seen::Absent || seen.volumes.present().is_some_and(Vec::is_empty);
    let swept = no_domain && no_volume && seen.network == Seen::Absent;
    Next {
        actions,
        problem: None,
        items: Vec::new(),
        closed,
        swept,
    }
}

/// The items as status has them: one whose state did not change keeps its time.
pub fn items(next: &Next, before: &[Item], now: Timestamp) -> Vec<Item> {
    let fresh = |(item, state, wrapped_key): &(String, ItemState, Option<WrappedKey>)| {
        let old = before.iter().find(|old| old.item == item.as_str());
        let since = old.filter(|old| old.state == *state).map(|old| old.since.clone());
        Item {
            item: item.as_str().into(),
            state: *state,
            reason: None,
            message: None,
            wrapped_key: wrapped_key.clone(),
            // Receipts of volumes are told apart by it: a name may be destroyed twice within one second.
            since: since.unwrap_or_else(|| dejima_crds::condition::millis(now)),
        }
    };
    next.items.iter().map(fresh).collect()
}
