//! The routes about messages: lists, causes, one with its content, and sending.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};

use super::problem::Failed;
use super::{Api, Shared, query};
use crate::bridge::queue;
use crate::clock::Clock;
use crate::inspector::answer::Answer;
use crate::inspector::bulk::Place;
use crate::inspector::causes::Causes;
use crate::inspector::history::{Detail, History, Page};
use crate::inspector::selection::Asked;
use crate::inspector::{causes, look};
use crate::protocol::{Envelope, ErrorCode, Fields, MessageType, Refusal, parse_one};
use crate::trace;
use crate::transport::body::read;

/// `GET /api/openclaw/messages`
pub async fn list(State(api): Shared, uri: Uri) -> Result<Json<Answer<Page>>, Failed> {
    let filter = query::<Asked>(&uri)?.filter()?;
    aside(&api, move |history| history.list(&filter).map_err(unavailable)).await
}

/// `GET /api/openclaw/causes`
pub async fn grouped(State(api): Shared, uri: Uri) -> Result<Json<Answer<Causes>>, Failed> {
    let (filter, newest) = query::<Asked>(&uri)?.causes()?;
    // Unless it is told how many are enough, it goes through every row that there is.
    aside(&api, move |history| causes::of(history, &filter, newest).map_err(unavailable)).await
}

/// `GET /api/openclaw/messages/{id}`
pub async fn show(
    State(api): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Answer<Detail>>, Failed> {
    let Path(id) = id.map_err(|_| Failed::missing("no message has this id"))?;
    aside(&api, move |history| look::detail(history, &id)).await
}

/// Looks something up where it holds up nobody: without rows it reads the journal. What that finds
/// damaged is in the answer.
pub async fn aside<T: Send + 'static>(
    api: &Arc<Api>,
    look: impl FnOnce(&dyn History) -> Result<T, Refusal> + Send + 'static,
) -> Result<Json<Answer<T>>, Failed> {
    let api = Arc::clone(api);
    let looked = tokio::task::spawn_blocking(move || {
        look(&*api.history).map(|found| Json(Answer::of(found, &api.journal)))
    });
    Ok(looked.await.map_err(unavailable)??)
}

fn unavailable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, error.to_string())
}

/// What the changes of this file are made on: a running bridge, or the store of a stopped one.
pub struct Desk<'a> {
    /// The bridge's id.
    pub agent_id: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its store and messages.
    pub place: Place,
    /// Time and ids.
    pub clock: &'a Clock,
    /// How long the server remembers ids.
    pub dedup_window: Duration,
    /// How long a message is tried by itself.
    pub max_age: Duration,
}

impl Api {
    /// What changes are made on.
    pub fn desk(&self) -> Desk<'_> {
        Desk {
            agent_id: &self.bridge.settings().agent_id,
            namespace: &self.bridge.settings().namespace,
            place: Place {
                store: self.bridge.store().clone(),
                history: Arc::clone(&self.history),
                journal: self.journal.clone(),
                given_up: None,
            },
            clock: self.bridge.clock(),
            dedup_window: self.bridge.dedup_window(),
            max_age: self.bridge.settings().retry.max_age,
        }
    }
}

/// `POST /api/openclaw/send`: an envelope, in which the bridge fills in what is its own.
pub async fn send(
    State(api): Shared,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Failed> {
    let trace = trace::of_headers(&headers);
    let accepted = async { sent(&api.desk(), &read(body).await?, trace).await };
    match accepted.await {
        Ok(answer) => Ok((StatusCode::ACCEPTED, Json(answer))),
        Err(Failed(refusal)) => {
            api.bridge.note_rejected(&refusal);
            Err(Failed(refusal))
        }
    }
}

/// Accepts the message that the body of a send describes. It belongs to the trace that it names
/// itself, or to that of the call.
pub async fn sent(desk: &Desk<'_>, body: &[u8], trace: Option<&str>) -> Result<Value, Failed> {
    let envelope = parse_one(body.to_vec()).map_err(|it| it.refusal)?;
    let envelope = own(desk, &envelope, trace)?;
    let message_id = envelope.message_id().map(str::to_owned);
    queue(&desk.place.store, envelope).await?;
    Ok(json!({ "message_id": message_id, "status": "pending" }))
}

/// The message as one of this bridge.
fn own(desk: &Desk<'_>, envelope: &Envelope, trace: Option<&str>) -> Result<Envelope, Refusal> {
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
        traceparent: trace,
        ..Fields::default()
    })
}
