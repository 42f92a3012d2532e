//! What an admin does to a host: Kubernetes is told with the caller's own token, so that it decides, and knows who it was.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dejima_crds::Host;
use kube::Api;
use kube::api::{Patch, PatchParams};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::Window;
use crate::callers::Caller;
use crate::problem::Problem;

/// A host after it was told.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Told {
    host: String,
    /// Whether new projects may be placed on it.
    schedulable: bool,
}

/// `POST /api/v1/hosts/{host}/cordon`: what it holds stays, nothing new comes.
pub(crate) async fn cordon(State(window): State<Window>, caller: Caller, Path(host): Path<String>) -> Result<Json<Told>, Problem> {
    tell(&window, &caller, &host, false).await
}

/// `POST /api/v1/hosts/{host}/uncordon`.
pub(crate) async fn uncordon(State(window): State<Window>, caller: Caller, Path(host): Path<String>) -> Result<Json<Told>, Problem> {
    tell(&window, &caller, &host, true).await
}

async fn tell(window: &Window, caller: &Caller, host: &str, schedulable: bool) -> Result<Json<Told>, Problem> {
    let api: Api<Host> = Api::all(caller.client(window)?);
    let change = Patch::Merge(json!({"spec": {"schedulable": schedulable}}));
    match api.patch(host, &PatchParams::default(), &change).await {
        Ok(written) => Ok(Json(Told {
            host: host.to_owned(),
            schedulable: written.spec.schedulable,
        })),
        // Kubernetes' own words, for exactly this caller.
        Err(kube::Error::Api(status)) if status.code < 500 => {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_REQUEST);
            Err(Problem::new(code, "Kubernetes", status.message.clone()))
        }
        Err(error) => Err(Problem::ours("cannot tell the host", &error)),
    }
}
