//! The heads of messages, which memory has no room for: read from the journal when somebody needs
//! one, and kept for a while, as whoever sends a message soon records what became of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Published;
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

/// Heads of one frame.
#[derive(Default)]
pub(super) struct OfFrame {
    /// By the index of their entry.
    heads: Vec<(u32, Arc<MessageHead>)>,
    bytes: usize,
}

/// They come and go by the frame: finding a place for each by itself would be most of the work.
#[derive(Default)]
struct Kept {
    frames: HashMap<u64, OfFrame>,
    /// The oldest first.
    order: VecDeque<u64>,
    bytes: usize,
}

impl Heads {
    pub(super) fn new(reader: Arc<dyn ReadLog>) -> Self {
        Self { reader, kept: Mutex::default() }
    }

    /// Keeps the heads of the unfinished messages that a frame accepted, and gives back those that
    /// there is no more room for: to free them takes a while.
    pub(super) fn keep(&self, published: &Published) -> Vec<OfFrame> {
        let mut heads = Vec::with_capacity(published.entries.len());
        for (entry, record, _) in published.entries.iter() {
            if let Fact::Accept(head) = &record.fact
                && !head.status.is_finished()
            {
                heads.push((entry.index, Arc::clone(head)));
            }
        }
        self.kept.lock().put(published.sequence, heads)
    }

    /// The head of the message that an entry accepted, from the frame that has it.
    ///
    /// # Errors
    /// When its frame cannot be read, or the frame has none.
    pub(crate) fn get(&self, (entry, at): Place) -> Result<Arc<MessageHead>, ReadError> {
        if let Some(head) = self.kept.lock().get(entry) {
            return Ok(head);
        }
        let frame = self.reader.frame(at)?;
        // The neighbours behind it are wanted next, most likely.
        let (mut heads, mut bytes) = (Vec::new(), 0);
        let from = if at == entry.sequence { entry.index as usize } else { 0 };
        for one in frame.entries.iter().skip(from) {
            let Some((its, head)) = head_in(&frame, one) else { continue };
            if its != entry && heads.is_empty() {
                continue;
            }
            bytes += cost(&head);
            if !heads.is_empty() && bytes > BYTES_MAX / 2 {
                break;
            }
            heads.push((its, head));
        }
        let wanted = heads.first().map(|(_, head)| Arc::clone(head));
        let old = self.kept.lock().put_all(&heads);
        drop(old);
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
    fn get(&self, entry: EntryId) -> Option<Arc<MessageHead>> {
        self.frames.get(&entry.sequence)?.get(entry.index)
    }

    /// The same for heads of messages that several frames accepted, such as those that were carried
    /// forward.
    fn put_all(&mut self, heads: &[(EntryId, Arc<MessageHead>)]) -> Vec<OfFrame> {
        let mut old = Vec::new();
        for frame in heads.chunk_by(|(one, _), (next, _)| one.sequence == next.sequence) {
            let sequence = frame.first().map_or(0, |(entry, _)| entry.sequence);
            let heads = frame.iter().map(|(entry, head)| (entry.index, Arc::clone(head)));
            old.extend(self.put(sequence, heads.collect()));
        }
        old
    }

    /// Puts heads of a frame beside those that are there, and gives back the oldest, if they are
    /// too many now.
    fn put(&mut self, sequence: u64, heads: Vec<(u32, Arc<MessageHead>)>) -> Vec<OfFrame> {
        if heads.is_empty() {
            return Vec::new();
        }
        let frame = self.frames.entry(sequence).or_insert_with(|| {
            self.order.push_back(sequence);
            OfFrame::default()
        });
        self.bytes += frame.add(heads);
        let mut old = Vec::new();
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            let goes = self.frames.remove(&oldest).unwrap_or_default();
            self.bytes -= goes.bytes;
            old.push(goes);
        }
        old
    }
}

impl OfFrame {
    fn at(&self, index: u32) -> Result<usize, usize> {
        self.heads.binary_search_by_key(&index, |(index, _)| *index)
    }

    fn get(&self, index: u32) -> Option<Arc<MessageHead>> {
        self.heads.get(self.at(index).ok()?).map(|(_, head)| Arc::clone(head))
    }

    /// Adds those that are not here, and says how many bytes they have.
    fn add(&mut self, mut heads: Vec<(u32, Arc<MessageHead>)>) -> usize {
        heads.retain(|(index, _)| self.at(*index).is_err());
        let bytes = heads.iter().map(|(_, head)| cost(head)).sum();
        if self.heads.is_empty() {
            self.heads = heads;
        } else {
            self.heads.append(&mut heads);
            self.heads.sort_unstable_by_key(|(index, _)| *index);
        }
        self.bytes += bytes;
        bytes
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
