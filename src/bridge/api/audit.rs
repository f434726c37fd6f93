//! `GET /api/audit` and `/api/audit/summary`: the audit log, which is the journal read by event. It
//! changes nothing.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::Value;
use storage::inspect::{audit, summary};
use storage::journal::{ReadError, Reader};

use super::problem::Failed;
use super::{Shared, query};
use crate::audit::query as asked;
use crate::protocol::{ErrorCode, Refusal};

/// `GET /api/audit`; `event` may stand more than once.
pub async fn list(State(api): Shared, uri: Uri) -> Result<Json<Value>, Failed> {
    let filter = asked::filter(query(&uri)?)?;
    let page = read(&api.journal, move |journal| audit(journal, &filter)).await?;
    Ok(Json(asked::page(&page)))
}

/// `GET /api/audit/summary`, with the same filters.
pub async fn counts(State(api): Shared, uri: Uri) -> Result<Json<Value>, Failed> {
    let filter = asked::filter(query(&uri)?)?;
    let counted = read(&api.journal, move |journal| summary(journal, &filter)).await?;
    Ok(Json(asked::summary(&counted)))
}

/// What `ask` finds in the journal, whose past is on disk.
async fn read<T: Send + 'static>(
    journal: &Reader,
    ask: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Failed> {
    let journal = journal.clone();
    let unavailable =
        |error: &dyn std::fmt::Display| Refusal::new(ErrorCode::Unavailable, error.to_string());
    let found = tokio::task::spawn_blocking(move || ask(&journal)).await;
    Ok(found.map_err(|error| unavailable(&error))?.map_err(|error| unavailable(&error))?)
}
