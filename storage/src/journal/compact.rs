//! Writing a sealed segment anew without the bodies that nobody needs any more (JOURNAL rule 21).
//! Heads, sequences, times and hashes stay as they are, so that the chain still verifies. Which
//! bodies go is for the caller to say.
//!
//! ```text
//! write aside, sync     segment-NNNNNNNNNN.new
//! verify                the same heads and hashes, and what was written reads back
//! rename, sync          it has taken the place of the old one, whose room is free
//! ```
//!
//! Cut short at any point, the old segment or the new one is there, and both say the same.

use super::catalog::{Catalog, Sealed, Segment, State, io_error};
use super::files::{self, ASIDE, Loaded};
use super::footer;
use super::frame::{self, HEADER_BYTES as FRAME_HEADER_BYTES};
use super::index::SegmentIndex;
use super::scan::{Scope, scan};
use super::segment::{HEADER_BYTES, SegmentHeader, Tail};
use super::space::{Space, is_full};
use super::sync::{SyncPoint, Syncer};
use super::{EntryRef, ReadError, Reader};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A segment was not written anew; it is there as it was.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is damaged, and a damaged segment is left alone.
    #[error("{} is damaged, and is left as it is", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
    },
    /// What was written is not what it was made from.
    #[error("{} would not be the same after compaction, and is left as it is", path.display())]
    Differs {
        /// The segment.
        path: PathBuf,
    },
}

/// What compaction did to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// The segment's number.
    pub number: u64,
    /// Bytes of its file before.
    pub before: u64,
    /// And after.
    pub after: u64,
    /// Bodies that are gone.
    pub bodies: u64,
}

/// A segment, seen from what compaction may win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// Its number.
    pub number: u64,
    /// First and last sequence.
    pub range: (u64, u64),
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of the bodies that it still has, with padding.
    pub bodies: u64,
}

/// Compacts the segments of an open journal; cheap to clone.
#[derive(Clone)]
pub struct Compactor {
    pub(super) dir: PathBuf,
    pub(super) catalog: Arc<Catalog>,
    pub(super) syncer: Arc<Syncer>,
    pub(super) space: Arc<Space>,
}

impl Compactor {
    /// The journal's reading side.
    pub fn reader(&self) -> Reader {
        Reader { catalog: Arc::clone(&self.catalog) }
    }

    /// The number of every sealed segment, oldest first.
    pub fn sealed(&self) -> Vec<u64> {
        let segments = self.catalog.all();
        let sealed = segments.iter().filter(|one| sealed_of(one).is_some());
        sealed.map(|one| one.header.number).collect()
    }

    /// What a sealed segment weighs; `None` when it is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn weigh(&self, number: u64) -> Result<Option<Weight>, CompactError> {
        let Some((segment, _)) = self.find(number) else { return Ok(None) };
        Ok(Some(weigh(&self.catalog, &segment)?))
    }

    /// Writes a sealed segment anew without the bodies of the entries that `is_dead` names. `None`
    /// when it has none of them.
    ///
    /// # Errors
    /// When that is not possible; the segment is then as it was.
    pub fn compact(
        &self,
        number: u64,
        is_dead: &dyn Fn(EntryRef) -> bool,
    ) -> Result<Option<Compacted>, CompactError> {
        let Some((segment, sealed)) = self.find(number) else { return Ok(None) };
        let path = &segment.path;
        let loaded = files::load(number, path.clone(), false).map_err(|error| match error {
            super::OpenError::Io { action, path, source } => {
                CompactError::Io { action, path, source }
            }
            _ => CompactError::Damaged { path: path.clone() },
        })?;
        let Some(loaded) = loaded else { return Ok(None) };
        let (Some(header), Some(tail)) = (loaded.header, loaded.tail) else {
            return Err(CompactError::Damaged { path: path.clone() });
        };
        let old =
            files::read_at(&loaded.file, 0, sealed.footer_offset).map_err(failed("read", path))?;
        let Some((frames, bodies)) = strip(&old, is_dead) else {
            return Err(CompactError::Damaged { path: path.clone() });
        };
        if bodies == 0 {
            return Ok(None);
        }
        let new = self.verified(&segment, &header, (&old, &frames))?;
        let (footer, encoded) = footer::encode(&header, &new);
        let footer_offset = frames.len() as u64;
        let tail = Tail { footer_offset, ..tail }.encode();
        let whole = [frames.as_slice(), &encoded, &tail].concat();
        let sealed = Sealed { footer, footer_offset };
        self.replace(&segment, &loaded, &whole, sealed)?;
        let (before, after) = (loaded.len, whole.len() as u64);
        Ok(Some(Compacted { number, before, after, bodies }))
    }

    fn find(&self, number: u64) -> Option<(Arc<Segment>, Arc<Sealed>)> {
        let found = self.catalog.all().into_iter().find(|one| one.header.number == number)?;
        let sealed = sealed_of(&found)?;
        Some((found, sealed))
    }

    /// The index of the new frames, which must say the same as that of the old ones.
    fn verified(
        &self,
        segment: &Segment,
        header: &SegmentHeader,
        (old, new): (&[u8], &[u8]),
    ) -> Result<SegmentIndex, CompactError> {
        let path = &segment.path;
        let index = self.catalog.index;
        let scanned = |bytes: &[u8]| {
            let scope = Scope { path, header, floor: 0, index };
            scan(bytes, &scope).ok().map(|scan| scan.index)
        };
        let (Some(old), Some(new)) = (scanned(old), scanned(new)) else {
            return Err(CompactError::Damaged { path: path.clone() });
        };
        let recorded = self.catalog.damage(segment)?;
        if !old.damage.is_empty() || !recorded.is_empty() {
            return Err(CompactError::Damaged { path: path.clone() });
        }
        if says_the_same(&old, &new) {
            return Ok(new);
        }
        Err(CompactError::Differs { path: path.clone() })
    }

    /// Aside, sync, verify, rename, sync the directory; the old file goes with its last reader.
    fn replace(
        &self,
        segment: &Arc<Segment>,
        loaded: &Loaded,
        whole: &[u8],
        sealed: Sealed,
    ) -> Result<(), CompactError> {
        let path = &segment.path;
        let aside = path.with_extension(ASIDE);
        let written = self.space.with_reserve(whole.len() as u64, is_full, || {
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(&aside)?;
            file.write_all_at(whole, 0)?;
            Ok(file)
        });
        let done = written
            .and_then(|file| {
                self.syncer.data(&file, SyncPoint::Compacted)?;
                files::read_at(&file, 0, whole.len() as u64)
            })
            .map_err(failed("write", &aside));
        let same = done.and_then(|read| {
            if read == whole {
                return Ok(());
            }
            Err(CompactError::Differs { path: path.clone() })
        });
        if let Err(error) = same {
            // What is left of it is removed by the next start at the latest.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        // Readers that are at work go on with the old file, which they hold.
        segment.pin(Arc::new(File::open(&loaded.path).map_err(failed("open", path))?));
        fs::rename(&aside, path).map_err(failed("rename", &aside))?;
        let state = State::Sealed(Arc::new(sealed));
        self.catalog.replace(segment, Segment::new(path.clone(), segment.header, state));
        self.syncer.dir(&self.dir, SyncPoint::CompactedName).map_err(failed("sync", &self.dir))
    }
}

/// What a segment weighs.
pub(super) fn weigh(catalog: &Catalog, segment: &Segment) -> Result<Weight, ReadError> {
    let rows = catalog.rows(segment)?;
    let heads: u64 =
        rows.iter().map(|row| FRAME_HEADER_BYTES as u64 + u64::from(row.heads_len)).sum();
    let metadata = catalog.file(segment)?.metadata().map_err(io_error(&segment.path))?;
    let frames = segment.end().saturating_sub(HEADER_BYTES as u64);
    let (number, bytes) = (segment.header.number, metadata.len());
    Ok(Weight { number, range: segment.range(), bytes, bodies: frames.saturating_sub(heads) })
}

fn sealed_of(segment: &Segment) -> Option<Arc<Sealed>> {
    match &*segment.state.read() {
        State::Open(..) => None,
        State::Sealed(sealed) => Some(Arc::clone(sealed)),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CompactError {
    let path = path.to_path_buf();
    move |source| CompactError::Io { action, path, source }
}

/// Header and frames without the bodies that go, and how many those are; `None` when the bytes are
/// not frames end to end.
fn strip(bytes: &[u8], is_dead: &dyn Fn(EntryRef) -> bool) -> Option<(Vec<u8>, u64)> {
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(bytes.get(..HEADER_BYTES)?);
    let (mut at, mut count) = (HEADER_BYTES, 0);
    let mut stripped = Vec::new();
    while at < bytes.len() {
        let view = frame::decode(&bytes[at..]).ok()?;
        let sequence = view.header.position.sequence;
        let gone =
            frame::strip(&mut stripped, &view, |index| is_dead(EntryRef { sequence, index }));
        if gone == 0 {
            out.extend_from_slice(&bytes[at..at + view.len]);
        } else {
            out.extend_from_slice(&stripped);
        }
        (at, count) = (at + view.len, count + gone);
    }
    Some((out, count))
}

/// Everything but where the frames lie, and whether bodies are gone from them.
fn says_the_same(old: &SegmentIndex, new: &SegmentIndex) -> bool {
    let rows = |index: &SegmentIndex| -> Vec<(u64, u64, u32)> {
        index.rows.iter().map(|row| (row.sequence, row.time, row.heads_len)).collect()
    };
    (old.hash, old.last, old.next_sequence, old.times)
        == (new.hash, new.last, new.next_sequence, new.times)
        && rows(old) == rows(new)
        && old.events == new.events
        && old.ids == new.ids
        && new.damage.is_empty()
}
