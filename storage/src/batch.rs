//! A frame in the making: what was decided, in order, and what the decisions after it are to see.
//! A message that was accepted and not changed since is found by its entry alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::codec::{self, CodecError};
use crate::journal::{BodyRef, Entry, IndexKeys, KeyedHash};
use crate::ledger::Ledger;
use crate::messages::{BodyPlace, Fingerprint, Live};
use crate::record::{EntryId, Fact, MessageHead, Millis, Record};
use crate::store::{Entries, place};

/// A record and its body, on their way into a frame.
pub(crate) struct Staged {
    pub(crate) record: Record,
    pub(crate) body: Option<Vec<u8>>,
    keys: IndexKeys,
    /// Where the bytes of the record end in those of the batch; they begin where the ones before
    /// end.
    end: usize,
}

/// What was decided and is not published yet: only the committer sees it.
#[derive(Default)]
pub(crate) struct Ahead {
    pub(crate) sequence: u64,
    time: Millis,
    pub(crate) ledger: Ledger,
    pub(crate) accepted: HashMap<Fingerprint, EntryId, KeyedHash>,
    /// Messages that were changed, by the entry that accepted them.
    pub(crate) changed: HashMap<EntryId, Live>,
}

/// A frame that is being synced or published.
pub(crate) struct Before {
    pub(crate) ahead: Ahead,
    pub(crate) entries: Entries,
    /// By the index of the entry.
    pub(crate) bodies: Vec<Option<Vec<u8>>>,
}

/// A frame in the making.
pub(crate) struct Batch {
    pub(crate) staged: Vec<Staged>,
    /// The records as they will lie in the frame, one after the other.
    heads: Vec<u8>,
    pub(crate) ahead: Ahead,
    /// The frame before this one, if it was not published when this one was begun.
    pub(crate) before: Option<Arc<Before>>,
    pub(crate) bytes: usize,
}

/// Room that the batch before needed, so that this one does not grow into it step by step.
#[derive(Clone, Copy, Default)]
pub(crate) struct Room {
    entries: usize,
    heads: usize,
}

impl Batch {
    /// A frame after the one `before`, or after all that is published, whose ledger is given.
    pub(crate) fn new(
        (sequence, time): (u64, Millis),
        published: &Ledger,
        before: Option<Arc<Before>>,
        room: Room,
    ) -> Self {
        let ledger = before.as_ref().map_or(published, |before| &before.ahead.ledger).clone();
        let ahead = Ahead { sequence, time, ledger, ..Ahead::default() };
        let (staged, heads) = (Vec::with_capacity(room.entries), Vec::with_capacity(room.heads));
        Self { staged, heads, ahead, before, bytes: 0 }
    }

    /// About how many bytes the frame has so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it has needed.
    pub(crate) fn room(&self) -> Room {
        Room { entries: self.staged.len(), heads: self.heads.len() }
    }

    /// Adds a record, and says how many bytes it has.
    ///
    /// # Errors
    /// When it cannot be written; it is then here without its bytes.
    pub(crate) fn push(
        &mut self,
        record: Record,
        body: Option<Vec<u8>>,
        keys: IndexKeys,
    ) -> Result<usize, CodecError> {
        let begin = self.heads.len();
        let encoded = codec::encode_to(&mut self.heads, &record);
        let end = self.heads.len();
        self.staged.push(Staged { record, body, keys, end });
        encoded.map(|()| end - begin)
    }

    /// Takes everything behind the first `count` records out again.
    pub(crate) fn truncate(&mut self, count: usize) {
        for (at, one) in self.staged.iter().enumerate().skip(count) {
            let entry = entry_of(self.ahead.sequence, at);
            if let (Fact::Accept(_), Some(id)) = (&one.record.fact, one.keys.id)
                && self.ahead.accepted.get(&id) == Some(&entry)
            {
                self.ahead.accepted.remove(&id);
            }
        }
        self.staged.truncate(count);
        self.heads.truncate(self.staged.last().map_or(0, |last| last.end));
    }

    /// The entry that a record would have now.
    pub(crate) fn next_entry(&self) -> EntryId {
        entry_of(self.ahead.sequence, self.staged.len())
    }

    /// The entries of the frame.
    pub(crate) fn entries(&self) -> Vec<Entry<'_>> {
        let begins = std::iter::once(0).chain(self.staged.iter().map(|one| one.end));
        let entries = self.staged.iter().zip(begins).map(|(one, begin)| Entry {
            head: self.heads.get(begin..one.end).unwrap_or_default(),
            body: one.body.as_deref(),
            index: one.keys,
        });
        entries.collect()
    }

    /// The message that an entry accepted which is not published yet, as it was then.
    pub(crate) fn accepted(&self, entry: EntryId) -> Option<(&Arc<MessageHead>, Millis)> {
        let index = entry.index as usize;
        let (fact, time) = if entry.sequence == self.ahead.sequence {
            (&self.staged.get(index)?.record.fact, self.ahead.time)
        } else {
            let before = self.before_of(entry)?;
            (&before.entries.get(index)?.1.fact, before.ahead.time)
        };
        let Fact::Accept(head) = fact else { return None };
        Some((head, time))
    }

    /// The frame of an entry, if it is the one before.
    pub(crate) fn before_of(&self, entry: EntryId) -> Option<&Before> {
        self.before.as_deref().filter(|before| before.ahead.sequence == entry.sequence)
    }

    /// What was decided and is not published, the newest first.
    pub(crate) fn aheads(&self) -> impl Iterator<Item = &Ahead> {
        std::iter::once(&self.ahead).chain(self.before.as_ref().map(|before| &before.ahead))
    }

    /// What is to be published, and what whoever decides meanwhile is to see.
    pub(crate) fn close(self, places: Vec<Option<BodyRef>>) -> Before {
        let sequence = self.ahead.sequence;
        let mut bodies = Vec::with_capacity(self.staged.len());
        let entries = self.staged.into_iter().zip(places).enumerate().map(|(at, (one, body))| {
            bodies.push(one.body);
            (entry_of(sequence, at), one.record, place(body))
        });
        let entries: Arc<[(EntryId, Record, BodyPlace)]> = entries.collect();
        Before { ahead: self.ahead, entries, bodies }
    }
}

fn entry_of(sequence: u64, index: usize) -> EntryId {
    EntryId { sequence, index: u32::try_from(index).unwrap_or(u32::MAX) }
}
