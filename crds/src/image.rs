//! `MachineImage`: what a machine boots.

#![expect(clippy::duplicated_attributes, reason = "each printer column has a name and a type of its own")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Digest, Line, SubPath};
use crate::condition::Condition;

/// What a machine boots.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "MachineImage",
    status = "MachineImageStatus",
    shortname = "mimg",
    category = "dejima",
    derive = "PartialEq",
    printcolumn(name = "Format", type_ = "string", json_path = ".spec.format"),
    printcolumn(name = "Guest", type_ = "string", json_path = ".spec.guest"),
    printcolumn(
        name = "Available",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Available\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.format != 'kernel-initrd' || has(self.boot.kernel)").message("an image of format kernel-initrd says under boot.kernel what it boots"),
    validation = Rule::new("self.format == 'kernel-initrd' || has(self.digest)").message("a disk image has a digest")
)]
pub struct MachineImageSpec {
    /// The disk image's path in the image store; absent where a kernel and an initrd are all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SubPath>,
    /// The disk image's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What it is.
    pub format: ImageFormat,
    /// How it is booted.
    #[serde(default)]
    pub boot: Boot,
    /// What reads the seed.
    pub guest: Guest,
}

/// What an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormat {
    /// A qcow2 disk.
    Qcow2,
    /// A raw disk.
    Raw,
    /// A kernel and an initrd, no disk.
    KernelInitrd,
}

/// How an image is booted: by the firmware, unless a kernel is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Boot {
    /// A kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
}

/// A kernel with its initrd and command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kernel {
    /// The kernel's path in the image store.
    pub path: SubPath,
    /// Its digest.
    pub digest: Digest,
    /// The initrd's path in the image store.
    pub initrd: SubPath,
    /// Its digest.
    pub initrd_digest: Digest,
    /// The command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<Line>,
}

/// What reads the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Guest {
    /// cloud-init.
    CloudInit,
    /// The small guest of the local platform, which runs the same vendor data.
    Probe,
}

/// What the platform says of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineImageStatus {
    /// The conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}
