//! One record, and its bytes: RFC 8785 JSON, so that everybody who has the record has its bytes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its number.
    pub index: u64,
    /// When it was taken, by the ledger's clock.
    pub at: Timestamp,
    /// Who wrote it: the authenticated caller.
    pub writer: String,
    /// What began or ended.
    pub act: Value,
}

impl Record {
    /// The canonical bytes.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json_canonicalizer::to_vec(self).map_err(|error| Error::NoAct(error.to_string()))
    }

    /// From the canonical bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }
}

/// The activity and the phase of an act.
pub(crate) fn identity(act: &Value) -> Result<(String, &'static str), Error> {
    let activity = act
        .get("activity")
        .and_then(Value::as_str)
        .filter(|activity| !activity.is_empty() && activity.len() <= 1024 && !activity.contains('\u{0}'));
    let activity = activity.ok_or_else(|| Error::NoAct("it names no activity of at most 1,024 characters".to_owned()))?;
    match act.get("phase").and_then(Value::as_str) {
        Some("begun") => Ok((activity.to_owned(), "begun")),
        Some("ended") => Ok((activity.to_owned(), "ended")),
        Some(_) | None => Err(Error::NoAct("its phase is neither begun nor ended".to_owned())),
    }
}
