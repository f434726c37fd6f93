//! A journal in memory with the same interface, for models and tests: several writers, fences,
//! unknown results and crashes can be played. Nothing is ever on a disk.

use super::codec::narrow;
use super::{
    AppendError, Appended, BodyRef, Damage, Entry, EntryRef, FRAME_BYTES_MAX, Frame, FrameEntry,
    Head, Identity, IndexKeys, Log, Position, ReadError, ReadLog, Syncing, Wanted, chain, frame,
};
use parking_lot::Mutex;
use std::sync::Arc;

/// How the next append is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// [`AppendError::Unknown`], and the frame is in the journal.
    UnknownKept,
    /// [`AppendError::Unknown`], and the frame is not.
    UnknownLost,
}

/// One writer of a journal in memory.
pub struct MemoryLog {
    shared: Arc<Mutex<Shared>>,
    epoch: u32,
    next: Option<Outcome>,
}

struct Shared {
    identity: Identity,
    epoch: u32,
    frames: Vec<Stored>,
    /// How many frames are durable.
    durable: usize,
}

struct Stored {
    frame: Frame,
    bodies: Vec<Option<Vec<u8>>>,
    keys: Vec<IndexKeys>,
}

impl MemoryLog {
    /// An empty journal.
    pub fn new(identity: Identity) -> Self {
        let shared = Shared { identity, epoch: 1, frames: Vec::new(), durable: 0 };
        Self { shared: Arc::new(Mutex::new(shared)), epoch: 1, next: None }
    }

    /// Another writer of the same journal in the same epoch.
    #[must_use]
    pub fn writer(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), epoch: self.epoch, next: None }
    }

    /// Begins a new epoch with this writer; all writers of older ones are fenced off.
    pub fn new_epoch(&mut self) -> u32 {
        let mut shared = self.shared.lock();
        shared.epoch += 1;
        self.epoch = shared.epoch;
        self.epoch
    }

    /// Makes the next append end in a certain way.
    pub fn set_next(&mut self, outcome: Outcome) {
        self.next = Some(outcome);
    }

    /// Loses every frame that is not durable, as a power cut may.
    pub fn crash(&mut self) {
        let mut shared = self.shared.lock();
        let durable = shared.durable;
        shared.frames.truncate(durable);
    }

    /// A handle for reading.
    pub fn reader(&self) -> MemoryReader {
        MemoryReader { shared: Arc::clone(&self.shared) }
    }
}

impl Shared {
    fn head(&self, frames: usize) -> Head {
        let newest = frames.checked_sub(1).and_then(|at| self.frames.get(at));
        newest.map_or(
            Head { position: Position::default(), hash: chain::genesis(&self.identity.journal) },
            |stored| Head { position: stored.frame.position, hash: stored.frame.hash },
        )
    }

    fn append(&mut self, time: u64, entries: &[Entry<'_>]) -> Appended {
        let before = self.head(self.frames.len());
        let sequence = before.position.sequence + 1;
        let position = Position { epoch: self.epoch, sequence };
        let root = chain::merkle_root(entries.iter().map(|entry| entry.head));
        let hash = chain::next_hash(&before.hash, position, time, narrow(entries.len()), &root);
        let bodies = frame::body_refs(sequence, entries);
        let made = (0..).zip(entries).zip(&bodies).map(|((index, entry), body)| FrameEntry {
            index,
            head: entry.head.to_vec(),
            body: *body,
        });
        let frame = Frame { position, time, previous: before.hash, hash, entries: made.collect() };
        let kept = entries.iter().map(|entry| entry.body.map(<[u8]>::to_vec)).collect();
        let keys = entries.iter().map(|entry| entry.index).collect();
        self.frames.push(Stored { frame, bodies: kept, keys });
        Appended { position, hash, bodies }
    }
}

impl Log for MemoryLog {
    fn append(&mut self, time: u64, entries: &[Entry<'_>]) -> Result<Appended, AppendError> {
        let bytes = frame::encoded_len(entries);
        if entries.is_empty() {
            return Err(AppendError::Empty);
        }
        if bytes > FRAME_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes, max: FRAME_BYTES_MAX });
        }
        let mut shared = self.shared.lock();
        if shared.epoch != self.epoch {
            return Err(AppendError::Fenced { epoch: self.epoch });
        }
        match self.next.take() {
            None => Ok(shared.append(time, entries)),
            Some(Outcome::UnknownLost) => Err(AppendError::Unknown),
            Some(Outcome::UnknownKept) => {
                shared.append(time, entries);
                Err(AppendError::Unknown)
            }
        }
    }

    fn begin_sync(&mut self) -> Box<dyn Syncing> {
        Box::new(Through(self.appended().position))
    }

    fn finish_sync(
        &mut self,
        done: Result<Position, AppendError>,
    ) -> Result<Position, AppendError> {
        let through = done?.sequence;
        let mut shared = self.shared.lock();
        if shared.epoch != self.epoch {
            return Err(AppendError::Fenced { epoch: self.epoch });
        }
        let frames = &shared.frames;
        let durable = frames.partition_point(|one| one.frame.position.sequence <= through);
        shared.durable = shared.durable.max(durable);
        Ok(shared.head(shared.durable).position)
    }

    fn next_sequence(&self) -> u64 {
        self.appended().position.sequence + 1
    }

    fn appended(&self) -> Head {
        let shared = self.shared.lock();
        shared.head(shared.frames.len())
    }

    fn reader(&self) -> Arc<dyn ReadLog> {
        Arc::new(self.reader())
    }
}

/// Memory has no disk to wait for.
struct Through(Position);

impl Syncing for Through {
    fn run(self: Box<Self>) -> Result<Position, AppendError> {
        Ok(self.0)
    }
}

/// Reads a journal in memory.
#[derive(Clone)]
pub struct MemoryReader {
    shared: Arc<Mutex<Shared>>,
}

impl MemoryReader {
    /// The entries for which `wanted` holds, oldest first.
    fn entries(&self, wanted: impl Fn(&IndexKeys) -> bool) -> Vec<EntryRef> {
        let shared = self.shared.lock();
        let mut found = Vec::new();
        for stored in &shared.frames[..shared.durable] {
            let sequence = stored.frame.position.sequence;
            let here = (0..).zip(&stored.keys).filter(|(_, keys)| wanted(keys));
            found.extend(here.map(|(index, _)| EntryRef { sequence, index }));
        }
        found
    }
}

impl ReadLog for MemoryReader {
    fn identity(&self) -> Identity {
        self.shared.lock().identity
    }

    fn head(&self) -> Head {
        let shared = self.shared.lock();
        shared.head(shared.durable)
    }

    fn frames(&self, from: u64) -> Box<dyn Iterator<Item = Result<Frame, ReadError>> + Send + '_> {
        let shared = self.shared.lock();
        let durable = shared.frames[..shared.durable].iter().map(|stored| &stored.frame);
        let wanted = durable.filter(|frame| frame.position.sequence >= from);
        let frames: Vec<Frame> = wanted.cloned().collect();
        Box::new(frames.into_iter().map(Ok))
    }

    fn damage(&self) -> Result<Vec<Damage>, ReadError> {
        Ok(Vec::new())
    }

    fn body(&self, body: &BodyRef) -> Result<Vec<u8>, ReadError> {
        let sequence = body.sequence;
        let shared = self.shared.lock();
        let mut durable = shared.frames[..shared.durable].iter();
        let stored = durable
            .find(|stored| stored.frame.position.sequence == sequence)
            .ok_or(ReadError::NoFrame { sequence })?;
        let at = stored.frame.entries.iter().position(|entry| entry.body == Some(*body));
        let bytes = at.and_then(|at| stored.bodies.get(at)?.clone());
        bytes.ok_or(ReadError::NoBody { sequence, offset: body.offset, len: body.len })
    }

    fn find(&self, id: u128) -> Result<Vec<EntryRef>, ReadError> {
        Ok(self.entries(|keys| keys.id == Some(id)))
    }

    fn find_accepted(&self, wanted: &Wanted) -> Result<Vec<EntryRef>, ReadError> {
        self.find(wanted.id)
    }

    fn frame(&self, sequence: u64) -> Result<Frame, ReadError> {
        let mut frames = self.frames(sequence);
        let found = frames.next().and_then(Result::ok);
        let found = found.filter(|frame| frame.position.sequence == sequence);
        found.ok_or(ReadError::NoFrame { sequence })
    }

    fn by_event(
        &self,
        events: &[u16],
        before: Option<EntryRef>,
        limit: usize,
    ) -> Result<Vec<EntryRef>, ReadError> {
        let mut found = self.entries(|keys| events.contains(&keys.event));
        found.retain(|at| before.is_none_or(|before| *at < before));
        found.reverse();
        found.truncate(limit);
        Ok(found)
    }
}
