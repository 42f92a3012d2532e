//! `HostPlan`: what one host must hold for one project, or seal for one dataset. Exact: no choices are left.
//!
//! The operator writes the spec, the hostd of the host in whose namespace it stands writes the status. A plan that
//! is absent ends mounts and nothing else; only `ends: true` destroys.

#![expect(clippy::duplicated_attributes, reason = "each printer column has a name and a type of its own")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{
    Cidr, Code, Digest, ItemName, KeyName, Label, Line, MountPath, ObjectName, Prose, Ref, ShardId, SubPath, Uid, UserText, WrappedKey,
};
use crate::dataset::{DirectorySource, Shard};
use crate::grant::ProjectRef;
use crate::image::{Guest, ImageFormat, Kernel};

/// What one host must hold for one project, or seal for one dataset.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "HostPlan",
    namespaced,
    status = "HostPlanStatus",
    shortname = "hplan",
    category = "dejima",
    derive = "PartialEq",
    printcolumn(name = "Generation", type_ = "integer", json_path = ".spec.planGeneration"),
    printcolumn(name = "Seen", type_ = "integer", json_path = ".status.planGeneration"),
    printcolumn(name = "Project", type_ = "string", json_path = ".spec.project.of.name"),
    printcolumn(name = "Dataset", type_ = "string", json_path = ".spec.intake.dataset.name"),
    printcolumn(name = "Ends", type_ = "boolean", json_path = ".spec.ends"),
    printcolumn(name = "Problem", type_ = "string", json_path = ".status.problem"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf || self.planGeneration > oldSelf.planGeneration").message("a changed plan bears a higher planGeneration"),
    validation = Rule::new("has(self.project) != has(self.intake)").message("a plan is for one project or for one dataset"),
    validation = Rule::new("!oldSelf.ends || self.ends").message("an end is final")
)]
pub struct HostPlanSpec {
    /// Rises with every change; a lower one is refused, by the API server and by hostd.
    #[schemars(range(min = 1))]
    pub plan_generation: u64,
    /// The only order to destroy: machines, keys, then the bytes; of a dataset, what lies in the image store.
    #[serde(default)]
    pub ends: bool,
    /// What the host holds for a project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectPlan>,
    /// What the host seals for a dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intake: Option<IntakePlan>,
}

/// What the host holds for a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectPlan {
    /// The project.
    pub of: ProjectRef,
    /// Whether this host is held by the project alone.
    pub dedicated: bool,
    /// The project's key at the key server.
    pub key: KeyName,
    /// Its network on this host.
    pub segment: Segment,
    /// Its volumes on this host.
    #[schemars(length(max = 256))]
    pub volumes: Vec<VolumePlan>,
    /// Volumes to be destroyed, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub destroy: Vec<Label>,
    /// Sealed versions to be mounted.
    #[schemars(length(max = 64))]
    pub mounts: Vec<MountPlan>,
    /// Its machines.
    #[schemars(length(max = 64))]
    pub domains: Vec<DomainPlan>,
}

/// A project's network on a host: one bridge, closed, with what may leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Segment {
    /// The bridge's name (at most 15 characters).
    #[schemars(length(max = 15))]
    pub bridge: Label,
    /// The project's addresses.
    pub cidr: Cidr,
    /// The host's own address on the bridge, where flows that are allowed leave; machines route through it.
    pub gateway: Line,
    /// The machines' ports.
    #[schemars(length(max = 64))]
    pub ports: Vec<Port>,
    /// What machines may open flows to outside: nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub egress: Vec<EgressRule>,
}

/// One machine's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// The machine.
    pub machine: Label,
    /// The tap's name (at most 15 characters).
    #[schemars(length(max = 15))]
    pub tap: Label,
    /// The MAC address.
    pub mac: Line,
    /// The IPv4 address.
    pub address: Line,
}

/// What may leave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct EgressRule {
    /// Where to.
    pub cidr: Cidr,
    /// TCP ports.
    #[schemars(length(min = 1, max = 32))]
    pub ports: Vec<u16>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumePlan {
    /// Its name in the project.
    pub name: Label,
    /// Its id.
    pub uid: Uid,
    /// The serial of its disk (32 hex digits).
    pub serial: Label,
    /// How large, in bytes.
    pub bytes: u64,
    /// The machine that it is attached to; absent for one that is only kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_to: Option<Label>,
    /// Where it appears there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<MountPath>,
}

/// One sealed version, to be mounted read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MountPlan {
    /// `namespace/name` of the dataset.
    pub dataset: Ref,
    /// Its UID.
    pub uid: Uid,
    /// The version.
    pub version: u32,
    /// The digest of the manifest.
    pub digest: Digest,
    /// The digest of the policy that it is mounted under.
    pub policy_digest: Digest,
    /// The machines in which it appears.
    #[schemars(length(min = 1, max = 64))]
    pub machines: Vec<Label>,
    /// Where it appears there.
    pub path: MountPath,
    /// The verdict's own end (RFC 3339): the host ends the mount then, whoever is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Line>,
    /// The shards.
    #[schemars(length(min = 1, max = 1000))]
    pub shards: Vec<ShardPlan>,
}

/// One shard of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardPlan {
    /// Its id.
    pub id: ShardId,
    /// The serial of its disk (32 hex digits).
    pub serial: Label,
    /// The digest of the image before encryption.
    pub digest: Digest,
    /// The digest of the encrypted file; checked when it is fetched.
    pub stored_digest: Digest,
    /// Its key at the key server.
    pub key: KeyName,
    /// Its data key, wrapped.
    pub wrapped_key: WrappedKey,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainPlan {
    /// Its name in the project.
    pub machine: Label,
    /// Its UUID, libvirt's too.
    pub uid: Uid,
    /// Its state: what the plan wants, not what is.
    pub power: Power,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    #[serde(rename = "memoryMiB")]
    pub memory_mib: u64,
    /// What it boots.
    pub image: ImagePlan,
    /// What it is given at the first boot. Goes into the seed, which lives in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserText>,
}

/// What a machine boots, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImagePlan {
    /// The image's name.
    pub name: ObjectName,
    /// What it is.
    pub format: ImageFormat,
    /// The disk image's path in the image store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SubPath>,
    /// The disk image's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The kernel, where one is booted directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// What reads the seed.
    pub guest: Guest,
}

/// The state a machine is wanted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It runs.
    Running,
    /// It is defined and does not run.
    Stopped,
}

/// What the host seals for a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntakePlan {
    /// The dataset.
    pub dataset: DatasetIdentity,
    /// The version that is sealed.
    pub version: u32,
    /// Where it lies.
    pub source: DirectorySource,
    /// The root that the host's admin gave to the dataset's namespace.
    pub root: SubPath,
    /// The most bytes of files in one shard.
    pub shard_bytes: u64,
    /// Shards that are sealed already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub known: Vec<KnownShard>,
    /// The keys of the new shards: empty until the host has reported them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub keys: Vec<ShardKey>,
}

/// A dataset, exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatasetIdentity {
    /// Its namespace.
    pub namespace: Label,
    /// Its name.
    pub name: ObjectName,
    /// Its UID.
    pub uid: Uid,
}

/// A shard that is sealed already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KnownShard {
    /// Its id.
    pub id: ShardId,
    /// The digest of the image.
    pub digest: Digest,
    /// The digest of the encrypted file.
    pub stored_digest: Digest,
}

/// A new shard's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardKey {
    /// The shard.
    pub shard: ShardId,
    /// Its key at the key server.
    pub key: KeyName,
}

/// What the host says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostPlanStatus {
    /// The generation of the plan that this is about.
    #[serde(default)]
    pub plan_generation: u64,
    /// Why the plan, as it stands, goes no further: a reason word, with the items below saying more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Line>,
    /// Each thing that the plan names, by `kind/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8192))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["item".to_owned()]))]
    pub items: Vec<Item>,
    /// The last proof of isolation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<IsolationProof>,
    /// What is not as it was made, and who would repair it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub drift: Vec<Drift>,
    /// Of an intake: what was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanned: Option<Scanned>,
    /// Of an intake: what was sealed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub sealed: Vec<Shard>,
    /// Of a plan that ends: when no process of the host held a key, and nothing plain was left, any more (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Line>,
    /// Of a plan that ends: when the bytes were gone (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swept_at: Option<Line>,
}

/// One thing that the plan names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// `key`, `network`, `volume/<name>`, `domain/<machine>`, `mount/<namespace>/<dataset>@<version>/<machine>`, `seal`.
    pub item: ItemName,
    /// Its state.
    pub state: ItemState,
    /// Why, where it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Code>,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Prose>,
    /// A volume's data key, wrapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrapped_key: Option<WrappedKey>,
    /// Since when it is in this state (RFC 3339).
    pub since: Line,
}

/// The state of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ItemState {
    /// Not there yet.
    Pending,
    /// There, as the plan says.
    Ready,
    /// It failed and is tried again.
    Failed,
    /// It ended: a mount whose time is over, a machine that was taken down.
    Ended,
    /// Nobody can say.
    Unknown,
}

/// A proof that the network is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IsolationProof {
    /// The digest of the rules that it was made under.
    pub rules_digest: Digest,
    /// When (RFC 3339).
    pub at: Line,
    /// How many forbidden frames were sent and did not arrive.
    pub refused: u32,
    /// How many permitted frames arrived.
    pub passed: u32,
}

/// Something that is not as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// What.
    pub item: ItemName,
    /// How it differs.
    pub message: Prose,
    /// Whether the platform repairs it, or only says so.
    pub repaired: bool,
}

/// What an intake read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scanned {
    /// The version it was read for.
    pub version: u32,
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// How many bytes.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
    /// The shards.
    #[schemars(length(max = 1000))]
    pub shards: Vec<ScannedShard>,
}

/// One shard as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScannedShard {
    /// Its id: of the digest of its part of the manifest.
    pub id: ShardId,
    /// How many bytes.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
}

/// The item of one mount in one machine.
pub fn mount_item(mount: &MountPlan, machine: &Label) -> String {
    format!("mount/{}@{}/{machine}", mount.dataset, mount.version)
}
