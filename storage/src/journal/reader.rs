//! The handle that reads a journal from any thread while it is written. It changes nothing.

use super::catalog::{Catalog, Segment, State, io_error, read_within};
use super::compact::{Weight, weigh};
use super::frame::{self, FrameView, HEADER_BYTES};
use super::index::FrameRow;
use super::{
    BodyRef, Damage, DamageReason, EntryRef, Frame, Hash, Head, Hold, Identity, OpenError,
    ReadError, ReadLog, Syncer, Wanted,
};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Read ahead of a scan, so that small frames cost no system call each.
const CHUNK_BYTES: u64 = 256 << 10;

/// Reads a journal's durable frames; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(super) catalog: Arc<Catalog>,
}

impl Reader {
    /// Who the journal is.
    pub fn identity(&self) -> Identity {
        self.catalog.identity
    }

    /// The newest durable frame.
    pub fn head(&self) -> Head {
        *self.catalog.head.read()
    }

    /// The first sequence that is still kept.
    pub fn first_sequence(&self) -> u64 {
        self.catalog.segments.read().list.first().map_or(1, |segment| segment.header.first_sequence)
    }

    /// Keeps the frames from a sequence on while the hold lives.
    pub fn hold(&self, from: u64) -> Hold {
        self.catalog.holds.add(from)
    }

    /// The first frame that a reader holds; none: `u64::MAX`.
    pub fn held_from(&self) -> u64 {
        self.catalog.holds.first()
    }

    /// The durable frames from a sequence on, oldest first; see [`ReadLog::frames`].
    pub fn frames(&self, from: u64) -> Frames {
        Frames::new(self.clone(), from, self.head().position.sequence)
    }

    /// The segments, newest first.
    pub fn segments(&self) -> Vec<SegmentView> {
        let segments = self.catalog.all().into_iter().rev();
        segments.map(|segment| SegmentView { reader: self.clone(), segment }).collect()
    }

    /// The segments that may have accepted an id that was made at this time, or one that does not
    /// tell its time, oldest first.
    pub fn accepting(&self, made_at: Option<u64>) -> Vec<SegmentView> {
        let segments = self.catalog.accepting(made_at).into_iter();
        segments.map(|segment| SegmentView { reader: self.clone(), segment }).collect()
    }

    /// Damage that the footers and indexes record.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn damage(&self) -> Result<Vec<Damage>, ReadError> {
        let mut found = Vec::new();
        for segment in self.catalog.all() {
            found.extend(self.catalog.damage(&segment)?);
        }
        Ok(found)
    }

    /// What opening and reading found damaged; what the footers record is in [`Reader::damage`].
    pub fn found(&self) -> Vec<Damage> {
        self.catalog.found.all()
    }

    /// One frame.
    ///
    /// # Errors
    /// When it is not in the journal or is damaged.
    pub fn frame(&self, sequence: u64) -> Result<Frame, ReadError> {
        let (segment, row, limit) = self.locate(sequence)?;
        let read = || {
            let file = self.catalog.file(&segment)?;
            let bytes = read_frame(&file, &segment.path, &row, limit)?;
            Ok(decode(&bytes, &segment.path, &row)?.to_frame())
        };
        read().inspect_err(|error| self.catalog.found.note(&segment, error))
    }

    /// The bytes of a body; see [`ReadLog::body`].
    ///
    /// # Errors
    /// When the frame or the body is not there, or cannot be read.
    pub fn body(&self, body: &BodyRef) -> Result<Vec<u8>, ReadError> {
        let (segment, row, limit) = self.locate(body.sequence)?;
        let read = self.body_in(&segment, (&row, limit), body);
        read.inspect_err(|error| self.catalog.found.note(&segment, error))
    }

    fn body_in(
        &self,
        segment: &Segment,
        (row, limit): (&FrameRow, u64),
        body: &BodyRef,
    ) -> Result<Vec<u8>, ReadError> {
        let file = self.catalog.file(segment)?;
        let missing =
            || ReadError::NoBody { sequence: body.sequence, offset: body.offset, len: body.len };
        if row.stripped {
            let bytes = read_frame(&file, &segment.path, row, limit)?;
            let view = frame::decode(&bytes).map_err(|_| damaged(&segment.path, row))?;
            return view.body(body).map(<[u8]>::to_vec).ok_or_else(missing);
        }
        let area = u64::from(row.offset) + HEADER_BYTES as u64 + u64::from(row.heads_len);
        let at = area + u64::from(body.offset);
        read_within(&file, at, u64::from(body.len), limit)
            .map_err(io_error(&segment.path))?
            .ok_or_else(missing)
    }

    /// The entries about an id, oldest first.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn find(&self, id: u128) -> Result<Vec<EntryRef>, ReadError> {
        let mut found = Vec::new();
        for segment in self.catalog.all() {
            found.extend(self.catalog.find(&segment, id)?);
        }
        Ok(found)
    }

    /// The entries about an id; see [`ReadLog::find_accepted`].
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn find_accepted(&self, wanted: &Wanted) -> Result<Vec<EntryRef>, ReadError> {
        self.catalog.find_accepted(wanted)
    }

    /// The newest entries of some events; see [`ReadLog::by_event`].
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn by_event(
        &self,
        events: &[u16],
        before: Option<EntryRef>,
        limit: usize,
    ) -> Result<Vec<EntryRef>, ReadError> {
        let end = EntryRef { sequence: u64::MAX, index: u32::MAX };
        let before = before.unwrap_or(end);
        let mut found = Vec::new();
        for segment in self.catalog.all().iter().rev() {
            if found.len() >= limit {
                break;
            }
            if segment.header.first_sequence > before.sequence {
                continue;
            }
            let mut here = self.catalog.events(segment, events)?;
            here.retain(|at| *at < before);
            here.sort_unstable_by(|one, other| other.cmp(one));
            here.truncate(limit - found.len());
            found.append(&mut here);
        }
        Ok(found)
    }

    /// Keeps the bytes of a frame that does not read back in the journal's quarantine, as they
    /// are. `None` when there is no such frame.
    ///
    /// # Errors
    /// When the segment cannot be read or the copy not be written.
    pub fn quarantine(
        &self,
        sequence: u64,
        syncer: &Syncer,
    ) -> Result<Option<(u64, PathBuf)>, OpenError> {
        let Ok((segment, row, limit)) = self.locate(sequence) else { return Ok(None) };
        let path = &segment.path;
        let failed = |error: ReadError| OpenError::Io {
            action: "read",
            path: path.clone(),
            source: std::io::Error::other(error.to_string()),
        };
        let file = self.catalog.file(&segment).map_err(failed)?;
        let bytes = read_frame(&file, path, &row, limit).map_err(failed)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        let offset = u64::from(row.offset);
        let copy = super::files::quarantine(dir, segment.header.number, offset, &bytes, syncer)?;
        Ok(Some((bytes.len() as u64, copy)))
    }

    fn locate(&self, sequence: u64) -> Result<(Arc<Segment>, FrameRow, u64), ReadError> {
        let missing = || ReadError::NoFrame { sequence };
        let segment = self.catalog.holder(sequence).ok_or_else(missing)?;
        let (row, limit) = self.catalog.row(&segment, sequence)?.ok_or_else(missing)?;
        Ok((segment, row, limit))
    }
}

impl ReadLog for Reader {
    fn identity(&self) -> Identity {
        self.identity()
    }

    fn head(&self) -> Head {
        self.head()
    }

    fn frames(&self, from: u64) -> Box<dyn Iterator<Item = Result<Frame, ReadError>> + Send + '_> {
        Box::new(self.frames(from))
    }

    fn damage(&self) -> Result<Vec<Damage>, ReadError> {
        self.damage()
    }

    fn body(&self, body: &BodyRef) -> Result<Vec<u8>, ReadError> {
        self.body(body)
    }

    fn find(&self, id: u128) -> Result<Vec<EntryRef>, ReadError> {
        self.find(id)
    }

    fn find_accepted(&self, wanted: &Wanted) -> Result<Vec<EntryRef>, ReadError> {
        self.find_accepted(wanted)
    }

    fn frame(&self, sequence: u64) -> Result<Frame, ReadError> {
        self.frame(sequence)
    }

    fn by_event(
        &self,
        events: &[u16],
        before: Option<EntryRef>,
        limit: usize,
    ) -> Result<Vec<EntryRef>, ReadError> {
        self.by_event(events, before, limit)
    }
}

/// One segment, for searches that go newest first.
pub struct SegmentView {
    pub(super) reader: Reader,
    pub(super) segment: Arc<Segment>,
}

impl SegmentView {
    /// Its number; they grow, with gaps.
    pub fn number(&self) -> u64 {
        self.segment.header.number
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.segment.path
    }

    /// First and last durable sequence; the last is below the first while there is no frame.
    pub fn range(&self) -> (u64, u64) {
        self.segment.range()
    }

    /// The chain's hash before its first frame.
    pub fn previous(&self) -> Hash {
        self.segment.header.previous
    }

    /// Earliest and latest record time, milliseconds.
    pub fn times(&self) -> (u64, u64) {
        self.segment.times()
    }

    /// Bytes of its file, and of the bodies in it.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn weight(&self) -> Result<Weight, ReadError> {
        weigh(&self.reader.catalog, &self.segment)
    }

    /// Whether its footer is on the disk, so that it never changes any more.
    pub fn is_sealed(&self) -> bool {
        matches!(&*self.segment.state.read(), State::Sealed(_))
    }

    /// Whether an id may be in it; a "no" is right, a "yes" nearly always.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn may_contain(&self, id: u128) -> Result<bool, ReadError> {
        self.reader.catalog.may_contain(&self.segment, id)
    }

    /// The distinct actors in it.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn actors(&self) -> Result<Vec<u64>, ReadError> {
        self.reader.catalog.actors(&self.segment)
    }

    /// Its entries of some events, newest first.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn by_event(&self, events: &[u16]) -> Result<Vec<EntryRef>, ReadError> {
        self.reader.catalog.events(&self.segment, events).map(newest_first)
    }

    /// The fingerprints of the message ids that its index has for some frames.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn ids(&self, first: u64, last: u64) -> Result<Vec<u128>, ReadError> {
        self.reader.catalog.ids(&self.segment, first, last)
    }

    /// Its entries by an actor, newest first.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn by_actor(&self, actor: u64) -> Result<Vec<EntryRef>, ReadError> {
        self.reader.catalog.by_actor(&self.segment, actor).map(newest_first)
    }

    /// Its entries of a level or above, newest first. Level 0 is not indexed.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn by_level(&self, level: u8) -> Result<Vec<EntryRef>, ReadError> {
        self.reader.catalog.by_level(&self.segment, level).map(newest_first)
    }

    /// Its entries about a resource, newest first. Once in some thousand million times one about
    /// another resource is among them.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn by_resource(&self, resource: u64) -> Result<Vec<EntryRef>, ReadError> {
        self.reader.catalog.by_resource(&self.segment, resource).map(newest_first)
    }

    /// Its frames, oldest first.
    pub fn frames(&self) -> Frames {
        let (first, last) = self.range();
        Frames::new(self.reader.clone(), first, last)
    }
}

fn newest_first(mut entries: Vec<EntryRef>) -> Vec<EntryRef> {
    entries.sort_unstable_by(|one, other| other.cmp(one));
    entries
}

/// The frames of a range of sequences, read ahead in chunks.
pub struct Frames {
    reader: Reader,
    /// The next sequence wanted, and the last one.
    next: u64,
    last: u64,
    part: Option<Part>,
}

/// The segment being read.
struct Part {
    segment: Arc<Segment>,
    file: Arc<File>,
    rows: Arc<Vec<FrameRow>>,
    /// The next of `rows`.
    at: usize,
    end: u64,
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl Frames {
    fn new(reader: Reader, from: u64, last: u64) -> Self {
        Self { reader, next: from, last, part: None }
    }

    /// Opens the segment that has the next frame; `None` at the end.
    fn open(&mut self) -> Result<Option<Part>, ReadError> {
        let catalog = &self.reader.catalog;
        let mut candidate = catalog.holder(self.next).or_else(|| catalog.following(self.next));
        while let Some(segment) = candidate {
            candidate = catalog.following(segment.header.first_sequence.max(self.next));
            // A segment that cannot be read is named once; the next call goes on after it.
            let following = candidate.as_ref().map_or(u64::MAX, |one| one.header.first_sequence);
            let opened = catalog
                .file(&segment)
                .and_then(|file| Ok((file, catalog.rows(&segment)?, segment.end())));
            let (file, rows, end) = opened.inspect_err(|error| {
                self.next = following;
                catalog.found.note(&segment, error);
            })?;
            let at = rows.partition_point(|row| row.sequence < self.next);
            if at < rows.len() {
                let (chunk, chunk_at) = (Vec::new(), 0);
                return Ok(Some(Part { segment, file, rows, at, end, chunk, chunk_at }));
            }
        }
        Ok(None)
    }

    /// What `read` makes of the next frame; `None` at the end.
    pub(super) fn read_next<T>(
        &mut self,
        read: impl FnOnce(&FrameView<'_>) -> T,
    ) -> Option<Result<T, ReadError>> {
        loop {
            if self.next > self.last {
                return None;
            }
            let Some(part) = &mut self.part else {
                match self.open() {
                    Ok(Some(part)) => self.part = Some(part),
                    Ok(None) => return None,
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            let Some(row) = part.rows.get(part.at).copied() else {
                self.part = None;
                continue;
            };
            if row.sequence > self.last {
                return None;
            }
            self.next = row.sequence.saturating_add(1);
            let segment = Arc::clone(&part.segment);
            let taken = part.take(&row).map(|view| read(&view));
            return Some(
                taken.inspect_err(|error| self.reader.catalog.found.note(&segment, error)),
            );
        }
    }
}

impl Part {
    fn take(&mut self, row: &FrameRow) -> Result<FrameView<'_>, ReadError> {
        self.at += 1;
        let start = u64::from(row.offset);
        let limit = self.rows.get(self.at).map_or(self.end, |next| u64::from(next.offset));
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        if start < self.chunk_at || limit > chunk_end {
            let wanted = CHUNK_BYTES.max(limit.saturating_sub(start));
            let len = wanted.min(self.end.saturating_sub(start));
            self.chunk = super::files::read_at(&self.file, start, len)
                .map_err(io_error(&self.segment.path))?;
            self.chunk_at = start;
        }
        let from = super::codec::index(start - self.chunk_at);
        decode(self.chunk.get(from..).unwrap_or_default(), &self.segment.path, row)
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, ReadError>;

    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method itself is not general enough over lifetimes"
    )]
    fn next(&mut self) -> Option<Self::Item> {
        self.read_next(|view| view.to_frame())
    }
}

fn read_frame(file: &File, path: &Path, row: &FrameRow, limit: u64) -> Result<Vec<u8>, ReadError> {
    let start = u64::from(row.offset);
    let len = limit.saturating_sub(start).min(super::FRAME_BYTES_MAX as u64);
    super::files::read_at(file, start, len).map_err(io_error(path))
}

fn decode<'a>(bytes: &'a [u8], path: &Path, row: &FrameRow) -> Result<FrameView<'a>, ReadError> {
    match frame::decode(bytes) {
        Ok(view) if view.header.position.sequence == row.sequence => Ok(view),
        _ => Err(damaged(path, row)),
    }
}

fn damaged(path: &Path, row: &FrameRow) -> ReadError {
    let (path, offset, reason) = (path.to_path_buf(), u64::from(row.offset), DamageReason::Frame);
    ReadError::Damaged { path, offset, sequence: row.sequence, reason }
}
