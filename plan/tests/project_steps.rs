//! The steps of a project on a pretend cluster: whatever is edited, and wherever carrying it out is cut short, the end is that of
//! an uncut run, and then nothing is left to do.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code stops where it cannot go on"
)]

use std::collections::{BTreeMap, BTreeSet};

use dejima_crds::bounded::{Digest, KeyName, Label, Uid};
use dejima_crds::condition::{ConditionKind, Truth, get, seconds};
use dejima_crds::host_plan::{HostPlanSpec, HostPlanStatus, ItemState, Power, mount_item};
use dejima_crds::reason::Decision;
use dejima_crds::receipt::{Receipt, State};
use dejima_crds::{Host, HostPlan, IsolatedProject, IsolatedProjectStatus, MachineImage};
use dejima_plan::placement::Candidate;
use dejima_plan::project::{Inputs, Next, Step, Wait, Wish, next, taken_away, waits};
use dejima_policy::{DatasetFacts, Verdict, facts};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: &str = "2026-11-24T00:01:00Z";

fn digest() -> Digest {
    format!("sha256:{}", "a".repeat(64)).into()
}

/// What a project asks for: volumes with their sizes, those to be destroyed, a dataset and whether it is permitted, its end.
#[derive(Clone, Debug)]
struct Asked {
    volumes: BTreeMap<&'static str, &'static str>,
    destroy: BTreeSet<&'static str>,
    dataset: bool,
    permitted: bool,
    deleted: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let volumes = proptest::collection::btree_map(
        prop_oneof![Just("work"), Just("more")],
        prop_oneof![Just("64Mi"), Just("1Gi")],
        0..3,
    );
    let destroy = proptest::collection::btree_set(prop_oneof![Just("work"), Just("more"), Just("never")], 0..3);
    let asked = (volumes, destroy, any::<bool>(), any::<bool>(), proptest::bool::weighted(0.2));
    asked.prop_map(|(volumes, mut destroy, dataset, permitted, deleted)| {
        // Admission lets no name stand in both.
        destroy.retain(|name| !volumes.contains_key(name));
        Asked {
            volumes,
            destroy,
            dataset,
            permitted,
            deleted,
        }
    })
}

/// How far an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Nobody holds it back.
    Free,
    /// It bears our finalizer.
    Held,
    /// It is gone.
    Gone,
}

/// A cluster with one host.
#[derive(Clone, Debug, PartialEq)]
struct Cluster {
    project: IsolatedProject,
    life: Life,
    now: Timestamp,
    permitted: bool,
    host: Host,
    plan: Option<HostPlan>,
    // The project's key, and what the host may use.
    key: bool,
    opened: BTreeSet<KeyName>,
    // What lies on the host, and what was said of it.
    volumes: BTreeSet<Label>,
    destroyed: BTreeSet<Label>,
    receipts: BTreeMap<Uid, Receipt>,
}

impl Cluster {
    fn new() -> Self {
        let project = json!({
            "apiVersion": "dejima.dev/v1alpha1", "kind": "IsolatedProject",
            "metadata": {"namespace": "osaka", "name": "liver", "uid": "p-1", "generation": 1},
            "spec": {
                "title": {"en": "Liver"}, "purpose": [{"duo": "DUO:0000042"}], "institution": "https://ror.org/035t8zc32", "orgKind": "public", "country": "JP",
                "members": [{"subject": "lead@osaka.example", "role": "lead"}], "period": {"from": "2026-04", "until": "2027-03"},
                "machines": [{"name": "train", "cpu": 1, "memory": "1Gi", "image": "probe"}],
            },
        });
        let host = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "Host", "metadata": {"name": "host-a"},
            "spec": {"roles": ["machines"], "schedulable": true}, "status": {"capacity": {"cpus": 8, "memory": 64_u64 << 30, "bytes": 1_u64 << 40}, "engine": {"kind": "kvm"}}});
        Self {
            project: serde_json::from_value(project).unwrap(),
            life: Life::Free,
            now: NOW.parse().unwrap(),
            permitted: false,
            host: serde_json::from_value(host).unwrap(),
            plan: None,
            key: false,
            opened: BTreeSet::new(),
            volumes: BTreeSet::new(),
            destroyed: BTreeSet::new(),
            receipts: BTreeMap::new(),
        }
    }

    fn edit(&mut self, asked: &Asked) {
        let mut object = serde_json::to_value(&self.project).unwrap();
        let volumes: Vec<Value> = asked
            .volumes
            .iter()
            .map(|(name, size)| json!({"name": name, "size": size, "attachTo": "train", "mountPath": format!("/{name}")}))
            .collect();
        let datasets = if asked.dataset {
            json!([{"namespace": "jichi", "name": "ct", "attachTo": ["train"], "mountPath": "/data"}])
        } else {
            json!([])
        };
        object["spec"]["volumes"] = json!(volumes);
        object["spec"]["destroyVolumes"] = json!(asked.destroy);
        object["spec"]["datasets"] = datasets;
        if asked.deleted {
            object["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z".into();
            // What nobody holds back is gone.
            if self.life == Life::Free {
                self.life = Life::Gone;
            }
        }
        self.project = serde_json::from_value(object).unwrap();
        self.permitted = asked.permitted;
    }

    /// Its period is made to end so many days from now.
    fn ends_in(&mut self, days: i64) {
        let until = self.now + SignedDuration::from_hours(24 * days);
        self.project.spec.period.until = seconds(until).as_str().into();
    }

    fn days_pass(&mut self, days: i64) {
        self.now += SignedDuration::from_hours(24 * days);
    }

    /// What it says of itself under this condition: whether, and why.
    fn says(&self, kind: ConditionKind) -> (Truth, String) {
        let status = self.status();
        let found = get(&status.conditions, kind);
        found.map_or((Truth::Unknown, String::new()), |said| (said.status, said.reason.to_string()))
    }

    fn is_over(&self) -> bool {
        self.says(ConditionKind::Terminating).0 == Truth::True
    }

    fn status(&self) -> IsolatedProjectStatus {
        self.project.status.clone().unwrap_or_default()
    }

    /// What is to be done now.
    fn next(&self) -> Next {
        self.thinks(next)
    }

    /// What follows from everything that is known now.
    fn thinks<R>(&self, think: impl FnOnce(&Inputs<'_>) -> R) -> R {
        let image: MachineImage = serde_json::from_value(json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "MachineImage", "metadata": {"name": "probe"},
            "spec": {"format": "kernel-initrd", "guest": "probe", "boot": {"kernel": {"path": "k", "digest": digest(), "initrd": "i", "initrdDigest": digest()}}}}))
        .unwrap();
        let shard = json!({"id": "0".repeat(16), "digest": digest(), "storedDigest": digest(), "key": "shard-d-1", "wrappedKey": "vault:v1:YQ==", "bytes": 1, "files": 1});
        let version = json!({"version": 1, "digest": digest(), "bytes": 1, "files": 1, "shards": ["0".repeat(16)], "sealedAt": NOW});
        let dataset = DatasetFacts {
            of: "jichi/ct".into(),
            uid: "d-1".into(),
            approvals: vec![],
            agreement: None,
            transferred: None,
            suspended: None,
            withdrawn: vec![],
            revision: 1,
            versions: vec![serde_json::from_value(version).unwrap()],
            shards: vec![serde_json::from_value(shard).unwrap()],
            declared_bytes: None,
            policy: "open".into(),
            deleted: false,
        };
        let wish = |wish| Wish {
            wish,
            dataset: Some(&dataset),
            policy: None,
            verdict: Verdict {
                decision: if self.permitted { Decision::Permit } else { Decision::Deny },
                reasons: vec![],
                version: Some(1),
                until: None,
                policy: Some(digest()),
                grant: None,
                effective: vec![],
                members: vec![],
                obligations: vec![],
                grants: vec![],
            },
            grants: vec![],
        };
        let wishes: Vec<Wish<'_>> = self.project.spec.datasets.iter().map(wish).collect();
        let mut project = self.project.clone();
        project.metadata.finalizers = (self.life == Life::Held).then(|| vec![dejima_crds::names::FINALIZER.to_owned()]);
        think(&Inputs {
            facts: &facts::project(&project, facts::Labels::Count(&BTreeMap::new()), &[]),
            project: &project,
            namespace: &BTreeMap::new(),
            candidates: &[Candidate {
                host: &self.host,
                alive: true,
            }],
            images: &[image],
            plans: self.plan.as_slice(),
            wishes: &wishes,
            openings: &[],
            admission: &[],
            horizon: &"P30D".into(),
            retention: &"P30D".into(),
            now: self.now,
            zone: &TimeZone::UTC,
        })
    }

    fn held(&mut self, held: bool) {
        let by = held.then(|| json!({"namespace": "osaka", "name": "liver", "uid": "p-1"}));
        self.host.status.as_mut().unwrap().held_by = by.map(|by| serde_json::from_value(by).unwrap());
    }

    fn write(&mut self, spec: &HostPlanSpec, from: Option<&String>) {
        let current = self.plan.as_ref();
        assert_eq!(
            from,
            current.and_then(|plan| plan.metadata.resource_version.as_ref()),
            "planned from another one"
        );
        assert!(current.is_none_or(|plan| spec.plan_generation > plan.spec.plan_generation && spec.ends >= plan.spec.ends));
        let project = spec.project.as_ref().unwrap();
        for mount in &project.mounts {
            assert!(
                self.status().exposed.iter().any(|exposed| exposed.dataset == mount.dataset),
                "a mount that nobody wrote down"
            );
            assert!(
                spec.ends || mount.shards.iter().all(|shard| self.opened.contains(&shard.key)),
                "a mount whose key is closed"
            );
        }
        let kept: BTreeSet<Label> = self.status().kept_volumes.into_iter().map(|kept| kept.name).collect();
        assert!(
            spec.ends || project.destroy.iter().all(|name| kept.contains(name)),
            "destroyed, and nobody would know"
        );
        let metadata =
            json!({"namespace": "dejima-host-host-a", "name": "project-p-1", "resourceVersion": spec.plan_generation.to_string()});
        let status = current.map(|plan| json!(plan.status));
        let plan = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "HostPlan", "metadata": metadata, "spec": spec, "status": status});
        self.plan = Some(serde_json::from_value(plan).unwrap());
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Finalize => self.life = Life::Held,
            Step::Hold { .. } => self.held(true),
            Step::Request { .. } | Step::DropRequest { .. } => panic!("no dataset here is under review"),
            Step::OpenKeys { keys, .. } => {
                self.key = true;
                self.opened = keys.into_iter().collect();
            }
            Step::Write { spec, from, .. } => self.write(&spec, from.as_ref()),
            Step::DestroyKey { .. } => self.key = false,
            Step::CloseKeys { .. } => self.opened.clear(),
            Step::Receipt(receipt) => {
                assert_eq!(Some(&receipt.id), receipt.own_id().as_ref());
                let same = self
                    .receipts
                    .get(&receipt.id)
                    .is_none_or(|known| *known == *receipt || known.state == State::Partial);
                assert!(same, "two final receipts of one thing");
                if let Some(volume) = &receipt.volume {
                    assert!(!self.volumes.contains(volume), "a receipt of what is still there");
                }
                self.receipts.insert(receipt.id.clone(), *receipt);
            }
            Step::Forget { .. } => self.plan = None,
            Step::Release { .. } => {
                assert!(self.volumes.is_empty(), "a host is free on which something is left");
                self.held(false);
            }
            Step::Unfinalize if self.project.metadata.deletion_timestamp.is_some() => self.life = Life::Gone,
            Step::Unfinalize => self.life = Life::Free,
        }
    }

    /// One pass, as the operator makes it, cut short after so many steps. How many it took.
    fn pass(&mut self, budget: usize) -> usize {
        let Next { steps, status, .. } = self.next();
        let count = steps.len();
        let mut said = false;
        for (at, step) in steps.into_iter().enumerate() {
            if at == budget {
                self.is_stuck(&status, &step);
                return at;
            }
            if matches!(step, Step::Forget { .. } | Step::Unfinalize) {
                (self.project.status, said) = (Some(status.clone()), true);
            }
            self.apply(step);
        }
        if !said {
            self.project.status = Some(status);
        }
        count
    }

    /// What the operator does and says where a step failed.
    fn is_stuck(&mut self, planned: &IsolatedProjectStatus, step: &Step) {
        let wait = Wait {
            reason: "KeyServerSilent",
            message: "waiting for somebody".to_owned(),
            is_keys: true,
        };
        for less in self.thinks(|inputs| taken_away(inputs, step)) {
            self.apply(less);
        }
        let said = self.thinks(|inputs| waits(inputs, planned, step, &wait));
        let told = said.conditions.iter().any(|condition| condition.message == "waiting for somebody");
        assert!(told, "nobody is told: {said:?}");
        self.project.status = Some(said);
    }

    /// The host carries its plan out.
    fn host_works(&mut self) {
        let Some(plan) = &mut self.plan else { return };
        let project = plan.spec.project.as_ref().unwrap();
        let mut status = HostPlanStatus {
            plan_generation: plan.spec.plan_generation,
            ..plan.status.clone().unwrap_or_default()
        };
        if plan.spec.ends {
            self.volumes.clear();
            (status.closed_at, status.swept_at) = (Some(NOW.into()), Some(NOW.into()));
        } else {
            for name in &project.destroy {
                if self.volumes.remove(name) {
                    self.destroyed.insert(name.clone());
                }
            }
            self.volumes.extend(project.volumes.iter().map(|volume| volume.name.clone()));
            let item = |item: String, state: &str| json!({"item": item, "state": state, "since": NOW});
            let ready = std::iter::once("network".to_owned())
                .chain(project.volumes.iter().map(|volume| format!("volume/{}", volume.name)))
                .chain(project.domains.iter().map(|domain| format!("domain/{}", domain.machine)))
                .chain(project.mounts.iter().map(|mount| mount_item(mount, &"train".into())));
            let ended = project.destroy.iter().map(|name| item(format!("volume/{name}"), "ended"));
            let items: Vec<Value> = ready.map(|name| item(name, "ready")).chain(ended).collect();
            status.items = serde_json::from_value(json!(items)).unwrap();
        }
        plan.status = Some(status);
    }

    /// Operator and host work until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..30 {
            let before = self.clone();
            if self.life != Life::Gone {
                self.pass(usize::MAX);
            }
            self.host_works();
            if *self == before {
                return;
            }
        }
        panic!("it does not converge: {self:?}");
    }

    /// Without numbers that tell how often something was written.
    fn shape(&self) -> Value {
        let plan = self.plan.as_ref().map(|plan| json!([plan.spec.ends, plan.spec.project]));
        let mut status = json!(self.project.status);
        status["conditions"] = Value::Null;
        json!([
            plan,
            status,
            self.host.status,
            self.key,
            self.opened,
            self.volumes,
            self.receipts,
            self.life == Life::Gone
        ])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_edited_and_wherever_it_is_cut_short_the_end_is_that_of_an_uncut_run(
        edits in proptest::collection::vec(asked(), 1..4), cuts in proptest::collection::vec((0_usize..8, any::<bool>()), 0..4),
    ) {
        let mut clean = Cluster::new();
        let before = edits.len() - 1;
        for edit in &edits[..before] {
            clean.edit(&Asked { deleted: false, ..edit.clone() });
            clean.settle();
        }
        clean.edit(&edits[before]);
        let mut cut = clean.clone();
        clean.settle();
        // The operator dies after some steps, lives again, dies again; the host works meanwhile, or does not.
        for (budget, works) in &cuts {
            if cut.life != Life::Gone {
                cut.pass(*budget);
            }
            if *works {
                cut.host_works();
            }
        }
        cut.settle();
        prop_assert_eq!(cut.shape(), clean.shape());

        let asked = &edits[before];
        let status = clean.status();
        if asked.deleted {
            prop_assert!(clean.life == Life::Gone && !clean.key && clean.opened.is_empty() && clean.volumes.is_empty() && clean.plan.is_none());
            // Whatever never got a host leaves no receipt's worth behind; what did, one that is final.
            prop_assert!(clean.receipts.values().all(|receipt| receipt.state == State::Final));
        } else {
            let plan = clean.plan.as_ref().unwrap().spec.project.as_ref().unwrap();
            let mounted = asked.dataset && asked.permitted;
            prop_assert_eq!(plan.mounts.len(), usize::from(mounted));
            prop_assert_eq!(clean.opened.len(), 1 + usize::from(mounted), "the host may use exactly these keys");
            // Nothing is on the host but what is listed or kept, and nothing of that is missing.
            let listed: BTreeSet<Label> = asked.volumes.keys().map(|name| (*name).into()).collect();
            let kept: BTreeSet<Label> = status.kept_volumes.iter().map(|kept| kept.name.clone()).collect();
            prop_assert!(listed.is_disjoint(&kept));
            prop_assert_eq!(&clean.volumes, &listed.union(&kept).cloned().collect());
            prop_assert!(asked.destroy.iter().all(|name| !clean.volumes.contains(&Label::from(*name))), "what is to be destroyed is gone");
            prop_assert!(plan.destroy.is_empty(), "no order is left");
            let proved: BTreeSet<Label> = clean.receipts.values().filter_map(|receipt| receipt.volume.clone()).collect();
            prop_assert_eq!(&proved, &clean.destroyed, "what was destroyed has a receipt, and nothing else has");
        }
    }
}

#[test]
fn what_keeps_permitted_data_from_being_mounted_is_said_as_its_host_says_it() {
    let mut cluster = standing();
    cluster.edit(&Asked {
        volumes: BTreeMap::from([("work", "64Mi")]),
        destroy: BTreeSet::new(),
        dataset: true,
        permitted: true,
        deleted: false,
    });
    cluster.settle();
    let said = |cluster: &Cluster| {
        let status = cluster.status();
        let found = get(&status.conditions, ConditionKind::DatasetsMounted).unwrap();
        (found.status, found.message.to_string())
    };
    assert_eq!(said(&cluster), (Truth::True, String::new()), "the control");
    let damaged = "attach: shard 00000000000000aa in the image store is not what was sealed: it is not used";
    let items = &mut cluster.plan.as_mut().unwrap().status.as_mut().unwrap().items;
    let item = items.iter_mut().find(|item| item.item.as_str().starts_with("mount/")).unwrap();
    (item.state, item.message) = (ItemState::Pending, Some(damaged.into()));
    cluster.pass(usize::MAX);
    let (status, message) = said(&cluster);
    assert!(status == Truth::False && message.contains(damaged), "{message}");
}

/// A project with one volume, on its host.
fn standing() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.edit(&Asked {
        volumes: BTreeMap::from([("work", "64Mi")]),
        destroy: BTreeSet::new(),
        dataset: false,
        permitted: false,
        deleted: false,
    });
    cluster.settle();
    assert_eq!(cluster.says(ConditionKind::Ready).0, Truth::True);
    cluster
}

fn power(cluster: &Cluster) -> Power {
    cluster.plan.as_ref().unwrap().spec.project.as_ref().unwrap().domains[0].power
}

#[test]
fn a_period_that_ends_is_announced_and_said_and_a_later_one_brings_the_project_back() {
    let mut cluster = standing();
    cluster.ends_in(31);
    let mut told = Vec::new();
    // Nobody looks but when the last look asked for it.
    while !cluster.is_over() {
        cluster.settle();
        let (_, reason) = cluster.says(ConditionKind::Terminating);
        told.push(reason);
        if let Some(again) = cluster.next().again {
            cluster.now = again - SignedDuration::from_secs(1);
            let next = cluster.next();
            assert_eq!(cluster.project.status, Some(next.status), "nothing is written before it is time");
            cluster.now = again;
        }
    }
    let days = ["30Days", "14Days", "7Days", "1Day"];
    let of = |what: &str| days.map(|days| format!("{what}{days}"));
    let all = [
        vec![String::new()],
        of("PeriodEndsWithin").to_vec(),
        of("DestructionWithin").to_vec(),
    ]
    .concat();
    assert_eq!(told, [all, vec!["ReceiptFinal".to_owned()]].concat());

    let mut cluster = standing();
    cluster.ends_in(0);
    cluster.settle();
    assert_eq!(power(&cluster), Power::Stopped);
    for kind in [ConditionKind::Ready, ConditionKind::MachinesRunning] {
        assert_eq!(cluster.says(kind), (Truth::False, "PeriodEnded".to_owned()));
    }
    assert_eq!(cluster.status().machines[0].state, Some("stopped".into()));
    assert!(cluster.key && cluster.volumes.len() == 1, "volumes and keys stay");
    cluster.days_pass(29);
    cluster.settle();
    cluster.ends_in(60);
    cluster.settle();
    assert_eq!(power(&cluster), Power::Running);
    assert_eq!(cluster.says(ConditionKind::Ready).0, Truth::True);
    assert_eq!(
        cluster.says(ConditionKind::Terminating),
        (Truth::False, "PeriodExtended".to_owned())
    );
}

#[test]
fn one_that_never_got_a_host_gets_none_after_its_end_and_leaves_nothing_behind() {
    let mut cluster = Cluster::new();
    cluster.ends_in(0);
    for days in [0, 31] {
        cluster.days_pass(days);
        cluster.settle();
        assert_eq!(cluster.says(ConditionKind::Ready), (Truth::False, "PeriodEnded".to_owned()));
        assert!(cluster.plan.is_none() && !cluster.key && cluster.receipts.is_empty() && cluster.life == Life::Free);
    }
    assert!(cluster.is_over());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However its end is moved and time goes by, whoever dies in between, and whether or not somebody deletes it in the middle.
    #[test]
    fn nothing_is_destroyed_before_the_retention_was_known_and_then_all_of_it_is_with_one_receipt(
        moves in proptest::collection::vec((proptest::option::of(-100_i64..100), 0_i64..40, 0_usize..8, any::<bool>()), 0..12),
        is_deleted in any::<bool>(), budget in 0_usize..8,
    ) {
        let mut cluster = standing();
        let mut since: Option<Timestamp> = None;
        let mut look = |cluster: &mut Cluster, budget: usize, works: bool| {
            let was_over = cluster.is_over();
            if cluster.life != Life::Gone {
                cluster.pass(budget);
            }
            if works {
                cluster.host_works();
            }
            let ended = cluster.project.spec.period.until.ends(&TimeZone::UTC).unwrap();
            let told = cluster.says(ConditionKind::Ready).1 == "PeriodEnded";
            since = told.then(|| since.unwrap_or(cluster.now));
            if cluster.is_over() {
                let long = |from: Timestamp| cluster.now.duration_since(from) >= SignedDuration::from_hours(24 * 30);
                assert!(was_over || (long(ended) && since.is_some_and(long)), "before its time: ended {ended}, told {since:?}, now {}", cluster.now);
            } else {
                assert!(cluster.key && cluster.volumes.len() == 1, "destroyed, and nobody had said so");
            }
        };
        for (end, days, budget, works) in moves {
            if let Some(days) = end {
                cluster.ends_in(days);
            }
            look(&mut cluster, budget, works);
            cluster.days_pass(days);
            look(&mut cluster, usize::MAX, works);
        }
        if !cluster.is_over() {
            cluster.ends_in(0);
            look(&mut cluster, usize::MAX, true);
            cluster.days_pass(30);
            look(&mut cluster, budget, true);
        }
        // Nothing brings it back.
        cluster.ends_in(100);
        if is_deleted {
            cluster.project.metadata.deletion_timestamp = serde_json::from_value(json!(seconds(cluster.now))).unwrap();
            cluster.life = if cluster.life == Life::Held { Life::Held } else { Life::Gone };
        } else {
            cluster.settle();
            prop_assert_eq!(cluster.life, Life::Free, "the object stays, and nothing holds it");
            prop_assert_eq!(cluster.says(ConditionKind::Ready), (Truth::False, "PeriodEnded".to_owned()));
            prop_assert_eq!(cluster.says(ConditionKind::Terminating), (Truth::True, "ReceiptFinal".to_owned()));
        }
        cluster.settle();
        prop_assert!(!cluster.key && cluster.opened.is_empty() && cluster.volumes.is_empty() && cluster.plan.is_none());
        prop_assert!(cluster.host.status.as_ref().unwrap().held_by.is_none(), "the host is free");
        let states: Vec<State> = cluster.receipts.values().map(|receipt| receipt.state).collect();
        prop_assert_eq!(states, [State::Final]);
    }
}
