//! Receipts: issued by the operator alone, kept as the beginning (partial) and the end (final) of one activity; read by
//! whom Kubernetes lets read `receipts.dejima.dev` in the project's namespace.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State as Held};
use axum::http::StatusCode;
use dejima_crds::act::{Act, Kind, Outcome, Phase};
use dejima_crds::bounded::Uid;
use dejima_crds::receipt::{DOCUMENT, PUBLIC_KEYS, Receipt, Signed, State, entity};
use dejima_ledger::{Error, Ledger, Record};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use schemars::JsonSchema;
use serde::Serialize;

use crate::Window;
use crate::callers::Caller;
use crate::objects::{List, Where, readable};
use crate::problem::Problem;
use crate::records::{OPERATOR, in_ledger};

/// The resource that a caller must be allowed to read; Kubernetes knows it by its name alone.
const RESOURCE: &str = "receipts";

fn act(receipt: &Receipt, phase: Phase, document: Option<&str>) -> Act {
    Act {
        activity: entity(&receipt.id),
        phase,
        kind: Kind::Receipt,
        project: receipt.project.clone(),
        host: None,
        used: Vec::new(),
        generated: document.map(|_| entity(&receipt.id)).into_iter().collect(),
        outcome: (phase == Phase::Ended).then_some(Outcome::Done),
        facts: document
            .map(|text| (DOCUMENT.to_owned(), text.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
    }
}

/// The receipt that a record bears, if it bears one.
fn borne(record: &Record) -> Option<Signed> {
    let text = record.act.get("facts")?.get(DOCUMENT)?.as_str()?;
    Signed::read(text).ok().map(|(signed, _)| signed)
}

/// Appends a receipt; whether it is the first of its state, and the one that stands. Nothing is partial once it was final.
fn append(ledger: &Ledger, writer: &str, signed: Signed) -> Result<(bool, Signed), Error> {
    let no_act = |error: &dyn std::error::Error| Error::NoAct(error.to_string());
    let document = signed.document().map_err(|error| no_act(&error))?;
    let one = |phase: Phase, document: Option<&str>| {
        let value = serde_json::to_value(act(&signed.receipt, phase, document)).map_err(|error| no_act(&error))?;
        match ledger.append(writer, &value, Timestamp::now()) {
            Ok(appended) => Ok(!appended.known),
            // The first word stands.
            Err(Error::Conflict { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    };
    if let Some(last) = ledger.find(&entity(&signed.receipt.id), "ended")?.as_ref().and_then(borne) {
        return Ok((false, last));
    }
    let (phase, new) = match signed.receipt.state {
        State::Partial => ("begun", one(Phase::Begun, Some(&document))?),
        State::Final => {
            one(Phase::Begun, None)?;
            ("ended", one(Phase::Ended, Some(&document))?)
        }
    };
    let standing = ledger.find(&entity(&signed.receipt.id), phase)?.as_ref().and_then(borne);
    Ok((new, standing.unwrap_or(signed)))
}

/// `POST /api/v1/receipts`: by the operator alone; durable when it is answered. The answer is the receipt
/// that stands: the final one where there is one, otherwise the first of this state.
pub(crate) async fn issue(
    Held(window): Held<Window>,
    caller: Caller,
    signed: Result<Json<Signed>, JsonRejection>,
) -> Result<(StatusCode, Json<Signed>), Problem> {
    if caller.login != OPERATOR {
        return Err(Problem::refused("only the platform's operator issues receipts"));
    }
    let Json(signed) = signed?;
    if signed.receipt.own_id().is_none_or(|own| signed.receipt.id != own) {
        let detail =
            "the id of a receipt is made from the UID of the project or dataset, and of a volume's receipt from its name and time too";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "NotItsId", detail));
    }
    let (new, standing) = in_ledger(&window, move |ledger| append(ledger, &caller.login, signed)).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(standing)))
}

/// The newest of each project and volume, in the order in which they ended.
fn newest(ledger: &Ledger) -> Result<Vec<Signed>, Error> {
    let mut indices = ledger.named(&entity(&"".into()))?;
    indices.sort_unstable();
    let mut newest: BTreeMap<Uid, (u64, Signed)> = BTreeMap::new();
    for index in indices {
        if let Some(found) = ledger.get(index)?.as_ref().and_then(borne) {
            let first = newest.get(&found.receipt.id).map_or(index, |(first, _)| *first);
            newest.insert(found.receipt.id.clone(), (first, found));
        }
    }
    let mut all: Vec<(u64, Signed)> = newest.into_values().collect();
    all.sort_by_key(|(first, _)| *first);
    Ok(all.into_iter().map(|(_, signed)| signed).collect())
}

/// The namespace of what a receipt is about; whoever may read there may read it.
fn namespace(signed: &Signed) -> String {
    signed.receipt.about().map(|of| of.namespace.to_string()).unwrap_or_default()
}

/// `GET /api/v1/receipts`.
pub(crate) async fn list(
    Held(window): Held<Window>,
    caller: Caller,
    asked: Result<Query<Where>, QueryRejection>,
) -> Result<Json<List<Signed>>, Problem> {
    let Query(asked) = asked?;
    if asked.namespace.is_some() {
        // Refused before anything is looked at.
        readable(&window, &caller, RESOURCE, asked.namespace.as_deref(), BTreeSet::new()).await?;
    }
    let mut items = in_ledger(&window, newest).await?;
    let there = items.iter().map(namespace).collect();
    let readable = readable(&window, &caller, RESOURCE, asked.namespace.as_deref(), there).await?;
    items.retain(|signed| readable.contains(&namespace(signed)));
    Ok(Json(List { items }))
}

/// `GET /api/v1/receipts/{id}`: one that the caller may not read is answered as one that is not there.
pub(crate) async fn get(Held(window): Held<Window>, caller: Caller, Path(id): Path<String>) -> Result<Json<Signed>, Problem> {
    let name = entity(&id.as_str().into());
    let find = move |ledger: &Ledger| {
        let last = ledger.find(&name, "ended")?;
        Ok(last
            .as_ref()
            .and_then(borne)
            .or(ledger.find(&name, "begun")?.as_ref().and_then(borne)))
    };
    let found = in_ledger(&window, find).await?;
    let namespace = found.as_ref().map(namespace);
    // Asked in any case, so that both answers take the same way.
    let may = caller
        .may(&window, "get", RESOURCE, Some(namespace.as_deref().unwrap_or("none")))
        .await?;
    found.filter(|_| may).map(Json).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "NoSuchReceipt",
            "there is no such receipt, or you may not read it",
        )
    })
}

/// The public keys of receipts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PublicKeys {
    algorithm: &'static str,
    /// PEM, by version.
    keys: BTreeMap<String, String>,
}

/// `GET /api/v1/receipts/key`: for whoever can log in. Who trusts nobody here reads it from the key server.
pub(crate) async fn key(Held(window): Held<Window>, _: Caller) -> Result<Json<PublicKeys>, Problem> {
    let maps: Api<ConfigMap> = Api::namespaced(window.client.clone(), "dejima-system");
    let found = maps.get_opt(PUBLIC_KEYS).await;
    let found = found.map_err(|error| Problem::ours("cannot read the public keys", &error))?;
    let data = found
        .and_then(|map| map.data)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "NoKey", "the operator has not published the public keys yet"))?;
    let version = |(name, pem): (String, String)| Some((name.strip_suffix(".pem")?.to_owned(), pem));
    Ok(Json(PublicKeys {
        algorithm: "Ed25519",
        keys: data.into_iter().filter_map(version).collect(),
    }))
}
