//! Whether this process lives, and whether it can answer.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;

use crate::Window;
use crate::problem::Problem;

/// `GET /healthz`: it lives.
pub(crate) async fn lives() -> &'static str {
    "ok"
}

/// `GET /readyz`: the ledger takes records, and Kubernetes answers.
pub(crate) async fn ready(State(window): State<Window>) -> Result<&'static str, Problem> {
    let not_ready = |what: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NotReady", what);
    if window.ledger.is_poisoned() {
        return Err(not_ready(
            "the ledger takes nothing more since a write failed: start this process again",
        ));
    }
    match tokio::time::timeout(Duration::from_secs(2), window.client.apiserver_version()).await {
        Ok(Ok(_)) => Ok("ok"),
        Ok(Err(_)) | Err(_) => Err(not_ready("the API server does not answer")),
    }
}
