//! What is nobody's on this host: swept where nothing could be lost, said where something could.
//!
//! ```text
//! what all drivers own + the plans that stand --plan::sweep--> strays -> drivers
//!                                             \-> machines and volumes without a plan: mounts end, somebody is told
//! ```
//! It runs in the loop that carries plans out, between two plans: nothing is under way then.

use std::collections::BTreeSet;

use dejima_crds::bounded::Uid;
use dejima_crds::host_plan::HostPlanSpec;
use dejima_plan::Seen;
use dejima_plan::effect::{Effect, through};
use dejima_plan::host::DomainSeen;
use dejima_plan::sweep::{Owned, Thing, strays};

use crate::agent::attached;
use crate::carry_out::say_ended;
use crate::driver::{Drivers, Error};
use crate::kept::Kept;

/// Everything of ours on this host.
pub async fn owned(drivers: &Drivers) -> Owned {
    let machines = drivers.machines.list_owned().await;
    machines
        .and(drivers.storage.list_owned().await)
        .and(drivers.network.list_owned().await)
}

/// Sweeps what none of these plans names. What fails is tried again at the next look; the rest goes on.
pub async fn sweep(drivers: &Drivers, plans: &[&HostPlanSpec]) -> Result<(), Error> {
    let mut failure = Ok(());
    for thing in strays(plans, &owned(drivers).await) {
        let name = Effect::new(format!("stray/{}", thing.word()), "sweep");
        let swept = through(drivers.gate.as_ref(), name, async {
            match &thing {
                Thing::Network(_) | Thing::Bridge { .. } => drivers.network.sweep(&thing).await,
                Thing::Unmade(..) | Thing::Volume(..) => drivers.storage.sweep(&thing).await,
                Thing::Secret(_) | Thing::Place(..) | Thing::Fetched(_) | Thing::Part(_) | Thing::Domain(..) | Thing::Attached(_) => {
                    drivers.machines.sweep(&thing).await
                }
            }
        })
        .await;
        match swept {
            Ok(()) => tracing::info!(thing = ?thing, "it was nobody's and is swept"),
            Err(error) => failure = failure.and(Err(error)),
        }
    }
    failure
}

/// Ends the mounts of a project that has no plan here any more, says so to the ledger, and nothing else: a plan that is absent
/// destroys nothing.
pub async fn end_mounts(drivers: &Drivers, kept: &Kept, uid: &Uid) -> Result<(), Error> {
    let (gate, machines) = (drivers.gate.as_ref(), &drivers.machines);
    let named = |machine: &dyn std::fmt::Display| format!("domain/{machine}");
    let mut failure = Ok(());
    match machines.observe(uid).await {
        Seen::Present(all) => {
            for (domain, serial) in all
                .iter()
                .flat_map(|domain| domain.shards.iter().map(move |serial| (domain, serial)))
            {
                tracing::warn!(project = %uid, machine = %domain.machine, "there is no plan for this project any more: its mounts end");
                let name = Effect::new(named(&domain.machine), "detach-unplanned");
                failure = failure.and(through(gate, name, machines.detach(uid, &domain.machine, serial)).await);
            }
        }
        // Nobody can tell about the machine, and its mounts must end: it ends with them.
        Seen::Unknown => {
            for machine in attached(kept, uid).keys() {
                let name = Effect::new(named(machine), "destroy-unplanned");
                failure = failure.and(through(gate, name, machines.destroy(uid, machine)).await);
            }
        }
        Seen::Absent => {}
    }
    let left: BTreeSet<_> = match machines.observe(uid).await {
        Seen::Unknown => return failure,
        Seen::Absent => BTreeSet::new(),
        Seen::Present(all) => {
            let shards = |domain: DomainSeen| domain.shards.into_iter().map(move |serial| (domain.machine.clone(), serial));
            all.into_iter().flat_map(shards).collect()
        }
    };
    for mount in kept.mounts() {
        let own = mount.begun.project.as_ref().is_some_and(|of| of.uid == *uid);
        let gone = !mount
            .serials
            .iter()
            .any(|serial| left.contains(&(mount.machine.clone(), serial.clone())));
        if own && gone {
            failure = failure.and(say_ended(drivers, kept, &mount).await);
        }
    }
    failure
}
