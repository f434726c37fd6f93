//! The HTTP fallback: what is due is posted in batches, what waits at the server is read with a
//! long poll and acknowledged once it is durable here. It judges nothing and stores nothing.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::connect::{Carrier, ConnectError, Connection, TransportSettings};
use super::conversation::{
    Answer, CLOSE_REPLACED, Ended, Handler, Settings, asked_to_stop, receipts,
};
use super::feed::{Failure, Feed, Outgoing};
use super::response::{self, Verdict};
use super::socket::Wire;
use crate::clock::Clock;
use crate::protocol::payload::{Heads, NackError, RegisterAck};
use crate::protocol::{Envelope, ErrorCode, RELAYED_BYTES_MAX, Refusal, parse_one_within};

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
    namespace: String,
    timeout: Duration,
    clock: Clock,
    id: String,
}

/// A call that did not succeed.
enum Failed {
    /// It never left.
    NotSent(String),
    /// It left, and no answer came.
    Lost(String),
    /// The server answered, and not well.
    Answered(Verdict),
}

impl Failed {
    /// What it means for the session, when nothing else can be done about it.
    fn ended(self) -> Ended {
        match self {
            Self::NotSent(reason) | Self::Lost(reason) => Ended::Lost(reason),
            Self::Answered(Verdict::Barred(reason)) => Ended::Barred(reason),
            Self::Answered(Verdict::Replaced(reason)) => Ended::Closed(CLOSE_REPLACED, reason),
            Self::Answered(Verdict::Refused(refusal)) => Ended::Lost(refusal.to_string()),
        }
    }
}

#[derive(Deserialize)]
struct Accepted {
    results: Vec<Result202>,
}

#[derive(Deserialize)]
struct Result202 {
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
        let request = match self.id.as_str() {
            "" => request,
            id => request.header(SESSION_HEADER, id),
        };
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn post(&self, path: &str, body: String) -> Result<Response, Failed> {
        let request = self.client.post(format!("{}{path}", self.endpoint)).body(body);
        let request = request.header("content-type", "application/json").timeout(self.timeout);
        self.answered(self.with_headers(request).send().await).await
    }

    async fn read(&self) -> Result<Vec<Box<RawValue>>, Failed> {
        let url = format!(
            "{}/messages?agent_id={}&namespace={}&limit={READ_MAX}&wait={}",
            self.endpoint,
            self.agent_id,
            self.namespace,
            WAIT.as_secs()
        );
        let request = self.client.get(url).timeout(WAIT + self.timeout);
        let response = self.answered(self.with_headers(request).send().await).await?;
        let mailbox: Mailbox = response.json().await.map_err(|error| lost(&error))?;
        Ok(mailbox.messages)
    }

    async fn answered(&self, response: reqwest::Result<Response>) -> Result<Response, Failed> {
        let response = response.map_err(|error| {
            if error.is_connect() { Failed::NotSent(said(&error)) } else { lost(&error) }
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = header.and_then(|value| response::retry_after(value, self.clock.now()));
        let body = response.bytes().await.unwrap_or_default();
        Err(Failed::Answered(response::judge(status.as_u16(), &body, wait)))
    }
}

fn lost(error: &reqwest::Error) -> Failed {
    Failed::Lost(said(error))
}

/// The innermost reason: what wraps it only says that a request failed.
fn said(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer came in time".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Whether the server answers at all: what `auto` asks before it takes HTTP.
pub async fn is_there(settings: &TransportSettings) -> bool {
    let Ok(client) = settings.client() else { return false };
    let url = format!("{}/health", settings.endpoint.trim_end_matches('/'));
    let answer = client.get(url).timeout(settings.timeout).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// Registers over HTTP.
///
/// # Errors
/// When nobody answers in time, or the server refuses.
pub async fn connect(
    settings: &TransportSettings,
    register: &Envelope,
) -> Result<Connection, ConnectError> {
    let endpoint = settings.endpoint.clone();
    let unreachable =
        |reason: String| ConnectError::Unreachable { endpoint: endpoint.clone(), reason };
    let mut session = Session {
        client: settings.client().map_err(unreachable)?,
        endpoint: settings.endpoint.trim_end_matches('/').to_owned(),
        token: settings.token.clone(),
        agent_id: register.agent_id().unwrap_or_default().to_owned(),
        namespace: register.namespace().to_owned(),
        timeout: settings.timeout,
        clock: settings.clock.clone(),
        id: String::new(),
    };
    let body = String::from_utf8_lossy(register.raw()).into_owned();
    let sent = session.post("/messages", body).await;
    let response = sent.map_err(|failed| match failed {
        Failed::NotSent(reason)
        | Failed::Lost(reason)
        | Failed::Answered(Verdict::Replaced(reason)) => unreachable(reason),
        Failed::Answered(Verdict::Barred(reason)) => {
            ConnectError::Barred { endpoint: endpoint.clone(), reason }
        }
        Failed::Answered(Verdict::Refused(refusal)) => ConnectError::Refused(refusal),
    })?;
    let accepted: Accepted =
        response.json().await.map_err(|error| unreachable(error.without_url().to_string()))?;
    let ack = accepted.results.into_iter().next().and_then(|result| result.payload);
    let ack = ack.ok_or_else(|| unreachable("its answer to register has no payload".into()))?;
    session.id = ack.session_id.clone().unwrap_or_default();
    Ok(Connection { carrier: Carrier::Http(session), ack })
}

/// Drives one session until it ends. What is unanswered then is pending again.
pub async fn run(
    session: Session,
    pump: &impl Feed,
    handler: &impl Handler,
    settings: &Settings,
    control: &mut mpsc::Receiver<Wire>,
    stop: watch::Receiver<bool>,
) -> Ended {
    let window = settings.window.clamp(1, POST_MAX);
    let ended = tokio::select! {
        ended = write(&session, pump, handler, window, stop) => ended,
        ended = listen(&session, handler, settings) => ended,
        ended = speak(&session, handler, control) => ended,
    };
    if pump.broken().await.is_err() {
        return Ended::StoreStopped;
    }
    ended
}

/// Posts what is due. A request to stop waits for the post that is under way, so that nothing is
/// left unanswered.
async fn write(
    session: &Session,
    pump: &impl Feed,
    handler: &impl Handler,
    limit: usize,
    mut stop: watch::Receiver<bool>,
) -> Ended {
    loop {
        let batch = tokio::select! {
            batch = pump.next(limit) => batch,
            () = asked_to_stop(&mut stop) => return Ended::Stopped,
        };
        for group in groups(&batch) {
            if let Err(ended) = post(session, pump, handler, group).await {
                return ended;
            }
        }
    }
}

async fn post(
    session: &Session,
    pump: &impl Feed,
    handler: &impl Handler,
    group: &[Outgoing],
) -> Result<(), Ended> {
    let texts: Vec<_> =
        group.iter().map(|message| String::from_utf8_lossy(&message.bytes)).collect();
    let answer = match session.post("/messages", format!("[{}]", texts.join(","))).await {
        Ok(response) => response.json::<Accepted>().await.map_err(|error| lost(&error)),
        Err(failed) => Err(failed),
    };
    match answer {
        Ok(accepted) => settle(pump, handler, group, accepted).await,
        // One of them spoils the others: each is judged by itself.
        Err(Failed::Answered(Verdict::Refused(refusal)))
            if !refusal.retryable && group.len() > 1 =>
        {
            for one in group.chunks(1) {
                Box::pin(post(session, pump, handler, one)).await?;
            }
            Ok(())
        }
        Err(Failed::Answered(Verdict::Refused(refusal))) => {
            for message in group {
                let recorded = pump.refused(&message.message_id, refusal.clone()).await;
                recorded.map_err(|_| Ended::StoreStopped)?;
            }
            Ok(())
        }
        Err(failed) => {
            let ids: Vec<String> = group.iter().map(|one| one.message_id.clone()).collect();
            let recorded = match &failed {
                Failed::NotSent(_) => pump.failed(&ids, Failure::NotSent).await,
                Failed::Answered(Verdict::Barred(reason)) => {
                    pump.failed(&ids, Failure::Barred(reason.clone())).await
                }
                // The end of the session says of all that is out that it may have arrived.
                Failed::Lost(_) | Failed::Answered(_) => Ok(()),
            };
            recorded.map_err(|_| Ended::StoreStopped)?;
            Err(failed.ended())
        }
    }
}

async fn settle(
    pump: &impl Feed,
    handler: &impl Handler,
    group: &[Outgoing],
    accepted: Accepted,
) -> Result<(), Ended> {
    let mut results = accepted.results.into_iter();
    for message in group {
        let id = message.message_id.clone();
        let Some(outcome) = results.next().and_then(outcome) else {
            // The end of the session says of what is left that it may have arrived.
            return Err(Ended::Lost(format!("the answer does not say what became of {id}")));
        };
        let recorded = match outcome {
            Err(refusal) => {
                if refusal.code == ErrorCode::SessionReplaced {
                    // Not the messages are refused but whoever sends them.
                    let ids: Vec<String> =
                        group.iter().map(|message| message.message_id.clone()).collect();
                    let waits = pump.failed(&ids, Failure::NotSent).await;
                    waits.map_err(|_| Ended::StoreStopped)?;
                    return Err(Ended::Closed(CLOSE_REPLACED, refusal.detail));
                }
                pump.refused(&id, refusal).await
            }
            Ok(()) => pump.delivered(std::slice::from_ref(&id)).await,
        };
        recorded.map_err(|_| Ended::StoreStopped)?;
        handler.settled(std::slice::from_ref(&id));
    }
    Ok(())
}

/// What a result says of its message; `None` when that is nothing that the protocol knows.
fn outcome(result: Result202) -> Option<Result<(), Refusal>> {
    match (result.status.as_str(), result.error) {
        ("accepted" | "duplicate", _) => Some(Ok(())),
        ("refused", Some(error)) => Some(Err(Refusal::from(error))),
        _ => None,
    }
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

async fn listen(session: &Session, handler: &impl Handler, settings: &Settings) -> Ended {
    loop {
        let messages = match session.read().await {
            Ok(messages) => messages,
            Err(failed) => return failed.ended(),
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
        if let Err(failed) = acknowledge(session, &answers.answers, settings).await {
            return failed.ended();
        }
        if let Some((code, reason)) = answers.close {
            return Ended::Closed(code, reason);
        }
    }
}

/// Tells the server what became of messages. A refused one is told as on a WebSocket: what the
/// server does with it, now or later, is its own decision.
async fn acknowledge(
    session: &Session,
    answers: &[Answer],
    settings: &Settings,
) -> Result<(), Failed> {
    let taken = answers.iter().filter(|answer| answer.outcome.is_ok());
    let ids: Vec<&String> = taken.filter_map(|answer| answer.message_id.as_ref()).collect();
    let refused: Vec<Answer> =
        answers.iter().filter(|answer| answer.outcome.is_err()).cloned().collect();
    for nack in receipts(&refused, settings) {
        if let Wire::Text(text) = nack {
            session.post("/messages", text).await?;
        }
    }
    if ids.is_empty() {
        sleep(PAUSE).await;
        return Ok(());
    }
    let body = serde_json::json!({
        "agent_id": session.agent_id, "namespace": session.namespace, "message_ids": ids,
    });
    session.post("/messages/ack", body.to_string()).await.map(|_| ())
}

/// Sends what is neither stored nor retried.
async fn speak(
    session: &Session,
    handler: &impl Handler,
    control: &mut mpsc::Receiver<Wire>,
) -> Ended {
    loop {
        match control.recv().await {
            Some(Wire::Text(text)) => match session.post("/messages", text).await {
                Ok(response) => tell_heads(response, handler).await,
                Err(failed) => return failed.ended(),
            },
            Some(Wire::Close(code, reason)) => return Ended::Closed(code, reason),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// The answer to a heartbeat may have ends of journals. One that cannot be read has none.
async fn tell_heads(response: Response, handler: &impl Handler) {
    let Ok(accepted) = response.json::<Accepted>().await else { return };
    for RegisterAck { journal_head, peer_head, .. } in
        accepted.results.into_iter().filter_map(|result| result.payload)
    {
        handler.witnessed(Heads { journal_head, peer_head });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_so_is_a_delivery() {
        let word = |result: &str| {
            let result: Result202 = serde_json::from_str(result).unwrap();
            match outcome(result) {
                Some(Ok(())) => "delivered",
                Some(Err(_)) => "refused",
                None => "unknown",
            }
        };
        for (result, expected) in [
            (r#"{"status":"accepted"}"#, "delivered"),
            (r#"{"status":"duplicate","message_id":"m"}"#, "delivered"),
            (r#"{"status":"refused","error":{"code":"malformed"}}"#, "refused"),
            (r#"{"status":"refused"}"#, "unknown"),
            (r#"{"status":"queued"}"#, "unknown"),
        ] {
            assert_eq!(word(result), expected, "{result}");
        }
    }
}
