//! The routes about messages: lists, one with its content, sending and retrying.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use storage::record::{Direction, Status};
use storage::view::Filter;

use super::problem::Failed;
use super::{Shared, limit, query, read};
use crate::bridge::Bridge;
use crate::bridge::history::{self, Detail, History, Page};
use crate::clock::{Millis, parse_rfc3339};
use crate::protocol::{Envelope, ErrorCode, Fields, MessageType, Refusal, parse_one};

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
pub async fn list(State(api): Shared, uri: Uri) -> Result<Json<Page>, Failed> {
    Ok(Json(api.history.list(&query::<Asked>(&uri)?.filter()?)?))
}

/// `GET /api/openclaw/messages/{id}`
pub async fn show(
    State(api): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Detail>, Failed> {
    let Path(id) = id.map_err(|_| Failed::missing("no message has this id"))?;
    Ok(Json(detail(&*api.history, &id)?))
}

/// The message of this id.
pub fn detail(history: &dyn History, id: &str) -> Result<Detail, Failed> {
    history.show(id)?.ok_or_else(|| Failed::missing("no message has this id"))
}

/// `POST /api/openclaw/send`: an envelope, in which the bridge fills in what is its own.
pub async fn send(State(api): Shared, body: Body) -> Result<(StatusCode, Json<Value>), Failed> {
    let bridge = &api.bridge;
    let sent = async {
        let envelope = parse_one(read(body).await?).map_err(|it| it.refusal)?;
        let envelope = own(bridge, &envelope)?;
        let message_id = envelope.message_id().map(str::to_owned);
        bridge.send(envelope).await?;
        Ok(Json(json!({ "message_id": message_id, "status": "pending" })))
    };
    match sent.await {
        Ok(answer) => Ok((StatusCode::ACCEPTED, answer)),
        Err(Failed(refusal)) => {
            bridge.note_rejected(&refusal);
            Err(Failed(refusal))
        }
    }
}

/// The message as one of this bridge.
fn own(bridge: &Bridge, envelope: &Envelope) -> Result<Envelope, Refusal> {
    let own = [MessageType::Register, MessageType::Heartbeat, MessageType::Ack, MessageType::Nack];
    if own.contains(envelope.message_type()) {
        let wanted = "another type; this one is sent by the bridge itself";
        return Err(Refusal::invalid("message_type", wanted));
    }
    let settings = bridge.settings();
    let fields = [
        ("agent_id", envelope.agent_id(), &settings.agent_id),
        ("namespace", envelope.given_namespace(), &settings.namespace),
    ];
    for (field, given, own) in fields {
        if given.is_some_and(|given| given != own) {
            let detail = format!("leave out {field}; this bridge has {own}");
            return Err(Refusal::new(ErrorCode::Forbidden, detail).at(field));
        }
    }
    envelope.fill_missing(&Fields {
        message_id: Some(&bridge.clock().message_id()),
        agent_id: Some(&settings.agent_id),
        namespace: Some(&settings.namespace),
        timestamp: Some(bridge.clock().now()),
        ..Fields::default()
    })
}

/// The body of a retry; without ids, every failed message.
#[derive(Debug, Default, Deserialize)]
struct Again {
    #[serde(default)]
    message_ids: Vec<String>,
}

/// `POST /api/openclaw/retry`
pub async fn retry(State(api): Shared, body: Body) -> Result<Json<Value>, Failed> {
    let body = read(body).await?;
    let again = if body.is_empty() { Ok(Again::default()) } else { serde_json::from_slice(&body) };
    let again = again.map_err(|_| {
        Refusal::new(ErrorCode::Malformed, "send an object with message_ids, a list of strings")
    })?;
    let named = again.message_ids.len();
    let actor = &api.bridge.settings().agent_id;
    let retried = history::retry(api.bridge.store(), actor, again.message_ids).await?;
    if retried < named {
        let detail = format!("{retried} of {named} messages have failed and are sent again");
        return Err(Refusal::new(ErrorCode::WrongState, detail).into());
    }
    Ok(Json(json!({ "retried": retried })))
}
