//! What of ours is on a host, and what of it is nobody's: pure, from what the drivers found and the plans that stand.
//!
//! What is swept without an order holds nothing that could be lost: keys in memory that nobody waits for, copies of encrypted
//! shards, files that were never whole, what a machine that is not there would have been told, a network without a machine.
//! Machines and volumes are never among it (invariant 10), and what nobody can tell about is not either.

use std::collections::BTreeSet;

use dejima_crds::bounded::{Digest, Label, Uid};
use dejima_crds::host_plan::{HostPlanSpec, ProjectPlan};

use crate::seen::Seen;

/// One thing of ours on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A machine of a project, defined, or running although libvirt does not know it.
    Domain(Uid, Label),
    /// A volume of a project, or its wrapped key.
    Volume(Uid, Label),
    /// The network of a project: its rules, its bridge.
    Network(Uid),
    /// A bridge of which it is not kept whose it is.
    Bridge {
        /// Its name.
        name: Label,
        /// Whether something is plugged in.
        plugged: bool,
    },
    /// A key in libvirt's memory, by the serial of its disk.
    Secret(Label),
    /// What a machine of a project is told by, in memory: seed and maps.
    Place(Uid, Label),
    /// A shard that is attached to a machine, by the digest of its encrypted file.
    Attached(Digest),
    /// A shard that was fetched, by the same digest.
    Fetched(Digest),
    /// A file that was never whole, by its name in the cache.
    Part(String),
    /// A volume that was never whole.
    Unmade(Uid, Label),
}

impl Thing {
    /// One word for effects and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Domain(..) => "domain",
            Self::Volume(..) => "volume",
            Self::Network(_) => "network",
            Self::Bridge { .. } => "bridge",
            Self::Secret(_) => "secret",
            Self::Place(..) => "place",
            Self::Attached(_) => "attached",
            Self::Fetched(_) => "fetched",
            Self::Part(_) => "part",
            Self::Unmade(..) => "unmade",
        }
    }
}

/// What a driver may be unable to tell about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Machines, and what is attached to them.
    Domains,
    /// Volumes.
    Volumes,
    /// Networks and bridges.
    Networks,
    /// Keys in memory.
    Secrets,
    /// Files: what was fetched, and what machines are told by.
    Files,
}

/// All of ours that is on a host, as far as can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// What was found.
    pub things: BTreeSet<Thing>,
    /// What nobody can tell about: of it there may be more than was found.
    pub unknown: BTreeSet<Kind>,
}

impl Owned {
    /// What a driver found.
    pub fn found(things: impl IntoIterator<Item = Thing>) -> Self {
        Self {
            things: things.into_iter().collect(),
            unknown: BTreeSet::new(),
        }
    }

    /// Nobody can tell about this.
    pub fn unknown(kind: Kind) -> Self {
        Self {
            things: BTreeSet::new(),
            unknown: BTreeSet::from([kind]),
        }
    }

    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.things.extend(other.things);
        self.unknown.extend(other.unknown);
        self
    }

    fn knows(&self, kind: Kind) -> bool {
        !self.unknown.contains(&kind)
    }

    fn has_domain(&self, of: impl Fn(&Uid, &Label) -> bool) -> bool {
        self.things
            .iter()
            .any(|thing| matches!(thing, Thing::Domain(uid, machine) if of(uid, machine)))
    }
}

/// Whose something is on a host beside this plan's project, or anybody's where there is no plan: they hold it. Where a driver
/// cannot tell, nobody can.
pub fn others(owned: &Owned, plan: Option<&ProjectPlan>) -> Seen<BTreeSet<Uid>> {
    if [Kind::Domains, Kind::Volumes, Kind::Networks]
        .iter()
        .any(|kind| !owned.knows(*kind))
    {
        return Seen::Unknown;
    }
    let whose = |thing: &Thing| match thing {
        Thing::Domain(uid, _) | Thing::Volume(uid, _) | Thing::Network(uid) | Thing::Place(uid, _) => Some(uid.clone()),
        Thing::Bridge { name, .. } if plan.is_none_or(|plan| plan.segment.bridge != *name) => Some(format!("bridge/{name}").into()),
        Thing::Bridge { .. } | Thing::Secret(_) | Thing::Attached(_) | Thing::Fetched(_) | Thing::Part(_) | Thing::Unmade(..) => None,
    };
    let own = |uid: &Uid| plan.is_some_and(|plan| plan.of.uid == *uid);
    let all: BTreeSet<Uid> = owned.things.iter().filter_map(whose).filter(|uid| !own(uid)).collect();
    if all.is_empty() { Seen::Absent } else { Seen::Present(all) }
}

fn projects<'a>(plans: &'a [&HostPlanSpec]) -> impl Iterator<Item = &'a ProjectPlan> {
    plans.iter().filter_map(|plan| plan.project.as_ref())
}

/// Projects of which machines or volumes are here and no plan: nothing of them is destroyed, and somebody must be told.
pub fn unplanned(plans: &[&HostPlanSpec], owned: &Owned) -> BTreeSet<Uid> {
    let of = |thing: &Thing| match thing {
        Thing::Domain(uid, _) | Thing::Volume(uid, _) => Some(uid.clone()),
        Thing::Network(_)
        | Thing::Bridge { .. }
        | Thing::Secret(_)
        | Thing::Place(..)
        | Thing::Attached(_)
        | Thing::Fetched(_)
        | Thing::Part(_)
        | Thing::Unmade(..) => None,
    };
    let planned = |uid: &Uid| projects(plans).any(|plan| plan.of.uid == *uid);
    owned.things.iter().filter_map(of).filter(|uid| !planned(uid)).collect()
}

/// What is nobody's and is swept, in this order. Asked only while nothing is under way: no fetch, no start, no attachment.
pub fn strays(plans: &[&HostPlanSpec], owned: &Owned) -> Vec<Thing> {
    let domains = owned.knows(Kind::Domains);
    let planned = |uid: &Uid| projects(plans).any(|plan| plan.of.uid == *uid);
    let stray = |thing: &&Thing| match thing {
        Thing::Domain(..) | Thing::Volume(..) | Thing::Attached(_) => false,
        // A key that is needed is handed over again, just before.
        Thing::Secret(_) | Thing::Part(_) => true,
        Thing::Unmade(uid, name) => {
            !projects(plans).any(|plan| plan.of.uid == *uid && plan.volumes.iter().any(|volume| volume.name == *name))
        }
        Thing::Bridge { name, plugged } => !plugged && !projects(plans).any(|plan| plan.segment.bridge == *name),
        Thing::Network(uid) => domains && !planned(uid) && !owned.has_domain(|of, _| of == uid),
        Thing::Place(uid, machine) => {
            let named = projects(plans).any(|plan| plan.of.uid == *uid && plan.domains.iter().any(|domain| domain.machine == *machine));
            domains && !named && !owned.has_domain(|of, name| of == uid && name == machine)
        }
        Thing::Fetched(digest) => {
            let mut mounted = projects(plans).flat_map(|plan| &plan.mounts).flat_map(|mount| &mount.shards);
            let attached = owned.things.contains(&Thing::Attached(digest.clone()));
            domains && !attached && !mounted.any(|shard| shard.stored_digest == *digest)
        }
    };
    owned.things.iter().filter(stray).cloned().collect()
}
