//! The journal in a local directory: one writer, which appends frames and syncs them.
//!
//! It decides nothing about batching and keeps no body in memory.

use super::catalog::{Catalog, Segment, State};
use super::codec::narrow;
use super::files::{self, Lock, Spare, io_error, make_spare};
use super::found::Found;
use super::frame::{self, FrameHeader};
use super::helper::{Helper, seal_with};
use super::index::{FrameRow, SegmentIndex};
use super::recover::{Recovered, found_no_room, head_of, recover};
use super::segment::{
    FLAG_CLEAN, FRAMES_START, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SegmentHeader,
};
use super::space::{self, Space};
use super::sync::{SyncPoint, Syncer};
use super::ticket::SyncTicket;
use super::{
    AppendError, Appended, Compactor, Entry, FRAME_BYTES_MAX, Head, Identity, IndexFn, IndexKeys,
    Log, OpenError, Position, ReadLog, Reader, Recovery, Syncing, chain,
};
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// How a journal is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size of a segment; 16 MiB unless a test says otherwise.
    pub segment_bytes: u64,
    /// Size of the reserve, the room that only what must go on may take; 64 MiB unless a test says
    /// otherwise.
    pub reserve_bytes: u64,
    /// Time of opening, milliseconds since the Unix epoch; the header of the new segment has it.
    pub time: u64,
    /// Fills a buffer with random bytes; the operating system's unless a test says otherwise.
    pub random: fn(&mut [u8]) -> io::Result<()>,
    /// Carries out the syncs.
    pub syncer: Arc<Syncer>,
}

impl Options {
    /// The usual, at a given time.
    pub fn new(time: u64) -> Self {
        let syncer = Arc::new(Syncer::default());
        let (segment_bytes, reserve_bytes) = (16 << 20, space::RESERVE_BYTES);
        Self { segment_bytes, reserve_bytes, time, random: system_random, syncer }
    }
}

fn system_random(out: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while at < out.len() {
        at += rustix::rand::getrandom(&mut out[at..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

/// The one writer of a journal's directory. Dropped without [`FileLog::close`], it leaves what a
/// crash would.
pub struct FileLog {
    reader: Reader,
    helper: Helper,
    space: Arc<Space>,
    syncer: Arc<Syncer>,
    random: fn(&mut [u8]) -> io::Result<()>,
    active: Active,
    head: Head,
    next_sequence: u64,
    pending: Pending,
    buffer: Vec<u8>,
    /// Held while the disk syncs; true after a sync failed, because the system tells only one.
    gate: Arc<Mutex<bool>>,
    /// An error was final.
    stopped: bool,
    /// Held until the journal is dropped.
    _lock: Lock,
}

/// The segment that is appended to.
struct Active {
    segment: Arc<Segment>,
    file: Arc<File>,
    /// Where the next frame goes, and how far room is reserved.
    end: u64,
    room: u64,
}

/// Frames that are written and not yet durable, so that no reader sees them.
#[derive(Default)]
struct Pending {
    frames: Vec<PendingFrame>,
    keys: Vec<IndexKeys>,
}

struct PendingFrame {
    row: FrameRow,
    head: Head,
    end: u64,
    keys: usize,
}

impl FileLog {
    /// Opens the journal in a directory, making it if need be, and begins a new epoch.
    ///
    /// # Errors
    /// When another process has it, a newer program wrote it, or the disk refuses.
    pub fn open(
        dir: &Path,
        options: &Options,
        index: IndexFn,
    ) -> Result<(Self, Recovery), OpenError> {
        let (bytes, min, max) = (options.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        if !(min..=max).contains(&bytes) {
            return Err(OpenError::SegmentSize { bytes, min, max });
        }
        files::make_dir(dir, &options.syncer)?;
        let lock = files::lock(dir)?;
        let space = Arc::new(Space::new(dir, options.reserve_bytes, bytes));
        let mut found = recover(dir, bytes, index, (&options.syncer, &space))?;
        let identity = match found.identity {
            Some(identity) => identity,
            None => new_identity(options).map_err(io_error("draw an identity for", dir))?,
        };
        let head = head_of(&found, &identity);
        let epoch = found.epoch.saturating_add(1);
        let active = space.with_reserve(bytes, found_no_room, || {
            first_segment(dir, options, &mut found, &identity, &head)
        })?;
        drop_empty(&mut found)?;
        let recovery = Recovery {
            clean: found.clean,
            head,
            epoch,
            damage: found.damage,
            torn_bytes: found.torn_bytes,
            quarantined: found.quarantined,
        };
        found.segments.push(Arc::clone(&active.segment));
        let mut catalog = Catalog::new(identity, index, found.segments, head);
        catalog.found = Found::of(&recovery.damage);
        let helper = Helper::start(
            dir.to_path_buf(),
            bytes,
            Arc::clone(&options.syncer),
            (found.spares, found.next_number),
            Arc::clone(&space),
        )
        .map_err(io_error("start the helper of", dir))?;
        let log = Self {
            reader: Reader { catalog: Arc::new(catalog) },
            helper,
            space,
            syncer: Arc::clone(&options.syncer),
            random: options.random,
            active,
            head: Head { position: Position { epoch, ..head.position }, hash: head.hash },
            next_sequence: found.next_sequence,
            pending: Pending::default(),
            buffer: Vec::new(),
            gate: Arc::new(Mutex::new(false)),
            stopped: false,
            _lock: lock,
        };
        Ok((log, recovery))
    }

    /// A handle for reading, for any thread.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Who the journal is.
    pub fn identity(&self) -> Identity {
        self.reader.identity()
    }

    /// Writes its sealed segments anew.
    pub fn compactor(&self) -> Compactor {
        let dir = self.active.segment.path.parent().unwrap_or(Path::new("")).to_path_buf();
        let (catalog, syncer) = (Arc::clone(&self.reader.catalog), Arc::clone(&self.syncer));
        Compactor { dir, catalog, syncer, space: Arc::clone(&self.space) }
    }

    /// The room that it has.
    pub fn space(&self) -> Arc<Space> {
        Arc::clone(&self.space)
    }

    /// A clean stop: syncs, seals the active segment and writes the trailer.
    ///
    /// # Errors
    /// When an earlier error was final, or the trailer cannot be made durable.
    pub fn close(mut self) -> Result<Head, AppendError> {
        self.sync()?;
        self.helper.finish();
        let path = self.active.segment.path.clone();
        seal_with(&self.active.segment, FLAG_CLEAN, &self.syncer, &self.space)
            .map_err(|source| AppendError::Sync { path, source })?;
        Ok(self.head)
    }

    fn epoch(&self) -> u32 {
        self.head.position.epoch
    }

    /// A sync through a frame that is written.
    fn ticket(&self, through: Position, needed: bool) -> SyncTicket {
        SyncTicket {
            file: Arc::clone(&self.active.file),
            path: self.active.segment.path.clone(),
            gate: Arc::clone(&self.gate),
            syncer: Arc::clone(&self.syncer),
            through,
            needed,
        }
    }

    fn ticket_through_all(&self) -> SyncTicket {
        self.ticket(self.head.position, !self.pending.frames.is_empty())
    }

    /// Makes what is pending durable, then visible.
    fn commit(&mut self, guarantee: SyncPoint) -> Result<(), AppendError> {
        let done = self.ticket_through_all().run_as(guarantee);
        self.finish_sync(done).map(|_| ())
    }

    /// Shows readers the pending frames through a position.
    fn publish(&mut self, through: Position) {
        let newest = through.sequence;
        let frames = &mut self.pending.frames;
        let count = frames.partition_point(|one| one.head.position.sequence <= newest);
        let keys_count: usize = frames[..count].iter().map(|one| one.keys).sum();
        let mut keys = self.pending.keys.drain(..keys_count);
        let mut head = None;
        if let State::Open(_, index) = &mut *self.active.segment.state.write() {
            for one in frames.drain(..count) {
                let mine = keys.by_ref().take(one.keys);
                index.push(one.row, one.head.position, one.head.hash, one.end, mine);
                head = Some(one.head);
            }
        }
        if let Some(head) = head {
            *self.reader.catalog.head.write() = head;
        }
    }

    /// Makes sure that the active segment has room for a frame.
    fn make_room(&mut self, time: u64, len: u64) -> Result<(), AppendError> {
        if self.active.end + len > self.active.room && self.active.end > FRAMES_START {
            self.rotate(time)?;
        }
        let Active { file, end, room, segment } = &mut self.active;
        if *end + len > *room {
            if let Err(source) = files::fill(file, *room, *end + len) {
                let path = segment.path.clone();
                return match file.set_len(*room) {
                    Ok(()) => Err(AppendError::Full { path, source }),
                    Err(source) => Err(self.stop(source)),
                };
            }
            *room = *end + len;
        }
        Ok(())
    }

    /// Goes on in a spare. The full segment is durable before the next one has a frame, so that
    /// only the last segment can have a torn tail.
    fn rotate(&mut self, time: u64) -> Result<(), AppendError> {
        self.commit(SyncPoint::Rotate)?;
        let dir = self.active.segment.path.parent().unwrap_or(Path::new("")).to_path_buf();
        let full = |source| AppendError::Full { path: dir.clone(), source };
        let spare = self.helper.take_spare().map_err(full)?;
        let number = spare.number;
        let header = SegmentHeader {
            identity: self.identity(),
            number,
            nonce: random_u64(self.random).map_err(full)?,
            epoch: self.epoch(),
            first_sequence: self.next_sequence,
            previous: self.head.hash,
            created: time,
        };
        let next = begin(spare, header).map_err(|source| self.stop(source))?;
        let before = std::mem::replace(&mut self.active, next);
        let mut segments = self.reader.catalog.segments.write();
        segments.list.push(Arc::clone(&self.active.segment));
        drop(segments);
        self.helper.seal(before.segment);
        Ok(())
    }

    /// An error after which it is not known what the disk has.
    fn stop(&mut self, source: io::Error) -> AppendError {
        self.stopped = true;
        AppendError::Write { path: self.active.segment.path.clone(), source }
    }
}

impl Log for FileLog {
    fn append(&mut self, time: u64, entries: &[Entry<'_>]) -> Result<Appended, AppendError> {
        self.append_with(time, entries, &mut drop)
    }

    fn append_with(
        &mut self,
        time: u64,
        entries: &[Entry<'_>],
        hand_over: &mut dyn FnMut(Box<dyn Syncing>),
    ) -> Result<Appended, AppendError> {
        if self.stopped {
            return Err(AppendError::Stopped);
        }
        let bytes = frame::encoded_len(entries);
        if entries.is_empty() {
            return Err(AppendError::Empty);
        }
        if bytes > FRAME_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes, max: FRAME_BYTES_MAX });
        }
        self.make_room(time, bytes as u64)?;
        let sequence = self.next_sequence;
        let position = Position { epoch: self.epoch(), sequence };
        let header = FrameHeader {
            nonce: self.active.segment.header.nonce,
            position,
            time,
            synced_through: self.reader.head().position.sequence,
            previous: self.head.hash,
        };
        frame::encode(&mut self.buffer, &header, entries);
        let written = self.active.file.write_all_at(&self.buffer, self.active.end);
        written.map_err(|source| self.stop(source))?;
        hand_over(Box::new(self.ticket(position, true)));
        // The next frame needs these, this one does not: they are made while the disk is busy.
        let root = chain::merkle_root(entries.iter().map(|entry| entry.head));
        let count = narrow(entries.len());
        let hash = chain::next_hash(&self.head.hash, position, time, count, &root);
        let bodies = frame::body_refs(sequence, entries);
        self.note(time, entries, Head { position, hash });
        Ok(Appended { position, hash, bodies })
    }

    fn begin_sync(&mut self) -> Box<dyn Syncing> {
        Box::new(self.ticket_through_all())
    }

    fn finish_sync(
        &mut self,
        done: Result<Position, AppendError>,
    ) -> Result<Position, AppendError> {
        let through = done.inspect_err(|_| self.stopped = true)?;
        if self.stopped {
            return Err(AppendError::Stopped);
        }
        self.publish(through);
        Ok(through)
    }

    fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    fn appended(&self) -> Head {
        self.head
    }

    fn reader(&self) -> Arc<dyn ReadLog> {
        Arc::new(self.reader.clone())
    }
}

impl FileLog {
    /// Remembers the frame in the buffer, which is written.
    fn note(&mut self, time: u64, entries: &[Entry<'_>], head: Head) {
        let heads_len = frame::heads_len(entries);
        let offset = narrow(super::codec::index(self.active.end));
        let sequence = head.position.sequence;
        let row = FrameRow { sequence, time, offset, heads_len, stripped: false };
        self.active.end += self.buffer.len() as u64;
        let (end, keys) = (self.active.end, entries.len());
        self.pending.frames.push(PendingFrame { row, head, end, keys });
        self.pending.keys.extend(entries.iter().map(|entry| entry.index));
        self.head = head;
        self.next_sequence = sequence + 1;
    }
}

fn new_identity(options: &Options) -> io::Result<Identity> {
    let mut identity = Identity { journal: [0; 16], key: [0; 16] };
    (options.random)(&mut identity.journal)?;
    (options.random)(&mut identity.key)?;
    Ok(identity)
}

fn random_u64(random: fn(&mut [u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Begins the new epoch's first segment and makes it durable (rule 8).
fn first_segment(
    dir: &Path,
    options: &Options,
    found: &mut Recovered,
    identity: &Identity,
    head: &Head,
) -> Result<Active, OpenError> {
    let spare = if found.spares.is_empty() {
        let made = make_spare(dir, found.next_number, options.segment_bytes, &options.syncer);
        found.next_number += 1;
        made.map_err(io_error("make a segment in", dir))?
    } else {
        found.spares.remove(0)
    };
    let path = spare.path.clone();
    let header = SegmentHeader {
        identity: *identity,
        number: spare.number,
        nonce: random_u64(options.random).map_err(io_error("draw a nonce for", &path))?,
        epoch: found.epoch.saturating_add(1),
        first_sequence: found.next_sequence,
        previous: head.hash,
        created: options.time,
    };
    let active = begin(spare, header).map_err(io_error("write", &path))?;
    let synced = options.syncer.data(&active.file, SyncPoint::Epoch);
    synced.map_err(io_error("sync", &path))?;
    Ok(active)
}

/// Makes a spare the active segment. Its header becomes durable with its first frame, or before.
fn begin(spare: Spare, header: SegmentHeader) -> io::Result<Active> {
    spare.file.write_all_at(&header.encode(), 0)?;
    let file = Arc::new(spare.file);
    let index = SegmentIndex::new(header.epoch, header.first_sequence, header.previous);
    let state = State::Open(Arc::clone(&file), Box::new(index));
    let segment = Segment::new(spare.path, header, state);
    Ok(Active { segment, file, end: FRAMES_START, room: spare.len })
}

/// Removes the segments of starts that wrote nothing, now that a newer epoch is on the disk. One
/// that comes back after a power cut has no frame to say anything with.
fn drop_empty(found: &mut Recovered) -> Result<(), OpenError> {
    while let Some(last) = found.segments.last().filter(|segment| is_empty(segment)) {
        fs::remove_file(&last.path).map_err(io_error("remove", &last.path))?;
        found.segments.pop();
    }
    Ok(())
}

/// No frame, and none lost.
fn is_empty(segment: &Segment) -> bool {
    match &*segment.state.read() {
        State::Open(..) => false,
        State::Sealed(sealed) => sealed.footer.next_sequence == sealed.footer.header.first_sequence,
    }
}
