//! Records: parts append what begins and ends; who may read the record reads it.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use dejima_crds::act::{Act, Kind};
use dejima_crds::names::{self, PlanKind};
use dejima_crds::{HostPlan, names::host_namespace};
use dejima_ledger::Error;
use jiff::Timestamp;
use kube::Api;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Window;
use crate::callers::Caller;
use crate::problem::Problem;

const OPERATOR: &str = "system:serviceaccount:dejima-system:operator";
/// At most so many records an answer.
const PAGE: u64 = 1000;

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "Forbidden", detail)
}

/// Whether this caller may write this act: the operator any, a host only acts about what is in its own plans.
async fn writes(window: &Window, caller: &Caller, act: &Act) -> Result<(), Problem> {
    if caller.login == OPERATOR {
        return Ok(());
    }
    let host = caller
        .login
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.strip_suffix(":hostd"))
        .and_then(names::host_of_namespace);
    let Some(host) = host else {
        return Err(refused("only the platform's own parts write records"));
    };
    if act.host.as_deref() != Some(host) {
        return Err(refused("a host records only what happens on it"));
    }
    if act.kind != Kind::Mount {
        return Err(refused("a host records mounts alone"));
    }
    let Some(project) = &act.project else {
        return Err(refused("an act of a host is about a project"));
    };
    let plans: Api<HostPlan> = Api::namespaced(window.client.clone(), host_namespace(host).as_str());
    let name = names::plan_name(PlanKind::Project, &project.uid);
    let plan = plans
        .get_opt(&name)
        .await
        .map_err(|error| Problem::ours("cannot look at the plans of the host", &error))?;
    let own = plan.and_then(|plan| plan.spec.project).is_some_and(|plan| plan.of == *project);
    if own {
        Ok(())
    } else {
        Err(refused("this project is in no plan of this host"))
    }
}

/// `POST /api/v1/records`: durable when it is answered; the same act twice is one record.
pub(crate) async fn append(
    State(window): State<Window>,
    caller: Caller,
    Json(act): Json<Act>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    writes(&window, &caller, &act).await?;
    let value = serde_json::to_value(&act).map_err(|error| Problem::ours("cannot read the act", &error))?;
    let ledger = window.ledger.clone();
    let appended = tokio::task::spawn_blocking(move || ledger.append(&caller.login, &value, Timestamp::now())).await;
    match appended.map_err(|error| Problem::ours("the ledger did not answer", &error))? {
        Ok(appended) => {
            let status = if appended.known { StatusCode::OK } else { StatusCode::CREATED };
            Ok((status, Json(json!({"index": appended.index}))))
        }
        Err(error @ Error::Conflict { .. }) => Err(Problem::new(StatusCode::CONFLICT, "Conflict", error.to_string())),
        Err(error @ Error::NeverBegan(_)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "NeverBegan", error.to_string())),
        Err(error @ Error::NoAct(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "NoAct", error.to_string())),
        Err(
            error @ (Error::Open { .. } | Error::Layout(_) | Error::Read(_) | Error::Write(_) | Error::Poisoned | Error::Damaged { .. }),
        ) => Err(Problem::ours("the ledger takes nothing now", &error)),
    }
}

/// Which records.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(default)]
    from: u64,
    #[serde(default = "page")]
    count: u64,
}

fn page() -> u64 {
    100
}

/// `GET /api/v1/records?from=&count=`: for who has the verb `list` on `records.dejima.dev`.
pub(crate) async fn list(State(window): State<Window>, caller: Caller, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    if !caller.may(&window, "list", "records").await? {
        return Err(refused("the record is read by who has the verb list on records.dejima.dev"));
    }
    let ledger = window.ledger.clone();
    let read =
        tokio::task::spawn_blocking(move || Ok::<_, Error>((ledger.range(page.from, page.count.min(PAGE))?, ledger.head()?.0))).await;
    let (records, size) = read
        .map_err(|error| Problem::ours("the ledger did not answer", &error))?
        .map_err(|error| Problem::ours("the ledger cannot be read", &error))?;
    Ok(Json(json!({"records": records, "size": size})))
}
