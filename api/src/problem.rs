//! Answers that say what is wrong: RFC 9457 problem documents.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// What is wrong (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
struct Document<'a> {
    /// Which problem: `urn:dejima:<word>`.
    #[serde(rename = "type")]
    kind: String,
    /// The word.
    title: &'a str,
    /// The status of the answer.
    status: u16,
    /// What to do about it.
    detail: &'a str,
}

/// What is wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    word: &'static str,
    detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, word: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            word,
            detail: detail.into(),
        }
    }

    /// Something that the caller may not do.
    pub(crate) fn refused(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", detail)
    }

    /// Something of ours failed: the caller learns that, the log learns why.
    pub(crate) fn ours(what: &'static str, error: &dyn std::error::Error) -> Self {
        tracing::error!(what, error = %error, "cannot answer");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", what)
    }

    /// Its schema.
    pub(crate) fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        generator.subschema_for::<Document<'_>>()
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), "Unreadable", rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "Unreadable", rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            kind: format!("urn:dejima:{}", self.word),
            title: self.word,
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        // INVARIANT: texts and a number, which always have a JSON form.
        let body = serde_json::to_string(&document).unwrap_or_default();
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
