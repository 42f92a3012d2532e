//! The nouns of Dejima: API group `dejima.dev/v1alpha1`.
//!
//! Types, schemas and CEL rules; nothing here talks to anybody, waits for anything, or knows the time.
//!
//! ```text
//! people write:    IsolatedProject  Dataset  UsagePolicy  AccessGrant  Attestation  Model  MachineImage
//! the platform's:  Host  HostPlan            wire forms: of the record (`act`), of receipts (`receipt`), of the door (`door`)
//! ```
//! Every list and string is bounded, so that the cost of a CEL rule is known and no object can grow without end.

#![expect(
    unreachable_pub,
    reason = "the schema derive repeats each type inside a function, where `pub` reaches nobody"
)]

pub mod act;
pub mod attestation;
pub mod bounded;
pub mod condition;
pub mod country;
pub mod dataset;
pub mod digest;
pub mod door;
pub mod duo;
pub mod grant;
pub mod host;
pub mod host_plan;
pub mod image;
pub mod model;
pub mod names;
pub mod project;
pub mod reason;
pub mod receipt;
pub mod text;
pub mod usage_policy;
pub mod when;

pub use attestation::{Attestation, AttestationSpec, AttestationStatus};
pub use dataset::{Dataset, DatasetSpec, DatasetStatus};
pub use grant::{AccessGrant, AccessGrantSpec, AccessGrantStatus};
pub use host::{Host, HostSpec, HostStatus};
pub use host_plan::{HostPlan, HostPlanSpec, HostPlanStatus};
pub use image::{MachineImage, MachineImageSpec, MachineImageStatus};
pub use model::{Model, ModelSpec, ModelStatus};
pub use project::{IsolatedProject, IsolatedProjectSpec, IsolatedProjectStatus};
pub use usage_policy::{UsagePolicy, UsagePolicySpec, UsagePolicyStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of everything in this crate.
pub const GROUP: &str = "dejima.dev";

/// All definitions, in the order in which people meet them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        IsolatedProject::crd(),
        Dataset::crd(),
        UsagePolicy::crd(),
        AccessGrant::crd(),
        Attestation::crd(),
        Model::crd(),
        MachineImage::crd(),
        Host::crd(),
        HostPlan::crd(),
    ]
}
