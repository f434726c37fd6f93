//! Errors as problem documents (RFC 9457). It judges nothing.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::protocol::{Problem, Refusal};

/// An error that a caller sees.
#[derive(Debug)]
pub(super) struct Failure(Box<Problem>);

impl Failure {
    /// Nothing is there.
    pub fn not_found(detail: String) -> Self {
        Self::other(404, "not_found", detail)
    }

    /// An error of HTTP that the protocol has no code for.
    pub fn other(status: u16, code: &str, detail: String) -> Self {
        let title = StatusCode::from_u16(status).ok().and_then(|it| it.canonical_reason());
        Self(Box::new(Problem {
            problem_type: format!("urn:openclaw:error:{code}"),
            title: title.unwrap_or_default().to_owned(),
            status,
            code: code.to_owned(),
            detail: Some(detail),
            field: None,
            retryable: Some(false),
            retry_after_seconds: None,
            current: None,
        }))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(Box::new(refusal.problem()))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(CONTENT_TYPE, kind)], body).into_response();
        if let Some(seconds) = self.0.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
