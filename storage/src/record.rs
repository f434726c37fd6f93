//! What one entry of a frame says: an event for the audit log, and the fact that the fold applies.
//! Opaque to the journal. Numbers of variants and events are on disk: append, never change.

use std::fmt;
use std::sync::Arc;

use bincode::{Decode, Encode};
use uuid::Uuid;

use crate::event::Event;

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = u64;

/// The time inside a `UUIDv7` message id; `None` for any other.
pub fn id_time(message_id: &str) -> Option<Millis> {
    let id = Uuid::try_parse(message_id).ok()?;
    if id.get_version_num() != 7 {
        return None;
    }
    let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
    Some(seconds * 1_000 + u64::from(nanoseconds) / 1_000_000)
}

/// How much an operator should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Level {
    /// Of use to a developer only.
    Debug,
    /// Ordinary life.
    Info,
    /// Something was refused or has to be tried again.
    Warning,
    /// Something failed and a person should look.
    Error,
}

/// One entry: who did what to what, and the fact behind it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Record {
    /// The audit event.
    pub event: Event,
    /// Its level.
    pub level: Level,
    /// The agent or person that caused it.
    pub actor: Arc<str>,
    /// The namespace it belongs to; empty when it concerns the whole program.
    pub namespace: Arc<str>,
    /// What it is about: a message id, a task id, an agent id, a path.
    pub resource: Arc<str>,
    /// A JSON object with what else is known, or empty. Never a payload or a secret.
    pub details: String,
    /// What the fold does with it.
    pub fact: Fact,
}

/// What the fold applies.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Fact {
    /// Nothing: the entry is informative only.
    Note,
    /// A message was accepted; its body lies beside the entry.
    Accept(Arc<MessageHead>),
    /// A message's status changed, or an attempt was made.
    Change(MessageChange),
    /// An entity was written or removed, if its version is still the expected one.
    Put(EntityWrite),
    /// Finished message ids that were accepted before this time are forgotten.
    Forget(Millis),
    /// Finished message ids that were accepted up to this entry leave the memory; the journal's
    /// footers have them.
    Evict(EntryId),
    /// A person ended a message, or wants its content gone.
    Prune(Prune),
    /// The oldest frames are dropped; nobody needs what is in them.
    Trim(Trim),
    /// A message was carried forward, out of frames that are to be dropped: one that is not
    /// finished, or that ended a short while ago. Its body lies beside the entry, with no bytes
    /// when it is lost or gone.
    Carry(Box<Carried>),
}

/// Which way a message travels, seen from the owner of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum Direction {
    /// From here.
    Outbound,
    /// To here.
    Inbound,
}

impl Direction {
    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum Status {
    /// Outbound: waits for its due time, its lane or its link.
    Pending,
    /// Outbound: bytes left, no answer yet.
    Sending,
    /// Outbound: the next hop has it on stable storage.
    Delivered,
    /// Outbound: given up; a person retries or prunes it.
    Failed,
    /// Outbound: its `expires_at` passed before it was delivered.
    Expired,
    /// Outbound: held by a person.
    Held,
    /// Inbound: durable here, not applied yet.
    Received,
    /// Inbound: applied.
    Processed,
    /// Inbound: durable here, could not be applied.
    Rejected,
    /// A person has ended it; nothing is done with it any more.
    Pruned,
}

impl Status {
    /// Every status, in the order of this enum.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Sending,
        Self::Delivered,
        Self::Failed,
        Self::Expired,
        Self::Held,
        Self::Received,
        Self::Processed,
        Self::Rejected,
        Self::Pruned,
    ];

    /// The word of the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Held => "held",
            Self::Received => "received",
            Self::Processed => "processed",
            Self::Rejected => "rejected",
            Self::Pruned => "pruned",
        }
    }

    /// The status of a word, or `None`.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Nothing more happens to it by itself, and nobody has to look: only its id is remembered.
    pub fn is_finished(self) -> bool {
        matches!(
            self,
            Self::Delivered | Self::Expired | Self::Processed | Self::Rejected | Self::Pruned
        )
    }
}

/// Why a message has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Reason {
    /// Nothing special.
    None,
    /// The peer refused it for good.
    Permanent,
    /// Older than the policy's `max_age`.
    MaxAge,
    /// Tried as often as the policy's `max_attempts`.
    MaxAttempts,
    /// Delivered to the next hop, which could not pass it on.
    Undeliverable,
    /// Received, and no key here opens it.
    Sealed,
}

impl Reason {
    /// Every reason that has a word.
    pub const NAMED: [Self; 5] =
        [Self::Permanent, Self::MaxAge, Self::MaxAttempts, Self::Undeliverable, Self::Sealed];

    /// The reason of a word, or `None`.
    pub fn parse(word: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|reason| reason.as_str() == Some(word))
    }

    /// The word of the protocol; `None` has none.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Permanent => Some("permanent"),
            Self::MaxAge => Some("max_age"),
            Self::MaxAttempts => Some("max_attempts"),
            Self::Undeliverable => Some("undeliverable"),
            Self::Sealed => Some("sealed"),
        }
    }
}

/// What is known of a message when it is accepted. It never changes.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct MessageHead {
    /// Which way it travels.
    pub direction: Direction,
    /// Its id, unique for direction, namespace and peer.
    pub message_id: String,
    /// Its type, as written.
    pub message_type: String,
    /// Its namespace.
    pub namespace: String,
    /// Outbound: whom it is for. Inbound: who sent it.
    pub peer: String,
    /// Outbound: the queue, and so the link, that it leaves by. Empty for inbound.
    pub destination: String,
    /// Who wrote it first.
    pub sender: String,
    /// Messages of one recipient, sender and lane are delivered in order; empty: no lane.
    pub lane: String,
    /// 0 is the most urgent, 3 the least.
    pub priority: u8,
    /// When it was written.
    pub created_at: Millis,
    /// The earlier deadline goes first within a priority.
    pub deadline: Option<Millis>,
    /// No delivery starts after this.
    pub expires_at: Option<Millis>,
    /// The task it is about.
    pub task_id: Option<String>,
    /// The message that it answers.
    pub correlation_id: Option<String>,
    /// The failed message that a person sends again with this new id.
    pub retry_of: Option<String>,
    /// Its content is sealed.
    pub sealed: bool,
    /// Bytes of its body.
    pub size: u32,
    /// SHA-256 of the salt and the body, which lie together in the frame's body area.
    pub digest: [u8; 32],
    /// Its first status.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// Outbound: the first attempt is due at this time.
    pub due_at: Millis,
}

impl MessageHead {
    /// The key under which its id is unique.
    pub fn key(&self) -> MessageKey<'_> {
        MessageKey {
            direction: self.direction,
            namespace: &self.namespace,
            peer: &self.peer,
            message_id: &self.message_id,
        }
    }
}

/// What makes a message id unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageKey<'a> {
    /// Which way it travels.
    pub direction: Direction,
    /// Its namespace.
    pub namespace: &'a str,
    /// Outbound: whom it is for. Inbound: who sent it.
    pub peer: &'a str,
    /// Its id.
    pub message_id: &'a str,
}

/// An entry's place: its frame's sequence, and its index in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Encode, Decode)]
pub struct EntryId {
    /// The frame.
    pub sequence: u64,
    /// The entry in the frame, from 0.
    pub index: u32,
}

impl fmt::Display for EntryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.sequence, self.index)
    }
}

/// A message's state after a change. Everything that policy or chance decided is in it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct MessageChange {
    /// The entry that accepted the message.
    pub message: EntryId,
    /// The fingerprint of the message's key, by which a segment's footer finds this entry.
    pub fingerprint: u128,
    /// The status after the change.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// Attempts made: bytes left for the peer.
    pub attempts: u32,
    /// The next attempt is due at this time; 0 when there is none.
    pub next_attempt_at: Millis,
    /// Bytes left and were not answered.
    pub maybe_delivered: bool,
    /// The error of the last attempt, or empty.
    pub error: String,
}

/// What a person's pruning says of a message.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Prune {
    /// The message's state after it: one that was unfinished is pruned, one that was finished stays
    /// as it was.
    pub change: MessageChange,
    /// Its content is to leave the journal at the next compaction of its segment.
    pub shred: bool,
}

/// The frames that are dropped, and what they held that the fold counts.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Trim {
    /// The last of them: the journal goes on after it.
    pub through: u64,
    /// The chain's hash after it, with which the chain of what is kept begins.
    pub hash: [u8; 32],
    /// The messages that were accepted in them, all finished: destination, direction, status, how
    /// many.
    pub finished: Vec<(Arc<str>, Direction, Status, u64)>,
}

/// A message, all of it once more, as it stood: from here on its head and its body are
/// read from the entry that says so. It is still the one that its first entry accepted.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Carried {
    /// What was known when it was accepted.
    pub head: Arc<MessageHead>,
    /// Its state.
    pub state: MessageChange,
    /// The time of its last change.
    pub updated_at: Millis,
}

/// What an entity is. The number is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum Kind {
    /// The store's own facts: its agent id, its keys.
    Meta,
    /// An agent of the registry.
    Agent,
    /// A session of an agent.
    Session,
    /// A task.
    Task,
    /// A task that waits to be offered, in the order of matching.
    Waiting,
    /// An open lease, by the agent or task that it binds.
    Lease,
    /// A key of shared state.
    State,
    /// A destination's circuit and pause.
    Circuit,
    /// An access token's hash.
    Token,
    /// An idempotency key of a REST call.
    Idempotency,
}

/// The name of an entity. The parts of a name are joined by NUL, which no identifier contains, so
/// that a prefix is a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct EntityKey {
    /// What it is.
    pub kind: Kind,
    /// Its name within the kind.
    pub name: Arc<str>,
}

impl EntityKey {
    /// A key of the parts.
    pub fn new(kind: Kind, parts: &[&str]) -> Self {
        Self { kind, name: parts.join("\0").into() }
    }

    /// The key before all others.
    pub(crate) fn first() -> Self {
        Self { kind: Kind::Meta, name: "".into() }
    }
}

/// A guarded write.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct EntityWrite {
    /// Which entity.
    pub key: EntityKey,
    /// The version it was computed from; 0: it did not exist.
    pub expected_version: u64,
    /// The new value; `None` removes it.
    pub value: Option<Arc<[u8]>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ordered_id_tells_its_time() {
        let id = "019c6175-4dfb-7abc-8def-0123456789ab";
        assert_eq!(id_time(id), Some(0x019c_6175_4dfb));
        assert_eq!(id_time("m-1"), None);
        assert_eq!(id_time("936da01f-9abd-4d9d-80c7-02af85c822a8"), None);
    }
}
