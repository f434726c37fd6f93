//! Admits what arrives: the order of checks, deduplication, one outcome for each message. It
//! answers nobody and knows no socket: the caller turns the outcome into an ack or a nack.

use storage::event::Event;
use storage::record::{Direction, MessageHead, MessageKey, Reason, Status, id_time};
use storage::store::{CommitError, Store};
use storage::transaction::{Act, Body, Transaction};

use crate::clock::Millis;
use crate::protocol::{Envelope, ErrorCode, RELAYED_BYTES_MAX, Refusal, parse_one_within, payload};
use crate::trace::traced;

/// How a message was admitted. Both are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// New: it and its effect are in this decision.
    Accepted,
    /// Known already: nothing happens again.
    Duplicate,
}

/// What admission needs to know beside the message.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The message, with its id and sender filled in.
    pub envelope: Envelope,
    /// Its namespace.
    pub namespace: String,
    /// Who sent it, as the session says.
    pub sender: String,
    /// Ids whose time lies further back are refused as stale, milliseconds.
    pub dedup_window: Millis,
}

impl Arrival {
    /// The id, which the caller has filled in.
    pub fn message_id(&self) -> &str {
        self.envelope.message_id().unwrap_or_default()
    }

    fn key(&self) -> MessageKey<'_> {
        MessageKey {
            direction: Direction::Inbound,
            namespace: &self.namespace,
            peer: &self.sender,
            message_id: self.message_id(),
        }
    }
}

/// Judges a message in the order of the protocol (duplicate, expiry, then what `effect` checks) and
/// records it with its effect in this one decision. `trace` is the one that the message belongs to,
/// also when it only names a task that does.
///
/// # Errors
/// The refusal to answer with. The decision must then be discarded as a whole: a refused id is
/// not remembered.
pub fn admit(
    transaction: &mut Transaction<'_>,
    store: &Store,
    arrival: &Arrival,
    (body, trace): (Body, Option<&str>),
    effect: impl FnOnce(&mut Transaction<'_>) -> Result<(), Refusal>,
) -> Result<Admitted, Refusal> {
    if transaction.find(&arrival.key()).is_some() {
        check_same(transaction, store, &arrival.key(), &arrival.envelope)?;
        return Ok(Admitted::Duplicate);
    }
    payload::validate(&arrival.envelope)?;
    let now = transaction.now();
    let stale = id_time(arrival.message_id())
        .is_some_and(|written| written + arrival.dedup_window < now && arrival.dedup_window > 0);
    if stale {
        let detail = "this id is older than the window in which ids are remembered; send the \
                      message again with a new id";
        return Err(Refusal::new(ErrorCode::StaleId, detail).at("message_id"));
    }
    if arrival.envelope.is_expired(now) {
        let detail = "the message's expires_at has passed; send it again with a later one";
        return Err(Refusal::new(ErrorCode::Gone, detail).at("expires_at"));
    }
    check_room(store)?;
    let act =
        Act::new(Event::MessageReceived, &arrival.sender, &arrival.namespace, arrival.message_id());
    transaction.accept(traced(act, trace), head(arrival, now), body);
    effect(transaction)?;
    Ok(Admitted::Accepted)
}

/// Whether the disk has room for what is new.
///
/// # Errors
/// `storage_full`.
pub fn check_room(store: &Store) -> Result<(), Refusal> {
    store.full().map_or(Ok(()), |full| Err(unwritten(&full)))
}

/// When a caller may try again after the store did not write.
pub const RETRY_AFTER_SECONDS: u64 = 5;

/// The refusal when the store could not write: try again, and when it has no room, after making
/// some.
pub fn unwritten(error: &CommitError) -> Refusal {
    match error {
        CommitError::Full(_) => {
            let detail = format!("make room or try again later; {error}");
            Refusal::new(ErrorCode::StorageFull, detail).retry_after(RETRY_AFTER_SECONDS)
        }
        CommitError::Refused(_) | CommitError::Stopped | CommitError::Decision => {
            Refusal::new(ErrorCode::Unavailable, format!("try again later; {error}"))
        }
    }
}

/// Whether the id of a message is known, so that it is judged as a duplicate.
pub fn is_known(transaction: &Transaction<'_>, arrival: &Arrival) -> bool {
    transaction.find(&arrival.key()).is_some()
}

/// Judges a message by what is on stable storage alone, without writing: a duplicate is answered
/// with its stored outcome also when the store takes nothing new. `None` when its id is not known.
///
/// # Errors
/// `id_conflict`, as [`admit`].
pub fn recorded(store: &Store, arrival: &Arrival) -> Option<Result<Admitted, Refusal>> {
    let known = store.messages(|messages| messages.find(&arrival.key()))?;
    let same = is_same(&arrival.envelope, store.body(known.body).ok(), || store.is_rotten(&known));
    Some(same.map(|()| Admitted::Duplicate))
}

/// Whether a message is the one that is known under this key. One whose body was dropped since, or
/// has rotted, is taken for the same.
///
/// # Errors
/// `id_conflict`.
pub fn check_same(
    transaction: &Transaction<'_>,
    store: &Store,
    key: &MessageKey<'_>,
    envelope: &Envelope,
) -> Result<(), Refusal> {
    let Some(known) = transaction.find(key) else { return Ok(()) };
    if let Some(staged) = transaction.staged_body(known.entry) {
        return is_same(envelope, Some(staged.to_vec()), || false);
    }
    is_same(envelope, store.body(known.body).ok(), || store.is_rotten(&known))
}

/// `is_rotten` says whether the earlier bytes are not those that were accepted.
fn is_same(
    envelope: &Envelope,
    earlier: Option<Vec<u8>>,
    is_rotten: impl FnOnce() -> bool,
) -> Result<(), Refusal> {
    let same = earlier.is_none_or(|bytes| {
        parse_one_within(bytes, RELAYED_BYTES_MAX)
            .is_ok_and(|first| first.body_digest() == envelope.body_digest())
    });
    if same || is_rotten() {
        return Ok(());
    }
    let detail = "this message_id was used for another message; give each message an id of its own";
    Err(Refusal::new(ErrorCode::IdConflict, detail).at("message_id"))
}

fn head(arrival: &Arrival, now: Millis) -> MessageHead {
    let envelope = &arrival.envelope;
    MessageHead {
        direction: Direction::Inbound,
        message_id: arrival.message_id().into(),
        message_type: envelope.message_type().as_str().into(),
        namespace: arrival.namespace.clone(),
        peer: arrival.sender.clone(),
        destination: String::new(),
        sender: envelope.agent_id().unwrap_or(&arrival.sender).into(),
        lane: envelope.lane_key().unwrap_or_default().into(),
        priority: 2,
        created_at: envelope.timestamp().unwrap_or(now),
        deadline: None,
        expires_at: envelope.expires_at(),
        task_id: envelope.task_id().map(Into::into),
        correlation_id: envelope.correlation_id().map(Into::into),
        retry_of: None,
        sealed: envelope.routing().is_sealed(),
        size: u32::try_from(envelope.raw().len()).unwrap_or(u32::MAX),
        digest: [0; 32],
        status: Status::Processed,
        reason: Reason::None,
        due_at: now,
    }
}

/// The event of a refusal.
pub fn event_of(refusal: &Refusal) -> Event {
    match refusal.code {
        ErrorCode::Forbidden => Event::PermissionDenied,
        _ => Event::MessageRejected,
    }
}

/// Records that a message was refused. It is not stored and its id is not remembered.
pub fn note_refusal(transaction: &mut Transaction<'_>, arrival: &Arrival, refusal: &Refusal) {
    let details = serde_json::json!({
        "code": refusal.code.as_str(),
        "field": refusal.field,
        "message_type": arrival.envelope.message_type().as_str(),
    });
    let event = event_of(refusal);
    let act = Act::new(event, &arrival.sender, &arrival.namespace, arrival.message_id());
    let act = act.level(storage::record::Level::Warning).details(details.to_string());
    transaction.note(traced(act, arrival.envelope.traceparent()));
}
