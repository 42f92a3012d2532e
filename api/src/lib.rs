//! The window: what is asked over HTTP. First form: objects, records, receipts, two things that an admin does to a host, and
//! the door, where people and hosts meet.
//!
//! People and parts are known by their Kubernetes identity (TokenReview), and Kubernetes is asked what they may do
//! (SubjectAccessReview), so that kubectl and this never disagree. The writer of a record is the caller, never a field;
//! what a person changes here is changed with that person's own token. What a caller may not read influences nothing
//! that he gets.

mod callers;
mod door;
mod health;
mod hosts;
mod metrics;
mod objects;
mod problem;
mod receipts;
mod records;
mod routes;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use dejima_ledger::Ledger;
use kube::config::AuthInfo;
use kube::{Client, Config};
use secrecy::SecretString;

use crate::door::Door;
use crate::metrics::Metrics;
use crate::problem::Problem;

/// A client of the API server for the bearer of a token.
pub type ClientOf = Arc<dyn Fn(SecretString) -> kube::Result<Client> + Send + Sync>;

/// What every answer uses.
#[derive(Clone)]
pub struct Window {
    client: Client,
    of: ClientOf,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    door: Arc<Door>,
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Window")
    }
}

impl Window {
    /// Over a ledger that this process alone writes, and an API server: with this part's own narrow identity, and with
    /// the token of whoever calls, and nothing else of ours, for what he changes.
    pub fn new(config: Config, ledger: Ledger) -> kube::Result<Self> {
        let client = Client::try_from(config.clone())?;
        let of = move |token| {
            let mut theirs = config.clone();
            theirs.auth_info = AuthInfo {
                token: Some(token),
                ..AuthInfo::default()
            };
            Client::try_from(theirs)
        };
        Ok(Self::over(client, Arc::new(of), ledger))
    }

    /// Over these clients.
    pub fn over(client: Client, of: ClientOf, ledger: Ledger) -> Self {
        Self {
            client,
            of,
            ledger: Arc::new(ledger),
            metrics: Arc::new(Metrics::new()),
            door: Arc::default(),
        }
    }
}

/// Everything that is answered.
pub fn app(window: Window) -> Router {
    let all = routes::all().into_iter();
    all.fold(Router::new(), |router, route| router.route(route.path, (route.answers)()))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "NoSuchPath", "see /openapi.json") })
        .method_not_allowed_fallback(|| async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "NotThisMethod", "see /openapi.json") })
        .layer(from_fn_with_state(window.clone(), metrics::count))
        .with_state(window)
}

/// The method and the path of everything that is answered.
pub fn routes() -> Vec<(&'static str, &'static str)> {
    routes::all().iter().map(|route| (route.method, route.path)).collect()
}
