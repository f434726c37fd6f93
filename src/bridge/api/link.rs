//! The routes about the bridge itself: status, health, capabilities, and steering.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use crate::bridge::status::Snapshot;
use crate::inspector::answer::Answer;
use crate::protocol::payload::Register;

/// `GET /api/openclaw/status`
pub async fn status(State(api): Shared) -> Json<Answer<Snapshot>> {
    Json(Answer::of(api.bridge.snapshot(), &api.journal))
}

/// `GET /api/openclaw/health`
pub async fn health(State(api): Shared) -> Response {
    let health = api.bridge.health();
    let status = if health.connected { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}

/// `GET /api/openclaw/capabilities`
pub async fn capabilities(State(api): Shared) -> Json<Register> {
    Json(api.bridge.settings().profile())
}

/// `POST /api/openclaw/disconnect`
pub async fn disconnect(State(api): Shared) -> Json<Value> {
    api.bridge.disconnect();
    Json(json!({ "status": "disconnecting" }))
}

/// `POST /api/openclaw/reconnect`
pub async fn reconnect(State(api): Shared) -> Json<Value> {
    api.bridge.reconnect();
    Json(json!({ "status": "connecting" }))
}

/// `POST /api/openclaw/stop`: drains, as the first signal does.
pub async fn stop(State(api): Shared) -> Json<Value> {
    api.bridge.drain();
    Json(json!({ "status": "draining" }))
}
