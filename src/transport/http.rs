//! The HTTP fallback: what is due is posted in batches, what waits at the server is read with a
//! long poll and acknowledged once it is durable here. It judges nothing and stores nothing.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::connect::{Carrier, ConnectError, Connection, TransportSettings};
use super::conversation::{Answer, Ended, Handler, Settings, asked_to_stop};
use super::feed::{Feed, Outgoing};
use super::socket::Wire;
use crate::protocol::payload::{NackError, RegisterAck};
use crate::protocol::{Envelope, RELAYED_BYTES_MAX, Refusal, parse_one_within};

/// The header that names the session.
pub const SESSION_HEADER: &str = "OpenClaw-Session";

/// How long one reading waits at the server, below the protocol's bound of 60 s and below the
/// idle time after which common proxies cut a connection.
const WAIT: Duration = Duration::from_secs(25);

/// Messages that one reading takes.
const READ_MAX: usize = 100;

/// Messages in one post.
const POST_MAX: usize = 128;

/// A reading that the server answered at once and empty is not repeated before this time.
const PAUSE: Duration = Duration::from_millis(200);

/// A session over HTTP.
pub struct Session {
    client: Client,
    endpoint: String,
    token: Option<String>,
    agent_id: String,
    id: String,
}

#[derive(Deserialize)]
struct Accepted {
    results: Vec<Result202>,
}

#[derive(Deserialize)]
struct Result202 {
    message_id: Option<String>,
    status: String,
    error: Option<NackError>,
    payload: Option<RegisterAck>,
}

#[derive(Deserialize)]
struct Mailbox {
    messages: Vec<Box<RawValue>>,
}

impl Session {
    fn with_headers(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header(SESSION_HEADER, &self.id);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn post(&self, path: &str, body: String) -> Result<Response, Ended> {
        let request = self.client.post(format!("{}{path}", self.endpoint)).body(body);
        let request = request.header("content-type", "application/json");
        answered(self.with_headers(request).send().await).await
    }

    async fn read(&self) -> Result<Vec<Box<RawValue>>, Ended> {
        let url = format!(
            "{}/messages?agent_id={}&limit={READ_MAX}&wait={}",
            self.endpoint,
            self.agent_id,
            WAIT.as_secs()
        );
        let response = answered(self.with_headers(self.client.get(url)).send().await).await?;
        let mailbox: Mailbox =
            response.json().await.map_err(|error| Ended::Lost(error.to_string()))?;
        Ok(mailbox.messages)
    }
}

async fn answered(response: reqwest::Result<Response>) -> Result<Response, Ended> {
    let response = response.map_err(|error| Ended::Lost(error.without_url().to_string()))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.unwrap_or_default();
    let reason = Refusal::from_problem(&body)
        .map_or_else(|| format!("HTTP {status}"), |refusal| refusal.to_string());
    // A session that another one replaced ends as it does on a WebSocket.
    if status.as_u16() == 409 {
        return Err(Ended::Closed(4_001, reason));
    }
    Err(Ended::Lost(reason))
}

/// Registers over HTTP.
///
/// # Errors
/// When nobody answers in time, or the server refuses.
pub async fn connect(
    settings: &TransportSettings,
    register: &Envelope,
) -> Result<Connection, ConnectError> {
    let endpoint = settings.endpoint.trim_end_matches('/').to_owned();
    let unreachable =
        |reason: String| ConnectError::Unreachable { endpoint: settings.endpoint.clone(), reason };
    let client = Client::builder()
        .connect_timeout(settings.timeout)
        .timeout(settings.timeout.max(WAIT * 2))
        .build()
        .map_err(|error| unreachable(error.to_string()))?;
    let mut session = Session {
        client,
        endpoint,
        token: settings.token.clone(),
        agent_id: register.agent_id().unwrap_or_default().to_owned(),
        id: String::new(),
    };
    let url = format!("{}/messages", session.endpoint);
    let request = session.client.post(url).body(register.raw().clone());
    let request = request.header("content-type", "application/json");
    let sent = session.with_headers(request).send().await;
    let response = sent.map_err(|error| unreachable(error.without_url().to_string()))?;
    let status = response.status();
    let body = response.bytes().await.map_err(|error| unreachable(error.to_string()))?;
    if !status.is_success() {
        return Err(match Refusal::from_problem(&body) {
            Some(refusal) => ConnectError::Refused(refusal),
            None => ConnectError::Status { endpoint: url_of(settings), status: status.as_u16() },
        });
    }
    let accepted: Accepted =
        serde_json::from_slice(&body).map_err(|error| unreachable(error.to_string()))?;
    let ack = accepted.results.into_iter().next().and_then(|result| result.payload);
    let ack = ack.ok_or_else(|| unreachable("its answer to register has no payload".into()))?;
    session.id = ack.session_id.clone().unwrap_or_default();
    Ok(Connection { carrier: Carrier::Http(session), ack })
}

fn url_of(settings: &TransportSettings) -> String {
    settings.endpoint.clone()
}

/// Drives one session until it ends. What is unanswered then is pending again.
pub async fn run(
    session: Session,
    pump: &impl Feed,
    handler: &impl Handler,
    settings: &Settings,
    control: &mut mpsc::Receiver<Wire>,
    mut stop: watch::Receiver<bool>,
) -> Ended {
    let window = settings.window.clamp(1, POST_MAX);
    let ended = tokio::select! {
        ended = write(&session, pump, handler, window) => ended,
        ended = listen(&session, handler) => ended,
        ended = speak(&session, control) => ended,
        () = asked_to_stop(&mut stop) => Ended::Stopped,
    };
    if pump.broken().await.is_err() {
        return Ended::StoreStopped;
    }
    ended
}

async fn write(session: &Session, pump: &impl Feed, handler: &impl Handler, limit: usize) -> Ended {
    loop {
        let batch = pump.next(limit).await;
        if let Err(ended) = post(session, pump, handler, batch).await {
            return ended;
        }
    }
}

async fn post(
    session: &Session,
    pump: &impl Feed,
    handler: &impl Handler,
    batch: Vec<Outgoing>,
) -> Result<(), Ended> {
    for group in groups(&batch) {
        let texts: Vec<_> =
            group.iter().map(|message| String::from_utf8_lossy(&message.bytes)).collect();
        let response = session.post("/messages", format!("[{}]", texts.join(","))).await?;
        let accepted: Accepted =
            response.json().await.map_err(|error| Ended::Lost(error.to_string()))?;
        for (message, result) in group.iter().zip(accepted.results) {
            let id = result.message_id.unwrap_or_else(|| message.message_id.clone());
            let recorded = match result.error {
                Some(error) if result.status == "refused" => pump.refused(&id, error.into()).await,
                _ => pump.delivered(std::slice::from_ref(&id)).await,
            };
            recorded.map_err(|_| Ended::StoreStopped)?;
            handler.settled(std::slice::from_ref(&id));
        }
    }
    Ok(())
}

/// Splits a batch so that no body is above the protocol's limit.
fn groups(batch: &[Outgoing]) -> Vec<&[Outgoing]> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 2);
    for (index, message) in batch.iter().enumerate() {
        let length = message.bytes.len() + 1;
        if index > start && bytes + length > crate::protocol::MESSAGE_BYTES_MAX {
            groups.push(&batch[start..index]);
            (start, bytes) = (index, 2);
        }
        bytes += length;
    }
    if start < batch.len() {
        groups.push(&batch[start..]);
    }
    groups
}

async fn listen(session: &Session, handler: &impl Handler) -> Ended {
    loop {
        let messages = match session.read().await {
            Ok(messages) => messages,
            Err(ended) => return ended,
        };
        if messages.is_empty() {
            sleep(PAUSE).await;
            continue;
        }
        let messages: Vec<_> = messages
            .into_iter()
            .map(|text| parse_one_within(text.get().to_owned(), RELAYED_BYTES_MAX))
            .collect();
        let answers = handler.frame(messages).await;
        // What may be taken later is read again: to acknowledge it now would lose it.
        let settled = |answer: &Answer| {
            answer.outcome.as_ref().err().is_none_or(|refusal| !refusal.retryable)
        };
        let answered = answers.answers.into_iter().filter(settled);
        let ids: Vec<String> = answered.filter_map(|answer| answer.message_id).collect();
        if ids.is_empty() {
            sleep(PAUSE).await;
        }
        let body = serde_json::json!({ "agent_id": session.agent_id, "message_ids": ids });
        if let Err(ended) = session.post("/messages/ack", body.to_string()).await {
            return ended;
        }
        if let Some((code, reason)) = answers.close {
            return Ended::Closed(code, reason);
        }
    }
}

/// Sends what is neither stored nor retried.
async fn speak(session: &Session, control: &mut mpsc::Receiver<Wire>) -> Ended {
    loop {
        match control.recv().await {
            Some(Wire::Text(text)) => {
                if let Err(ended) = session.post("/messages", text).await {
                    return ended;
                }
            }
            Some(Wire::Close(code, reason)) => return Ended::Closed(code, reason),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}
