//! `/api/audit`: the audit log, which is the journal read by event. It changes nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Uri;
use serde_json::Value;
use storage::inspect;

use super::problem::Failure;
use crate::audit::query;
use crate::protocol::{ErrorCode, Refusal};
use crate::server::core::Core;

/// `GET /api/audit`; `event` may stand more than once.
pub(super) async fn list(State(core): State<Arc<Core>>, uri: Uri) -> Result<Json<Value>, Failure> {
    let asked = Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map_err(|_| Refusal::new(ErrorCode::Malformed, "send a query that can be decoded"))?;
    let filter = query::filter(asked.0)?;
    let unavailable = |detail: String| Refusal::new(ErrorCode::Unavailable, detail);
    let disk = core.disk.clone();
    let disk = disk.ok_or_else(|| unavailable("this server keeps no files".to_owned()))?;
    let page = tokio::task::spawn_blocking(move || inspect::audit(disk.journal(), &filter));
    let page = page.await.map_err(|error| unavailable(error.to_string()))?;
    Ok(Json(query::page(&page.map_err(|error| unavailable(error.to_string()))?)))
}
