//! Sends what is pending. [`stage`] records a message inside a decision, [`verdict`] judges an
//! attempt, a [`circuit`] a destination, a [`Pump`] feeds one link of it, [`sweep`] gives up what
//! became too old, [`again`] is a person's retry and [`prune`] a person's end of a message, and
//! [`pause`] keeps what a person holds back. It opens no connection.

pub mod again;
pub mod circuit;
mod content;
mod gate;
mod observe;
pub mod pause;
pub mod prune;
mod pump;
mod steps;
pub mod sweep;
#[cfg(test)]
mod tests;
pub mod verdict;
mod wakes;

pub use crate::retry::Policy;
use content::Content;
pub use gate::{Gate, GateState};
pub use observe::{Attempt, Observer};
pub use pump::{GivenUp, Pump};

use std::convert::Infallible;

use storage::event::Event;
use storage::messages::Live;
use storage::record::{Direction, EntryId, Level, MessageHead, Reason, Status};
use storage::store::Store;
use storage::transaction::{Act, Body, Change, Transaction};

use crate::clock::parse_rfc3339;
use crate::protocol::Envelope;
use crate::trace::{self, traced};

/// What a recipient gets that fetches a message.
pub enum Fetched {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// Nothing just now, and nothing that comes after it.
    Later,
    /// Nothing any more: it has failed.
    Never,
}

/// The bytes of a message that its recipient fetches. One that can be read no more fails, as one
/// that is to be sent. This waits for the disk.
pub fn read(store: &Store, entry: EntryId, given_up: Option<&GivenUp>) -> Fetched {
    let Some(live) = store.lives(&[entry]).pop() else { return Fetched::Never };
    let why = match content::read(store, &live) {
        Content::Bytes(bytes) => return Fetched::Bytes(bytes),
        Content::Later => return Fetched::Later,
        Content::Never(why) => why,
    };
    let (given_up, reader, place) = (given_up.cloned(), store.clone(), live.body);
    // Nobody waits for it: it comes before whatever is fetched next.
    drop(store.commit(move |transaction| -> Result<(), Infallible> {
        // One that was carried forward meanwhile is read there.
        let is_it = |live: &Live| live.status != Status::Failed && live.body == place;
        if let Some(live) = transaction.live(entry).filter(is_it) {
            let trace = trace::of_message(transaction, &reader, &live);
            steps::fail(transaction, &live, &why, trace.as_deref());
            steps::tell(given_up.as_ref(), transaction, &live, &why);
        }
        Ok(())
    }));
    Fetched::Never
}

/// Records an outbound message as pending, inside a decision. `destination` is the queue, and so
/// the link, that it leaves by; `peer` is whom it is for. `None` when its id is known already for
/// this peer: it is then on its way, or was.
pub fn stage(
    transaction: &mut Transaction<'_>,
    envelope: &Envelope,
    destination: &str,
    peer: &str,
) -> Option<EntryId> {
    stage_with(transaction, envelope, (destination, peer), || Body::new(envelope.raw()))
}

/// The same with the body of the message's bytes, for whoever has made it outside the decision,
/// which everybody waits for. `to` is its destination and its peer.
pub fn stage_with(
    transaction: &mut Transaction<'_>,
    envelope: &Envelope,
    to: (&str, &str),
    body: impl FnOnce() -> Body,
) -> Option<EntryId> {
    let (destination, peer) = to;
    let head = head(envelope, destination, peer, transaction.now());
    if transaction.find(&head.key()).is_some() {
        return None;
    }
    let act = Act::new(Event::MessageQueued, &head.sender, &head.namespace, &head.message_id);
    // Both are identifiers, which hold nothing that JSON escapes.
    let details = format!(r#"{{"message_type":"{}","to":"{peer}"}}"#, head.message_type);
    let act = traced(act.details(details), envelope.traceparent());
    Some(transaction.accept(act, head, body()))
}

/// Whether the id of a message is known for this peer, so that [`stage`] records nothing.
pub fn is_known(
    transaction: &Transaction<'_>,
    envelope: &Envelope,
    destination: &str,
    peer: &str,
) -> bool {
    let head = head(envelope, destination, peer, transaction.now());
    transaction.find(&head.key()).is_some()
}

/// Gives a message up whose `expires_at` has passed.
fn expire(transaction: &mut Transaction<'_>, live: &Live, trace: Option<&str>) {
    let change = Change { status: Status::Expired, next_attempt_at: 0, ..Change::of(live) };
    let act = steps::act(Event::MessageExpired, live, trace).level(Level::Warning);
    transaction.change(act, live, change);
}

fn head(envelope: &Envelope, destination: &str, peer: &str, now: u64) -> MessageHead {
    let routing = envelope.routing();
    MessageHead {
        direction: Direction::Outbound,
        message_id: envelope.message_id().unwrap_or_default().into(),
        message_type: envelope.message_type().as_str().into(),
        namespace: envelope.namespace().into(),
        peer: peer.into(),
        destination: destination.into(),
        sender: envelope.agent_id().unwrap_or_default().into(),
        lane: envelope.lane_key().unwrap_or_default().into(),
        priority: priority(routing.priority().as_deref()),
        created_at: envelope.timestamp().unwrap_or(now),
        deadline: routing.deadline().and_then(|text| parse_rfc3339(&text)),
        expires_at: envelope.expires_at(),
        task_id: envelope.task_id().map(Into::into),
        correlation_id: envelope.correlation_id().map(Into::into),
        retry_of: None,
        sealed: routing.is_sealed(),
        size: u32::try_from(envelope.raw().len()).unwrap_or(u32::MAX),
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: now,
    }
}

fn priority(word: Option<&str>) -> u8 {
    match word {
        Some("critical") => 0,
        Some("high") => 1,
        Some("low") => 3,
        _ => 2,
    }
}
