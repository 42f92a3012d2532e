//! The one table of what is answered: the router and the OpenAPI document are both made from it.

use axum::Json;
use axum::routing::{MethodRouter, get, post};
use dejima_crds::act::Act;
use dejima_crds::door::{Entry, Ticket, ToPerson};
use dejima_crds::receipt::Signed;
use dejima_crds::{AccessGrant, Attestation, Dataset, Host, IsolatedProject};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::objects::List;
use crate::problem::Problem;
use crate::records::{Appended, Records};
use crate::{Window, door, health, hosts, metrics, objects, receipts, records};

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One thing that is answered.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) answers: fn() -> MethodRouter<Window>,
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    takes: Option<SchemaOf>,
    gives: Option<SchemaOf>,
    open: bool,
}

const NAMESPACE: &[(&str, &str)] = &[("namespace", "Of this namespace; of all that you may list it in, where absent")];
const PAGE: &[(&str, &str)] = &[
    ("from", "The number of the first record"),
    ("count", "At most so many; never more than 1000"),
];

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Route {
    fn get(path: &'static str, summary: &'static str, answers: fn() -> MethodRouter<Window>) -> Self {
        Self {
            method: "get",
            path,
            answers,
            summary,
            query: &[],
            takes: None,
            gives: None,
            open: false,
        }
    }

    fn post(path: &'static str, summary: &'static str, answers: fn() -> MethodRouter<Window>) -> Self {
        Self {
            method: "post",
            ..Self::get(path, summary, answers)
        }
    }

    fn query(self, query: &'static [(&'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }

    fn takes<T: JsonSchema>(self) -> Self {
        Self {
            takes: Some(of::<T>),
            ..self
        }
    }

    fn gives<T: JsonSchema>(self) -> Self {
        Self {
            gives: Some(of::<T>),
            ..self
        }
    }

    fn open(self) -> Self {
        Self { open: true, ..self }
    }
}

/// Everything that is answered.
pub(crate) fn all() -> Vec<Route> {
    vec![
        Route::get("/healthz", "Whether this process lives", || get(health::lives)).open(),
        Route::get(
            "/readyz",
            "Whether it can answer: the ledger takes records, Kubernetes answers",
            || get(health::ready),
        )
        .open(),
        Route::get("/metrics", "What is counted, for who may get this path", || get(metrics::show)),
        Route::get("/openapi.json", "This document", || get(|| async { Json(document()) })).open(),
        Route::get("/api/v1/projects", "Projects that you may list", || get(objects::projects))
            .query(NAMESPACE)
            .gives::<List<IsolatedProject>>(),
        Route::get("/api/v1/datasets", "Datasets that you may list", || get(objects::datasets))
            .query(NAMESPACE)
            .gives::<List<Dataset>>(),
        Route::get("/api/v1/grants", "Requests and grants that you may list", || get(objects::grants))
            .query(NAMESPACE)
            .gives::<List<AccessGrant>>(),
        Route::get("/api/v1/attestations", "Attestations that you may list", || {
            get(objects::attestations)
        })
        .query(NAMESPACE)
        .gives::<List<Attestation>>(),
        Route::get("/api/v1/hosts", "Hosts, where you may list them", || get(objects::hosts)).gives::<List<Host>>(),
        Route::post(
            "/api/v1/hosts/{host}/cordon",
            "Nothing new is placed on a host; with your own token",
            || post(hosts::cordon),
        )
        .gives::<hosts::Told>(),
        Route::post(
            "/api/v1/hosts/{host}/uncordon",
            "A host takes projects again; with your own token",
            || post(hosts::uncordon),
        )
        .gives::<hosts::Told>(),
        Route::post(
            "/api/v1/projects/{namespace}/{project}/machines/{machine}/console",
            "A ticket into a machine's console, for an effective member of the project who has the verb create on isolatedprojects/console",
            || post(door::ticket),
        )
        .takes::<Entry>()
        .gives::<Ticket>(),
        Route::get(
            "/api/v1/projects/{namespace}/{project}/machines/{machine}/console",
            "The console itself: a WebSocket of JSON texts; what you send is {\"keys\": TEXT} or \"leave\"",
            || get(door::console),
        )
        .query(&[("ticket", "The ticket, which works once")])
        .gives::<ToPerson>(),
        Route::get(
            "/api/v1/hosts/{host}/door",
            "A host dials in, under its own identity: a WebSocket that visits pass through",
            || get(door::host),
        ),
        Route::get("/api/v1/records", "Records, for auditors", || get(records::list))
            .query(PAGE)
            .gives::<Records>(),
        Route::post("/api/v1/records", "Takes an act, from the platform's own parts", || {
            post(records::append)
        })
        .takes::<Act>()
        .gives::<Appended>(),
        Route::get(
            "/api/v1/receipts",
            "The newest receipt of each project, and of each volume that was destroyed, where you may list receipts",
            || get(receipts::list),
        )
        .query(NAMESPACE)
        .gives::<List<Signed>>(),
        Route::post("/api/v1/receipts", "Takes a receipt, from the operator", || post(receipts::issue))
            .takes::<Signed>()
            .gives::<Signed>(),
        Route::get("/api/v1/receipts/key", "The public keys that receipts are checked with", || {
            get(receipts::key)
        })
        .gives::<receipts::PublicKeys>(),
        Route::get("/api/v1/receipts/{id}", "One receipt", || get(receipts::get)).gives::<Signed>(),
    ]
}

/// The OpenAPI document.
fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = json!({"application/problem+json": {"schema": Problem::schema(&mut generator)}});
    let mut paths: Map<String, Value> = Map::new();
    for route in all() {
        let operation = operation(&route, &problem, &mut generator);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.to_owned(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Dejima", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"kubernetes": {"type": "http", "scheme": "bearer", "description": "The token that kubectl would send"}},
        },
    })
}

fn operation(route: &Route, problem: &Value, generator: &mut SchemaGenerator) -> Value {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = route
        .query
        .iter()
        .map(|(name, what)| json!({"name": name, "in": "query", "description": what, "schema": {"type": "string"}}));
    let mut json_of = |schema: SchemaOf| json!({"application/json": {"schema": schema(generator)}});
    let content = route
        .gives
        .map_or_else(|| json!({"text/plain": {"schema": {"type": "string"}}}), &mut json_of);
    let mut operation = json!({
        "summary": route.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": {"2XX": {"description": "What you asked for", "content": content}, "default": {"description": "What is wrong (RFC 9457)", "content": problem}},
        "security": if route.open { json!([]) } else { json!([{"kubernetes": []}]) },
    });
    if let (Some(body), Some(fields)) = (route.takes, operation.as_object_mut()) {
        fields.insert("requestBody".to_owned(), json!({"required": true, "content": json_of(body)}));
    }
    operation
}
