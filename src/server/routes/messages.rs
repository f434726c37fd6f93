//! `/messages`: the protocol over plain HTTP: send, fetch, acknowledge. What a message does is
//! decided by [`crate::server::intake`].

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use storage::record::EntryId;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::problem::Failure;
use super::{Parameters, wait_for};
use crate::protocol::payload::NackError;
use crate::protocol::{
    DEFAULT_NAMESPACE, ErrorCode, Refusal, SERVER_AGENT_ID, is_identifier, parse_frame,
    parse_ndjson,
};
use crate::server::core::Core;
use crate::server::intake::{self, Fate, Source, Taken};
use crate::server::model::{agent_key, decode};
use crate::server::{mail, registry};
use crate::transport::body::read;

/// The header of a session over HTTP.
const SESSION: &str = "openclaw-session";

/// A reader that waits looks again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

fn session(headers: &HeaderMap) -> Option<String> {
    headers.get(SESSION).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// `POST /messages`.
pub(super) async fn send(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let source = Source { session_id: session(&headers), ..Source::default() };
    let kind = headers.get("content-type").and_then(|value| value.to_str().ok());
    let is_lines = kind.is_some_and(|kind| kind.starts_with("application/x-ndjson"));
    let parse = if is_lines { parse_ndjson } else { parse_frame };
    let frame = match read(body).await.and_then(parse) {
        Ok(frame) => frame,
        Err(refusal) => {
            intake::written(intake::note_unread(&core, &source, None, refusal.clone())).await;
            return Err(refusal.into());
        }
    };
    let is_batch = frame.is_batch;
    let mut taken = intake::take(&core, &source, frame.messages).await;
    if let (false, [Taken { fate: Fate::Refused(refusal), .. }]) = (is_batch, &mut taken[..]) {
        return Err(refusal.clone().into());
    }
    let results: Vec<Value> = taken.iter().map(result).collect();
    let mut response = (StatusCode::ACCEPTED, Json(json!({"results": results}))).into_response();
    let opened = taken.iter().find_map(|one| match &one.fate {
        Fate::Accepted(Some(payload)) => payload.get("session_id")?.as_str(),
        _ => None,
    });
    if let Some(value) = opened.and_then(|id| HeaderValue::from_str(id).ok()) {
        response.headers_mut().insert(SESSION, value);
    }
    Ok(response)
}

fn result(taken: &Taken) -> Value {
    let mut result = json!({"message_id": taken.message_id});
    let status = match &taken.fate {
        Fate::Accepted(payload) => {
            if let Some(payload) = payload {
                result["payload"] = payload.clone();
            }
            "accepted"
        }
        Fate::Duplicate => "duplicate",
        Fate::Refused(refusal) => {
            result["error"] = serde_json::to_value(NackError::from(refusal)).unwrap_or_default();
            "refused"
        }
    };
    result["status"] = status.into();
    result
}

/// Part of a mailbox. Each message has the bytes in which it lies there: a parsed value would write
/// its numbers in another way.
#[derive(Serialize)]
pub(super) struct Mailbox {
    messages: Vec<Box<RawValue>>,
    next: Option<String>,
}

/// `GET /messages`: what is in an agent's mailbox. Reading acknowledges nothing.
pub(super) async fn fetch(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Mailbox>, Failure> {
    let parameters = Parameters::of(&uri)?;
    let Some(agent_id) = parameters.identifier("agent_id")? else {
        return Err(Refusal::missing("agent_id").into());
    };
    if agent_id == SERVER_AGENT_ID {
        return Err(Refusal::invalid("agent_id", "the id of an agent").into());
    }
    let (namespace, limit) = (parameters.namespace()?, parameters.limit()?);
    let (wait, after) = (parameters.wait()?, cursor(parameters.get("after"))?);
    alive(&core, &namespace, agent_id, session(&headers)).await?;
    let mailbox = mail::mailbox(&namespace, agent_id);
    let deadline = Instant::now() + wait;
    let found = loop {
        // What was refused for now becomes due without a bell.
        let left = deadline.saturating_duration_since(Instant::now());
        let found = wait_for(&core, &mailbox, left.min(LOOK_AGAIN), || {
            let found = mail::unacknowledged(&core, &mailbox, after, limit);
            (!found.is_empty()).then_some(found)
        });
        match found.await {
            Some(found) => break found,
            None if left.is_zero() || *core.stopping.borrow() => break Vec::new(),
            None => {}
        }
    };
    // A session that began meanwhile has this mailbox for itself.
    let ledger = core.store.ledger();
    let agent = ledger.get(&agent_key(&namespace, agent_id));
    let agent = agent.and_then(|entity| decode(&entity.value));
    registry::check_session(agent.as_ref(), session(&headers).as_deref())?;
    let (store, given_up) = (core.store.clone(), mail::returns(&core.store, &core.clock));
    let found =
        spawn_blocking(move || mail::read(&store, found, &given_up)).await.map_err(|error| {
            Refusal::new(ErrorCode::Unavailable, format!("the mailbox could not be read: {error}"))
        })?;
    let next = found.last().map(|last| last.entry.to_string());
    let next = next.or_else(|| parameters.get("after").map(str::to_owned));
    let messages: Vec<Box<RawValue>> = found
        .into_iter()
        .filter_map(|message| String::from_utf8(message.bytes).ok())
        .filter_map(|text| RawValue::from_string(text).ok())
        .collect();
    Ok(Json(Mailbox { messages, next }))
}

fn cursor(text: Option<&str>) -> Result<Option<EntryId>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let parts = text.split_once('.');
    let entry = parts.and_then(|(sequence, index)| {
        Some(EntryId { sequence: sequence.parse().ok()?, index: index.parse().ok()? })
    });
    let wanted = "the next of an earlier answer";
    entry.map(Some).ok_or_else(|| Refusal::invalid("after", wanted))
}

/// A call of an agent is a sign of life; one of a replaced session is refused.
async fn alive(
    core: &Arc<Core>,
    namespace: &str,
    agent_id: &str,
    session_id: Option<String>,
) -> Result<(), Refusal> {
    let (namespace, agent_id) = (namespace.to_owned(), agent_id.to_owned());
    core.decided(move |desk| {
        let agent = desk.agent(&namespace, &agent_id);
        registry::check_session(agent.as_ref(), session_id.as_deref())?;
        registry::alive(desk, agent);
        Ok(())
    })
    .await
}

#[derive(Deserialize)]
struct Acknowledgement {
    agent_id: Option<String>,
    namespace: Option<String>,
    message_ids: Option<Vec<String>>,
}

/// `POST /messages/ack`.
pub(super) async fn acknowledge(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let body = read(body).await?;
    let body: Acknowledgement = serde_json::from_slice(&body).map_err(|_| {
        Refusal::new(ErrorCode::Malformed, "send an object with agent_id and message_ids")
    })?;
    let agent_id = body.agent_id.ok_or_else(|| Refusal::missing("agent_id"))?;
    let message_ids = body.message_ids.ok_or_else(|| Refusal::missing("message_ids"))?;
    let namespace = body.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    if !is_identifier(&agent_id) || !is_identifier(&namespace) {
        let wanted = "1 to 128 of the characters A-Z a-z 0-9 . _ : -";
        return Err(Refusal::invalid("agent_id", wanted).into());
    }
    alive(&core, &namespace, &agent_id, session(&headers)).await?;
    let count = core
        .decided(move |desk| Ok(mail::delivered(desk, &namespace, &agent_id, &message_ids)))
        .await?;
    Ok(Json(json!({"acknowledged": count})))
}
