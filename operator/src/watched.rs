//! Everything that the operator watches, kept here, and a signal whenever any of it changed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backon::ExponentialBuilder;
use dejima_crds::{AccessGrant, Attestation, Dataset, Host, HostPlan, IsolatedProject, MachineImage, Model, UsagePolicy};
use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::ExponentialBackoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The stores.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Projects.
    pub projects: Store<IsolatedProject>,
    /// Datasets.
    pub datasets: Store<Dataset>,
    /// Policies.
    pub policies: Store<UsagePolicy>,
    /// Grants.
    pub grants: Store<AccessGrant>,
    /// Attestations.
    pub attestations: Store<Attestation>,
    /// Models.
    pub models: Store<Model>,
    /// Images.
    pub images: Store<MachineImage>,
    /// Hosts.
    pub hosts: Store<Host>,
    /// Host plans.
    pub plans: Store<HostPlan>,
    /// Namespaces, for their labels.
    pub namespaces: Store<Namespace>,
    /// The hosts' signs of life.
    pub leases: Store<Lease>,
    /// Admission policies.
    pub admission: Store<ValidatingAdmissionPolicy>,
    /// Their bindings.
    pub bindings: Store<ValidatingAdmissionPolicyBinding>,
    /// Told whenever something changed.
    pub changed: Arc<Notify>,
    written: Arc<Mutex<BTreeMap<String, Written>>>,
    made: Arc<Mutex<BTreeMap<String, Instant>>>,
}

/// What we wrote of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    /// This resource version.
    Version(u64),
    /// Nothing any more: this one (a UID) ended with what we wrote. The answer to the write that takes the last finalizer away
    /// bears no later resource version, so that an old copy could not be told by it.
    Ended(String),
}

fn follow<K>(client: &Client, tasks: &mut JoinSet<()>, changed: &Arc<Notify>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq,
{
    let (store, writer) = reflector::store();
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).backoff(patience());
    tasks.spawn(drive(reflector::reflector(writer, stream), Arc::clone(changed)));
    store
}

/// How long a watch that was interrupted waits before it begins again. What is seen by it takes access away: once the API server
/// is back after minutes, that must not wait for half a minute, and then for as long again to be told that the past is gone (410).
fn patience() -> impl Backoff {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(800))
        .with_max_delay(Duration::from_secs(3));
    ExponentialBackoff::from(pauses.with_jitter().without_max_times())
}

async fn drive<K: Resource<DynamicType = ()>>(stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send, changed: Arc<Notify>) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(_) => changed.notify_one(),
            Err(error) => tracing::warn!(kind = %K::kind(&()), error = %error, "the watch was interrupted"),
        }
    }
}

impl Watched {
    /// Starts to watch; the tasks end when the set is dropped.
    pub fn start(client: &Client, tasks: &mut JoinSet<()>) -> Self {
        let changed = Arc::new(Notify::new());
        Self {
            projects: follow(client, tasks, &changed),
            datasets: follow(client, tasks, &changed),
            policies: follow(client, tasks, &changed),
            grants: follow(client, tasks, &changed),
            attestations: follow(client, tasks, &changed),
            models: follow(client, tasks, &changed),
            images: follow(client, tasks, &changed),
            hosts: follow(client, tasks, &changed),
            plans: follow(client, tasks, &changed),
            namespaces: follow(client, tasks, &changed),
            leases: follow(client, tasks, &changed),
            admission: follow(client, tasks, &changed),
            bindings: follow(client, tasks, &changed),
            changed,
            written: Arc::default(),
            made: Arc::default(),
        }
    }

    /// Waits until every store was filled once.
    pub async fn ready(&self) -> bool {
        macro_rules! wait {
            ($($store:ident),*) => { true $( && matches!(tokio::time::timeout(Duration::from_mins(1), self.$store.wait_until_ready()).await, Ok(Ok(()))) )* };
        }
        wait!(
            projects,
            datasets,
            policies,
            grants,
            attestations,
            models,
            images,
            hosts,
            plans,
            namespaces,
            leases,
            admission,
            bindings
        )
    }

    /// Whether hosts and their plans were ever read: until then one that is not here may well be there.
    pub fn knows_hosts(&self) -> bool {
        let hosts = self.hosts.wait_until_ready().now_or_never();
        let plans = self.plans.wait_until_ready().now_or_never();
        matches!((hosts, plans), (Some(Ok(())), Some(Ok(()))))
    }

    /// Remembers what we wrote, so that nothing is planned from an older copy of it.
    pub fn wrote<K: Resource<DynamicType = ()>>(&self, object: &K) {
        if let Ok(mut written) = self.written.lock() {
            remember(&mut written, object);
        }
    }

    /// Whether our copy is at least as new as what we wrote.
    pub fn fresh<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        self.written.lock().is_ok_and(|written| is_fresh(&written, object))
    }

    /// Remembers that we made something, until it has come back to us.
    pub fn made<K: Resource<DynamicType = ()>>(&self, object: &K) {
        if let Ok(mut made) = self.made.lock() {
            made.insert(key(object), Instant::now());
        }
    }

    /// Whether something that we made has not come back to us yet. What does not come back soon is gone again: somebody
    /// deleted it before we saw it.
    pub fn awaited<K>(&self, store: &Store<K>, namespace: &str, name: &str) -> bool
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        let key = format!("{}/{namespace}/{name}", K::kind(&()));
        let Ok(mut made) = self.made.lock() else { return false };
        let Some(since) = made.get(&key) else { return false };
        let there = store
            .state()
            .into_iter()
            .any(|object| object.name_any() == name && object.namespace().as_deref() == Some(namespace));
        if there || since.elapsed() > Duration::from_secs(10) {
            made.remove(&key);
            return false;
        }
        true
    }
}

fn remember<K: Resource<DynamicType = ()>>(written: &mut BTreeMap<String, Written>, object: &K) {
    let meta = object.meta();
    let ended = meta.deletion_timestamp.is_some() && meta.finalizers.iter().flatten().next().is_none();
    let now = match (ended, version(object)) {
        (true, _) => meta.uid.clone().map(Written::Ended),
        (false, version) => version.map(Written::Version),
    };
    let Some(now) = now else { return };
    let known = written.entry(key(object)).or_insert_with(|| now.clone());
    if let (Written::Version(known), Written::Version(version)) = (&*known, &now)
        && known > version
    {
        return;
    }
    *known = now;
}

fn is_fresh<K: Resource<DynamicType = ()>>(written: &BTreeMap<String, Written>, object: &K) -> bool {
    match written.get(&key(object)) {
        None => true,
        Some(Written::Version(written)) => version(object).is_none_or(|version| version >= *written),
        Some(Written::Ended(uid)) => object.meta().uid.as_ref() != Some(uid),
    }
}

/// Resource versions of one kind can be compared as numbers (Kubernetes 1.35, "comparable resource version").
fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!(
        "{}/{}/{}",
        K::kind(&()),
        object.meta().namespace.as_deref().unwrap_or(""),
        object.meta().name.as_deref().unwrap_or("")
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn space(uid: &str, version: u64, finalizers: &[&str], deleted: bool) -> Namespace {
        let mut space = Namespace::default();
        space.metadata.name = Some("one".to_owned());
        space.metadata.uid = Some(uid.to_owned());
        space.metadata.resource_version = Some(version.to_string());
        space.metadata.finalizers = Some(finalizers.iter().map(ToString::to_string).collect());
        space.metadata.deletion_timestamp = deleted.then_some(Time(Timestamp::UNIX_EPOCH));
        space
    }

    #[test]
    fn nothing_is_planned_from_a_copy_older_than_what_we_wrote_nor_of_what_ended_with_it() {
        let mut written = BTreeMap::new();
        let old = space("a", 5, &["ours"], false);
        assert!(is_fresh(&written, &old));
        remember(&mut written, &space("a", 7, &["ours"], false));
        remember(&mut written, &space("a", 6, &["ours"], false));
        assert!(!is_fresh(&written, &old));
        assert!(!is_fresh(&written, &space("a", 6, &["ours"], false)));
        assert!(is_fresh(&written, &space("a", 7, &["ours"], false)));

        // Somebody else's finalizer holds it still: it goes on.
        remember(&mut written, &space("a", 9, &["theirs"], true));
        assert!(is_fresh(&written, &space("a", 9, &["theirs"], true)));
        // The last one was ours: whatever copy of it we have is of something that is not there any more.
        remember(&mut written, &space("a", 9, &[], true));
        assert!(!is_fresh(&written, &space("a", 9, &["ours"], true)));
        assert!(!is_fresh(&written, &space("a", 10, &["ours"], true)));
        // Another one of the same name is another one.
        assert!(is_fresh(&written, &space("b", 11, &[], false)));
        remember(&mut written, &space("b", 12, &["ours"], false));
        assert!(!is_fresh(&written, &space("b", 11, &[], false)));
        assert!(is_fresh(&written, &space("b", 12, &["ours"], false)));
    }
}
