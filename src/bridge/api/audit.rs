//! `GET /api/audit`: the audit log, which is the journal read by event. It changes nothing.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::Value;
use storage::inspect::audit;

use super::problem::Failed;
use super::{Shared, query};
use crate::audit::query as asked;
use crate::protocol::{ErrorCode, Refusal};

/// `GET /api/audit`; `event` may stand more than once.
pub async fn list(State(api): Shared, uri: Uri) -> Result<Json<Value>, Failed> {
    let filter = asked::filter(query(&uri)?)?;
    let reader = api.journal.clone();
    // The journal's past is on disk.
    let page = tokio::task::spawn_blocking(move || audit(&reader, &filter)).await;
    let unavailable =
        |error: &dyn std::fmt::Display| Refusal::new(ErrorCode::Unavailable, error.to_string());
    let page = page.map_err(|error| unavailable(&error))?;
    Ok(Json(asked::page(&page.map_err(|error| unavailable(&error))?)))
}
