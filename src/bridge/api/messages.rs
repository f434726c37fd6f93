//! The routes about messages: lists, one with its content, sending and retrying.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use storage::messages::Live;
use storage::record::{Direction, Reason, Status};
use storage::store::Store;
use storage::view::Filter;

use super::problem::Failed;
use super::{Api, Shared, limit, query};
use crate::bridge::history::{self, Detail, History, Page};
use crate::bridge::queue;
use crate::clock::{Clock, Millis, parse_rfc3339};
use crate::protocol::{Envelope, ErrorCode, Fields, MessageType, Refusal, parse_one};
use crate::transport::body::read;

/// Messages of a page unless the caller asks for another number.
const LIMIT_USUAL: usize = 50;

/// Why a message can have failed.
const REASONS: [Reason; 4] =
    [Reason::Permanent, Reason::MaxAge, Reason::MaxAttempts, Reason::Undeliverable];

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
    history.show(id)?.ok_or_else(|| Failed::missing(&format!("no message has the id {id}")))
}

/// What the changes of this file are made on: a running bridge, or the store of a stopped one.
pub struct Desk<'a> {
    /// The bridge's id.
    pub agent_id: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its store.
    pub store: &'a Store,
    /// Its messages.
    pub history: &'a dyn History,
    /// Time and ids.
    pub clock: &'a Clock,
    /// How long the server remembers ids.
    pub dedup_window: Duration,
}

impl Api {
    fn desk(&self) -> Desk<'_> {
        Desk {
            agent_id: &self.bridge.settings().agent_id,
            namespace: &self.bridge.settings().namespace,
            store: self.bridge.store(),
            history: &*self.history,
            clock: self.bridge.clock(),
            dedup_window: self.bridge.dedup_window(),
        }
    }
}

/// `POST /api/openclaw/send`: an envelope, in which the bridge fills in what is its own.
pub async fn send(State(api): Shared, body: Body) -> Result<(StatusCode, Json<Value>), Failed> {
    let accepted = async { sent(&api.desk(), &read(body).await?).await };
    match accepted.await {
        Ok(answer) => Ok((StatusCode::ACCEPTED, Json(answer))),
        Err(Failed(refusal)) => {
            api.bridge.note_rejected(&refusal);
            Err(Failed(refusal))
        }
    }
}

/// Accepts the message that the body of a send describes.
pub async fn sent(desk: &Desk<'_>, body: &[u8]) -> Result<Value, Failed> {
    let envelope = parse_one(body.to_vec()).map_err(|it| it.refusal)?;
    let envelope = own(desk, &envelope)?;
    let message_id = envelope.message_id().map(str::to_owned);
    queue(desk.store, envelope).await?;
    Ok(json!({ "message_id": message_id, "status": "pending" }))
}

/// The message as one of this bridge.
fn own(desk: &Desk<'_>, envelope: &Envelope) -> Result<Envelope, Refusal> {
    let own = [MessageType::Register, MessageType::Heartbeat, MessageType::Ack, MessageType::Nack];
    if own.contains(envelope.message_type()) {
        let wanted = "another type; this one is sent by the bridge itself";
        return Err(Refusal::invalid("message_type", wanted));
    }
    let fields = [
        ("agent_id", envelope.agent_id(), desk.agent_id),
        ("namespace", envelope.given_namespace(), desk.namespace),
    ];
    for (field, given, own) in fields {
        if given.is_some_and(|given| given != own) {
            let detail = format!("leave out {field}; this bridge has {own}");
            return Err(Refusal::new(ErrorCode::Forbidden, detail).at(field));
        }
    }
    envelope.fill_missing(&Fields {
        message_id: Some(&desk.clock.message_id()),
        agent_id: Some(desk.agent_id),
        namespace: Some(desk.namespace),
        timestamp: Some(desk.clock.now()),
        ..Fields::default()
    })
}

/// The body of a retry. Of nothing it names, every failed message is sent again. An unknown name is
/// refused: a filter that is not understood would be one that is not applied.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Again {
    message_ids: Vec<String>,
    status: Option<String>,
    reason: Option<String>,
    #[serde(rename = "type")]
    message_type: Option<String>,
    peer: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

/// `POST /api/openclaw/retry`
pub async fn retry(State(api): Shared, body: Body) -> Result<Json<Value>, Failed> {
    Ok(Json(retried(&api.desk(), &read(body).await?).await?))
}

/// Sends again what the body of a retry asks for. Named messages that cannot be sent again are
/// told, and then nothing is.
pub async fn retried(desk: &Desk<'_>, body: &[u8]) -> Result<Value, Failed> {
    let again: Again = if body.is_empty() { Again::default() } else { parsed(body)? };
    if again.status.as_deref().is_some_and(|status| status != Status::Failed.as_str()) {
        let wanted = "failed: other messages need nobody to send them again";
        return Err(Refusal::invalid("status", wanted).into());
    }
    let reasons: Vec<&str> = REASONS.iter().filter_map(|reason| reason.as_str()).collect();
    if again.reason.as_deref().is_some_and(|word| !reasons.contains(&word)) {
        return Err(Refusal::invalid("reason", &format!("one of {}", reasons.join(", "))).into());
    }
    for id in &again.message_ids {
        check_failed(desk, id)?;
    }
    let (since, until) = (time("since", again.since)?, time("until", again.until)?);
    let same =
        |wanted: &Option<String>, is: Option<&str>| wanted.is_none() || wanted.as_deref() == is;
    let wanted = |live: &Live| {
        let head = &live.head;
        (again.message_ids.is_empty() || again.message_ids.contains(&head.message_id))
            && same(&again.reason, live.reason.as_str())
            && same(&again.message_type, Some(&head.message_type))
            && same(&again.peer, Some(&head.peer))
            && since.is_none_or(|since| head.created_at >= since)
            && until.is_none_or(|until| head.created_at < until)
    };
    let by = (desk.agent_id, desk.clock, desk.dedup_window);
    let retried = history::retry(desk.store, by, wanted).await?;
    let renamed: serde_json::Map<String, Value> =
        retried.renamed.into_iter().map(|(old, new)| (old, new.into())).collect();
    Ok(json!({ "retried": retried.count, "renamed": renamed }))
}

fn check_failed(desk: &Desk<'_>, id: &str) -> Result<(), Failed> {
    let shown = desk.history.show(id)?;
    if shown.as_ref().is_some_and(|message| message.row.status == Status::Failed.as_str()) {
        return Ok(());
    }
    // Its row may be on its way yet.
    let failed = desk.store.select(|one| one.status == Status::Failed);
    if failed.iter().any(|live| live.head.message_id == id) {
        return Ok(());
    }
    match shown {
        None => Err(Failed::missing(&format!("no message has the id {id}"))),
        Some(message) => {
            let status = message.row.status;
            let detail = format!("the message {id} is {status}; only failed ones are sent again");
            Err(Refusal::new(ErrorCode::WrongState, detail).into())
        }
    }
}

fn parsed<'body, T: Deserialize<'body>>(body: &'body [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(ErrorCode::Malformed, format!("send one json object; {error}"))
    })
}
