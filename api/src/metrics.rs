//! What is counted, in the form that Prometheus reads: for whom Kubernetes lets `get` the path `/metrics`.

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::Window;
use crate::callers::Caller;
use crate::problem::Problem;
use crate::records::in_ledger;

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Kind, Counter>,
    size: Gauge,
    poisoned: Gauge,
}

/// One kind of request: by route and status, never by who asked or for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    method: String,
    route: String,
    status: u16,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("dejima_api");
        let (requests, size, poisoned) = (Family::default(), Gauge::default(), Gauge::default());
        registry.register("requests", "Requests that were answered", requests.clone());
        registry.register("ledger_records", "Records in the ledger", size.clone());
        registry.register(
            "ledger_poisoned",
            "1 once a write failed: the ledger takes nothing until it was opened again",
            poisoned.clone(),
        );
        Self {
            registry,
            requests,
            size,
            poisoned,
        }
    }
}

/// Counts an answer.
pub(crate) async fn count(State(window): State<Window>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "HEAD") => known.to_owned(),
        // Whatever a caller makes up is one.
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let status = response.status().as_u16();
    window.metrics.requests.get_or_create(&Kind { method, route, status }).inc();
    response
}

/// `GET /metrics`.
pub(crate) async fn show(State(window): State<Window>, caller: Caller) -> Result<Response, Problem> {
    if !caller.may_get_path(&window, "/metrics").await? {
        return Err(Problem::refused(
            "metrics are read by who may get the path /metrics (nonResourceURLs)",
        ));
    }
    let metrics = &window.metrics;
    let poisoned = window.ledger.is_poisoned();
    metrics.poisoned.set(i64::from(poisoned));
    let (size, _) = in_ledger(&window, dejima_ledger::Ledger::head).await?;
    metrics.size.set(i64::try_from(size).unwrap_or(i64::MAX));
    let mut text = String::new();
    encode(&mut text, &metrics.registry).map_err(|error| Problem::ours("cannot write the metrics", &error))?;
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, form)], text).into_response())
}
