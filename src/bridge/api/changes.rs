//! The routes that change many messages: sending again and ending. Which messages a body means is
//! read by [`super::selection`], what is done with them by [`crate::bridge::bulk`].

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde_json::{Value, json};
use storage::record::Status;

use super::Shared;
use super::messages::Desk;
use super::problem::Failed;
use super::selection::Change;
use crate::bridge::bulk;
use crate::outbox::again::By;
use crate::protocol::Refusal;
use crate::transport::body::read;

/// `POST /api/openclaw/retry`
pub async fn retry(State(api): Shared, body: Body) -> Result<Json<Value>, Failed> {
    Ok(Json(retried(&api.desk(), &read(body).await?).await?))
}

/// `POST /api/openclaw/prune`
pub async fn prune(State(api): Shared, body: Body) -> Result<Json<Value>, Failed> {
    Ok(Json(pruned(&api.desk(), &read(body).await?).await?))
}

/// Sends again what the body of a retry asks for: all that failed, if it names nothing.
pub async fn retried(desk: &Desk<'_>, body: &[u8]) -> Result<Value, Failed> {
    let change = Change::read(body)?;
    if change.status.as_deref().is_some_and(|status| status != Status::Failed.as_str()) {
        let wanted = "failed: other messages need nobody to send them again";
        return Err(Refusal::invalid("status", wanted).into());
    }
    if change.shred {
        return Err(Refusal::invalid("shred", "left out: what is sent again needs it").into());
    }
    let (chosen, actor) = change.chosen()?;
    let by =
        By { actor, clock: desk.clock.clone(), window: desk.dedup_window, max_age: desk.max_age };
    let (retried, renamed_count) = bulk::retry(&desk.place, chosen, &by).await?;
    let renamed: serde_json::Map<String, Value> =
        retried.renamed.into_iter().map(|(old, new)| (old, new.into())).collect();
    Ok(json!({
        "retried": retried.count, "renamed": renamed, "renamed_count": renamed_count,
    }))
}

/// Ends what the body of a prune asks for: all that failed, if it names nothing.
pub async fn pruned(desk: &Desk<'_>, body: &[u8]) -> Result<Value, Failed> {
    let change = Change::read(body)?;
    let shred = change.shred;
    let (chosen, actor) = change.chosen()?;
    let finished = chosen.filter.status.iter().find(|status| status.is_finished());
    if let Some(status) = finished.filter(|_| !shred && chosen.message_ids.is_empty()) {
        let (status, wanted) = (status.as_str(), "another one, or shred be true");
        let why =
            format!("{wanted}: a message that is {status} has nothing to end but its content");
        return Err(Refusal::invalid("status", &why).into());
    }
    let pruned = bulk::prune(&desk.place, chosen, shred, &actor).await?;
    Ok(json!({ "pruned": pruned.count, "shredded": pruned.shredded }))
}
