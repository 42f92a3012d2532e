//! A driver that gives no answer in time and does what it was asked to all the same, later: the next look finds it.

#![expect(clippy::unwrap_used, reason = "test code stops where it cannot go on")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dejima_crds::act::{Act, Phase};
use dejima_crds::bounded::{Digest, KeyName, Label, Uid, WrappedKey};
use dejima_crds::host::{Capacity, Engine, EngineKind};
use dejima_crds::host_plan::{DomainPlan, HostPlanSpec, HostPlanStatus, ProjectPlan, ShardPlan, VolumePlan};
use dejima_hostd::agent::observe;
use dejima_hostd::carry_out::carry_out;
use dejima_hostd::converge::converge;
use dejima_hostd::driver::{Bell, Drivers, Error, Keys, Machines, PlainKey};
use dejima_hostd::kept::Kept;
use dejima_hostd::memory::Memory;
use dejima_hostd::{Recorder, sweep};
use dejima_plan::Seen;
use dejima_plan::effect::{Effect, Fate, Gate, Open};
use dejima_plan::host::{Action, DomainSeen, DomainState, MapEntry, next};
use dejima_plan::segment::segment;
use dejima_plan::sweep::{Owned, Thing};
use serde_json::json;

/// Remembers, and answers an attachment too late: it takes effect when the test says so.
struct Late {
    inner: Memory,
    held: Mutex<Vec<(Uid, Label, ShardPlan)>>,
}

impl Late {
    async fn comes_home(&self) {
        let held: Vec<_> = self.held.lock().unwrap().drain(..).collect();
        for (project, machine, shard) in held {
            self.inner.attach(&project, &machine, &shard).await.unwrap();
        }
        self.inner.bell().ring();
    }
}

#[async_trait]
impl Machines for Late {
    async fn capacity(&self) -> Result<(Capacity, Engine), Error> {
        self.inner.capacity().await
    }
    async fn images(&self) -> Result<BTreeSet<Digest>, Error> {
        self.inner.images().await
    }
    async fn observe(&self, project: &Uid) -> Seen<Vec<DomainSeen>> {
        Machines::observe(&self.inner, project).await
    }
    async fn define(&self, plan: &ProjectPlan, domain: &DomainPlan) -> Result<(), Error> {
        self.inner.define(plan, domain).await
    }
    async fn give_key(&self, project: &Uid, serial: &Label, key: &PlainKey) -> Result<(), Error> {
        self.inner.give_key(project, serial, key).await
    }
    async fn start_paused(&self, plan: &ProjectPlan, domain: &DomainPlan) -> Result<(), Error> {
        self.inner.start_paused(plan, domain).await
    }
    async fn resume(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        self.inner.resume(project, machine).await
    }
    async fn fetch(&self, shard: &ShardPlan) -> Result<(), Error> {
        self.inner.fetch(shard).await
    }
    async fn attach(&self, project: &Uid, machine: &Label, shard: &ShardPlan) -> Result<(), Error> {
        self.held.lock().unwrap().push((project.clone(), machine.clone(), shard.clone()));
        Err(Error::Silent("attach a disk"))
    }
    async fn detach(&self, project: &Uid, machine: &Label, serial: &Label) -> Result<(), Error> {
        self.inner.detach(project, machine, serial).await
    }
    async fn attach_volume(&self, project: &Uid, machine: &Label, volume: &VolumePlan) -> Result<(), Error> {
        self.inner.attach_volume(project, machine, volume).await
    }
    async fn resize_volume(&self, project: &Uid, machine: &Label, volume: &VolumePlan) -> Result<(), Error> {
        self.inner.resize_volume(project, machine, volume).await
    }
    async fn detach_volume(&self, project: &Uid, machine: &Label, name: &Label) -> Result<(), Error> {
        self.inner.detach_volume(project, machine, name).await
    }
    async fn tell(&self, project: &Uid, machine: &Label, map: &[MapEntry]) -> Result<(), Error> {
        self.inner.tell(project, machine, map).await
    }
    async fn destroy(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        self.inner.destroy(project, machine).await
    }
    async fn undefine(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        self.inner.undefine(project, machine).await
    }
    async fn list_owned(&self) -> Owned {
        Machines::list_owned(&self.inner).await
    }
    async fn sweep(&self, thing: &Thing) -> Result<(), Error> {
        Machines::sweep(&self.inner, thing).await
    }
    fn bell(&self) -> Bell {
        self.inner.bell()
    }
}

/// Opens everything, and writes down what it is told.
#[derive(Default)]
struct Beside {
    acts: Mutex<Vec<Act>>,
}

#[async_trait]
impl Keys for Beside {
    async fn data_key(&self, _: &KeyName) -> Result<(PlainKey, WrappedKey), Error> {
        Ok((PlainKey::new("k".repeat(44)), "vault:v1:YQ==".into()))
    }
    async fn unwrap(&self, _: &KeyName, _: &WrappedKey) -> Result<PlainKey, Error> {
        Ok(PlainKey::new("k".repeat(44)))
    }
}

#[async_trait]
impl Recorder for Beside {
    async fn record(&self, act: &Act) -> Result<(), Error> {
        self.acts.lock().unwrap().push(act.clone());
        Ok(())
    }
}

/// Drivers that remember below a directory, behind this gate.
fn remembering(dir: &std::path::Path, gate: Arc<dyn Gate>) -> Drivers {
    let memory = Arc::new(Memory::new(dir, Capacity::default(), EngineKind::Memory).unwrap());
    let beside = Arc::new(Beside::default());
    Drivers {
        keys: beside.clone(),
        storage: memory.clone(),
        network: memory.clone(),
        machines: memory,
        recorder: beside,
        gate,
    }
}

/// A project with one machine and one shard.
fn plan() -> HostPlanSpec {
    let uid = Uid::from("p-1");
    let digest = format!("sha256:{}", "a".repeat(64));
    let image = json!({"name": "probe", "format": "kernel-initrd", "guest": "probe"});
    let shard = json!({"id": "00000000000000aa", "serial": "a".repeat(32), "digest": digest, "storedDigest": digest, "key": "k", "wrappedKey": "vault:v1:YQ=="});
    let project = json!({
        "of": {"namespace": "osaka", "name": "liver", "uid": uid}, "dedicated": true, "key": "k", "segment": segment(&uid, &["train".into()], vec![]),
        "volumes": [], "domains": [{"machine": "train", "uid": "u", "power": "running", "cpus": 1, "memoryMiB": 256, "image": image}],
        "mounts": [{"dataset": "jichi/ct", "uid": "d", "version": 1, "digest": digest, "policyDigest": digest, "machines": ["train"], "path": "/data", "shards": [shard]}],
    });
    HostPlanSpec {
        plan_generation: 1,
        ends: false,
        project: Some(serde_json::from_value(project).unwrap()),
        intake: None,
    }
}

#[tokio::test]
async fn what_a_late_call_did_after_all_is_found_by_the_next_look_and_not_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(dir.path(), Capacity::default(), EngineKind::Memory).unwrap();
    let late = Arc::new(Late {
        inner: memory.clone(),
        held: Mutex::default(),
    });
    let beside = Arc::new(Beside::default());
    let drivers = Drivers {
        keys: beside.clone(),
        storage: Arc::new(memory.clone()),
        network: Arc::new(memory),
        machines: late.clone(),
        recorder: beside.clone(),
        gate: Arc::new(Open),
    };
    let (kept, spec) = (Kept::open(dir.path()).unwrap(), plan());
    let project = spec.project.as_ref().unwrap();
    let todo = async || {
        let (seen, _) = observe(&drivers, &kept, project).await;
        next(&spec, project, &seen, "2026-11-24T00:00:00Z".parse().unwrap()).actions
    };
    // Everything up to the attachment, which gives no answer.
    let mut silent = 0;
    for _ in 0..20 {
        for action in todo().await {
            match carry_out(&drivers, &kept, "host-a", project, &action).await {
                Err(Error::Silent(_)) if matches!(action, Action::Attach(..)) => silent += 1,
                other => other.unwrap(),
            }
        }
        if silent > 0 {
            break;
        }
    }
    let left = todo().await;
    assert!(
        left.iter().any(|action| matches!(action, Action::Attach(..))),
        "the control: it is not there yet: {left:?}"
    );
    // It takes effect after all, and the bell says that there is something to look at.
    let mut ear = drivers.machines.bell().listen();
    late.comes_home().await;
    assert!(ear.has_changed().unwrap());
    ear.mark_unchanged();
    for _ in 0..20 {
        for action in todo().await {
            assert!(!matches!(action, Action::Attach(..)), "it is attached again");
            carry_out(&drivers, &kept, "host-a", project, &action).await.unwrap();
        }
    }
    assert_eq!(todo().await, []);
    let begun = |act: &&Act| act.phase == Phase::Begun;
    assert_eq!(beside.acts.lock().unwrap().iter().filter(begun).count(), 1, "one beginning");
    // Nothing of it is left over: no key, and the shard is one that the plan names.
    sweep::sweep(&drivers, &[&spec]).await.unwrap();
    assert_eq!(todo().await, []);
    assert!(
        !sweep::owned(&drivers)
            .await
            .things
            .iter()
            .any(|thing| matches!(thing, Thing::Secret(_)))
    );
}

#[tokio::test]
async fn a_proof_whose_numbers_nobody_has_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let drivers = remembering(dir.path(), Arc::new(Open));
    let (kept, spec) = (Kept::open(dir.path()).unwrap(), plan());
    let project = spec.project.as_ref().unwrap();
    let proves = async || {
        let (seen, _) = observe(&drivers, &kept, project).await;
        let actions = next(&spec, project, &seen, "2026-11-24T00:00:00Z".parse().unwrap()).actions;
        actions.into_iter().find(|action| matches!(action, Action::ProveIsolation(_)))
    };
    // It was sealed and proved, and the answer was lost.
    drivers.network.seal(&project.of.uid, &project.segment).await.unwrap();
    drivers.network.prove(&project.of.uid, &project.segment).await.unwrap();
    let again = proves().await.expect("it is proved again");
    carry_out(&drivers, &kept, "host-a", project, &again).await.unwrap();
    assert!(kept.proof("project-p-1").is_some());
    assert_eq!(proves().await, None, "once is enough");
}

/// A newer plan is seen while the machine is being defined.
#[derive(Debug)]
struct Overtaken(Arc<Kept>);

impl Gate for Overtaken {
    fn fate(&self, effect: &Effect) -> Fate {
        if effect.verb == "define" {
            self.0.admit("project-p-1", 2).unwrap();
        }
        Fate::Pass
    }
}

#[tokio::test]
async fn a_plan_that_a_newer_one_overtakes_gives_nothing_any_more() {
    for overtaken in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (kept, spec) = (Arc::new(Kept::open(dir.path()).unwrap()), plan());
        let gate: Arc<dyn Gate> = if overtaken {
            Arc::new(Overtaken(kept.clone()))
        } else {
            Arc::new(Open)
        };
        let drivers = remembering(dir.path(), gate);
        let (project, before) = (spec.project.as_ref().unwrap(), HostPlanStatus::default());
        let names = ("host-a", "project-p-1");
        let converged = converge(&drivers, &kept, names, &spec, project, &before).await.unwrap();
        assert!(converged.failure.is_none() && converged.acted, "{converged:?}");
        assert_eq!(converged.is_overtaken, overtaken);
        let seen = drivers.machines.observe(&project.of.uid).await;
        let machine = &seen.present().unwrap()[0];
        let state = if overtaken { DomainState::Shutoff } else { DomainState::Running };
        assert_eq!((machine.state, machine.shards.len()), (state, usize::from(!overtaken)));
        // Who comes with it again is refused at once.
        let again = converge(&drivers, &kept, names, &spec, project, &before).await.unwrap();
        assert_eq!((again.acted, again.is_overtaken), (false, overtaken));
    }
}
