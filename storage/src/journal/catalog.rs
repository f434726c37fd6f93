//! The segments that readers see, each in memory or behind its footer. It appends nothing.

use super::bloom::Bloom;
use super::codec::index;
use super::files::{read_at, read_whole};
use super::footer::{self, FooterHead, Section};
use super::found::Found;
use super::index::{FrameRow, SegmentIndex, row_of};
use super::scan::{Scope, scan};
use super::segment::{SegmentHeader, TAIL_BYTES, Tail};
use super::slices::Groups;
use super::trim::Holds;
use super::zone::Zone;
use super::{DamageReason, Head, Identity, IndexFn, ReadError};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Sealed segments whose files stay open; each is one descriptor.
const FILES_MAX: usize = 64;
/// Sealed segments whose frame tables stay in memory; each is 32 bytes a frame.
const TABLES_MAX: usize = 8;

/// One segment as readers see it.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) state: RwLock<State>,
    pub(super) filter: OnceLock<Bloom>,
    /// The events that its footer has, once that was read: most look for one that few have.
    events: OnceLock<BTreeSet<u16>>,
    /// Unlike the number, never that of another: a rewritten segment is a new one.
    id: u64,
    /// Its own file, once another one has taken its name or the name is gone.
    replaced: OnceLock<Arc<File>>,
}

/// Where a segment's index is.
pub(super) enum State {
    /// In memory: it is being written, waits to be sealed, or its footer is damaged.
    Open(Arc<File>, Box<SegmentIndex>),
    /// In its footer.
    Sealed(Arc<Sealed>),
}

/// A segment that is closed for good.
pub(super) struct Sealed {
    pub(super) footer: FooterHead,
    pub(super) footer_offset: u64,
}

impl Segment {
    pub(super) fn new(path: PathBuf, header: SegmentHeader, state: State) -> Arc<Self> {
        static NEWEST: AtomicU64 = AtomicU64::new(0);
        let id = NEWEST.fetch_add(1, Ordering::Relaxed);
        let (state, filter, replaced) = (RwLock::new(state), OnceLock::new(), OnceLock::new());
        Arc::new(Self { path, header, state, filter, events: OnceLock::new(), id, replaced })
    }

    /// Keeps its file, because another one is about to take its name.
    pub(super) fn pin(&self, file: Arc<File>) {
        let _ = self.replaced.set(file);
    }

    /// First and last sequence; the last is below the first without frames.
    pub(super) fn range(&self) -> (u64, u64) {
        let last = match &*self.state.read() {
            State::Open(_, index) => index.last.sequence,
            State::Sealed(sealed) => sealed.footer.last_sequence,
        };
        (self.header.first_sequence, last)
    }

    pub(super) fn times(&self) -> (u64, u64) {
        match &*self.state.read() {
            State::Open(_, index) => footer::times(&self.header, index),
            State::Sealed(sealed) => sealed.footer.times,
        }
    }

    /// Where the last frame ends.
    pub(super) fn end(&self) -> u64 {
        match &*self.state.read() {
            State::Open(_, index) => index.end,
            State::Sealed(sealed) => sealed.footer_offset,
        }
    }

    pub(super) fn damaged(&self, offset: u64) -> ReadError {
        let reason = DamageReason::Footer;
        ReadError::Damaged { path: self.path.clone(), offset, sequence: 0, reason }
    }
}

/// The segments, oldest first, and what look-ups see of them first.
pub(super) struct Segments {
    pub(super) list: Vec<Arc<Segment>>,
    /// Of the first ones, which do not change any more: at most all but the last.
    pub(super) zones: Vec<Zone>,
}

/// All segments and what is cached of them.
pub(super) struct Catalog {
    pub(super) identity: Identity,
    pub(super) index: IndexFn,
    pub(super) segments: RwLock<Segments>,
    /// The newest durable frame.
    pub(super) head: RwLock<Head>,
    /// The filters of the oldest segments, for ids without a time.
    pub(super) groups: RwLock<Groups>,
    /// Readers that need old frames.
    pub(super) holds: Holds,
    /// What opening and reading found damaged.
    pub(super) found: Found,
    files: Mutex<Lru<Arc<File>>>,
    tables: Mutex<Lru<Arc<Vec<FrameRow>>>>,
}

impl Catalog {
    pub(super) fn new(
        identity: Identity,
        index: IndexFn,
        segments: Vec<Arc<Segment>>,
        head: Head,
    ) -> Self {
        Self {
            identity,
            index,
            segments: RwLock::new(Segments { list: segments, zones: Vec::new() }),
            head: RwLock::new(head),
            groups: RwLock::default(),
            holds: Holds::default(),
            found: Found::default(),
            files: Mutex::new(Lru::new(FILES_MAX)),
            tables: Mutex::new(Lru::new(TABLES_MAX)),
        }
    }

    /// The segments, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        self.segments.read().list.clone()
    }

    /// The segment that has, or would have, a sequence.
    pub(super) fn holder(&self, sequence: u64) -> Option<Arc<Segment>> {
        let segments = &self.segments.read().list;
        let after = segments.partition_point(|one| one.header.first_sequence <= sequence);
        segments.get(after.checked_sub(1)?).cloned()
    }

    /// The first segment that begins after a sequence.
    pub(super) fn following(&self, sequence: u64) -> Option<Arc<Segment>> {
        let segments = &self.segments.read().list;
        let after = segments.partition_point(|one| one.header.first_sequence <= sequence);
        segments.get(after).cloned()
    }

    pub(super) fn file(&self, segment: &Segment) -> Result<Arc<File>, ReadError> {
        if let State::Open(file, _) = &*segment.state.read() {
            return Ok(Arc::clone(file));
        }
        if let Some(file) = self.files.lock().get(segment.id) {
            return Ok(file);
        }
        let opened = File::open(&segment.path);
        // It is kept before its name is taken or goes, so that what was opened is its own, or kept.
        if let Some(own) = segment.replaced.get() {
            return Ok(Arc::clone(own));
        }
        let file = Arc::new(opened.map_err(io_error(&segment.path))?);
        self.files.lock().put(segment.id, Arc::clone(&file));
        Ok(file)
    }

    /// Puts a segment in the place of one with the same frames.
    pub(super) fn replace(&self, old: &Arc<Segment>, new: Arc<Segment>) {
        let mut segments = self.segments.write();
        if let Some(place) = segments.list.iter_mut().find(|one| Arc::ptr_eq(one, old)) {
            *place = new;
        }
        drop(segments);
        // The room of the old file is free when nobody has it open.
        self.files.lock().remove(old.id);
        self.tables.lock().remove(old.id);
    }

    /// Forgets the oldest segment.
    pub(super) fn remove_first(&self, oldest: &Arc<Segment>) {
        let mut segments = self.segments.write();
        if segments.list.first().is_some_and(|first| Arc::ptr_eq(first, oldest)) {
            segments.list.remove(0);
            if !segments.zones.is_empty() {
                segments.zones.remove(0);
            }
        }
        drop(segments);
        self.found.forget(&oldest.path);
        self.files.lock().remove(oldest.id);
        self.tables.lock().remove(oldest.id);
    }

    /// Asks a segment's footer, or its index in memory; a damaged footer, and one that is too old
    /// to have what is asked for, is rebuilt first.
    pub(super) fn ask<T>(
        &self,
        segment: &Segment,
        footer: impl Fn(&Sealed) -> Result<T, ReadError>,
        memory: impl Fn(&SegmentIndex) -> T,
    ) -> Result<T, ReadError> {
        loop {
            let sealed = match &*segment.state.read() {
                State::Open(_, index) => return Ok(memory(index)),
                State::Sealed(sealed) => Arc::clone(sealed),
            };
            match footer(&sealed) {
                Err(ReadError::Damaged { .. }) => self.rebuild(segment, &sealed)?,
                other => return other,
            }
        }
    }

    /// Replaces a footer by an index in memory, made from the frames.
    fn rebuild(&self, segment: &Segment, sealed: &Sealed) -> Result<(), ReadError> {
        if !sealed.footer.is_old() {
            tracing::warn!(path = %segment.path.display(), "segment footer is damaged; rescanning");
            self.found.note(segment, &segment.damaged(sealed.footer_offset));
        }
        let recorded = self.recorded_damage(segment, sealed).unwrap_or_default();
        let file = self.file(segment)?;
        let len = frames_end(&file, sealed).map_err(io_error(&segment.path))?;
        let bytes = read_whole(&file, len).map_err(io_error(&segment.path))?;
        let floor = sealed.footer.next_sequence.saturating_sub(1);
        let (path, header) = (&segment.path, &segment.header);
        let scope = Scope { path, header, floor, index: self.index };
        let mut scan = scan(&bytes, &scope).map_err(|_| segment.damaged(len))?;
        for damage in recorded {
            if !scan.index.damage.contains(&damage) {
                scan.index.damage.push(damage);
            }
        }
        *segment.state.write() = State::Open(file, Box::new(scan.index));
        Ok(())
    }

    /// The bytes of a footer's section, checked.
    pub(super) fn section(
        &self,
        segment: &Segment,
        sealed: &Sealed,
        section: Section,
    ) -> Result<Vec<u8>, ReadError> {
        let place = sealed.footer.section(section);
        let at = sealed.footer_offset.saturating_add(u64::from(place.offset));
        let file = self.file(segment)?;
        let len = file.metadata().map_err(io_error(&segment.path))?.len();
        if at.saturating_add(u64::from(place.len)) > len {
            return Err(segment.damaged(at));
        }
        let bytes = read_at(&file, at, u64::from(place.len)).map_err(io_error(&segment.path))?;
        if crc32c::crc32c(&bytes) == place.crc { Ok(bytes) } else { Err(segment.damaged(at)) }
    }

    /// The frame table.
    pub(super) fn rows(&self, segment: &Segment) -> Result<Arc<Vec<FrameRow>>, ReadError> {
        self.ask(
            segment,
            |sealed| {
                if let Some(rows) = self.tables.lock().get(segment.id) {
                    return Ok(rows);
                }
                let bytes = self.section(segment, sealed, Section::Frames)?;
                let rows = footer::decode_rows(&bytes);
                let rows = Arc::new(rows.ok_or_else(|| segment.damaged(sealed.footer_offset))?);
                self.tables.lock().put(segment.id, Arc::clone(&rows));
                Ok(rows)
            },
            |index| Arc::new(index.rows.clone()),
        )
    }

    /// A frame's row, and where the frame ends at the latest.
    pub(super) fn row(
        &self,
        segment: &Segment,
        sequence: u64,
    ) -> Result<Option<(FrameRow, u64)>, ReadError> {
        if let State::Open(_, index) = &*segment.state.read() {
            return Ok(index.row(sequence));
        }
        Ok(row_of(&self.rows(segment)?, sequence, segment.end()))
    }

    /// The entries of some events, unsorted.
    pub(super) fn events(
        &self,
        segment: &Segment,
        events: &[u16],
    ) -> Result<Vec<super::EntryRef>, ReadError> {
        self.ask(
            segment,
            |sealed| {
                let absent = |known: &BTreeSet<u16>| !events.iter().any(|one| known.contains(one));
                if segment.events.get().is_some_and(absent) {
                    return Ok(Vec::new());
                }
                let bytes = self.section(segment, sealed, Section::Events)?;
                let items = sealed.footer.section(Section::Events).items;
                let mut known = BTreeSet::new();
                let found = footer::decode_postings(&bytes, items, |event: u16| {
                    known.insert(event);
                    events.contains(&event)
                });
                let found = found.ok_or_else(|| segment.damaged(sealed.footer_offset))?;
                let _ = segment.events.set(known);
                Ok(found)
            },
            |index| {
                let lists = events.iter().filter_map(|event| index.events.get(event));
                lists.flatten().copied().collect()
            },
        )
    }

    /// One page of a section, which `decode` checks.
    pub(super) fn page<T>(
        &self,
        segment: &Segment,
        sealed: &Sealed,
        (section, number): (Section, u32),
        decode: fn(&[u8]) -> Option<T>,
    ) -> Result<T, ReadError> {
        let section = u64::from(sealed.footer.section(section).offset);
        let skip = u64::from(number) * footer::PAGE_BYTES as u64;
        let at = sealed.footer_offset + section + skip;
        let mut page = vec![0; footer::PAGE_BYTES];
        let file = self.file(segment)?;
        match std::os::unix::fs::FileExt::read_exact_at(&*file, &mut page, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(segment.damaged(at));
            }
            other => other.map_err(io_error(&segment.path))?,
        }
        decode(&page).ok_or_else(|| segment.damaged(at))
    }

    pub(super) fn damage(&self, segment: &Segment) -> Result<Vec<super::Damage>, ReadError> {
        self.ask(
            segment,
            |sealed| self.recorded_damage(segment, sealed),
            |index| index.damage.clone(),
        )
    }

    fn recorded_damage(
        &self,
        segment: &Segment,
        sealed: &Sealed,
    ) -> Result<Vec<super::Damage>, ReadError> {
        // Nearly every footer records none, and this is asked for each answer.
        if sealed.footer.section(Section::Damage).items == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.section(segment, sealed, Section::Damage)?;
        footer::decode_damage(&bytes, &segment.path)
            .ok_or_else(|| segment.damaged(sealed.footer_offset))
    }
}

/// How many pages a section has.
pub(super) fn pages_of(sealed: &Sealed, section: Section) -> u32 {
    sealed.footer.section(section).len / super::codec::narrow(footer::PAGE_BYTES)
}

/// Where the frames of a segment end: as its tail says, because a writer beside a look may have
/// put a compacted file in its place, or as the look found it.
fn frames_end(file: &File, sealed: &Sealed) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let tail_at = len.saturating_sub(TAIL_BYTES as u64);
    let tail = Tail::decode(&read_at(file, tail_at, len - tail_at)?);
    let end = tail.map_or(sealed.footer_offset, |tail| tail.footer_offset);
    Ok(end.min(len))
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_path_buf();
    move |source| ReadError::Io { path, source }
}

/// The bytes of `len` from `at`, where the caller knows that they are within `limit`.
pub(super) fn read_within(
    file: &File,
    at: u64,
    len: u64,
    limit: u64,
) -> io::Result<Option<Vec<u8>>> {
    if at.checked_add(len).is_none_or(|end| end > limit) || index(len) > super::FRAME_BYTES_MAX {
        return Ok(None);
    }
    read_at(file, at, len).map(Some)
}

/// A few most recently used values by segment.
struct Lru<T> {
    max: usize,
    /// Oldest use first.
    items: Vec<(u64, T)>,
}

impl<T: Clone> Lru<T> {
    fn new(max: usize) -> Self {
        Self { max, items: Vec::new() }
    }

    fn get(&mut self, number: u64) -> Option<T> {
        let at = self.items.iter().position(|(key, _)| *key == number)?;
        let item = self.items.remove(at);
        let value = item.1.clone();
        self.items.push(item);
        Some(value)
    }

    fn remove(&mut self, id: u64) {
        self.items.retain(|(key, _)| *key != id);
    }

    fn put(&mut self, number: u64, value: T) {
        self.items.retain(|(key, _)| *key != number);
        if self.items.len() >= self.max {
            self.items.remove(0);
        }
        self.items.push((number, value));
    }
}
