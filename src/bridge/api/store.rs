//! The routes about the store itself: what it takes, and compaction. They are slow and wait for the
//! disk, so that they run beside the runtime.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::Shared;
use super::problem::Failed;
use crate::inspector::answer::Answer;
use crate::protocol::{ErrorCode, Refusal};
use crate::upkeep;

/// How long an answer waits for the end of a compaction; asked again, it waits again.
const PATIENCE: Duration = Duration::from_secs(5);

fn unavailable(error: impl std::fmt::Display) -> Failed {
    Failed(Refusal::new(ErrorCode::Unavailable, error.to_string()))
}

/// `GET /api/openclaw/store`
pub async fn info(State(api): Shared) -> Result<Json<Answer<Value>>, Failed> {
    let asked = api.upkeep.clone();
    let found = tokio::task::spawn_blocking(move || asked.info()).await.map_err(unavailable)?;
    let full = api.bridge.store().full().map(|error| error.to_string());
    let shown = upkeep::shown(&found.map_err(unavailable)?, full.as_deref());
    Ok(Json(Answer::of(shown, &api.journal)))
}

/// `POST /api/openclaw/compact`
pub async fn compact(State(api): Shared) -> Result<Json<Value>, Failed> {
    let asked = api.upkeep.clone();
    let done = tokio::task::spawn_blocking(move || asked.compact_within(PATIENCE)).await;
    Ok(Json(upkeep::freed(done.map_err(unavailable)?)))
}
