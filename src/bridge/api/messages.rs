//! The routes about messages: lists, one with its content, sending and retrying.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use storage::record::{Direction, Status};
use storage::view::Filter;

use super::problem::Failed;
use super::{Shared, limit};
use crate::bridge::history::{self, Detail, History, Page};
use crate::clock::{Millis, parse_rfc3339};
use crate::protocol::{EnvelopeBuilder, ErrorCode, Fields, MessageType, Refusal};

/// Messages of a page unless the caller asks for another number.
const LIMIT_USUAL: usize = 50;

/// The query of a list.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    limit: Option<usize>,
    status: Option<String>,
    direction: Option<String>,
    #[serde(rename = "type")]
    message_type: Option<String>,
    peer: Option<String>,
    task_id: Option<String>,
    since: Option<String>,
    until: Option<String>,
    after: Option<String>,
}

impl Asked {
    /// What it asks for.
    pub fn filter(self) -> Result<Filter, Failed> {
        let status = self.status.map(|word| {
            Status::parse(&word).ok_or_else(|| Refusal::invalid("status", "a message status"))
        });
        let direction = self.direction.map(|word| match word.as_str() {
            "outbound" => Ok(Direction::Outbound),
            "inbound" => Ok(Direction::Inbound),
            _ => Err(Refusal::invalid("direction", "outbound or inbound")),
        });
        let after = self.after.map(|text| {
            history::place(&text)
                .ok_or_else(|| Refusal::invalid("after", "the next of another page"))
        });
        Ok(Filter {
            limit: limit(self.limit, LIMIT_USUAL)?,
            status: status.transpose()?.into_iter().collect(),
            direction: direction.transpose()?,
            message_type: self.message_type,
            peer: self.peer,
            namespace: None,
            task_id: self.task_id,
            since: time("since", self.since)?,
            until: time("until", self.until)?,
            after: after.transpose()?,
        })
    }
}

fn time(field: &str, text: Option<String>) -> Result<Option<Millis>, Refusal> {
    let wanted = || Refusal::invalid(field, "an RFC 3339 time such as 2026-02-15T14:30:00Z");
    text.map(|text| parse_rfc3339(&text).ok_or_else(wanted)).transpose()
}

/// `GET /api/openclaw/messages`
pub async fn list(State(api): Shared, Query(asked): Query<Asked>) -> Result<Json<Page>, Failed> {
    Ok(Json(api.history.list(&asked.filter()?)?))
}

/// `GET /api/openclaw/messages/{id}`
pub async fn show(State(api): Shared, Path(id): Path<String>) -> Result<Json<Detail>, Failed> {
    Ok(Json(detail(&*api.history, &id)?))
}

/// The message of this id.
pub fn detail(history: &dyn History, id: &str) -> Result<Detail, Failed> {
    history.show(id)?.ok_or_else(|| Failed::missing("no message has this id"))
}

/// The body of a send.
#[derive(Debug, Deserialize)]
struct Sent {
    message_type: String,
    payload: Option<Box<RawValue>>,
    to: Option<String>,
    expires_at: Option<String>,
    ordering_key: Option<String>,
    message_id: Option<String>,
}

/// `POST /api/openclaw/send`
pub async fn send(State(api): Shared, body: Bytes) -> Result<(StatusCode, Json<Value>), Failed> {
    let sent: Sent = read(&body)?;
    let message_type = MessageType::from(sent.message_type.as_str());
    let own = [MessageType::Register, MessageType::Heartbeat, MessageType::Ack, MessageType::Nack];
    if own.contains(&message_type) {
        let wanted = "another type; this one is sent by the bridge itself";
        return Err(Refusal::invalid("message_type", wanted).into());
    }
    let (bridge, assigned) = (&api.bridge, api.bridge.clock().message_id());
    let message_id = sent.message_id.unwrap_or(assigned);
    let fields = Fields {
        message_id: Some(&message_id),
        agent_id: Some(&bridge.settings().agent_id),
        namespace: Some(&bridge.settings().namespace),
        timestamp: Some(bridge.clock().now()),
        to: sent.to.as_deref(),
        expires_at: time("expires_at", sent.expires_at)?,
        ordering_key: sent.ordering_key.as_deref(),
        ..Fields::default()
    };
    let mut builder = EnvelopeBuilder::new(message_type, fields);
    if let Some(payload) = &sent.payload {
        builder = builder.payload(payload);
    }
    bridge.send(builder.build()?).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "message_id": message_id, "status": "pending" }))))
}

/// The body of a retry; without ids, every failed message.
#[derive(Debug, Default, Deserialize)]
struct Again {
    #[serde(default)]
    message_ids: Vec<String>,
}

/// `POST /api/openclaw/retry`
pub async fn retry(State(api): Shared, body: Bytes) -> Result<Json<Value>, Failed> {
    let again: Again = if body.is_empty() { Again::default() } else { read(&body)? };
    let named = again.message_ids.len();
    let actor = &api.bridge.settings().agent_id;
    let retried = history::retry(api.bridge.store(), actor, again.message_ids).await?;
    if retried < named {
        let detail = format!("{retried} of {named} messages have failed and are sent again");
        return Err(Refusal::new(ErrorCode::WrongState, detail).into());
    }
    Ok(Json(json!({ "retried": retried })))
}

fn read<'body, T: Deserialize<'body>>(body: &'body [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(ErrorCode::Malformed, format!("send one json object; {error}"))
    })
}
