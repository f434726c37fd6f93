//! Takes the messages of one frame or request: judges, admits and applies each in order, and says
//! what became of it when all of it is durable. It knows no socket.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use storage::event::Event;
use storage::record::Level;
use storage::store::CommitError;
use storage::transaction::{Act, Body};
use tokio::time::Instant;

use super::core::{Core, unavailable};
use super::desk::{Desk, millis};
use super::lanes::Lanes;
use super::model::Session;
use super::{apply, mail, measure, progress, registry, witness};
use crate::audit::heads;
use crate::inbox::{self, Arrival};
use crate::protocol::payload::{Ack, Heartbeat, Nack, Register, RegisterAck, TaskUpdate};
use crate::protocol::{
    Envelope, ErrorCode, Fields, MessageType, Refusal, Rejected, is_identifier, validate,
};
use crate::trace::traced;

/// Unacknowledged messages that may be under way, each way.
pub const WINDOW: u32 = 256;

/// What became of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It is durable; a `register` and some heartbeats have an answer of their own.
    Accepted(Option<Value>),
    /// It was durable before.
    Duplicate,
    /// It was refused.
    Refused(Refusal),
}

/// What became of a message, and which one it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Its id, its own or the assigned one.
    pub message_id: Option<String>,
    /// Its position in the frame, when it had no id of its own.
    pub index: Option<u32>,
    /// Its type, where it could be read.
    pub message_type: Option<MessageType>,
    /// What became of it.
    pub fate: Fate,
    /// Whom a `register` made known: namespace and agent.
    pub registered: Option<(String, String)>,
}

/// Where messages come from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The agent, when the connection belongs to one.
    pub agent_id: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// The session that the sender claims to have.
    pub session_id: Option<String>,
    /// Messages that one frame may have, as none of them is acknowledged before all are taken.
    pub window: Option<u32>,
    /// Lanes in which a message was refused that will come again.
    pub blocked: Arc<Mutex<Lanes>>,
}

/// Takes messages in order; returns when everything is durable.
pub async fn take(
    core: &Arc<Core>,
    source: &Source,
    messages: Vec<Result<Envelope, Rejected>>,
) -> Vec<Taken> {
    let is_new = |message: &Result<Envelope, Rejected>| {
        message.as_ref().is_ok_and(|envelope| envelope.message_type().is_durable())
    };
    if messages.iter().any(is_new)
        && let Some(room) = core.store.room()
    {
        // A store that stopped meanwhile says so to each message.
        let _ = room.await;
    }
    let begun = Instant::now();
    let mut commits = Vec::with_capacity(messages.len());
    for (position, message) in messages.into_iter().enumerate() {
        commits.push(begin(core, source, position, message));
    }
    let mut taken = Vec::with_capacity(commits.len());
    let mut notes = Vec::new();
    for (mut one, arrival, commit) in commits {
        if let (Some(commit), Some(arrival)) = (commit, &arrival) {
            measure::received(arrival.envelope.message_type().as_str());
            let committed = commit.await;
            measure::commit(begun, committed.is_ok());
            one.fate = match committed {
                Ok(result) => result.unwrap_or_else(Fate::Refused),
                Err(error) => unwritten(core, source, arrival, &one, &error),
            };
        }
        if let Fate::Refused(refusal) = &one.fate
            && !core.store.is_full()
        {
            notes.push(match arrival {
                Some(arrival) => note(core, arrival, refusal.clone()),
                None => note_unread(core, source, one.message_id.clone(), refusal.clone()),
            });
        }
        taken.push(one);
    }
    for note in notes {
        written(note).await;
    }
    measure::operation("messages", begun);
    taken
}

/// What matters of a message's place in its frame.
#[derive(Clone, Copy)]
struct Place {
    has_own_id: bool,
    /// It lies within the window.
    has_room: bool,
}

/// The fate of a message when the store did not write: a duplicate needs no writing.
fn unwritten(
    core: &Core,
    source: &Source,
    arrival: &Arrival,
    one: &Taken,
    error: &CommitError,
) -> Fate {
    match inbox::recorded(&core.store, arrival) {
        Some(Ok(_)) => Fate::Duplicate,
        Some(Err(refusal)) => Fate::Refused(refusal),
        None => {
            if let Some(lane) = lane(arrival) {
                source.blocked.lock().block(&lane, &identity(arrival, one.index.is_none()));
            }
            Fate::Refused(unavailable(error))
        }
    }
}

/// The lane of a message on a connection.
fn lane(arrival: &Arrival) -> Option<String> {
    let (namespace, sender) = (arrival.namespace.as_str(), arrival.sender.as_str());
    let envelope = &arrival.envelope;
    let to = envelope.recipient().unwrap_or_default();
    envelope.lane_key().map(|lane| format!("{namespace}\0{sender}\0{to}\0{lane}"))
}

/// By what a message is known again when it comes again: without an id of its own, by its content.
fn identity(arrival: &Arrival, has_own_id: bool) -> String {
    if has_own_id {
        return arrival.message_id().to_owned();
    }
    heads::hex(&arrival.envelope.body_digest())
}

type Deciding = storage::commit::Commit<Result<Fate, Refusal>>;

fn begin(
    core: &Arc<Core>,
    source: &Source,
    position: usize,
    message: Result<Envelope, Rejected>,
) -> (Taken, Option<Arc<Arrival>>, Option<Deciding>) {
    let index = u32::try_from(position).unwrap_or(u32::MAX);
    let rejected = |message_id: Option<String>, refusal| Taken {
        index: message_id.is_none().then_some(index),
        message_id,
        message_type: None,
        fate: Fate::Refused(refusal),
        registered: None,
    };
    let envelope = match message {
        Ok(envelope) => envelope,
        Err(one) => return (rejected(one.message_id, one.refusal), None, None),
    };
    let own_id = envelope.message_id().map(str::to_owned);
    let arrival = match arrive(core, source, &envelope) {
        Ok(arrival) => Arc::new(arrival),
        Err(refusal) => return (rejected(own_id, refusal), None, None),
    };
    let message_type = envelope.message_type().clone();
    let is_register = message_type == MessageType::Register;
    let taken = Taken {
        index: own_id.is_none().then_some(index),
        message_id: arrival.envelope.message_id().map(str::to_owned),
        message_type: Some(message_type),
        fate: Fate::Accepted(None),
        registered: is_register.then(|| (arrival.namespace.clone(), arrival.sender.clone())),
    };
    let place = Place {
        has_own_id: taken.index.is_none(),
        has_room: source.window.is_none_or(|window| index < window),
    };
    let commit = decide(core, source, Arc::clone(&arrival), place);
    (taken, Some(arrival), Some(commit))
}

/// Fills in what the sender left out, and checks that it is who the connection belongs to.
fn arrive(core: &Core, source: &Source, envelope: &Envelope) -> Result<Arrival, Refusal> {
    let sender = match (&source.agent_id, envelope.agent_id()) {
        (Some(owner), Some(given)) if owner != given => {
            let detail = format!("send as {owner}, whose session this is");
            return Err(Refusal::new(ErrorCode::Forbidden, detail).at("agent_id"));
        }
        (Some(owner), _) => owner.clone(),
        (None, _) => envelope.sending_agent()?.to_owned(),
    };
    let namespace = match (&source.namespace, envelope.given_namespace()) {
        (Some(own), Some(given)) if own != given => {
            let detail = format!("use the namespace {own} of this session; nothing crosses");
            return Err(Refusal::new(ErrorCode::Forbidden, detail).at("namespace"));
        }
        (Some(own), _) => own.clone(),
        (None, _) => envelope.namespace().to_owned(),
    };
    // To draw an id takes a call of the system.
    let drawn = envelope.message_id().is_none().then(|| core.clock.message_id());
    let envelope = envelope.fill_missing(&Fields {
        message_id: drawn.as_deref(),
        agent_id: Some(&sender),
        namespace: Some(&namespace),
        timestamp: Some(core.clock.now()),
        ..Fields::default()
    })?;
    Ok(Arrival { envelope, namespace, sender, dedup_window: millis(core.rules.dedup_window) })
}

fn decide(core: &Arc<Core>, source: &Source, arrival: Arc<Arrival>, place: Place) -> Deciding {
    let session_id = source.session_id.clone();
    let blocked = Arc::clone(&source.blocked);
    let window = core.rules.dedup_window.as_secs();
    let durable = arrival.envelope.message_type().is_durable();
    let body = Body::new(if durable { arrival.envelope.raw() } else { b"" });
    core.decide(move |desk| {
        let (namespace, sender) = (arrival.namespace.as_str(), arrival.sender.as_str());
        let envelope = &arrival.envelope;
        if *envelope.message_type() == MessageType::Register {
            return open(desk, &arrival, place, window);
        }
        let agent = desk.agent(namespace, sender);
        registry::check_session(agent.as_ref(), session_id.as_deref())?;
        registry::alive(desk, agent);
        if let Some(fate) = fleeting(desk, &arrival)? {
            return Ok(fate);
        }
        if inbox::is_known(desk.tx, &arrival) {
            return known(desk, &arrival, body);
        }
        if is_surplus(desk, &arrival) {
            return Ok(Fate::Accepted(None));
        }
        let lane = lane(&arrival).map(|lane| (lane, identity(&arrival, place.has_own_id)));
        let is_blocked =
            lane.as_ref().is_some_and(|(lane, message)| !blocked.lock().is_open(lane, message));
        let result = if is_blocked {
            let detail = "an earlier message of this ordering key was refused; send it first";
            Err(Refusal::new(ErrorCode::LaneBlocked, detail))
        } else if !place.has_room {
            let detail = "send it again when earlier ones are acknowledged; the window is full";
            Err(Refusal::new(ErrorCode::WindowExceeded, detail))
        } else {
            let Desk { clock, life, rules, store, traffic, .. } = *desk;
            // What is relayed as it came has the same body, and so the same salt and digest.
            let is_relayed = envelope.recipient().is_some();
            let prepared = is_relayed.then(|| (envelope.raw().clone(), body.clone()));
            let trace = desk.trace(namespace, envelope);
            let content = (body, trace.as_deref());
            inbox::admit(desk.tx, store, &arrival, content, |tx| {
                let desk = &mut Desk { tx, clock, life, rules, store, traffic, prepared };
                apply::message(desk, namespace, sender, envelope)
            })
        };
        if let Some((lane, message)) = lane {
            let mut lanes = blocked.lock();
            match &result {
                Err(refusal) if refusal.retryable => lanes.block(&lane, &message),
                _ => lanes.open(&lane),
            }
        }
        result.map(|_| Fate::Accepted(None))
    })
}

/// Opens a session, or finds the one that this `register` opened before.
fn open(
    desk: &mut Desk<'_, '_>,
    arrival: &Arrival,
    place: Place,
    window: u64,
) -> Result<Fate, Refusal> {
    let (namespace, sender) = (arrival.namespace.as_str(), arrival.sender.as_str());
    let register = arrival.envelope.payload::<Register>()?;
    let own_id = place.has_own_id.then(|| arrival.message_id());
    let before = registry::again(desk, namespace, sender, &register, own_id)?;
    let witnessed = witness::answer(desk, namespace, sender, &register);
    let session = match before {
        Some(before) => before,
        None => registry::register(desk, namespace, sender, register, own_id)?,
    };
    let greeting = greeting(desk, &arrival.envelope, &session, window, witnessed);
    Ok(Fate::Accepted(Some(greeting)))
}

/// A message whose id is known: nothing happens again.
fn known(desk: &mut Desk<'_, '_>, arrival: &Arrival, body: Body) -> Result<Fate, Refusal> {
    inbox::admit(desk.tx, desk.store, arrival, (body, None), |_| Ok(()))?;
    let (sender, namespace) = (&arrival.sender, &arrival.namespace);
    if !desk.store.is_full() {
        let act = Act::new(Event::MessageDuplicate, sender, namespace, arrival.message_id());
        desk.note(traced(act, desk.trace(namespace, &arrival.envelope).as_deref()));
    }
    Ok(Fate::Duplicate)
}

/// Whether a message is an update that is acknowledged and dropped. Its id is not remembered: what
/// it says is not worth it, and said again it is judged again.
fn is_surplus(desk: &Desk<'_, '_>, arrival: &Arrival) -> bool {
    let (namespace, sender) = (arrival.namespace.as_str(), arrival.sender.as_str());
    let envelope = &arrival.envelope;
    if *envelope.message_type() != MessageType::TaskUpdate || validate(envelope).is_err() {
        return false;
    }
    let task = envelope.task_id().and_then(|task_id| desk.find_task(namespace, task_id));
    let update = envelope.payload::<TaskUpdate>().ok();
    task.zip(update)
        .is_some_and(|(task, update)| progress::is_surplus(&task, sender, &update, desk.now()))
}

/// Takes what is never stored: heartbeats and receipts.
fn fleeting(desk: &mut Desk<'_, '_>, arrival: &Arrival) -> Result<Option<Fate>, Refusal> {
    let (namespace, sender) = (arrival.namespace.as_str(), arrival.sender.as_str());
    let envelope = &arrival.envelope;
    match envelope.message_type() {
        MessageType::Heartbeat => {
            let heartbeat = envelope.payload::<Heartbeat>()?;
            let heads = registry::heartbeat(desk, namespace, sender, &heartbeat)?;
            let told = (!heads.is_empty()).then(|| serde_json::to_value(heads).unwrap_or_default());
            return Ok(Some(Fate::Accepted(told)));
        }
        MessageType::Ack => {
            let ids: Vec<String> = envelope.payload::<Ack>()?.ids().map(str::to_owned).collect();
            mail::delivered(desk, namespace, sender, &ids);
        }
        MessageType::Nack => {
            let nack = envelope.payload::<Nack>()?;
            for id in nack.ids() {
                mail::refused(desk, namespace, sender, id, &nack.refusal());
            }
        }
        _ => return Ok(None),
    }
    Ok(Some(Fate::Accepted(None)))
}

/// The payload of the `ack` that answers a `register`.
fn greeting(
    desk: &Desk<'_, '_>,
    envelope: &Envelope,
    session: &Session,
    window: u64,
    (peer_head, peer_head_known): (Option<String>, Option<bool>),
) -> Value {
    let ack = RegisterAck {
        message_id: envelope.message_id().filter(|id| is_identifier(id)).map(str::to_owned),
        session_id: Some(session.session_id.clone()),
        heartbeat_interval: Some(desk.rules.heartbeat.as_secs_f64()),
        window: Some(WINDOW),
        dedup_window_seconds: Some(window),
        server_time: Some(desk.now()),
        journal_head: Some(heads::head(desk.store.reader()).into()),
        peer_head: peer_head.map(Into::into),
        peer_head_known,
    };
    serde_json::to_value(ack).unwrap_or_default()
}

/// The entry of a refusal, under way to the journal.
pub type Note = storage::commit::Commit<Result<(), Refusal>>;

fn note(core: &Arc<Core>, arrival: Arc<Arrival>, refusal: Refusal) -> Note {
    core.decide(move |desk| {
        if desk.writes(inbox::event_of(&refusal), Level::Warning) {
            inbox::note_refusal(desk.tx, &arrival, &refusal);
        }
        Ok(())
    })
}

/// Waits until an entry is in the journal; the refusal is given without it if need be.
pub async fn written(note: Note) {
    if let Err(error) = note.await {
        tracing::warn!(%error, "a refusal could not be recorded");
    }
}

/// Records that something arrived that is not a message. It has no sender but that of its
/// connection, and nothing of it is kept.
pub fn note_unread(
    core: &Arc<Core>,
    source: &Source,
    message_id: Option<String>,
    refusal: Refusal,
) -> Note {
    let actor = source.agent_id.clone().unwrap_or_else(|| "unknown".to_owned());
    let namespace = source.namespace.clone().unwrap_or_default();
    core.decide(move |desk| {
        let details = json!({"code": refusal.code.as_str(), "field": refusal.field});
        let resource = message_id.unwrap_or_default();
        let act = Act::new(Event::MessageRejected, &actor, &namespace, &resource);
        desk.note(act.level(Level::Warning).details(details.to_string()));
        Ok(())
    })
}
