//! The heads of messages, which memory has no room for: read from the journal when somebody needs
//! one, and kept for a while, as whoever sends a message soon records what became of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec;
use crate::journal::{Frame, FrameEntry, ReadError, ReadLog};
use crate::messages::Place;
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

    /// The head of the message that an entry accepted, from the frame that has it.
    ///
    /// # Errors
    /// When its frame cannot be read, or the frame has none.
    pub(crate) fn get(&self, (entry, at): Place) -> Result<Arc<MessageHead>, ReadError> {
        if let Some(head) = self.kept.lock().heads.get(&entry) {
            return Ok(Arc::clone(head));
        }
        let frame = self.reader.frame(at)?;
        let mut wanted = None;
        let mut kept = self.kept.lock();
        // The neighbours behind it are wanted next, most likely.
        let mut bytes = 0;
        let before = if at == entry.sequence { entry.index as usize } else { 0 };
        for one in frame.entries.iter().skip(before) {
            let Some((its, head)) = head_in(&frame, one) else { continue };
            if its == entry {
                wanted = Some(Arc::clone(&head));
            }
            if wanted.is_none() {
                continue;
            }
            bytes += cost(&head);
            if bytes > BYTES_MAX / 2 {
                break;
            }
            kept.put(its, &head);
        }
        wanted.ok_or(ReadError::NoFrame { sequence: at })
    }
}

/// The head that an entry of a frame has, and the entry that accepted its message.
pub(crate) fn head_in(frame: &Frame, one: &FrameEntry) -> Option<(EntryId, Arc<MessageHead>)> {
    match codec::decode::<Record>(&one.head).ok()?.fact {
        Fact::Accept(head) => {
            Some((EntryId { sequence: frame.position.sequence, index: one.index }, head))
        }
        Fact::Carry(carried) => Some((carried.state.message, carried.head)),
        _ => None,
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
