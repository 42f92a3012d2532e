//! Answers that say what is wrong: RFC 9457 problem documents.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

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

    /// Something of ours failed: the caller learns that, the log learns why.
    pub(crate) fn ours(what: &'static str, error: &dyn std::error::Error) -> Self {
        tracing::error!(what, error = %error, "cannot answer");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", what)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body =
            json!({"type": format!("urn:dejima:{}", self.word), "title": self.word, "status": self.status.as_u16(), "detail": self.detail});
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}
