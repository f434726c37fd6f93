//! Messages as the server's store holds them: what was received, once for each id, and the
//! mailbox of each agent. It knows no socket and does not decide what a message does.

use storage::event::Event;
use storage::messages::BodyPlace;
use storage::record::{
    Direction, EntryId, Level, MessageHead, MessageKey, Reason, Status,
};
use storage::store::Store;
use storage::transaction::{Act, Body, Change, Transaction};

use crate::clock::Millis;
use crate::protocol::payload::{Priority, TaskOffer};
use crate::protocol::{Envelope, ErrorCode, MessageType, Refusal, id_time};
use crate::retry::Policy;

/// How a message was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It is durable with its effects.
    Accepted,
    /// It was durable before.
    Duplicate,
}

/// The key of an agent's mailbox.
pub fn mailbox(namespace: &str, agent_id: &str) -> String {
    format!("{namespace}/{agent_id}")
}

/// The key of a message in an agent's mailbox.
pub fn outbound<'a>(namespace: &'a str, peer: &'a str, message_id: &'a str) -> MessageKey<'a> {
    MessageKey { direction: Direction::Outbound, namespace, peer, message_id }
}

/// Admits a received message: duplicate, expiry, then its effects and its record in one frame.
///
/// # Errors
/// Why it is refused; nothing of it is kept then.
pub fn admit(
    tx: &mut Transaction<'_>,
    envelope: &Envelope,
    namespace: &str,
    sender: &str,
    oldest: Millis,
    effect: impl FnOnce(&mut Transaction<'_>) -> Result<(), Refusal>,
) -> Result<Admitted, Refusal> {
    let id = envelope.message_id();
    if let Some(message_id) = id {
        let key =
            MessageKey { direction: Direction::Inbound, namespace, peer: sender, message_id };
        if tx.find(&key).is_some() {
            let act = Act::new(Event::MessageDuplicate, sender, namespace, message_id);
            tx.note(act.level(Level::Debug));
            return Ok(Admitted::Duplicate);
        }
        if id_time(message_id).is_some_and(|at| at < oldest) {
            let detail = "send it again with a new message id; this one is older than the memory";
            return Err(Refusal::new(ErrorCode::StaleId, detail).at("message_id"));
        }
    }
    if envelope.is_expired(tx.now()) {
        let detail = "its expires_at has passed; nothing was done";
        return Err(Refusal::new(ErrorCode::Gone, detail).at("expires_at"));
    }
    effect(tx)?;
    if let Some(message_id) = id {
        let mut head = head(envelope, namespace, message_id, tx.now());
        head.direction = Direction::Inbound;
        head.status = Status::Processed;
        sender.clone_into(&mut head.peer);
        sender.clone_into(&mut head.sender);
        let act = Act::new(Event::MessageProcessed, sender, namespace, message_id);
        tx.accept(act, head, Body::new(envelope.raw()));
    }
    Ok(Admitted::Accepted)
}

/// Puts a message into an agent's mailbox.
pub fn stage(
    tx: &mut Transaction<'_>,
    envelope: &Envelope,
    namespace: &str,
    to: &str,
    sender: &str,
) -> Option<EntryId> {
    let message_id = envelope.message_id()?;
    let mut head = head(envelope, namespace, message_id, tx.now());
    to.clone_into(&mut head.peer);
    sender.clone_into(&mut head.sender);
    head.destination = mailbox(namespace, to);
    let act = Act::new(Event::MessageQueued, sender, namespace, message_id);
    Some(tx.accept(act, head, Body::new(envelope.raw())))
}

fn head(envelope: &Envelope, namespace: &str, message_id: &str, now: Millis) -> MessageHead {
    let offer = (*envelope.message_type() == MessageType::TaskOffer)
        .then(|| envelope.payload::<TaskOffer>().ok())
        .flatten();
    let priority = offer.as_ref().map_or(Priority::Normal, |offer| offer.priority);
    MessageHead {
        direction: Direction::Outbound,
        message_id: message_id.to_owned(),
        message_type: envelope.message_type().as_str().to_owned(),
        namespace: namespace.to_owned(),
        peer: String::new(),
        destination: String::new(),
        sender: String::new(),
        lane: envelope.lane_key().unwrap_or_default().to_owned(),
        priority: priority as u8,
        created_at: envelope.timestamp().unwrap_or(now),
        deadline: offer.and_then(|offer| offer.deadline),
        expires_at: envelope.expires_at(),
        task_id: envelope.task_id().map(str::to_owned),
        correlation_id: envelope.correlation_id().map(str::to_owned),
        retry_of: None,
        sealed: envelope.sealed().is_some(),
        size: u32::try_from(envelope.raw().len()).unwrap_or(u32::MAX),
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: now,
    }
}

/// The recipient has these messages on stable storage. Unknown ids are left alone.
pub fn delivered(tx: &mut Transaction<'_>, namespace: &str, agent_id: &str, ids: &[String]) {
    for id in ids {
        let Some(known) = tx.find(&outbound(namespace, agent_id, id)) else { continue };
        let Some(live) = tx.live(known.entry).cloned() else { continue };
        let act = Act::new(Event::MessageDelivered, agent_id, namespace, id);
        let change = Change {
            status: Status::Delivered,
            reason: Reason::None,
            attempts: live.attempts.saturating_add(1),
            next_attempt_at: 0,
            ..Change::of(&live)
        };
        tx.change(act, &live, change);
    }
}

/// The recipient refused a message: later again, or for good. Gives back the type, sender and task
/// of one that failed for good.
pub fn refused(
    tx: &mut Transaction<'_>,
    namespace: &str,
    agent_id: &str,
    message_id: &str,
    refusal: &Refusal,
) -> Option<storage::messages::Live> {
    let known = tx.find(&outbound(namespace, agent_id, message_id))?;
    let live = tx.live(known.entry).cloned()?;
    let attempts = live.attempts.saturating_add(1);
    let error = refusal.code.as_str().to_owned();
    let (event, change) = if refusal.retryable {
        let bound = super::desk::millis(Policy::default().bound(attempts));
        let wished = refusal.retry_after_seconds.unwrap_or(0).saturating_mul(1_000);
        let next_attempt_at = tx.now().saturating_add(bound.max(wished));
        let change =
            Change { status: Status::Pending, attempts, next_attempt_at, error, ..Change::of(&live) };
        (Event::MessageRetry, change)
    } else {
        let change = Change {
            status: Status::Failed,
            reason: Reason::Permanent,
            attempts,
            next_attempt_at: 0,
            error,
            ..Change::of(&live)
        };
        (Event::MessageFailed, change)
    };
    tx.change(Act::new(event, agent_id, namespace, message_id).level(Level::Warning), &live, change);
    (!refusal.retryable).then_some(live)
}

/// Marks messages of a mailbox whose time is over.
pub fn expired(tx: &mut Transaction<'_>, entries: &[EntryId]) {
    for entry in entries {
        let Some(live) = tx.live(*entry).cloned() else { continue };
        let head = &live.head;
        let act =
            Act::new(Event::MessageExpired, &head.peer, &head.namespace, &head.message_id);
        let change = Change { status: Status::Expired, next_attempt_at: 0, ..Change::of(&live) };
        tx.change(act, &live, change);
    }
}

/// A message of a mailbox, ready to go out.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its entry, which is its place in the order.
    pub entry: EntryId,
    /// Its id.
    pub message_id: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The unacknowledged messages of a mailbox after an entry, oldest first. Takes nothing out.
pub fn unacknowledged(
    store: &Store,
    mailbox: &str,
    after: Option<EntryId>,
    limit: usize,
    now: Millis,
) -> Vec<Outgoing> {
    let found: Vec<(EntryId, String, BodyPlace)> = store.messages(|messages| {
        messages
            .iter()
            .filter(|live| {
                live.head.destination == mailbox
                    && matches!(live.status, Status::Pending | Status::Sending)
                    && after.is_none_or(|after| live.entry > after)
                    && live.head.expires_at.is_none_or(|at| at > now)
            })
            .take(limit)
            .map(|live| (live.entry, live.head.message_id.clone(), live.body))
            .collect()
    });
    read(store, found)
}

/// Takes due messages of a mailbox out for sending; [`put_back`] undoes it.
pub fn take(store: &Store, mailbox: &str, limit: usize, now: Millis) -> Vec<Outgoing> {
    let entries = store.queues(|queues| queues.take(mailbox, now, limit));
    let found: Vec<_> = store.messages(|messages| {
        let live = entries.iter().filter_map(|entry| messages.live(*entry));
        live.map(|live| (live.entry, live.head.message_id.clone(), live.body)).collect()
    });
    read(store, found)
}

/// Puts messages back that were taken and not answered.
pub fn put_back(store: &Store, mailbox: &str, entries: &[EntryId]) {
    store.queues(|queues| queues.release(mailbox, entries));
}

fn read(store: &Store, found: Vec<(EntryId, String, BodyPlace)>) -> Vec<Outgoing> {
    found
        .into_iter()
        .filter_map(|(entry, message_id, place)| {
            let bytes = store.body(place).ok()?;
            Some(Outgoing { entry, message_id, bytes })
        })
        .collect()
}
