//! The will: keeps the Kubernetes objects, the keys and the hosts as the plan says they must be.
//!
//! ```text
//! watch everything -> one pass: admission, hosts, datasets, grants, projects -> wait for a change, or the next end
//! ```
//! A pass takes no input but what is there, does what the pure plan says, and can be cut short anywhere. It knows of
//! no host and no hypervisor: what a host must do stands in its host plans.

pub mod admission;
pub mod apply;
mod canary;
pub mod datasets;
pub mod events;
pub mod grants;
pub mod hosts;
pub mod images;
pub mod keys;
pub mod models;
mod opened;
pub mod pass;
pub mod policies;
pub mod projects;
mod receipts;
pub mod records;
pub mod seen;
pub mod site;
pub mod watched;

use std::sync::Arc;

use dejima_plan::effect::Gate;
use kube::Client;

pub use keys::{Keys, VaultKeys};
pub use records::Recorder;
pub use site::Site;

/// What every part of a pass uses.
#[derive(Clone)]
pub struct Context {
    /// The API server, under the operator's own narrow identity.
    pub client: Client,
    /// The key server.
    pub keys: Arc<dyn Keys>,
    /// Where acts are recorded.
    pub recorder: Arc<dyn Recorder>,
    /// The seam for faults.
    pub gate: Arc<dyn Gate>,
    /// What is the site's own.
    pub site: Arc<Site>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("site", &self.site).finish_non_exhaustive()
    }
}
