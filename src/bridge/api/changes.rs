//! The routes that change many messages: sending again, ending and holding. What is done with them
//! is decided by [`crate::inspector::changes`].

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use storage::transaction::Transaction;

use super::Shared;
use super::messages::Desk;
use super::problem::Failed;
use crate::bridge::mail::DESTINATION;
use crate::bridge::status;
use crate::inspector::changes;
use crate::inspector::selection::{actor, malformed};
use crate::outbox::again::By;
use crate::outbox::pause::{self, Pauses, Target};
use crate::protocol::{Refusal, is_identifier};
use crate::transport::body::read;

/// `POST /api/openclaw/retry`
pub async fn retry(State(api): Shared, body: Body) -> Result<Json<Value>, Failed> {
    Ok(Json(retried(&api.desk(), &read(body).await?).await?))
}

/// Sends again what the body of a retry asks for.
pub async fn retried(desk: &Desk<'_>, body: &[u8]) -> Result<Value, Failed> {
    let by = By {
        actor: String::new(),
        clock: desk.clock.clone(),
        window: desk.dedup_window,
        max_age: desk.max_age,
    };
    Ok(changes::retried(&desk.place, by, body).await?)
}

/// `POST /api/openclaw/prune`
pub async fn prune(State(api): Shared, body: Body) -> Result<Json<Value>, Failed> {
    Ok(Json(changes::pruned(&api.desk().place, &read(body).await?).await?))
}

/// The body of a pause or a resume.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Hold {
    /// Whose deliveries; all.
    #[serde(alias = "peer")]
    to: Option<String>,
    /// Who wants it so.
    actor: Option<String>,
}

/// `POST /api/openclaw/pause`
pub async fn pause(State(api): Shared, body: Body) -> Result<Json<Value>, Failed> {
    Ok(Json(paused(&api.desk(), &read(body).await?).await?))
}

/// `POST /api/openclaw/resume`
pub async fn resume(State(api): Shared, body: Body) -> Result<Json<Value>, Failed> {
    Ok(Json(resumed(&api.desk(), &read(body).await?).await?))
}

/// Holds deliveries. What is out gets its answer; what is paused already stays as it is.
pub async fn paused(desk: &Desk<'_>, body: &[u8]) -> Result<Value, Failed> {
    held(desk, body, |tx, actor, namespace, target| {
        usize::from(pause::pause(tx, actor, namespace, target))
    })
    .await
}

/// Lets deliveries go on: those to one agent, or whatever is paused.
pub async fn resumed(desk: &Desk<'_>, body: &[u8]) -> Result<Value, Failed> {
    held(desk, body, pause::resume).await
}

async fn held(
    desk: &Desk<'_>,
    body: &[u8],
    change: fn(&mut Transaction<'_>, &str, &str, Target<'_>) -> usize,
) -> Result<Value, Failed> {
    let hold: Hold = if body.is_empty() {
        Hold::default()
    } else {
        serde_json::from_slice(body).map_err(|error| malformed(&error))?
    };
    if hold.to.as_deref().is_some_and(|to| !is_identifier(to)) {
        return Err(Refusal::invalid("to", "the id of an agent").into());
    }
    let (actor, namespace) = (actor(hold.actor)?, desk.namespace.to_owned());
    let commit = desk.place.store.commit(move |tx| -> Result<_, std::convert::Infallible> {
        let changed = change(tx, &actor, &namespace, (DESTINATION, hold.to.as_deref()));
        Ok((changed, Pauses::of(tx.ledger(), DESTINATION)))
    });
    let (changed, pauses) = commit.await.map(Result::unwrap_or_default)?;
    Ok(json!({ "changed": changed, "paused": status::paused(&pauses) }))
}
