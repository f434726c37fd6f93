//! The mailbox of each agent, for those who fetch over HTTP: reading it, and settling what was
//! read. Messages enter it by [`crate::outbox`]; WebSockets empty it by a pump.

use storage::event::Event;
use storage::messages::{BodyPlace, Live};
use storage::record::{Direction, EntryId, Level, MessageKey, Reason, Status};
use storage::store::Store;
use storage::transaction::{Act, Change, Transaction};

use crate::clock::Millis;
use crate::outbox::Policy;
use crate::protocol::Refusal;

/// The key of an agent's mailbox.
pub fn mailbox(namespace: &str, agent_id: &str) -> String {
    format!("{namespace}/{agent_id}")
}

/// The key of a message in an agent's mailbox.
pub fn outbound<'a>(namespace: &'a str, peer: &'a str, message_id: &'a str) -> MessageKey<'a> {
    MessageKey { direction: Direction::Outbound, namespace, peer, message_id }
}

/// The recipient has these messages on stable storage; says how many of them were not settled
/// before. Unknown ids are left alone.
pub fn delivered(
    tx: &mut Transaction<'_>,
    namespace: &str,
    agent_id: &str,
    ids: &[String],
) -> usize {
    let mut settled = 0;
    for id in ids {
        let Some(known) = tx.find(&outbound(namespace, agent_id, id)) else { continue };
        let Some(live) = tx.live(known.entry) else { continue };
        let act = Act::new(Event::MessageDelivered, agent_id, namespace, id);
        let change = Change {
            status: Status::Delivered,
            reason: Reason::None,
            attempts: live.attempts.saturating_add(1),
            next_attempt_at: 0,
            ..Change::of(&live)
        };
        tx.change(act, &live, change);
        settled += 1;
    }
    settled
}

/// The recipient refused a message: later again, or for good. Gives back one that failed for good.
pub fn refused(
    tx: &mut Transaction<'_>,
    namespace: &str,
    agent_id: &str,
    message_id: &str,
    refusal: &Refusal,
) -> Option<Live> {
    let known = tx.find(&outbound(namespace, agent_id, message_id))?;
    let live = tx.live(known.entry)?;
    let attempts = live.attempts.saturating_add(1);
    let error = refusal.code.as_str().to_owned();
    let (event, change) = if refusal.retryable {
        let bound = super::desk::millis(Policy::default().bound(attempts));
        let wished = refusal.retry_after_seconds.unwrap_or(0).saturating_mul(1_000);
        let next_attempt_at = tx.now().saturating_add(bound.max(wished));
        let change = Change {
            status: Status::Pending,
            attempts,
            next_attempt_at,
            error,
            ..Change::of(&live)
        };
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
    tx.change(
        Act::new(event, agent_id, namespace, message_id).level(Level::Warning),
        &live,
        change,
    );
    (!refusal.retryable).then_some(live)
}

/// A message of a mailbox.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its entry, which is its place in the order.
    pub entry: EntryId,
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
) -> Vec<Letter> {
    let found: Vec<(EntryId, BodyPlace)> = store.messages(|messages| {
        messages
            .iter()
            .filter(|live| {
                live.head.destination == mailbox
                    && matches!(live.status, Status::Pending | Status::Sending)
                    && after.is_none_or(|after| live.entry > after)
                    && live.head.expires_at.is_none_or(|at| at > now)
            })
            .take(limit)
            .map(|live| (live.entry, live.body))
            .collect()
    });
    found
        .into_iter()
        .filter_map(|(entry, place)| Some(Letter { entry, bytes: store.body(place).ok()? }))
        .collect()
}
