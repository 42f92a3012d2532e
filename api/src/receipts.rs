//! Receipts: issued by the operator alone, kept as the beginning (partial) and the end (final) of one activity.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State as Held;
use axum::http::StatusCode;
use dejima_crds::act::{Act, Kind, Outcome, Phase};
use dejima_crds::names;
use dejima_crds::receipt::{DOCUMENT, Receipt, Signed, State, entity};
use dejima_ledger::{Error, Ledger, Record};
use jiff::Timestamp;

use crate::Window;
use crate::callers::Caller;
use crate::problem::Problem;
use crate::records::{OPERATOR, in_ledger, refused};

fn act(receipt: &Receipt, phase: Phase, document: Option<&str>) -> Act {
    Act {
        activity: entity(&receipt.id),
        phase,
        kind: Kind::Receipt,
        project: Some(receipt.project.clone()),
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

/// Appends a receipt; whether it is the first of its state, and the one that stands.
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

/// `POST /api/v1/receipts`: by the operator alone; durable when it is answered. The answer is the receipt of this state
/// that stands: the same one again, or another one after it, is the first.
pub(crate) async fn issue(
    Held(window): Held<Window>,
    caller: Caller,
    Json(signed): Json<Signed>,
) -> Result<(StatusCode, Json<Signed>), Problem> {
    if caller.login != OPERATOR {
        return Err(refused("only the platform's operator issues receipts"));
    }
    if signed.receipt.id != names::receipt_id(&signed.receipt.project.uid) {
        let detail = "the id of a receipt is made from its project's UID";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "NotItsId", detail));
    }
    let (new, standing) = in_ledger(&window, move |ledger| append(ledger, &caller.login, signed)).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(standing)))
}
