//! Sealing on a pretend intake host: scan, keys, seal, mountable; and the next revision. Cut short anywhere, the end is the same.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code stops where it cannot go on")]

use std::collections::BTreeSet;

use dejima_crds::bounded::{KeyName, ShardId};
use dejima_crds::host_plan::ShardKey;
use dejima_crds::{Dataset, DatasetStatus, Host, HostPlan};
use dejima_plan::dataset::{Inputs, Next, Step, next};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: &str = "2026-11-24T00:01:00Z";

fn digest(of: &str) -> String {
    format!("sha256:{of:a>64}")
}

/// The shards of which the source consists at a revision.
type Source = BTreeSet<u8>;

#[derive(Clone, Debug, PartialEq)]
struct Cluster {
    dataset: Dataset,
    host: Host,
    plan: Option<HostPlan>,
    source: Source,
    // Keys that were ever made, and those that the host may use.
    made: BTreeSet<KeyName>,
    opened: BTreeSet<KeyName>,
}

fn id(shard: u8) -> String {
    format!("{shard:016x}")
}

impl Cluster {
    fn new() -> Self {
        let dataset = json!({
            "apiVersion": "dejima.dev/v1alpha1", "kind": "Dataset", "metadata": {"namespace": "jichi", "name": "ct", "uid": "d-1", "generation": 1},
            "spec": {"catalogueId": 1, "title": {"en": "CT"}, "providers": [{"ror": "https://ror.org/010hz0g26"}], "count": {"value": 1, "unit": "image"}, "formats": ["DICOM"],
                "processing": "anonymised", "category": "image", "legalClass": "anonymised-information", "policyRef": "open", "revision": 1,
                "source": {"directory": {"host": "intake-1", "path": "ct"}}},
        });
        let host = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "Host", "metadata": {"name": "intake-1"},
            "spec": {"roles": ["intake"], "intake": [{"namespace": "jichi", "path": "jichi"}]}});
        Self {
            dataset: serde_json::from_value(dataset).unwrap(),
            host: serde_json::from_value(host).unwrap(),
            plan: None,
            source: Source::new(),
            made: BTreeSet::new(),
            opened: BTreeSet::new(),
        }
    }

    /// The provider raises the revision over a source that is this.
    fn revise(&mut self, revision: u32, source: &Source) {
        (self.dataset.spec.revision, self.source) = (revision, source.clone());
    }

    fn status(&self) -> DatasetStatus {
        self.dataset.status.clone().unwrap_or_default()
    }

    fn next(&self) -> Next {
        let plans: Vec<&HostPlan> = self.plan.iter().collect();
        next(&Inputs {
            dataset: &self.dataset,
            hosts: &[&self.host],
            plans: &plans,
            held_until: None,
            horizon: &"P0D".into(),
            now: NOW.parse::<Timestamp>().unwrap(),
        })
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Finalize => {
                assert!(
                    self.made.is_empty() && self.plan.is_none(),
                    "something was made before the finalizer"
                );
                self.dataset.metadata.finalizers = Some(vec!["dejima.dev/end".to_owned()]);
            }
            Step::DestroyKeys { .. } | Step::Receipt(_) | Step::Unfinalize => panic!("nobody has deleted it: {step:?}"),
            Step::OpenKeys { keys, .. } => {
                self.made.extend(keys.iter().cloned());
                self.opened = keys.into_iter().collect();
            }
            Step::CloseKeys { .. } => self.opened.clear(),
            Step::Write { spec, from, .. } => {
                let current = self.plan.as_ref();
                assert_eq!(from.as_ref(), current.and_then(|plan| plan.metadata.resource_version.as_ref()));
                assert!(current.is_none_or(|plan| spec.plan_generation > plan.spec.plan_generation));
                let keys = &spec.intake.as_ref().unwrap().keys;
                assert!(keys.iter().all(|key| self.opened.contains(&key.key)), "a plan before its keys");
                let metadata =
                    json!({"namespace": "dejima-host-intake-1", "name": "intake-d-1", "resourceVersion": spec.plan_generation.to_string()});
                let status = current.map(|plan| json!(plan.status));
                let plan =
                    json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "HostPlan", "metadata": metadata, "spec": spec, "status": status});
                self.plan = Some(serde_json::from_value(plan).unwrap());
            }
            Step::Forget { .. } => {
                let revision = self.dataset.spec.revision;
                assert!(
                    self.status().versions.iter().any(|version| version.version >= revision),
                    "forgotten before it was written down"
                );
                self.plan = None;
            }
        }
    }

    /// One pass of the operator, cut short after so many steps.
    fn pass(&mut self, budget: usize) {
        let Next { steps, sealed, .. } = self.next();
        for (at, step) in steps.into_iter().enumerate() {
            if at == budget {
                return;
            }
            self.apply(step);
        }
        if let Some((version, shards)) = sealed {
            let mut status = self.status();
            status.versions.push(version);
            status.shards.extend(shards);
            self.dataset.status = Some(status);
        }
    }

    /// The intake host reads the source, or seals what it has keys for.
    fn host_works(&mut self) {
        let Some(plan) = &mut self.plan else { return };
        let order = plan.spec.intake.as_ref().unwrap();
        let shards: Vec<Value> = self
            .source
            .iter()
            .map(|shard| json!({"id": id(*shard), "bytes": 1, "files": 1}))
            .collect();
        let of_source = self.source.iter().fold(0_u32, |all, shard| all | 1 << shard);
        let scanned = json!({"version": order.version, "manifestDigest": digest(&format!("{of_source:02x}")), "bytes": shards.len(), "files": shards.len(), "shards": shards});
        let seal = |shard: &ShardId, key: &KeyName| {
            assert!(self.opened.contains(key), "sealed with a key that the host may not use");
            json!({"id": shard, "digest": digest("b"), "storedDigest": digest("c"), "key": key, "wrappedKey": "vault:v1:YQ==", "bytes": 1, "files": 1})
        };
        // What it has sealed it does not seal again.
        let mut sealed: Vec<Value> = plan
            .status
            .iter()
            .flat_map(|status| &status.sealed)
            .map(|shard| json!(shard))
            .collect();
        let is_new = |key: &&ShardKey| !sealed.iter().any(|shard| shard["id"] == key.shard.as_str());
        let fresh: Vec<Value> = order.keys.iter().filter(is_new).map(|key| seal(&key.shard, &key.key)).collect();
        sealed.extend(fresh);
        let status = json!({"planGeneration": plan.spec.plan_generation, "scanned": scanned, "sealed": sealed});
        plan.status = Some(serde_json::from_value(status).unwrap());
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            let before = self.clone();
            self.pass(usize::MAX);
            self.host_works();
            if *self == before {
                return;
            }
        }
        panic!("it does not converge: {self:?}");
    }
}

/// Any source.
fn source() -> impl Strategy<Value = Source> {
    proptest::collection::btree_set(1_u8..6, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn each_revision_becomes_one_version_wherever_its_sealing_is_cut_short(
        sources in proptest::collection::vec(source(), 1..4), cuts in proptest::collection::vec((0_usize..3, any::<bool>()), 0..6),
    ) {
        let mut clean = Cluster::new();
        let mut before = clean.status();
        for (revision, source) in (1..).zip(&sources) {
            clean.revise(revision, source);
            let mut cut = clean.clone();
            clean.settle();
            for (budget, works) in &cuts {
                cut.pass(*budget);
                if *works {
                    cut.host_works();
                }
            }
            cut.settle();
            prop_assert_eq!(&cut, &clean);

            // One more version, of exactly this source; what was is as it was, and what did not change is shared.
            let status = clean.status();
            prop_assert_eq!(status.versions.len(), before.versions.len() + 1);
            prop_assert!(status.versions.starts_with(&before.versions) && status.shards.starts_with(&before.shards));
            let version = status.versions.last().unwrap();
            let ids: BTreeSet<String> = version.shards.iter().map(ToString::to_string).collect();
            prop_assert_eq!((version.version, ids), (revision, source.iter().map(|shard| id(*shard)).collect()));
            let known: BTreeSet<&ShardId> = status.shards.iter().map(|shard| &shard.id).collect();
            prop_assert_eq!(known.len(), status.shards.len(), "a shard is sealed twice");
            prop_assert!(version.shards.iter().all(|shard| known.contains(shard)), "a version without one of its shards");
            // A key for each shard, none more; and the host may use none when it is done.
            let keys: BTreeSet<KeyName> = status.shards.iter().map(|shard| shard.key.clone()).collect();
            prop_assert_eq!(&clean.made, &keys);
            prop_assert!(clean.opened.is_empty() && clean.plan.is_none() && clean.next().steps.is_empty());
            before = status;
        }
    }
}
