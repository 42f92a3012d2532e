//! One action: which verbs of which drivers it takes, in which order, each through the gate.

use std::collections::{BTreeMap, BTreeSet};

use dejima_crds::act::{Act, Kind, Outcome, Phase, version_entity};
use dejima_crds::bounded::{Label, Uid, WrappedKey};
use dejima_crds::condition::seconds;
use dejima_crds::host_plan::{IsolationProof, MountPlan, ProjectPlan};
use dejima_crds::names::{self, PlanKind};
use dejima_plan::Seen;
use dejima_plan::effect::{Effect, through};
use dejima_plan::host::{Action, Observed, segment_digest};
use jiff::Timestamp;

use crate::driver::{Drivers, Error};
use crate::kept::{Kept, OpenMount};

/// Carries one action out. What a proof has shown is kept: without it the network counts as not proved.
pub async fn carry_out(drivers: &Drivers, kept: &Kept, host: &str, plan: &ProjectPlan, action: &Action) -> Result<(), Error> {
    let uid = &plan.of.uid;
    let (object, verb) = action.name();
    let named = |verb: &'static str| Effect::new(object.clone(), verb);
    let gate = drivers.gate.as_ref();
    match action {
        Action::SealNetwork(segment) => through(gate, named(verb), drivers.network.seal(uid, segment)).await?,
        Action::ProveIsolation(segment) => {
            let shown = through(gate, named(verb), drivers.network.prove(uid, segment)).await?;
            let proof = IsolationProof {
                rules_digest: segment_digest(segment),
                at: seconds(Timestamp::now()),
                refused: shown.refused,
                passed: shown.passed,
            };
            kept.prove(&names::plan_name(PlanKind::Project, uid), proof);
        }
        Action::MakeVolume(volume) => {
            let kept = drivers.storage.observe(uid).await;
            let kept = kept
                .present()
                .and_then(|all| all.iter().find(|known| known.name == volume.name))
                .and_then(|known| known.wrapped_key.clone());
            let key = if let Some(wrapped) = kept {
                through(gate, named("unwrap-key"), drivers.keys.unwrap(&plan.key, &wrapped)).await?
            } else {
                let (key, wrapped) = through(gate, named("make-key"), drivers.keys.data_key(&plan.key)).await?;
                // The wrapped key before the header: a volume whose key nobody kept would be lost.
                through(gate, named("keep-key"), drivers.storage.keep_key(uid, volume, &wrapped)).await?;
                key
            };
            through(gate, named("format"), drivers.storage.format(uid, volume, &key)).await?;
        }
        Action::GrowVolume(volume) => through(gate, named(verb), drivers.storage.grow(uid, volume)).await?,
        Action::AttachVolume(machine, volume) => {
            let wrapped = wrapped_key(drivers, uid, &volume.name).await?;
            let key = through(gate, named("unwrap-key"), drivers.keys.unwrap(&plan.key, &wrapped)).await?;
            through(gate, named("give-key"), drivers.machines.give_key(uid, &volume.serial, &key)).await?;
            through(gate, named(verb), drivers.machines.attach_volume(uid, machine, volume)).await?;
        }
        Action::ResizeVolume(machine, volume) => through(gate, named(verb), drivers.machines.resize_volume(uid, machine, volume)).await?,
        Action::DetachVolume(machine, name) => through(gate, named(verb), drivers.machines.detach_volume(uid, machine, name)).await?,
        Action::Define(domain) => through(gate, named(verb), drivers.machines.define(plan, domain)).await?,
        Action::Start(domain) => {
            for volume in plan
                .volumes
                .iter()
                .filter(|volume| volume.attach_to.as_ref() == Some(&domain.machine))
            {
                let wrapped = wrapped_key(drivers, uid, &volume.name).await?;
                let key = through(gate, named("unwrap-key"), drivers.keys.unwrap(&plan.key, &wrapped)).await?;
                through(gate, named("give-key"), drivers.machines.give_key(uid, &volume.serial, &key)).await?;
            }
            through(gate, named(verb), drivers.machines.start_paused(plan, domain)).await?;
        }
        Action::Attach(machine, mount, shard) => {
            // Begun before an effect that gives access: without a record nothing is attached.
            let begun = kept.begin(mounted(host, plan, mount, machine, &Kept::fresh_id()))?;
            through(
                gate,
                Effect::new(format!("ledger/mount/{machine}"), "begin"),
                drivers.recorder.record(&begun),
            )
            .await?;
            // What takes long comes before the key: it lies nowhere meanwhile.
            through(gate, named("fetch"), drivers.machines.fetch(shard)).await?;
            let key = through(gate, named("unwrap-key"), drivers.keys.unwrap(&shard.key, &shard.wrapped_key)).await?;
            through(gate, named("give-key"), drivers.machines.give_key(uid, &shard.serial, &key)).await?;
            through(gate, named(verb), drivers.machines.attach(uid, machine, shard)).await?;
        }
        Action::Tell(machine, map) => through(gate, named(verb), drivers.machines.tell(uid, machine, map)).await?,
        Action::Resume(machine) => through(gate, named(verb), drivers.machines.resume(uid, machine)).await?,
        Action::Detach(machine, serial) => through(gate, named(verb), drivers.machines.detach(uid, machine, serial)).await?,
        Action::Destroy(machine) => through(gate, named(verb), drivers.machines.destroy(uid, machine)).await?,
        Action::Undefine(machine) => through(gate, named(verb), drivers.machines.undefine(uid, machine)).await?,
        Action::RemoveVolume(name) => through(gate, named(verb), drivers.storage.remove(uid, name)).await?,
        Action::RemoveNetwork => through(gate, named(verb), drivers.network.remove(uid)).await?,
    }
    Ok(())
}

/// The wrapped key that lies beside a volume.
async fn wrapped_key(drivers: &Drivers, uid: &Uid, name: &Label) -> Result<WrappedKey, Error> {
    let volumes = drivers.storage.observe(uid).await;
    let found = volumes.present().and_then(|all| all.iter().find(|known| known.name == *name));
    let wrapped = found.and_then(|known| known.wrapped_key.clone());
    wrapped.ok_or_else(|| Error::Missing(format!("volume {name} has no wrapped key")))
}

/// The beginning of a mount in one machine: an activity of its own each time.
fn mounted(host: &str, plan: &ProjectPlan, mount: &MountPlan, machine: &Label, id: &str) -> OpenMount {
    let begun = Act {
        activity: format!("mount/{}/{}@{}/{machine}/{id}", plan.of.uid, mount.dataset, mount.version),
        phase: Phase::Begun,
        kind: Kind::Mount,
        project: Some(plan.of.clone()),
        host: Some(host.to_owned()),
        used: vec![
            version_entity(mount.dataset.as_str(), mount.version),
            format!("policy/{}", mount.policy_digest),
        ],
        generated: Vec::new(),
        outcome: None,
        facts: BTreeMap::from([("path".to_owned(), mount.path.to_string())]),
    };
    OpenMount {
        machine: machine.clone(),
        serials: mount.shards.iter().map(|shard| shard.serial.clone()).collect(),
        begun,
    }
}

/// Mounts of a project that are there no longer, whatever ended them, are said to have ended. What nobody can tell about goes on.
pub async fn settle(drivers: &Drivers, kept: &Kept, plan: &ProjectPlan, seen: &Observed, ends: bool) -> Result<(), Error> {
    if seen.domains == Seen::Unknown {
        return Ok(());
    }
    for mount in kept
        .mounts()
        .into_iter()
        .filter(|mount| mount.begun.project.as_ref() == Some(&plan.of))
    {
        let machine = seen
            .domains
            .present()
            .and_then(|all| all.iter().find(|found| found.machine == mount.machine));
        let of = |wanted: &&MountPlan| wanted.machines.contains(&mount.machine);
        let same = |wanted: &&MountPlan| mount.begun.used.contains(&version_entity(wanted.dataset.as_str(), wanted.version));
        // A shard that another version shares says nothing about this one.
        let others = plan.mounts.iter().filter(of).filter(|wanted| !same(wanted));
        let shared: BTreeSet<&Label> = others.flat_map(|wanted| &wanted.shards).map(|shard| &shard.serial).collect();
        let own = |serial: &Label| mount.serials.contains(serial) && (ends || !shared.contains(serial));
        let attached = machine.is_some_and(|found| found.shards.iter().any(own));
        let wanted = plan.mounts.iter().filter(of).any(|wanted| same(&wanted));
        // One that is still to come was begun and is not attached yet.
        if attached || (wanted && !ends) {
            continue;
        }
        say_ended(drivers, kept, &mount).await?;
    }
    Ok(())
}

/// Says that a mount has ended, and forgets it once that is recorded.
pub(crate) async fn say_ended(drivers: &Drivers, kept: &Kept, mount: &OpenMount) -> Result<(), Error> {
    let over = Act {
        phase: Phase::Ended,
        outcome: Some(Outcome::Done),
        ..mount.begun.clone()
    };
    let name = Effect::new(format!("ledger/mount/{}", mount.machine), "end");
    through(drivers.gate.as_ref(), name, drivers.recorder.record(&over)).await?;
    kept.ended(mount)
}
