//! `/metrics` and `/openapi.json`: what the server says of itself to machines.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::server::core::Core;
use crate::server::measure;

/// The REST interface as `OpenAPI` 3.1. A test holds it against the router.
pub const OPENAPI: &str = include_str!("openapi.json");

/// `GET /metrics`.
pub(super) async fn metrics(State(core): State<Arc<Core>>, headers: HeaderMap) -> Response {
    measure::gauges(&core);
    core.exporter.answer(&headers)
}

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
