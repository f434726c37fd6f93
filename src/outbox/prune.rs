//! What a person's prune does to a message: one that is not finished is ended, and with `shred` its
//! content leaves the journal at the next compaction. It chooses no messages.

use storage::event::Event;
use storage::messages::Live;
use storage::record::{Direction, MessageKey, Reason, Status};
use storage::transaction::{Act, Change, Transaction};
use storage::view::Row;

use storage::record::Level;

use super::GivenUp;
use crate::trace::traced;

/// What became of the messages that a person wanted gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many unfinished ones have ended.
    pub count: usize,
    /// Of how many, these and finished ones, the content is to go.
    pub shredded: usize,
}

/// Whether a person may end an unfinished message with this status. One that was received and is
/// not sealed is just being applied.
pub fn may_end(status: Status, reason: Reason) -> bool {
    match status {
        Status::Pending | Status::Sending | Status::Failed | Status::Held => true,
        Status::Received => reason == Reason::Sealed,
        _ => false,
    }
}

/// Prunes these messages, each with its trace, in one decision. One that stands otherwise by now
/// than its row says is left alone. Of one that was still to be delivered `given_up` is told; of a
/// failed one it was told before.
pub fn prune(
    transaction: &mut Transaction<'_>,
    rows: &[(Row, Option<String>)],
    (shred, actor): (bool, &str),
    given_up: Option<&GivenUp>,
) -> Pruned {
    let mut pruned = Pruned::default();
    for (row, trace) in rows {
        let act = |details: &serde_json::Value| {
            let act = Act::new(Event::MessagePruned, actor, &row.namespace, &row.message_id);
            traced(act.level(Level::Warning).details(details.to_string()), trace.as_deref())
        };
        match transaction.live(row.entry) {
            Some(live) if live.status == row.status && may_end(live.status, live.reason) => {
                let details = serde_json::json!({
                    "was": live.status.as_str(),
                    "reason": live.reason.as_str(),
                    "shred": shred,
                    // The lane goes on without it.
                    "gap": live.head.direction == Direction::Outbound
                        && live.status != Status::Failed && !live.head.lane.is_empty(),
                });
                transaction.prune(act(&details), &live, ended(&live), shred);
                let was_due =
                    live.head.direction == Direction::Outbound && live.status != Status::Failed;
                if let Some(given_up) = given_up.filter(|_| was_due) {
                    given_up(transaction, &live, "a person does not want it delivered any more");
                }
                pruned.count += 1;
                pruned.shredded += usize::from(shred);
            }
            None if shred && row.status.is_finished() => {
                let details = serde_json::json!({"was": row.status.as_str(), "shred": true});
                transaction.shred(act(&details), row.entry, &key(row), stands(row));
                pruned.shredded += 1;
            }
            _ => {}
        }
    }
    pruned
}

fn ended(live: &Live) -> Change {
    Change {
        status: Status::Pruned,
        next_attempt_at: 0,
        // What is out may arrive, whatever becomes of it here.
        maybe_delivered: live.maybe_delivered || live.status == Status::Sending,
        ..Change::of(live)
    }
}

fn key(row: &Row) -> MessageKey<'_> {
    MessageKey {
        direction: row.direction,
        namespace: &row.namespace,
        peer: &row.peer,
        message_id: &row.message_id,
    }
}

fn stands(row: &Row) -> Change {
    Change {
        status: row.status,
        reason: row.reason,
        attempts: row.attempts,
        next_attempt_at: row.next_attempt_at,
        maybe_delivered: row.maybe_delivered,
        error: row.error.clone(),
    }
}
