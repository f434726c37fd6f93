//! What memory says of an unfinished message, and what is read from the journal beside it.

use std::sync::Arc;

use super::slot::{Item, NEVER};
use super::texts::Texts;
use super::{BodyPlace, Fingerprint};
use crate::record::{Direction, EntryId, MessageHead, Millis, Reason, Status};

/// A message that is not finished, with its head as the journal has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// What was known when it was accepted.
    pub head: Arc<MessageHead>,
    /// The entry that accepted it.
    pub entry: EntryId,
    /// Its body.
    pub body: BodyPlace,
    /// Where it stands.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// Attempts made.
    pub attempts: u32,
    /// The next attempt is due at this time; 0 when there is none.
    pub next_attempt_at: Millis,
    /// Bytes left and were not answered.
    pub maybe_delivered: bool,
    /// The error of the last attempt, or empty.
    pub error: Arc<str>,
    /// The time of the last change.
    pub updated_at: Millis,
    /// The record time of its acceptance.
    pub accepted_at: Millis,
    /// Its place in its lane: where it was accepted, or where it was last retried.
    pub lane_at: EntryId,
}

impl Live {
    /// A message as it is when it was just accepted.
    pub(crate) fn accepted(
        head: &Arc<MessageHead>,
        entry: EntryId,
        body: BodyPlace,
        time: Millis,
    ) -> Self {
        Self {
            head: Arc::clone(head),
            entry,
            body,
            status: head.status,
            reason: head.reason,
            attempts: 0,
            next_attempt_at: head.due_at,
            maybe_delivered: false,
            error: "".into(),
            updated_at: time,
            accepted_at: time,
            lane_at: entry,
        }
    }
}

/// An unfinished message as it lies in memory. Its head, with the ids and names in it, is read
/// from the journal: see [`Store::live`](crate::store::Store::live).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary<'a> {
    /// The entry that accepted it.
    pub entry: EntryId,
    /// Its body.
    pub body: BodyPlace,
    /// Which way it travels.
    pub direction: Direction,
    /// Outbound: the queue that it leaves by. Empty for inbound.
    pub destination: &'a str,
    /// Its type, as written.
    pub message_type: &'a str,
    /// 0 is the most urgent, 3 the least.
    pub priority: u8,
    /// Where it stands.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// Attempts made.
    pub attempts: u32,
    /// The next attempt is due at this time; 0 when there is none.
    pub next_attempt_at: Millis,
    /// Bytes left and were not answered.
    pub maybe_delivered: bool,
    /// The error of the last attempt, or empty.
    pub error: &'a str,
    /// When it was written.
    pub created_at: Millis,
    /// The record time of its acceptance.
    pub accepted_at: Millis,
    /// The time of the last change.
    pub updated_at: Millis,
    /// The earlier deadline goes first within a priority.
    pub deadline: Option<Millis>,
    /// No delivery starts after this.
    pub expires_at: Option<Millis>,
    /// Its place in its lane: where it was accepted, or where it was last retried.
    pub lane_at: EntryId,
    /// A keyed hash of its lane, which is its destination, recipient, sender and ordering
    /// key; 0: it has none.
    pub lane: u64,
    /// The fingerprint of its key.
    pub(crate) fingerprint: Fingerprint,
}

/// Which message, and the frame that has its head and its body.
pub type Place = (EntryId, u64);

impl Live {
    /// Where its head and its body are read.
    pub fn place(&self) -> Place {
        place(self.entry, self.body)
    }

    /// Whether its head was read. Without it nobody knows its id, nor what an answer is about.
    pub fn has_head(&self) -> bool {
        !self.head.message_id.is_empty()
    }

    /// What memory would say of it, but for its lane.
    pub fn summary(&self) -> Summary<'_> {
        let head = &*self.head;
        let place = (self.entry, self.body);
        Summary {
            status: self.status,
            reason: self.reason,
            attempts: self.attempts,
            next_attempt_at: self.next_attempt_at,
            maybe_delivered: self.maybe_delivered,
            error: &self.error,
            updated_at: self.updated_at,
            lane_at: self.lane_at,
            ..Summary::accepted(head, (0, 0), place, self.accepted_at)
        }
    }
}

/// The frame that accepted it, or the one that carried it forward.
pub(crate) fn place(entry: EntryId, body: BodyPlace) -> Place {
    (entry, body.sequence.max(entry.sequence))
}

impl<'a> Summary<'a> {
    /// Where its head and its body are read.
    pub fn place(&self) -> Place {
        place(self.entry, self.body)
    }

    /// Whether nothing about it has changed since somebody read it.
    pub(crate) fn is_state_of(&self, live: &Live) -> bool {
        let read = live.summary();
        (self.body, self.status, self.reason, self.attempts, self.error)
            == (read.body, read.status, read.reason, read.attempts, read.error)
            && (self.next_attempt_at, self.updated_at, self.maybe_delivered)
                == (read.next_attempt_at, read.updated_at, read.maybe_delivered)
    }

    /// A message as it is when it was just accepted.
    pub(super) fn accepted(
        head: &'a MessageHead,
        (fingerprint, lane): (Fingerprint, u64),
        (entry, body): (EntryId, BodyPlace),
        time: Millis,
    ) -> Self {
        Self {
            entry,
            body,
            direction: head.direction,
            destination: &head.destination,
            message_type: &head.message_type,
            priority: head.priority,
            status: head.status,
            reason: head.reason,
            attempts: 0,
            next_attempt_at: head.due_at,
            maybe_delivered: false,
            error: "",
            created_at: head.created_at,
            accepted_at: time,
            updated_at: time,
            deadline: head.deadline,
            expires_at: head.expires_at,
            lane_at: entry,
            fingerprint,
            lane,
        }
    }

    pub(super) fn of(item: &Item, texts: &'a Texts, lane: u64) -> Self {
        let some = |time: Millis| (time != NEVER).then_some(time);
        Self {
            entry: item.entry,
            body: item.body,
            direction: item.direction,
            destination: texts.get(item.destination),
            message_type: texts.get(item.kind),
            priority: item.priority,
            status: item.status,
            reason: item.reason,
            attempts: item.attempts,
            next_attempt_at: item.next_attempt_at,
            maybe_delivered: item.maybe_delivered,
            error: texts.get(item.error),
            created_at: item.created_at,
            accepted_at: item.accepted_at,
            updated_at: item.updated_at,
            deadline: some(item.deadline),
            expires_at: some(item.expires_at),
            lane_at: item.lane_at,
            fingerprint: item.fingerprint,
            lane,
        }
    }

    /// The message with its head.
    pub(crate) fn with(&self, head: Arc<MessageHead>) -> Live {
        Live {
            head,
            entry: self.entry,
            body: self.body,
            status: self.status,
            reason: self.reason,
            attempts: self.attempts,
            next_attempt_at: self.next_attempt_at,
            maybe_delivered: self.maybe_delivered,
            error: self.error.into(),
            updated_at: self.updated_at,
            accepted_at: self.accepted_at,
            lane_at: self.lane_at,
        }
    }

    /// What is left of a head that cannot be read: nobody knows the id of the message any more.
    pub(crate) fn remains(&self) -> MessageHead {
        MessageHead {
            direction: self.direction,
            message_id: String::new(),
            message_type: self.message_type.into(),
            namespace: String::new(),
            peer: String::new(),
            destination: self.destination.into(),
            sender: String::new(),
            lane: String::new(),
            priority: self.priority,
            created_at: self.created_at,
            deadline: self.deadline,
            expires_at: self.expires_at,
            task_id: None,
            correlation_id: None,
            retry_of: None,
            sealed: false,
            size: 0,
            digest: [0; 32],
            status: self.status,
            reason: self.reason,
            due_at: self.accepted_at,
        }
    }
}
