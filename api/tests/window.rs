//! The window over a Kubernetes that is pretended: what is asked of it, and what a caller gets.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code stops where it cannot go on")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use dejima_api::{Window, app, routes};
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body as KubeBody;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// What Kubernetes is asked for, as `verb resource namespace`, and what there is.
#[derive(Clone, Debug, Default)]
struct Cluster {
    /// By login: `list isolatedprojects osaka`; `*` for all namespaces.
    rights: BTreeSet<(String, String)>,
    projects: Vec<(&'static str, &'static str)>,
    /// Writes, with the token that they came with.
    writes: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    fn lets(mut self, login: &str, what: &str) -> Self {
        self.rights.insert((login.to_owned(), what.to_owned()));
        self
    }

    fn answer(&self, token: &str, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let name = path.rsplit('/').next().unwrap_or_default();
        match (method.as_str(), name) {
            ("POST", "tokenreviews") => {
                let given = body["spec"]["token"].as_str().unwrap_or_default();
                let known = given.starts_with("token-of-");
                let user = json!({"username": given.trim_start_matches("token-of-"), "groups": []});
                (
                    201,
                    json!({"spec": {"token": ""}, "status": {"authenticated": known, "user": user}}),
                )
            }
            ("POST", "subjectaccessreviews") => {
                let spec = &body["spec"];
                let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
                let text = |value: &Value, field: &str| value[field].as_str().unwrap_or("*").to_owned();
                let login = text(spec, "user");
                let has = |what: String| self.rights.contains(&(login.clone(), what));
                let allowed = if path.is_object() {
                    has(format!("get {}", text(path, "path")))
                } else {
                    let (verb, of) = (text(resource, "verb"), text(resource, "resource"));
                    has(format!("{verb} {of} *")) || has(format!("{verb} {of} {}", text(resource, "namespace")))
                };
                (201, json!({"spec": {}, "status": {"allowed": allowed}}))
            }
            ("GET", "isolatedprojects") => {
                let asked = path.split("/namespaces/").nth(1).and_then(|rest| rest.split('/').next());
                let found = self
                    .projects
                    .iter()
                    .filter(|(namespace, _)| asked.is_none_or(|asked| asked == *namespace));
                let items: Vec<Value> = found.map(|(namespace, name)| project(namespace, name)).collect();
                (
                    200,
                    json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "IsolatedProjectList", "metadata": {}, "items": items}),
                )
            }
            ("GET", "version") => (
                200,
                json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
            ),
            ("PATCH", host) => {
                self.writes.lock().unwrap().push(format!("{token} {path} {body}"));
                let spec = json!({"roles": ["machines"], "schedulable": body["spec"]["schedulable"]});
                (
                    200,
                    json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "Host", "metadata": {"name": host}, "spec": spec}),
                )
            }
            _ => (
                404,
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404}),
            ),
        }
    }

    fn client(&self, token: &str) -> Client {
        let (cluster, token) = (self.clone(), token.to_owned());
        let service = tower::service_fn(move |request: Request<KubeBody>| {
            let (cluster, token) = (cluster.clone(), token.clone());
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&bytes).unwrap_or_default();
                let (status, answer) = cluster.answer(&token, &parts.method, parts.uri.path(), &body);
                Ok::<_, Infallible>(
                    Response::builder()
                        .status(status)
                        .body(KubeBody::from(answer.to_string().into_bytes()))
                        .unwrap(),
                )
            }
        });
        Client::new(service, "default")
    }
}

fn project(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "dejima.dev/v1alpha1", "kind": "IsolatedProject",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("u-{name}"), "managedFields": [{"manager": "kubectl"}]},
        "spec": {
            "title": {"en": name}, "purpose": [{"duo": "DUO:0000042"}], "institution": "https://ror.org/035t8zc32", "orgKind": "public", "country": "JP",
            "members": [{"subject": "lead", "role": "lead"}], "period": {"from": "2026-04", "until": "2027-03"},
            "machines": [{"name": "train", "cpu": 1, "memory": "1Gi", "image": "probe"}],
        },
    })
}

/// The window, and the directory of its ledger.
fn window(cluster: &Cluster) -> (Router, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = dejima_ledger::Ledger::open(folder.path()).unwrap();
    let theirs = cluster.clone();
    let of = move |token: secrecy::SecretString| Ok(theirs.client(token.expose_secret()));
    (app(Window::over(cluster.client("ours"), Arc::new(of), ledger)), folder)
}

/// Asks as a login, or as nobody; the status and the body.
async fn ask(app: &Router, login: &str, method: &str, path: &str) -> (StatusCode, String) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    if !login.is_empty() {
        request = request.header("authorization", format!("Bearer {login}"));
    }
    let response = app.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn cluster() -> Cluster {
    Cluster {
        projects: vec![("osaka", "liver"), ("kyoto", "heart"), ("osaka", "eye")],
        ..Cluster::default()
    }
}

const LEAD: &str = "token-of-lead";

#[tokio::test]
async fn every_route_stands_in_the_document_and_everything_in_it_is_answered() {
    let (app, _folder) = window(&cluster());
    let (status, text) = ask(&app, "", "GET", "/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let known = operations.get(method.to_lowercase()).is_some();
            if known {
                described.insert((method.to_lowercase(), path.clone()));
            }
            // Without a login: refused for that, or answered, but never unknown; and the other way round.
            let (status, body) = ask(&app, "", method, &path.replace(['{', '}'], "")).await;
            let unknown = body.contains("NoSuchPath") || status == StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(unknown, !known, "{method} {path}: {status} {body}");
        }
    }
    let answered: BTreeSet<(String, String)> = routes()
        .into_iter()
        .map(|(method, path)| (method.to_owned(), path.to_owned()))
        .collect();
    assert_eq!(described, answered);
    assert!(ask(&app, LEAD, "GET", "/api/v1/nothing").await.1.contains("NoSuchPath"));
    // Each schema that is named is there.
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let named: BTreeSet<&str> = text
        .split("#/components/schemas/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(named.contains("Signed") && named.contains("Act"), "{named:?}");
    assert!(named.iter().all(|name| schemas.contains_key(*name)), "{named:?}");
}

#[tokio::test]
async fn who_does_not_say_who_he_is_gets_nothing() {
    let (app, _folder) = window(&cluster().lets("lead", "list isolatedprojects *"));
    for path in [
        "/api/v1/projects",
        "/api/v1/receipts",
        "/api/v1/records",
        "/api/v1/receipts/key",
        "/metrics",
    ] {
        assert_eq!(ask(&app, "", "GET", path).await.0, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(ask(&app, "made-up", "GET", path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(ask(&app, LEAD, "GET", "/api/v1/projects").await.0, StatusCode::OK, "the control");
}

fn names(text: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(text).unwrap();
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| {
            format!(
                "{}/{}",
                item["metadata"]["namespace"].as_str().unwrap(),
                item["metadata"]["name"].as_str().unwrap()
            )
        })
        .collect()
}

#[tokio::test]
async fn a_list_holds_what_kubernetes_lets_the_caller_list_and_nothing_else_influences_it() {
    let cluster = cluster()
        .lets("lead", "list isolatedprojects osaka")
        .lets("office", "list isolatedprojects *");
    let (all, _folder) = window(&cluster);
    let path = "/api/v1/projects";
    assert_eq!(names(&ask(&all, LEAD, "GET", path).await.1), ["osaka/eye", "osaka/liver"]);
    assert_eq!(
        names(&ask(&all, "token-of-office", "GET", path).await.1),
        ["kyoto/heart", "osaka/eye", "osaka/liver"]
    );
    assert_eq!(names(&ask(&all, "token-of-stranger", "GET", path).await.1), Vec::<String>::new());
    assert_eq!(names(&ask(&all, LEAD, "GET", "/api/v1/projects?namespace=osaka").await.1).len(), 2);
    assert!(!ask(&all, LEAD, "GET", path).await.1.contains("managedFields"));

    // The same bytes, whether or not there is something that the caller may not list.
    let mut alone = cluster.clone();
    alone.projects.retain(|(namespace, _)| *namespace == "osaka");
    let (alone, _folder) = window(&alone);
    for path in [path, "/api/v1/projects?namespace=kyoto", "/api/v1/projects?namespace=osaka"] {
        assert_eq!(ask(&all, LEAD, "GET", path).await, ask(&alone, LEAD, "GET", path).await, "{path}");
    }
    let (status, refused) = ask(&all, LEAD, "GET", "/api/v1/projects?namespace=kyoto").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!(
        (&refused["type"], &refused["status"]),
        (&json!("urn:dejima:Forbidden"), &json!(403))
    );
    // Hosts lie in no namespace.
    assert_eq!(ask(&all, LEAD, "GET", "/api/v1/hosts").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_a_caller_changes_is_changed_with_his_own_token() {
    let cluster = cluster();
    let (app, _folder) = window(&cluster);
    let (status, told) = ask(&app, "token-of-admin", "POST", "/api/v1/hosts/host-a/cordon").await;
    assert_eq!(
        (status, told.as_str()),
        (StatusCode::OK, r#"{"host":"host-a","schedulable":false}"#)
    );
    ask(&app, LEAD, "POST", "/api/v1/hosts/host-a/uncordon").await;
    let writes = cluster.writes.lock().unwrap().clone();
    let path = "/apis/dejima.dev/v1alpha1/hosts/host-a";
    assert_eq!(
        writes,
        [
            format!(r#"token-of-admin {path} {{"spec":{{"schedulable":false}}}}"#),
            format!(r#"{LEAD} {path} {{"spec":{{"schedulable":true}}}}"#)
        ]
    );
}

#[tokio::test]
async fn the_end_of_a_mount_without_a_plan_is_recorded_by_who_recorded_its_beginning() {
    // No host has a plan in this cluster.
    let folder = tempfile::tempdir().unwrap();
    let ledger = dejima_ledger::Ledger::open(folder.path()).unwrap();
    let act = |host: &str, phase: &str, outcome: Value| {
        let project = json!({"namespace": "osaka", "name": "liver", "uid": "u-liver"});
        let mut act = json!({"activity": "mount/1", "phase": phase, "kind": "mount", "host": host, "project": project});
        if !outcome.is_null() {
            act["outcome"] = outcome;
        }
        act
    };
    let login = |host: &str| format!("system:serviceaccount:dejima-host-{host}:hostd");
    ledger
        .append(
            &login("host-a"),
            &act("host-a", "begun", Value::Null),
            "2026-04-01T00:00:00Z".parse().unwrap(),
        )
        .unwrap();
    let theirs = cluster();
    let of = move |token: secrecy::SecretString| Ok(theirs.client(token.expose_secret()));
    let app = app(Window::over(cluster().client("ours"), Arc::new(of), ledger));
    let post = |host: &str, act: Value| {
        let request = Request::post("/api/v1/records")
            .header("authorization", format!("Bearer token-of-{}", login(host)))
            .header("content-type", "application/json")
            .body(Body::from(act.to_string()))
            .unwrap();
        let app = app.clone();
        async move { app.oneshot(request).await.unwrap().status() }
    };
    let over = |host: &str| act(host, "ended", json!("done"));
    assert_eq!(post("host-b", over("host-b")).await, StatusCode::FORBIDDEN, "another host");
    let mut other = over("host-a");
    other["project"]["uid"] = json!("u-eye");
    assert_eq!(post("host-a", other).await, StatusCode::FORBIDDEN, "the end of something else");
    let mut fresh = act("host-a", "begun", Value::Null);
    fresh["activity"] = json!("mount/2");
    assert_eq!(post("host-a", fresh).await, StatusCode::FORBIDDEN, "a beginning without a plan");
    assert_eq!(post("host-a", over("host-a")).await, StatusCode::CREATED);
    assert_eq!(post("host-a", over("host-a")).await, StatusCode::OK, "the same again");
}

#[tokio::test]
async fn health_is_anybodys_and_metrics_are_for_whom_kubernetes_lets_get_them() {
    let (app, _folder) = window(&cluster().lets("prometheus", "get /metrics"));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(&app, "", "GET", path).await, (StatusCode::OK, "ok".to_owned()), "{path}");
    }
    assert_eq!(ask(&app, LEAD, "GET", "/metrics").await.0, StatusCode::FORBIDDEN);
    ask(&app, LEAD, "GET", "/api/v1/receipts/some-id").await;
    ask(&app, LEAD, "BREW", "/api/v1/receipts").await;
    let (status, text) = ask(&app, "token-of-prometheus", "GET", "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "dejima_api_requests_total{method=\"GET\",route=\"/healthz\",status=\"200\"} 1",
        "dejima_api_requests_total{method=\"GET\",route=\"/metrics\",status=\"403\"} 1",
        "dejima_api_requests_total{method=\"GET\",route=\"/api/v1/receipts/{id}\",status=\"404\"} 1",
        "dejima_api_requests_total{method=\"other\",route=\"/api/v1/receipts\",status=\"405\"} 1",
        "dejima_api_ledger_records 0",
        "dejima_api_ledger_poisoned 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_right_to_ask_at_the_door_lets_nobody_in_and_only_a_host_dials_in_under_its_name() {
    let cluster = cluster().lets("lead", "create isolatedprojects osaka");
    let (app, _folder) = window(&cluster);
    let path = |namespace: &str, project: &str| format!("/api/v1/projects/{namespace}/{project}/machines/train/console");
    let word = |body: &str| serde_json::from_str::<Value>(body).unwrap()["title"].as_str().unwrap().to_owned();
    let (status, refused) = ask(&app, "token-of-stranger", "POST", &path("osaka", "liver")).await;
    assert_eq!((status, word(&refused).as_str()), (StatusCode::FORBIDDEN, "Forbidden"));
    let (status, stranger) = ask(&app, LEAD, "POST", &path("osaka", "no-such")).await;
    assert_eq!((status, word(&stranger).as_str()), (StatusCode::FORBIDDEN, "NotMember"));
    // Without a ticket, and without a WebSocket.
    assert_eq!(ask(&app, LEAD, "GET", &path("osaka", "liver")).await.0, StatusCode::BAD_REQUEST);
    let (status, plain) = ask(&app, LEAD, "GET", &format!("{}?ticket=made-up", path("osaka", "liver"))).await;
    assert_eq!((status.is_client_error(), word(&plain).as_str()), (true, "NoWebSocket"));
    let host = "token-of-system:serviceaccount:dejima-host-host-a:hostd";
    assert_eq!(ask(&app, LEAD, "GET", "/api/v1/hosts/host-a/door").await.0, StatusCode::FORBIDDEN);
    assert_eq!(ask(&app, host, "GET", "/api/v1/hosts/host-b/door").await.0, StatusCode::FORBIDDEN);
    let (_, own) = ask(&app, host, "GET", "/api/v1/hosts/host-a/door").await;
    assert_eq!(word(&own), "NoWebSocket", "the control: it is only no WebSocket");
}
