//! `Host`: one server, who may hold it, who holds it, and what it can take.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Code, Digest, Label, Line, ObjectName, Prose, SubPath, Uid};
use crate::condition::Condition;
use crate::country::Country;
use crate::grant::ProjectRef;

/// One server.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "Host",
    status = "HostStatus",
    shortname = "dhost",
    category = "dejima",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 50").message("the name of a host is a DNS label of at most 50 characters, since its namespace is dejima-host-<name>"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Roles", type_ = "string", json_path = ".spec.roles"),
    printcolumn(name = "HeldBy", type_ = "string", json_path = ".status.heldBy.name"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".status.engine.kind"),
    printcolumn(name = "Cpus", type_ = "integer", json_path = ".status.capacity.cpus"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    /// What it is for.
    #[schemars(length(min = 1, max = 2))]
    pub roles: Vec<HostRole>,
    /// Whether new projects may be placed on it.
    #[serde(default = "yes")]
    pub schedulable: bool,
    /// Labels that a namespace must bear to hold it; any namespace, where empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub allow: BTreeMap<String, Line>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<Code>,
    /// In which country.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<Country>,
    /// It is being worked on: what it holds stays, nothing new comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,
    /// What its intake may read, by namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub intake: Vec<IntakeRoot>,
}

fn yes() -> bool {
    true
}

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostRole {
    /// It runs machines.
    Machines,
    /// It seals datasets.
    Intake,
}

/// A directory below which the datasets of one namespace may lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IntakeRoot {
    /// The provider's namespace.
    pub namespace: Label,
    /// The directory, below the host's intake directory.
    pub path: SubPath,
}

/// What the platform says of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// The project that holds it, both ways: the project runs nowhere else, the host runs nothing else. (operator)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<ProjectRef>,
    /// What projects that share it have claimed. (operator)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub claims: Vec<HostClaim>,
    /// What may still be left of projects that ended while it was silent. (operator)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub tombstones: Vec<Tombstone>,
    /// The conditions. (operator)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// A UUID that is kept on the host's disk, never its name. (hostd)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<Uid>,
    /// What it can take. (hostd)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// What runs its machines. (hostd)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Digests of the images that it has. (hostd)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub images: Vec<Digest>,
    /// Projects of which machines or volumes are on it without a plan: nothing of them is destroyed, and they hold it. (hostd)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub unplanned: Vec<Uid>,
}

/// What one project has claimed of a shared host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostClaim {
    /// The project's UID.
    pub uid: Uid,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Storage in bytes.
    pub bytes: u64,
}

/// What may still be left of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tombstone {
    /// The project's UID.
    pub uid: Uid,
    /// What.
    pub what: Prose,
}

/// What a host can take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capacity {
    /// CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Storage in bytes.
    pub bytes: u64,
}

/// What runs a host's machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// `kvm`, `tcg`, or `memory` (a fake for tests and scale, which runs nothing).
    pub kind: EngineKind,
    /// Versions: `libvirt`, `qemu`, `kernel`, `hostd`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub versions: BTreeMap<String, Line>,
}

/// How machines are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// With the processor's help.
    Kvm,
    /// By emulation.
    Tcg,
    /// Not at all: drivers that only remember.
    Memory,
    /// Intake only.
    None,
}

/// The name of a host.
pub type HostName = ObjectName;
