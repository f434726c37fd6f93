//! What is durable in the journal and not yet in sled, coalesced to one patch a message. It knows
//! no disk and no thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::messages::BodyPlace;
use crate::record::{EntryId, Fact, MessageChange, Millis, Prune, Record};
use crate::view::Row;

/// Bytes of a change besides its error.
const CHANGE_BYTES: usize = 160;

/// What is new of one message.
#[derive(Clone, Debug)]
pub(crate) enum Patch {
    /// The whole row: it was accepted since.
    Row(Box<Row>),
    /// Its newest change: its row is older.
    Change(Box<MessageChange>, Millis),
}

/// Patches by message.
pub(crate) type Patches = BTreeMap<EntryId, Patch>;

/// The patches that are gathered, and those that are just being written.
#[derive(Default)]
pub(crate) struct Overlay {
    pub(crate) pending: Patches,
    pub(crate) flushing: Arc<Patches>,
    /// The frame that `pending` goes up to, and the chain's hash after it.
    pub(crate) head: Option<(u64, [u8; 32])>,
    /// Rows of messages that were accepted up to this frame go; 0: none.
    pub(crate) trimmed: u64,
    /// About what `pending` takes.
    pub(crate) bytes: usize,
    /// Latest time of a frame, as the fold has it.
    pub(crate) time: Millis,
}

impl Overlay {
    /// Takes an entry over. The fold's rules hold: what is finished stays.
    pub(crate) fn add(&mut self, entry: EntryId, time: Millis, record: &Record, body: BodyPlace) {
        self.time = self.time.max(time);
        match &record.fact {
            Fact::Accept(head) => {
                let row = Row::new(head, entry, body, self.time);
                self.bytes += row.cost();
                self.pending.insert(entry, Patch::Row(Box::new(row)));
            }
            Fact::Change(change) | Fact::Prune(Prune { change, .. }) => self.change(change),
            Fact::Trim(trim) => self.trim(trim.through),
            Fact::Carry(carried) => {
                // The row as a whole: where the journal begins after it there is no other.
                let row = Row::carried(carried, body);
                self.bytes += row.cost();
                self.pending.insert(row.entry, Patch::Row(Box::new(row)));
            }
            Fact::Note | Fact::Put(_) | Fact::Forget(_) | Fact::Evict(_) => {}
        }
    }

    /// What nothing but the frames up to this one has goes, here and later in sled. Of a change
    /// nobody knows here where its message is kept; without a row it comes to nothing.
    fn trim(&mut self, through: u64) {
        self.trimmed = self.trimmed.max(through);
        let stays = |patch: &Patch| match patch {
            Patch::Row(row) => row.kept_by() > through,
            Patch::Change(..) => true,
        };
        self.pending.retain(|entry, patch| entry.sequence > through || stays(patch));
    }

    fn change(&mut self, change: &MessageChange) {
        let time = self.time;
        match self.pending.get_mut(&change.message) {
            Some(Patch::Row(row)) => row.change(change, time),
            Some(Patch::Change(known, _)) if known.status.is_finished() => {}
            Some(patch) => *patch = Patch::Change(Box::new(change.clone()), time),
            None => {
                self.bytes += CHANGE_BYTES + change.error.len();
                let patch = Patch::Change(Box::new(change.clone()), time);
                self.pending.insert(change.message, patch);
            }
        }
    }

    /// The row of a message, given what sled has of it; `stored` is asked only if it is needed.
    pub(crate) fn merge<E>(
        &self,
        entry: EntryId,
        stored: impl FnOnce() -> Result<Option<Row>, E>,
    ) -> Result<Option<Row>, E> {
        let pending = self.pending.get(&entry);
        if let Some(Patch::Row(row)) = pending {
            return Ok(Some((**row).clone()));
        }
        let flushing = self.flushing.get(&entry);
        let base = match flushing {
            Some(Patch::Row(row)) => Some((**row).clone()),
            _ => stored()?,
        };
        let Some(mut row) = base else { return Ok(None) };
        for patch in [flushing, pending] {
            if let Some(Patch::Change(change, time)) = patch {
                row.change(change, *time);
            }
        }
        Ok(Some(row))
    }
}
