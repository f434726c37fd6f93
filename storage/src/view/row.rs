//! A message's row and the keys of the tree. Bytes only: it opens nothing and reads no journal.
//!
//! ```text
//! 'm' sequence:8 index:4               -> Row             one for every message
//! 'i' hash:8 sequence:8 index:4        -> (empty)         by message id
//! 's' status:1 sequence:8 index:4      -> (empty)         unfinished messages by status
//! 'a'                                  -> Applied         how far the rows go
//! ```
//! Numbers are big endian, so that the order of keys is the order of acceptance.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::messages::BodyPlace;
use crate::record::{Direction, EntryId, MessageChange, MessageHead, Millis, Reason, Status};

/// The key of [`Applied`].
pub(crate) const APPLIED_KEY: &[u8] = b"a";

/// The format of the rows that this program writes; another one is rebuilt from the journal.
pub(crate) const FORMAT: u32 = 1;

/// Bytes of an error that a row keeps: rows stay small, the journal has the whole text.
const ERROR_BYTES_MAX: usize = 1_024;

/// Bytes of a row besides its texts, in memory: for the bound of the overlay.
const ROW_BYTES: usize = 320;

/// Where one message stands.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Row {
    /// The entry that accepted it.
    pub entry: EntryId,
    /// Its id.
    pub message_id: String,
    /// Which way it travels.
    pub direction: Direction,
    /// Its type.
    pub message_type: String,
    /// Outbound: whom it is for. Inbound: who sent it.
    pub peer: String,
    /// Outbound: the queue that it leaves by. Empty for inbound.
    pub destination: String,
    /// Its namespace.
    pub namespace: String,
    /// Where it stands.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// Attempts made.
    pub attempts: u32,
    /// The next attempt is due at this time; 0 when there is none.
    pub next_attempt_at: Millis,
    /// When it was written.
    pub created_at: Millis,
    /// The time of its last change.
    pub updated_at: Millis,
    /// Bytes of its body.
    pub size_bytes: u32,
    /// Its content is sealed.
    pub sealed: bool,
    /// Bytes left and were not answered.
    pub maybe_delivered: bool,
    /// The task it is about.
    pub task_id: Option<String>,
    /// The message that it answers.
    pub correlation_id: Option<String>,
    /// The error of the last attempt, or empty; a long one is cut.
    pub error: String,
    /// Where its body lies in the journal.
    pub body: BodyPlace,
    /// SHA-256 of the salt and the body.
    pub digest: [u8; 32],
}

impl Row {
    /// The row of a message that was just accepted.
    pub(crate) fn new(
        head: &Arc<MessageHead>,
        entry: EntryId,
        body: BodyPlace,
        time: Millis,
    ) -> Self {
        Self {
            entry,
            message_id: head.message_id.clone(),
            direction: head.direction,
            message_type: head.message_type.clone(),
            peer: head.peer.clone(),
            destination: head.destination.clone(),
            namespace: head.namespace.clone(),
            status: head.status,
            reason: head.reason,
            attempts: 0,
            next_attempt_at: if head.status.is_finished() { 0 } else { head.due_at },
            created_at: head.created_at,
            updated_at: time,
            size_bytes: head.size,
            sealed: head.sealed,
            maybe_delivered: false,
            task_id: head.task_id.clone(),
            correlation_id: head.correlation_id.clone(),
            error: String::new(),
            body,
            digest: head.digest,
        }
    }

    /// Takes a change over; a finished message does not change, as in the fold.
    pub(crate) fn change(&mut self, change: &MessageChange, time: Millis) {
        if self.status.is_finished() {
            return;
        }
        self.status = change.status;
        self.reason = change.reason;
        self.attempts = change.attempts;
        self.next_attempt_at = change.next_attempt_at;
        self.maybe_delivered = change.maybe_delivered;
        self.error = cut(&change.error);
        self.updated_at = time;
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn cost(&self) -> usize {
        let texts = [&self.message_id, &self.message_type, &self.peer, &self.error];
        ROW_BYTES + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

fn cut(error: &str) -> String {
    let end = (0..=ERROR_BYTES_MAX.min(error.len())).rev().find(|at| error.is_char_boundary(*at));
    error[..end.unwrap_or(0)].to_owned()
}

/// How far the rows go, and whose they are. Written in the same batch as the rows.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Applied {
    pub(crate) format: u32,
    pub(crate) journal: [u8; 16],
    pub(crate) boot: String,
    pub(crate) sequence: u64,
    pub(crate) hash: [u8; 32],
    /// Everything was synced after this; rows of another boot can be trusted.
    pub(crate) clean: bool,
}

/// The row at a key of the tree. `None`: the key is not a row's.
///
/// # Errors
/// When the value is not a row.
pub fn decode_row(key: &[u8], value: &[u8]) -> Option<Result<Row, CodecError>> {
    matches!(key, [b'm', ..]).then(|| codec::decode(value))
}

/// The key of a row.
pub(crate) fn row_key(entry: EntryId) -> Vec<u8> {
    with_entry(b"m", entry)
}

/// The key in the index by message id.
pub(crate) fn id_key(message_id: &str, entry: EntryId) -> Vec<u8> {
    with_entry(&id_prefix(message_id), entry)
}

/// What the keys of a message id begin with. The hash only narrows: rows are compared.
pub(crate) fn id_prefix(message_id: &str) -> Vec<u8> {
    let mut prefix = vec![b'i'];
    prefix.extend(crate::store::actor_hash(message_id).to_be_bytes());
    prefix
}

/// The key in the index of unfinished messages by status.
pub(crate) fn status_key(status: Status, entry: EntryId) -> Vec<u8> {
    with_entry(&status_prefix(status), entry)
}

/// What the keys of a status begin with.
pub(crate) fn status_prefix(status: Status) -> Vec<u8> {
    vec![b's', status as u8]
}

fn with_entry(prefix: &[u8], entry: EntryId) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend(entry.sequence.to_be_bytes());
    key.extend(entry.index.to_be_bytes());
    key
}

/// The entry at the end of a key.
pub(crate) fn entry_of(key: &[u8]) -> Option<EntryId> {
    let (rest, index) = key.split_last_chunk::<4>()?;
    let (_, sequence) = rest.split_last_chunk::<8>()?;
    let (sequence, index) = (u64::from_be_bytes(*sequence), u32::from_be_bytes(*index));
    Some(EntryId { sequence, index })
}
