//! A message's row and the keys of the tree. Bytes only: it opens nothing and reads no journal.
//!
//! ```text
//! 'm' first:12            -> block: rows in the order of acceptance    every message
//! 'i' first:12            -> hash:2 for each row of the block           by message id
//! 's' status:1 first:12   -> (empty): the block has an unfinished       by status
//!                            message with this status
//! 'a'                     -> Applied                                    how far the rows go
//!
//! first: the entry of the block's first row, sequence:8 index:4. A block goes up to the next one.
//! ```
//! Numbers are big endian, so that the order of keys is the order of acceptance.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::messages::{self, BodyPlace, Place};
use crate::record::{
    Carried, Direction, EntryId, MessageChange, MessageHead, Millis, Reason, Status,
};

/// The key of [`Applied`].
pub(crate) const APPLIED_KEY: &[u8] = b"a";

/// The format of the rows that this program writes; another one is rebuilt from the journal.
pub(crate) const FORMAT: u32 = 1;

/// Bytes of an error that a row keeps: rows stay small, the journal has the whole text.
const ERROR_BYTES_MAX: usize = 200;

/// Rows of a block at the most.
const BLOCK_ROWS_MAX: usize = 32;

/// A block of more bytes takes no more rows. Far below 16 KiB even after every row of it got an
/// error, as sled moves larger values into files of their own, which it does not sync.
const BLOCK_BYTES_MAX: usize = 6 << 10;

/// Bytes of a row besides its texts, on disk.
const STORED_BYTES: usize = 200;

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

    /// The row of a message that was carried forward, as it stands after that.
    pub(crate) fn carried(carried: &Carried, body: BodyPlace) -> Self {
        let Carried { head, state, updated_at } = carried;
        let mut row = Self::new(head, state.message, body, *updated_at);
        row.change(state, *updated_at);
        row
    }

    /// The frame without which nobody can read its head and its body.
    pub(crate) fn kept_by(&self) -> u64 {
        self.place().1
    }

    /// Where its head and its body are read.
    pub fn place(&self) -> Place {
        messages::place(self.entry, self.body)
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
        ROW_BYTES + self.text_bytes()
    }

    fn text_bytes(&self) -> usize {
        let texts = [&self.message_id, &self.message_type, &self.peer, &self.namespace];
        let optional = [&self.task_id, &self.correlation_id];
        let optional = optional.iter().filter_map(|text| text.as_ref()).map(String::len);
        let own = self.destination.len() + self.error.len();
        own + texts.iter().map(|text| text.len()).sum::<usize>() + optional.sum::<usize>()
    }
}

/// Whether a block of these rows takes one more.
pub(crate) fn has_room(rows: &[Row]) -> bool {
    let bytes: usize = rows.iter().map(|row| STORED_BYTES + row.text_bytes()).sum();
    rows.len() < BLOCK_ROWS_MAX && bytes < BLOCK_BYTES_MAX
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

/// The rows at a key of the tree, the oldest first. `None`: the key is not one of rows.
///
/// # Errors
/// When the value is not a block of rows.
pub fn decode_rows(key: &[u8], value: &[u8]) -> Option<Result<Vec<Row>, CodecError>> {
    key.starts_with(ROWS).then(|| codec::decode(value))
}

/// What the keys of blocks begin with.
pub(crate) const ROWS: &[u8] = b"m";

/// What the keys of message ids begin with.
pub(crate) const IDS: &[u8] = b"i";

/// What the keys of a status begin with.
pub(crate) fn status_prefix(status: Status) -> Vec<u8> {
    vec![b's', status as u8]
}

/// Two bytes that stand for a message id: they only narrow the search, rows are compared.
pub(crate) fn id_hash(message_id: &str) -> [u8; 2] {
    let hash = crate::store::actor_hash(message_id).to_be_bytes();
    [hash[0] ^ hash[4], hash[1] ^ hash[5]]
}

/// A key of a block.
pub(crate) fn with_entry(prefix: &[u8], entry: EntryId) -> Vec<u8> {
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
