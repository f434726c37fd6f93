//! What a route answers when it cannot: a problem document of RFC 9457. It judges nothing.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use storage::store::CommitError;
use storage::view::ViewError;

use crate::bridge::SendError;
use crate::inbox;
use crate::protocol::{ErrorCode, Refusal};

/// A refusal on its way out.
pub struct Failed(pub Refusal);

impl Failed {
    /// What was asked for is not here.
    pub fn missing(detail: &str) -> Self {
        Self(Refusal::new(ErrorCode::NotFound, detail))
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<CommitError> for Failed {
    fn from(error: CommitError) -> Self {
        Self(inbox::unwritten(&error))
    }
}

impl From<ViewError> for Failed {
    fn from(error: ViewError) -> Self {
        Self(Refusal::new(ErrorCode::Unavailable, error.to_string()))
    }
}

impl From<SendError> for Failed {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Refused(refusal) => Self(refusal),
            SendError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let problem = self.0.problem();
        let status = StatusCode::from_u16(problem.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A problem has only strings, numbers and what was JSON before.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
