//! Records: parts append what begins and ends; who may read the record reads it.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use dejima_crds::act::{Act, Kind, Phase};
use dejima_crds::names::{self, PlanKind};
use dejima_crds::{HostPlan, names::host_namespace};
use dejima_ledger::{Error, Ledger};
use jiff::Timestamp;
use kube::Api;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Window;
use crate::callers::Caller;
use crate::problem::Problem;

pub(crate) const OPERATOR: &str = "system:serviceaccount:dejima-system:operator";
/// At most so many records an answer.
const PAGE: u64 = 1000;

/// A record that was taken.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Appended {
    /// Its number.
    index: u64,
}

/// Some records.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Records {
    records: Vec<Record>,
    /// How many there are in all.
    size: u64,
}

/// One record.
#[derive(Debug, Serialize, JsonSchema)]
struct Record {
    /// Its number, from 0.
    index: u64,
    /// When it was taken, by the ledger's clock (RFC 3339).
    at: String,
    /// Who wrote it: the authenticated caller.
    writer: String,
    /// What began or ended.
    #[schemars(with = "Act")]
    act: Value,
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
        return Err(Problem::refused("only the platform's own parts write records"));
    };
    if act.host.as_deref() != Some(host) {
        return Err(Problem::refused("a host records only what happens on it"));
    }
    let Some(project) = &act.project else {
        return Err(Problem::refused("an act of a host is about a project"));
    };
    match (act.kind, act.phase) {
        (Kind::Mount, Phase::Begun | Phase::Ended) => {}
        // The plan is looked at when a visit begins; its end is on record whatever became of the project.
        (Kind::Visit, Phase::Ended) => {
            return match standing(window, act).await? {
                Some(begun) if !is_beginning(&begun, caller, act) => Err(Problem::refused("who began it says that it has ended")),
                // What never began the ledger refuses in its own words.
                Some(_) | None => Ok(()),
            };
        }
        (Kind::Visit, Phase::Begun) if window.door.hosts.begins(host, act) => {}
        (Kind::Visit, Phase::Begun) => return Err(Problem::refused("a host begins only visits of people whom the API let in")),
        (Kind::Provision | Kind::Seal | Kind::Delete | Kind::Destroy | Kind::Receipt, _) => {
            return Err(Problem::refused("a host records mounts and visits alone"));
        }
    }
    let plans: Api<HostPlan> = Api::namespaced(window.client.clone(), host_namespace(host).as_str());
    let name = names::plan_name(PlanKind::Project, &project.uid);
    let plan = plans
        .get_opt(&name)
        .await
        .map_err(|error| Problem::ours("cannot look at the plans of the host", &error))?;
    let own = plan.and_then(|plan| plan.spec.project).is_some_and(|plan| plan.of == *project);
    let begun = if act.phase == Phase::Ended {
        standing(window, act).await?
    } else {
        None
    };
    if own || begun.is_some_and(|begun| is_beginning(&begun, caller, act)) {
        Ok(())
    } else {
        Err(Problem::refused("this project is in no plan of this host"))
    }
}

/// The beginning of what an act is about, as it stands.
async fn standing(window: &Window, act: &Act) -> Result<Option<dejima_ledger::Record>, Problem> {
    let activity = act.activity.clone();
    in_ledger(window, move |ledger| ledger.find(&activity, "begun")).await
}

/// Whether this caller said that exactly this began; an end may know more. Where its plan is gone, its end is still said by who began it.
fn is_beginning(record: &dejima_ledger::Record, caller: &Caller, act: &Act) -> bool {
    let Ok(begun) = serde_json::from_value::<Act>(record.act.clone()) else {
        return false;
    };
    let known = begun.facts.iter().all(|(name, value)| act.facts.get(name) == Some(value));
    let same = Act {
        phase: Phase::Begun,
        outcome: None,
        facts: begun.facts.clone(),
        ..act.clone()
    };
    record.writer == caller.login && known && same == begun
}

/// `POST /api/v1/records`: durable when it is answered; the same act twice is one record.
pub(crate) async fn append(
    State(window): State<Window>,
    caller: Caller,
    act: Result<Json<Act>, JsonRejection>,
) -> Result<(StatusCode, Json<Appended>), Problem> {
    let Json(act) = act?;
    writes(&window, &caller, &act).await?;
    let value = serde_json::to_value(&act).map_err(|error| Problem::ours("cannot read the act", &error))?;
    let appended = in_ledger(&window, move |ledger| ledger.append(&caller.login, &value, Timestamp::now())).await?;
    let status = if appended.known { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(Appended { index: appended.index })))
}

/// Does something with the ledger, which blocks, beside the threads that answer.
pub(crate) async fn in_ledger<T, F>(window: &Window, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce(&Ledger) -> Result<T, Error> + Send + 'static,
{
    let ledger = window.ledger.clone();
    let done = tokio::task::spawn_blocking(move || work(&ledger)).await;
    done.map_err(|error| Problem::ours("the ledger did not answer", &error))?
        .map_err(|error| match error {
            Error::Conflict { .. } => Problem::new(StatusCode::CONFLICT, "Conflict", error.to_string()),
            Error::NeverBegan(_) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "NeverBegan", error.to_string()),
            Error::NoAct(_) => Problem::new(StatusCode::BAD_REQUEST, "NoAct", error.to_string()),
            Error::Open { .. } | Error::Layout(_) | Error::Read(_) | Error::Write(_) | Error::Poisoned | Error::Damaged { .. } => {
                Problem::ours("the ledger does not answer now", &error)
            }
        })
}

/// Which records.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
pub(crate) async fn list(
    State(window): State<Window>,
    caller: Caller,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Records>, Problem> {
    let Query(page) = page?;
    if !caller.may(&window, "list", "records", None).await? {
        return Err(Problem::refused(
            "the record is read by who has the verb list on records.dejima.dev",
        ));
    }
    let read = move |ledger: &Ledger| Ok((ledger.range(page.from, page.count.min(PAGE))?, ledger.head()?.0));
    let (records, size) = in_ledger(&window, read).await?;
    let shown = |record: dejima_ledger::Record| Record {
        index: record.index,
        at: record.at.to_string(),
        writer: record.writer,
        act: record.act,
    };
    Ok(Json(Records {
        records: records.into_iter().map(shown).collect(),
        size,
    }))
}
