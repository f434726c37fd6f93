//! The heads of messages, which memory has no room for: read from the journal when somebody needs
//! one, and kept for a while, as whoever sends a message soon records what became of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec;
use crate::journal::{ReadError, ReadLog};
use crate::record::{EntryId, Fact, MessageHead, Record};

/// Bytes of heads that are kept.
const BYTES_MAX: usize = 8 << 20;

/// Bytes of a head besides its texts, with its place here.
const HEAD_BYTES: usize = 600;

/// Reads heads, and keeps the newest of those that were read or written.
pub(crate) struct Heads {
    reader: Arc<dyn ReadLog>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    heads: HashMap<EntryId, Arc<MessageHead>>,
    /// The oldest first.
    order: VecDeque<EntryId>,
    bytes: usize,
}

impl Heads {
    pub(super) fn new(reader: Arc<dyn ReadLog>) -> Self {
        Self { reader, kept: Mutex::default() }
    }

    /// Keeps heads that were just accepted.
    pub(super) fn keep<'a>(&self, heads: impl Iterator<Item = (EntryId, &'a Arc<MessageHead>)>) {
        let mut kept = self.kept.lock();
        for (entry, head) in heads {
            kept.put(entry, head);
        }
    }

    /// The head of the message that an entry accepted.
    ///
    /// # Errors
    /// When its frame cannot be read, or the entry accepted none.
    pub(crate) fn get(&self, entry: EntryId) -> Result<Arc<MessageHead>, ReadError> {
        if let Some(head) = self.kept.lock().heads.get(&entry) {
            return Ok(Arc::clone(head));
        }
        let frame = self.reader.frame(entry.sequence)?;
        let mut wanted = None;
        let mut kept = self.kept.lock();
        // The neighbours behind it are wanted next, most likely.
        let mut bytes = 0;
        for one in frame.entries.iter().skip(entry.index as usize) {
            let Ok(Record { fact: Fact::Accept(head), .. }) = codec::decode(&one.head) else {
                continue;
            };
            if one.index == entry.index {
                wanted = Some(Arc::clone(&head));
            }
            bytes += cost(&head);
            if bytes > BYTES_MAX / 2 {
                break;
            }
            kept.put(EntryId { sequence: entry.sequence, index: one.index }, &head);
        }
        wanted.ok_or(ReadError::NoFrame { sequence: entry.sequence })
    }
}

impl Kept {
    fn put(&mut self, entry: EntryId, head: &Arc<MessageHead>) {
        if self.heads.insert(entry, Arc::clone(head)).is_some() {
            return;
        }
        self.order.push_back(entry);
        self.bytes += cost(head);
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.heads.remove(&oldest).map_or(0, |head| cost(&head));
        }
    }
}

fn cost(head: &MessageHead) -> usize {
    let texts = [
        &head.message_id,
        &head.message_type,
        &head.namespace,
        &head.peer,
        &head.destination,
        &head.sender,
        &head.lane,
    ];
    HEAD_BYTES + texts.iter().map(|text| text.len()).sum::<usize>()
}
