//! The window: what is asked over HTTP. First form: records.
//!
//! People and parts are known by their Kubernetes identity (TokenReview), and Kubernetes is asked what they may do
//! (SubjectAccessReview), so that kubectl and this never disagree. The writer of a record is the caller, never a field.

mod callers;
mod problem;
mod receipts;
mod records;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use dejima_ledger::Ledger;
use kube::Client;

/// What every answer uses.
#[derive(Clone)]
pub struct Window {
    /// The API server, under this part's own narrow identity.
    pub client: Client,
    /// The ledger, which this process alone writes.
    pub ledger: Arc<Ledger>,
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Window")
    }
}

/// All routes.
pub fn app(window: Window) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/api/v1/records", get(records::list).post(records::append))
        .route("/api/v1/receipts", post(receipts::issue))
        .with_state(window)
}
