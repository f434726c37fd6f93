//! `/api/audit` and `/api/audit/summary`: the audit log, which is the journal read by event. It
//! changes nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Uri;
use serde_json::Value;
use storage::inspect::{self, AuditFilter};
use storage::journal::{ReadError, Reader};

use super::problem::Failure;
use crate::audit::query;
use crate::protocol::{ErrorCode, Refusal};
use crate::server::core::Core;

/// `GET /api/audit`; `event` may stand more than once.
pub(super) async fn list(State(core): State<Arc<Core>>, uri: Uri) -> Result<Json<Value>, Failure> {
    let filter = filter(&uri)?;
    let page = read(&core, move |journal| inspect::audit(journal, &filter)).await?;
    Ok(Json(query::page(&page)))
}

/// `GET /api/audit/summary`, with the same filters.
pub(super) async fn counts(
    State(core): State<Arc<Core>>,
    uri: Uri,
) -> Result<Json<Value>, Failure> {
    let filter = filter(&uri)?;
    let counted = read(&core, move |journal| inspect::summary(journal, &filter)).await?;
    Ok(Json(query::summary(&counted)))
}

fn filter(uri: &Uri) -> Result<AuditFilter, Refusal> {
    let asked = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| Refusal::new(ErrorCode::Malformed, "send a query that can be decoded"))?;
    query::filter(asked.0)
}

/// What `ask` finds in the journal, whose past is on disk.
async fn read<T: Send + 'static>(
    core: &Core,
    ask: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Refusal> {
    let unavailable = |detail: String| Refusal::new(ErrorCode::Unavailable, detail);
    let disk = core.disk.clone();
    let disk = disk.ok_or_else(|| unavailable("this server keeps no files".to_owned()))?;
    let found = tokio::task::spawn_blocking(move || ask(disk.journal())).await;
    let found = found.map_err(|error| unavailable(error.to_string()))?;
    found.map_err(|error| unavailable(error.to_string()))
}
