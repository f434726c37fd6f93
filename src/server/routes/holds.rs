//! `POST /agents/{id}/pause` and `/agents/{id}/resume`: a person holds what lies in an agent's
//! mailbox, also over a restart, and lets it go on.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use storage::transaction::Transaction;

use super::Parameters;
use super::problem::Failure;
use crate::outbox::pause::{self, Pauses, Target};
use crate::protocol::{ErrorCode, Refusal, is_identifier};
use crate::server::core::Core;
use crate::server::mail::mailbox;
use crate::server::model::agent_key;
use crate::server::view;
use crate::transport::body::read;

/// Who holds something and gives no name.
const OPERATOR: &str = "operator";

/// The body.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Hold {
    actor: Option<String>,
}

/// `POST /agents/{id}/pause`.
pub(super) async fn pause(
    State(core): State<Arc<Core>>,
    Path(agent_id): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Json<Value>, Failure> {
    change(&core, agent_id, &uri, body, |tx, actor, namespace, target| {
        usize::from(pause::pause(tx, actor, namespace, target))
    })
    .await
}

/// `POST /agents/{id}/resume`.
pub(super) async fn resume(
    State(core): State<Arc<Core>>,
    Path(agent_id): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Json<Value>, Failure> {
    change(&core, agent_id, &uri, body, pause::resume).await
}

async fn change(
    core: &Arc<Core>,
    agent_id: String,
    uri: &Uri,
    body: Body,
    change: fn(&mut Transaction<'_>, &str, &str, Target<'_>) -> usize,
) -> Result<Json<Value>, Failure> {
    let namespace = Parameters::of(uri)?.namespace()?;
    let actor = actor(&read(body).await?)?;
    let mailbox = mailbox(&namespace, &agent_id);
    let bell = mailbox.clone();
    let answer = core.decided(move |desk| {
        if desk.tx.get(&agent_key(&namespace, &agent_id)).is_none() {
            let detail = format!("check the agent id; no agent {agent_id} ever registered here");
            return Err(Refusal::new(ErrorCode::UnknownAgent, detail));
        }
        let changed = change(desk.tx, &actor, &namespace, (&mailbox, None));
        let pauses = Pauses::of(desk.tx.ledger(), &mailbox);
        Ok(json!({ "changed": changed, "paused": view::paused(&pauses) }))
    });
    let answer = answer.await?;
    core.bells.ring(&bell);
    Ok(Json(answer))
}

fn actor(body: &[u8]) -> Result<String, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(OPERATOR.to_owned());
    }
    let hold: Hold = serde_json::from_slice(body).map_err(|error| {
        Refusal::new(ErrorCode::Malformed, format!("send one json object; {error}"))
    })?;
    match hold.actor {
        Some(actor) if !is_identifier(&actor) => {
            Err(Refusal::invalid("actor", "1 to 128 of A-Z a-z 0-9 . _ : -"))
        }
        actor => Ok(actor.unwrap_or_else(|| OPERATOR.to_owned())),
    }
}
