//! The mailbox of each agent: reading it for those who fetch over HTTP, settling what was read, and
//! giving back what cannot be delivered. Messages enter it by [`crate::outbox`]; WebSockets empty
//! it by a pump.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use storage::event::Event;
use storage::messages::{Live, Summary};
use storage::record::{Direction, EntryId, Level, MessageKey, Reason, Status};
use storage::store::Store;
use storage::transaction::{Act, Change, Transaction};

use super::core::Core;
use super::desk::{Desk, millis};
use super::members;
use crate::clock::{Clock, Millis};
use crate::outbox::pause::Pauses;
use crate::outbox::verdict::{Outcome, judge};
use crate::outbox::{self, Fetched, GivenUp, Policy};
use crate::protocol::payload::Nack;
use crate::protocol::{Envelope, ErrorCode, Fields, MessageType, Refusal, SERVER_AGENT_ID};
use crate::trace::{self, traced};

/// Bytes of messages in one answer, unless the first has more: a thousand messages of the largest
/// size would take a gigabyte of memory for every reader.
const FETCHED_BYTES_MAX: u64 = 4 << 20;

/// Entries of a mailbox that are looked at in one go, as nobody commits meanwhile.
const LOOKED_AT_MAX: usize = 1_000;

/// The key of an agent's mailbox.
pub fn mailbox(namespace: &str, agent_id: &str) -> String {
    format!("{namespace}/{agent_id}")
}

/// The key of a message in an agent's mailbox.
pub fn outbound<'a>(namespace: &'a str, peer: &'a str, message_id: &'a str) -> MessageKey<'a> {
    MessageKey { direction: Direction::Outbound, namespace, peer, message_id }
}

/// How deliveries from a mailbox are repeated. How long a message may lie there counts from its
/// acceptance, and [`give_up`] sees to it.
pub fn policy() -> Policy {
    Policy { max_age: Duration::MAX, ..Policy::default() }
}

/// Messages of one acknowledgement whose trace is looked up for the audit log: each is a read while
/// everybody waits. A bridge of ours acknowledges no more at once.
const TRACED_MAX: usize = 100;

/// The recipient has these messages on stable storage; says how many of them were not settled
/// before. Unknown ids are left alone.
pub fn delivered(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    agent_id: &str,
    ids: &[String],
) -> usize {
    let mut settled = 0;
    for id in ids {
        let Some(live) = find(desk.tx, namespace, agent_id, id) else { continue };
        let mut act = Act::new(Event::MessageDelivered, agent_id, namespace, id);
        if settled < TRACED_MAX {
            act = of_trace(desk, &live, act);
        }
        let change = Change {
            status: Status::Delivered,
            reason: Reason::None,
            attempts: live.attempts.saturating_add(1),
            next_attempt_at: 0,
            ..Change::of(&live)
        };
        desk.tx.change(act, &live, change);
        settled += 1;
    }
    settled
}

/// The recipient refused a message: later again, or for good.
pub fn refused(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    agent_id: &str,
    message_id: &str,
    refusal: &Refusal,
) {
    let found = find(desk.tx, namespace, agent_id, message_id);
    // Of one that was given up its sender was told: nothing that comes late changes that.
    let is_open = |live: &Live| matches!(live.status, Status::Pending | Status::Sending);
    let Some(mut live) = found.filter(is_open) else { return };
    live.attempts = live.attempts.saturating_add(1);
    let policy = policy();
    let drawn = desk.clock.draw(millis(policy.bound(live.attempts)));
    let outcome = Outcome::Refused(refusal.clone());
    let change = judge(&live, &outcome, &policy, desk.now(), drawn);
    let has_failed = change.status == Status::Failed;
    let event = if has_failed { Event::MessageFailed } else { Event::MessageRetry };
    let gap = has_failed && !live.head.lane.is_empty();
    let details = json!({"error": change.error, "gap": gap}).to_string();
    let act = Act::new(event, agent_id, namespace, message_id).level(Level::Warning);
    let act = of_trace(desk, &live, act.details(details));
    let error = change.error.clone();
    desk.tx.change(act, &live, change);
    if has_failed {
        give_back(desk.tx, desk.store, desk.clock, &live, &error);
    }
}

/// The act with the trace of the message that it is about.
fn of_trace(desk: &Desk<'_, '_>, live: &Live, act: Act) -> Act {
    traced(act, trace::of_message(desk.tx, desk.store, live).as_deref())
}

fn find(tx: &Transaction<'_>, namespace: &str, agent_id: &str, id: &str) -> Option<Live> {
    tx.live(tx.find(&outbound(namespace, agent_id, id))?.entry)
}

/// Ends what lay too long at a time: past its `expires_at`, or older than a message may get.
pub fn give_up(desk: &mut Desk<'_, '_>, overdue: &[EntryId], at: Millis) {
    // A decision may join others that began a moment before they were found overdue.
    let now = desk.now().max(at);
    for entry in overdue {
        let live = desk.tx.live(*entry).filter(|live| live.status == Status::Pending);
        let Some(live) = live else { continue };
        let head = &live.head;
        let has_expired = head.expires_at.is_some_and(|at| at <= now);
        // What the server says by itself is in the tasks and the state too: nobody has to look.
        let is_own = head.sender == SERVER_AGENT_ID;
        let (status, reason, why) = match (has_expired, is_own) {
            (true, _) => (Status::Expired, Reason::None, "its expires_at passed"),
            (false, true) => (Status::Expired, Reason::MaxAge, "it lay too long"),
            (false, false) => (Status::Failed, Reason::MaxAge, "it lay too long"),
        };
        let event =
            if status == Status::Failed { Event::MessageFailed } else { Event::MessageExpired };
        let act = Act::new(event, &head.sender, &head.namespace, &head.message_id);
        // The lane goes on without it, which is a gap in its order.
        let gap = !head.lane.is_empty();
        let details = json!({"reason": reason.as_str(), "gap": gap}).to_string();
        let change =
            Change { status, reason, next_attempt_at: 0, error: why.into(), ..Change::of(&live) };
        let act = of_trace(desk, &live, act.level(Level::Warning).details(details));
        desk.tx.change(act, &live, change);
        give_back(desk.tx, desk.store, desk.clock, &live, why);
    }
}

/// Withdraws a message of the server that must not be delivered any more.
pub fn withdraw(desk: &mut Desk<'_, '_>, namespace: &str, agent_id: &str, message_id: &str) {
    let Some(live) = find(desk.tx, namespace, agent_id, message_id) else { return };
    let act = Act::new(Event::MessageExpired, SERVER_AGENT_ID, namespace, message_id);
    let act = of_trace(desk, &live, act);
    let change = Change {
        status: Status::Expired,
        next_attempt_at: 0,
        error: "withdrawn".into(),
        ..Change::of(&live)
    };
    desk.tx.change(act, &live, change);
}

/// What a pump does with a message that it gives up.
pub fn returns(store: &Store, clock: &Clock) -> GivenUp {
    let (store, clock) = (store.clone(), clock.clone());
    Arc::new(move |tx, live, why| give_back(tx, &store, &clock, live, why))
}

/// Tells the sender of a relayed message that it was not delivered: a `nack` in the sender's own
/// mailbox.
fn give_back(tx: &mut Transaction<'_>, store: &Store, clock: &Clock, live: &Live, why: &str) {
    let head = &live.head;
    let trace = trace::of_message(tx, store, live);
    if head.sender == SERVER_AGENT_ID {
        // Nobody would repeat it, so that it must not wait for a person among the failed ones.
        if let Some(failed) = tx.live(live.entry).filter(|it| it.status == Status::Failed) {
            let act = Act::new(Event::MessageExpired, &head.sender, &head.namespace, &head.peer);
            let act = traced(act, trace.as_deref());
            tx.change(act, &failed, Change { status: Status::Expired, ..Change::of(&failed) });
        }
        return;
    }
    let original = own_id(tx, store, live);
    // It may have got it all the same: a message can be read and its receipt be lost.
    let detail = format!("agent {} did not acknowledge the message: {why}", head.peer);
    let nack = Nack::of(Some(original.clone()), &Refusal::new(ErrorCode::Undeliverable, detail));
    let fresh = clock.message_id();
    let fields = Fields {
        message_id: Some(&fresh),
        agent_id: Some(SERVER_AGENT_ID),
        namespace: Some(&head.namespace),
        timestamp: Some(tx.now()),
        to: Some(&head.sender),
        correlation_id: Some(&original),
        traceparent: trace.as_deref(),
        ..Fields::default()
    };
    let staged = Envelope::compose(MessageType::Nack, fields, &nack).ok().and_then(|envelope| {
        outbox::stage(tx, &envelope, &mailbox(&head.namespace, &head.sender), &head.sender)
    });
    if staged.is_none() {
        tracing::error!(message_id = original, "a sender could not be told that mail failed");
    }
}

/// The id that the sender gave the message, which may have been relayed under another.
fn own_id(tx: &Transaction<'_>, store: &Store, live: &Live) -> String {
    let head = &live.head;
    let claimed = store.body(live.body).ok().and_then(|body| members::original_id(&body));
    let is_known = |message_id: &String| {
        let (direction, namespace, peer) = (Direction::Inbound, &head.namespace, &head.sender);
        tx.find(&MessageKey { direction, namespace, peer, message_id }).is_some()
    };
    claimed.filter(is_known).unwrap_or_else(|| head.message_id.clone())
}

/// A message of a mailbox.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its entry, which is its place in the order.
    pub entry: EntryId,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The unacknowledged messages of a mailbox after an entry, oldest first, as many as one answer may
/// hold. What the recipient refused for now comes when it is due, and what follows it in its lane
/// not before; what a person holds comes not at all. Reads no body and takes nothing out.
pub fn unacknowledged(
    core: &Core,
    mailbox: &str,
    after: Option<EntryId>,
    limit: usize,
) -> Vec<EntryId> {
    if Pauses::of(&core.store.ledger(), mailbox).all.is_some() {
        return Vec::new();
    }
    let now = core.clock.now();
    let mut found: Vec<EntryId> = Vec::new();
    // What was fetched before may hold up its lane behind the cursor.
    let (mut waiting, mut seen, mut bytes) = (HashSet::new(), None, 0);
    loop {
        let entries = core.mailboxes.letters(mailbox, seen, LOOKED_AT_MAX);
        let Some(last) = entries.last() else { return found };
        seen = Some(*last);
        let is_whole = core.store.messages(|messages| {
            let lives = entries.iter().filter_map(|entry| messages.live(*entry));
            for live in lives.filter(|live| is_deliverable(live, now, &mut waiting)) {
                if after.is_some_and(|after| live.entry <= after) {
                    continue;
                }
                bytes += u64::from(live.body.length);
                if found.len() == limit || !found.is_empty() && bytes > FETCHED_BYTES_MAX {
                    return true;
                }
                found.push(live.entry);
            }
            false
        });
        if is_whole {
            return found;
        }
    }
}

/// Reads messages, and gives up those that cannot be read any more. This waits for the disk.
pub fn read(store: &Store, due: Vec<EntryId>, given_up: &GivenUp) -> Vec<Letter> {
    let mut letters = Vec::new();
    for entry in due {
        match outbox::read(store, entry, Some(given_up)) {
            Fetched::Bytes(bytes) => letters.push(Letter { entry, bytes }),
            Fetched::Never => {}
            // What follows it may be in its lane.
            Fetched::Later => break,
        }
    }
    letters
}

/// Whether a message may be fetched now; `waiting` collects the lanes in which one is not due.
fn is_deliverable(live: &Summary<'_>, now: Millis, waiting: &mut HashSet<u64>) -> bool {
    let is_open = matches!(live.status, Status::Pending | Status::Sending);
    if !is_open || live.expires_at.is_some_and(|at| at <= now) {
        return false;
    }
    // A due time beyond the longest delay is the work of a clock that jumped.
    let longest = millis(policy().max_interval);
    let is_due = live.attempts == 0
        || live.next_attempt_at <= now
        || live.next_attempt_at > now.saturating_add(longest);
    if live.lane == 0 {
        return is_due;
    }
    if !is_due {
        waiting.insert(live.lane);
        return false;
    }
    !waiting.contains(&live.lane)
}
