//! What a person's retry does to a failed message: it is due again, with its id or, when the
//! receiver has forgotten that id, with a new one. It chooses no messages.

use std::time::Duration;

use storage::event::Event;
use storage::messages::Live;
use storage::record::{EntryId, MessageHead, Reason, Status, id_time};
use storage::store::Store;
use storage::transaction::{Act, Body, Change, Transaction};

use crate::clock::{Clock, Millis};
use crate::protocol::{ErrorCode, Fields, RELAYED_BYTES_MAX, Refusal, parse_one_within};
use crate::trace::{self, traced};

/// How long ids are remembered by a server that does not say otherwise.
pub const DEDUP_WINDOW: Duration = Duration::from_hours(8 * 24);

/// What became of the messages that a person wanted sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// How many are due again.
    pub count: usize,
    /// Those that are sent under a new id: the old one and the new one.
    pub renamed: Vec<(String, String)>,
}

/// Who wants messages sent again, and how old they may be for that under their ids.
#[derive(Clone, Debug)]
pub struct By {
    /// The person.
    pub actor: String,
    /// Time and ids.
    pub clock: Clock,
    /// How long the receiver remembers ids.
    pub window: Duration,
    /// How long a message is tried by itself.
    pub max_age: Duration,
}

/// Whether a message is sent under a new id. The receiver forgets ids after the window, and then
/// cannot tell a repetition from a new message. One that is older than messages are tried would be
/// given up after a single attempt; it keeps its id all the same if it may have arrived.
pub fn needs_new_id(live: &Live, now: Millis, by: &By) -> bool {
    let age = |since: Millis| u128::from(now.saturating_sub(since));
    let written = id_time(&live.head.message_id).unwrap_or(live.head.created_at);
    age(written) > by.window.as_millis()
        || !live.maybe_delivered && age(live.head.created_at) > by.max_age.as_millis()
        || live.error.starts_with(ErrorCode::StaleId.as_str())
}

/// Makes these failed messages due again, in one decision. One that is not failed any more, or
/// whose body is gone, is left alone.
pub fn again(
    transaction: &mut Transaction<'_>,
    store: &Store,
    entries: &[EntryId],
    by: &By,
) -> Retried {
    let mut retried = Retried::default();
    for entry in entries {
        let Some(live) = transaction.live(*entry).filter(|live| live.status == Status::Failed)
        else {
            continue;
        };
        let head = &live.head;
        let act = Act::new(Event::MessageRetry, &by.actor, &head.namespace, &head.message_id);
        let trace = trace::of_message(transaction, store, &live);
        let was = serde_json::json!({
            "was": live.status.as_str(), "reason": live.reason.as_str(), "attempts": live.attempts,
        });
        if !needs_new_id(&live, transaction.now(), by) {
            let change = Change {
                status: Status::Pending,
                reason: Reason::None,
                attempts: 0,
                next_attempt_at: transaction.now(),
                ..Change::of(&live)
            };
            let act = traced(act.details(was.to_string()), trace.as_deref());
            transaction.change(act, &live, change);
        } else if let Ok(new_id) = renew(transaction, store, &live, by) {
            // The old id is of no more use, and says where it went.
            let details = serde_json::json!({ "retried_as": new_id }).to_string();
            let change = Change {
                status: Status::Expired,
                reason: Reason::None,
                next_attempt_at: 0,
                error: format!("its id is too old, so that it is sent again as {new_id}"),
                ..Change::of(&live)
            };
            transaction.change(traced(act.details(details), trace.as_deref()), &live, change);
            retried.renamed.push((head.message_id.clone(), new_id));
        } else {
            continue;
        }
        retried.count += 1;
    }
    retried
}

/// The same message under a new id, from now on.
fn renew(
    transaction: &mut Transaction<'_>,
    store: &Store,
    live: &Live,
    by: &By,
) -> Result<String, Refusal> {
    let gone = |error: storage::journal::ReadError| {
        Refusal::new(ErrorCode::Gone, format!("its body cannot be read: {error}"))
    };
    let body = store.content(live).map_err(gone)?;
    let now = transaction.now();
    let message_id = by.clock.message_id();
    let fields =
        Fields { message_id: Some(&message_id), timestamp: Some(now), ..Fields::default() };
    let envelope = parse_one_within(body, RELAYED_BYTES_MAX)
        .map_err(|rejected| rejected.refusal)?
        .with_fields(&fields)?;
    let old = &*live.head;
    let head = MessageHead {
        message_id: message_id.clone(),
        created_at: now,
        due_at: now,
        retry_of: Some(old.message_id.clone()),
        size: u32::try_from(envelope.raw().len()).unwrap_or(u32::MAX),
        status: Status::Pending,
        reason: Reason::None,
        ..old.clone()
    };
    let details = serde_json::json!({
        "message_type": head.message_type, "to": head.peer, "retry_of": old.message_id,
    });
    let act = Act::new(Event::MessageQueued, &by.actor, &head.namespace, &message_id);
    let act = traced(act.details(details.to_string()), envelope.traceparent());
    transaction.accept(act, head, Body::new(envelope.raw()));
    Ok(message_id)
}
