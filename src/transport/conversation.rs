//! One WebSocket after its register, the same for both sides: what is due goes out in batches
//! within the window, what arrives is answered with ack or nack, pings keep it honest.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::feed::{Feed, Outgoing};
use super::socket::{Socket, Wire};
use crate::protocol::payload::{Ack, Heads, Nack};
use crate::protocol::{
    Envelope, EnvelopeBuilder, ErrorCode, Fields, MESSAGE_BYTES_MAX, MessageType,
    RELAYED_BYTES_MAX, Refusal, Rejected, parse_frame_within,
};

/// Messages taken out for one frame at the most: more only delays the first of them.
const BATCH_MESSAGES_MAX: usize = 128;

/// The close code of a connection that speaks something else.
const CLOSE_UNSUPPORTED: u16 = 1_003;

/// The close code of a program that goes away.
const CLOSE_GOING_AWAY: u16 = 1_001;

/// The close code of a session that another one took over.
pub const CLOSE_REPLACED: u16 = 4_001;

/// How long a goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pings in a row without a sign of life after which the link is given up.
const PINGS_MISSED_MAX: u32 = 2;

/// The outcome of one message of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its id, its own or the assigned one; `None` when none could be read.
    pub message_id: Option<String>,
    /// Its position in the frame, when the sender gave it no id.
    pub index: Option<u32>,
    /// Whether it is durable here, or why not.
    pub outcome: Result<(), Refusal>,
    /// Ends of journals that go with it.
    pub heads: Heads,
}

/// The outcomes of a frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// One for each message that wants one.
    pub answers: Vec<Answer>,
    /// Close the connection after them, with this code and reason.
    pub close: Option<(u16, String)>,
}

/// Who takes what arrives.
pub trait Handler: Send + Sync {
    /// Takes the messages of one frame (no ack, no nack), in order, and returns when their
    /// outcome is durable.
    fn frame(
        &self,
        messages: Vec<Result<Envelope, Rejected>>,
    ) -> impl Future<Output = Answers> + Send;

    /// A message of ours was acknowledged or refused by the peer. The pump has recorded it.
    fn settled(&self, _message_ids: &[String]) {}

    /// The answer to a heartbeat says this of the two journals.
    fn witnessed(&self, _heads: Heads) {}
}

/// How a connection is to be kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our own agent id, the sender of our acks.
    pub agent_id: String,
    /// The namespace of the session.
    pub namespace: String,
    /// Unacknowledged messages under way.
    pub window: usize,
    /// Time between pings.
    pub ping_interval: Duration,
}

/// Why a conversation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it.
    Closed(u16, String),
    /// The link is gone.
    Lost(String),
    /// The peer, or something before it, lets nothing of ours in.
    Barred(String),
    /// This side was asked to stop.
    Stopped,
    /// The store of this side stopped: nothing can be acknowledged any more.
    StoreStopped,
}

/// Drives one connection until it ends. What is unanswered then is pending again. `control` brings
/// messages that are neither stored nor acknowledged (heartbeats), and closing requests.
pub async fn run(
    mut socket: Socket,
    pump: &impl Feed,
    handler: &impl Handler,
    settings: &Settings,
    control: &mut mpsc::Receiver<Wire>,
    mut stop: watch::Receiver<bool>,
) -> Ended {
    let ended = drive(&mut socket, pump, handler, settings, control, &mut stop).await;
    if pump.broken().await.is_err() {
        return Ended::StoreStopped;
    }
    ended
}

async fn drive(
    socket: &mut Socket,
    pump: &impl Feed,
    handler: &impl Handler,
    settings: &Settings,
    control: &mut mpsc::Receiver<Wire>,
    stop: &mut watch::Receiver<bool>,
) -> Ended {
    let mut ping = interval(settings.ping_interval);
    // Pings that were missed here, as the store was waited for, say nothing of the peer.
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset_at(Instant::now() + settings.ping_interval);
    // The number of the last ping, and when it was sent.
    let (mut number, mut sent_at) = (0, Instant::now());
    let mut silent = 0;
    let limit = 2 * settings.ping_interval;
    loop {
        let room = settings.window.saturating_sub(pump.in_flight()).min(BATCH_MESSAGES_MAX);
        let outcome = tokio::select! {
            received = socket.receive() => {
                silent = 0;
                let is_answer = received == Some(Ok(Wire::Pong(number)));
                if is_answer && pump.arrived(sent_at).await.is_err() {
                    return Ended::StoreStopped;
                }
                take(socket, received, pump, handler, settings).await
            }
            batch = pump.next(room), if room > 0 => send_batch(socket, batch, limit).await,
            given_up = pump.overdue() => given_up.map_err(|_| Ended::StoreStopped),
            Some(wire) = control.recv() => send_control(socket, wire, limit).await,
            _ = ping.tick() => {
                silent += 1;
                if silent > PINGS_MISSED_MAX {
                    Err(Ended::Lost("the peer did not answer two pings".into()))
                } else {
                    (number, sent_at) = (number + 1, Instant::now());
                    send(socket, Wire::Ping(number), limit).await
                }
            }
            () = asked_to_stop(stop) => {
                let close = Wire::Close(CLOSE_GOING_AWAY, "stopping".into());
                let _ = timeout(CLOSE_TIMEOUT, socket.send(close)).await;
                Err(Ended::Stopped)
            }
        };
        if let Err(ended) = outcome {
            return ended;
        }
    }
}

/// Waits until this side is asked to stop, or nobody is left who could ask.
pub(super) async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Sends within a time: while it waits for a peer that takes nothing, this side hears nobody.
async fn send(socket: &mut Socket, wire: Wire, limit: Duration) -> Result<(), Ended> {
    let sent = timeout(limit, socket.send(wire)).await;
    sent.unwrap_or_else(|_| Err("the peer takes nothing more".into())).map_err(Ended::Lost)
}

async fn send_control(socket: &mut Socket, wire: Wire, limit: Duration) -> Result<(), Ended> {
    let close = match &wire {
        Wire::Close(code, reason) => Some(Ended::Closed(*code, reason.clone())),
        _ => None,
    };
    send(socket, wire, limit).await?;
    close.map_or(Ok(()), Err)
}

async fn send_batch(
    socket: &mut Socket,
    batch: Vec<Outgoing>,
    limit: Duration,
) -> Result<(), Ended> {
    let mut frame = String::new();
    let mut count = 0;
    for message in batch {
        // What lies in the journal was checked to be UTF-8 when it was accepted.
        let text = String::from_utf8_lossy(&message.bytes).into_owned();
        if count > 0 && frame.len() + text.len() + 2 > MESSAGE_BYTES_MAX {
            let whole = closed(std::mem::take(&mut frame), count);
            send(socket, Wire::Text(whole), limit).await?;
            count = 0;
        }
        frame.push(if count == 0 { '[' } else { ',' });
        frame.push_str(&text);
        count += 1;
    }
    send(socket, Wire::Text(closed(frame, count)), limit).await
}

/// A frame of one message is the message itself: its brackets would count against the limit.
fn closed(mut frame: String, count: usize) -> String {
    if count == 1 {
        frame.remove(0);
    } else {
        frame.push(']');
    }
    frame
}

async fn take(
    socket: &mut Socket,
    received: Option<Result<Wire, String>>,
    pump: &impl Feed,
    handler: &impl Handler,
    settings: &Settings,
) -> Result<(), Ended> {
    match received {
        None => Err(Ended::Lost("the connection ended".into())),
        Some(Err(error)) => Err(Ended::Lost(error)),
        Some(Ok(Wire::Close(code, reason))) => Err(Ended::Closed(code, reason)),
        Some(Ok(Wire::Ping(_) | Wire::Pong(_))) => Ok(()),
        Some(Ok(Wire::Binary)) => {
            let reason = "send text frames; binary ones are not part of the protocol".to_owned();
            send(socket, Wire::Close(CLOSE_UNSUPPORTED, reason.clone()), CLOSE_TIMEOUT).await?;
            Err(Ended::Closed(CLOSE_UNSUPPORTED, reason))
        }
        Some(Ok(Wire::Text(text))) => {
            let messages = match parse_frame_within(text, RELAYED_BYTES_MAX) {
                Ok(frame) => frame.messages,
                Err(refusal) => vec![Err(Rejected::from(refusal))],
            };
            let rest = settle(messages, pump, handler).await?;
            if rest.is_empty() {
                return Ok(());
            }
            let answers = handler.frame(rest).await;
            answer(socket, answers, settings).await
        }
    }
}

/// Gives acks and nacks to the pump; returns what is left, in order.
async fn settle(
    messages: Vec<Result<Envelope, Rejected>>,
    pump: &impl Feed,
    handler: &impl Handler,
) -> Result<Vec<Result<Envelope, Rejected>>, Ended> {
    let mut rest = Vec::with_capacity(messages.len());
    for message in messages {
        let receipt = match &message {
            Ok(envelope) => receipt(envelope),
            Err(_) => None,
        };
        let Some(Receipt { ids, refusal, heads }) = receipt else {
            rest.push(message);
            continue;
        };
        let recorded = match refusal {
            None => pump.delivered(&ids).await,
            // Not the message is refused but whoever sends it: it waits for the next session.
            Some(refusal) if refusal.code == ErrorCode::SessionReplaced => {
                return Err(Ended::Closed(CLOSE_REPLACED, refusal.detail));
            }
            Some(refusal) => {
                let mut recorded = Ok(());
                for id in &ids {
                    recorded = recorded.and(pump.refused(id, refusal.clone()).await);
                }
                recorded
            }
        };
        recorded.map_err(|_| Ended::StoreStopped)?;
        handler.settled(&ids);
        if !heads.is_empty() {
            handler.witnessed(heads);
        }
    }
    Ok(rest)
}

/// What an ack or a nack says.
#[derive(Debug, PartialEq)]
struct Receipt {
    ids: Vec<String>,
    refusal: Option<Refusal>,
    heads: Heads,
}

/// The ids that an ack or nack answers. A nack of an id of its own tells what became of a message
/// later on: that is a message, to be stored and acknowledged like any other.
fn receipt(envelope: &Envelope) -> Option<Receipt> {
    match envelope.message_type() {
        MessageType::Nack if envelope.message_id().is_some() => None,
        MessageType::Ack => {
            let ack: Ack = serde_json::from_slice(envelope.payload_raw()).unwrap_or_default();
            let ids = ack.ids().map(Into::into).collect();
            let heads = Heads { journal_head: ack.journal_head, peer_head: ack.peer_head };
            Some(Receipt { ids, refusal: None, heads })
        }
        MessageType::Nack => {
            let nack: Nack = serde_json::from_slice(envelope.payload_raw()).ok()?;
            let ids = nack.ids().map(Into::into).collect();
            Some(Receipt { ids, refusal: Some(nack.refusal()), heads: Heads::default() })
        }
        _ => None,
    }
}

async fn answer(socket: &mut Socket, answers: Answers, settings: &Settings) -> Result<(), Ended> {
    for wire in receipts(&answers.answers, settings) {
        send(socket, wire, 2 * settings.ping_interval).await?;
    }
    match answers.close {
        None => Ok(()),
        Some((code, reason)) => {
            send(socket, Wire::Close(code, reason.clone()), CLOSE_TIMEOUT).await?;
            Err(Ended::Closed(code, reason))
        }
    }
}

/// One ack for all that were taken with an id of their own, one for each assigned id or heartbeat
/// that is told of journals, and one nack for each refusal.
pub fn receipts(answers: &[Answer], settings: &Settings) -> Vec<Wire> {
    let is_alone = |answer: &Answer| answer.index.is_some() || !answer.heads.is_empty();
    let taken = |answer: &&Answer| answer.outcome.is_ok() && !is_alone(answer);
    let ids: Vec<String> =
        answers.iter().filter(taken).filter_map(|answer| answer.message_id.clone()).collect();
    let mut wires = Vec::new();
    if !ids.is_empty() {
        wires.extend(compose(MessageType::Ack, &Ack::of(ids), settings));
    }
    for answer in answers {
        match &answer.outcome {
            Ok(()) if is_alone(answer) => {
                let Heads { journal_head, peer_head } = answer.heads.clone();
                let ack = Ack {
                    message_id: answer.message_id.clone(),
                    index: answer.index,
                    journal_head,
                    peer_head,
                    ..Ack::default()
                };
                wires.extend(compose(MessageType::Ack, &ack, settings));
            }
            Ok(()) => {}
            Err(refusal) => {
                let mut nack = Nack::of(answer.message_id.clone(), refusal);
                nack.index = answer.index;
                wires.extend(compose(MessageType::Nack, &nack, settings));
            }
        }
    }
    wires
}

fn compose(
    message_type: MessageType,
    payload: &impl serde::Serialize,
    settings: &Settings,
) -> Option<Wire> {
    let fields = Fields {
        agent_id: Some(&settings.agent_id),
        namespace: Some(&settings.namespace),
        ..Fields::default()
    };
    // The ids come from messages that were read, and the rest is our own.
    EnvelopeBuilder::new(message_type, fields).payload(payload).text().ok().map(Wire::Text)
}

/// The text frame of one message.
pub fn wire(envelope: &Envelope) -> Wire {
    Wire::Text(String::from_utf8_lossy(envelope.raw()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parse_one;

    #[test]
    fn a_nack_with_an_id_of_its_own_is_a_message_and_no_answer() {
        let error = r#""payload":{"message_id":"m","error":{"code":"undeliverable"}}"#;
        let answer = format!(r#"{{"message_type":"nack",{error}}}"#);
        let read = receipt(&parse_one(answer).unwrap()).expect("an answer");
        assert_eq!((read.ids, read.refusal.is_some()), (vec!["m".to_owned()], true));
        let message = format!(r#"{{"message_type":"nack","message_id":"n",{error}}}"#);
        assert_eq!(receipt(&parse_one(message).unwrap()), None);
    }
}
