//! Looking at a journal without touching it: no lock, no write, damage named and skipped.
//!
//! It works beside a running writer and on a store that does not open. It is one look: frames
//! that are appended later are not seen, and the newest ones may not be durable yet.

use super::catalog::{Catalog, Sealed, Segment, State};
use super::files::{self, Loaded, newer};
use super::recover::{floor_of, frames_of, one_identity, salvage};
use super::scan::{Scope, scan};
use super::segment::begins_or_blank;
use super::{Damage, DamageReason, Head, Identity, IndexFn, OpenError, Position, Reader, chain};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A journal's directory as it was found.
pub struct ReadOnly {
    reader: Reader,
    damage: Vec<Damage>,
    torn_bytes: u64,
    clean: bool,
}

impl ReadOnly {
    /// Reads what the directory has.
    ///
    /// # Errors
    /// When the directory cannot be listed, or a newer program wrote it. What is damaged is no
    /// error.
    pub fn open(dir: &Path, index: IndexFn) -> Result<Self, OpenError> {
        let mut look = Look { index, identity: None, segments: Vec::new(), damage: Vec::new() };
        let (loaded, torn_bytes) = look.all(dir)?;
        let identity = look.identity.unwrap_or(Identity { journal: [0; 16], key: [0; 16] });
        look.segments.reverse();
        look.leave_foreign();
        look.join();
        let genesis = chain::genesis(&identity.journal);
        let head = look
            .segments
            .last()
            .map_or(Head { position: Position::default(), hash: genesis }, |segment| {
                head_of(segment)
            });
        let catalog = Catalog::new(identity, index, look.segments, head);
        let reader = Reader { catalog: Arc::new(catalog) };
        Ok(Self { reader, damage: look.damage, torn_bytes, clean: loaded })
    }

    /// The reading handle.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// What is damaged; footers that record earlier damage are in [`Reader::damage`].
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Bytes after the newest frame that are no frame: torn, or being written just now.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Whether the newest segment ends in the trailer of a clean stop.
    pub fn is_clean(&self) -> bool {
        self.clean
    }
}

/// The look while it lasts; segments are visited newest first, because only then a frame that is
/// missing from an older one is missing for good and not merely later.
struct Look {
    index: IndexFn,
    identity: Option<Identity>,
    segments: Vec<Arc<Segment>>,
    damage: Vec<Damage>,
}

impl Look {
    fn all(&mut self, dir: &Path) -> Result<(bool, u64), OpenError> {
        let (mut clean, mut torn, mut following) = (None, 0, None);
        let files = files::list(dir)?;
        self.identity = identity(&files)?;
        for (number, path) in files.into_iter().rev() {
            let Some(loaded) = self.load(number, &path)? else { continue };
            if loaded.blank {
                continue;
            }
            clean.get_or_insert(loaded.tail.is_some_and(|tail| tail.is_clean()));
            torn += self.segment(loaded, following)?;
            following = self.segments.last().map(|last| last.header.first_sequence).or(following);
        }
        Ok((clean.unwrap_or(true), torn))
    }

    /// Loads a segment; one that cannot be read is damage.
    fn load(&mut self, number: u64, path: &Path) -> Result<Option<Loaded>, OpenError> {
        match files::load(number, path.to_path_buf(), false) {
            // A writer beside this look removed it since it was listed.
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(OpenError::Io { .. }) => {
                self.note(path.to_path_buf(), DamageReason::Unreadable, (1, 0));
                Ok(None)
            }
            other => other,
        }
    }

    fn segment(&mut self, loaded: Loaded, following: Option<u64>) -> Result<u64, OpenError> {
        if let (Some(footer), Some(tail)) = (loaded.footer, loaded.tail) {
            if loaded.header.is_none() {
                self.note(loaded.path.clone(), DamageReason::Header, (1, 0));
            }
            let sealed = Sealed { footer, footer_offset: tail.footer_offset };
            let state = State::Sealed(Arc::new(sealed));
            self.segments.push(Segment::new(loaded.path, footer.header, state));
            return Ok(0);
        }
        let Ok(bytes) = loaded.bytes() else {
            self.note(loaded.path, DamageReason::Unreadable, (1, 0));
            return Ok(0);
        };
        let salvaged = salvage(&loaded, &bytes, self.identity, u64::MAX);
        let Ok(Some(header)) = salvaged else {
            if loaded.tail.is_none() && salvaged.is_ok() && begins_or_blank(&bytes) {
                // It was just begun. Frames that it had are missed where the next one begins.
                return Ok(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1));
            }
            self.note(loaded.path, DamageReason::Header, (1, 0));
            return Ok(0);
        };
        if loaded.tail.is_some() {
            self.note(loaded.path.clone(), DamageReason::Footer, (1, 0));
        }
        let floor = floor_of(&loaded, following);
        let scope = Scope { path: &loaded.path, header: &header, floor, index: self.index };
        let found = scan(frames_of(&loaded, &bytes), &scope)
            .map_err(|format| newer(&loaded.path, u32::from(format)))?;
        if loaded.header.is_none() && found.was_durable(&header) {
            self.note(loaded.path.clone(), DamageReason::Header, (1, 0));
        }
        self.damage.extend(found.index.damage.iter().cloned());
        let state = State::Open(Arc::new(loaded.file), Box::new(found.index));
        self.segments.push(Segment::new(loaded.path, header, state));
        Ok(found.torn)
    }

    /// Leaves out segments whose numbers were given already, as a start would.
    fn leave_foreign(&mut self) {
        let mut next = 0;
        let mut kept = Vec::new();
        for segment in std::mem::take(&mut self.segments) {
            let first = segment.header.first_sequence;
            if first < next {
                let last = head_of(&segment).position.sequence;
                self.note(segment.path.clone(), DamageReason::Chain, (first, last));
            } else {
                next = next.max(next_of(&segment));
                kept.push(segment);
            }
        }
        self.segments = kept;
    }

    /// Names what is missing between segments.
    fn join(&mut self) {
        for pair in self.segments.clone().windows(2) {
            let (before, first) = (next_of(&pair[0]), pair[1].header.first_sequence);
            if first > before {
                self.note(pair[1].path.clone(), DamageReason::Missing, (before, first - 1));
            } else if head_of(&pair[0]).position.sequence.saturating_add(1) == first
                && head_of(&pair[0]).hash != pair[1].header.previous
            {
                self.note(pair[1].path.clone(), DamageReason::Chain, (1, 0));
            }
        }
    }

    fn note(&mut self, segment: PathBuf, reason: DamageReason, (first, last): (u64, u64)) {
        self.damage.push(Damage { segment, offset: 0, len: 0, first, last, reason });
    }
}

/// The identity of the first segment that tells one.
fn identity(files: &[(u64, PathBuf)]) -> Result<Option<Identity>, OpenError> {
    for (number, path) in files {
        match files::load(*number, path.clone(), false) {
            Err(OpenError::Io { .. }) | Ok(None) => {}
            Err(error) => return Err(error),
            Ok(Some(loaded)) => {
                if let Some(identity) = one_identity(&[loaded])? {
                    return Ok(Some(identity));
                }
            }
        }
    }
    Ok(None)
}

pub(super) fn head_of(segment: &Segment) -> Head {
    match &*segment.state.read() {
        State::Open(_, index) => Head { position: index.last, hash: index.hash },
        State::Sealed(sealed) => {
            let footer = &sealed.footer;
            let position = Position { epoch: footer.last_epoch, sequence: footer.last_sequence };
            Head { position, hash: footer.hash }
        }
    }
}

pub(super) fn next_of(segment: &Segment) -> u64 {
    match &*segment.state.read() {
        State::Open(_, index) => index.next_sequence,
        State::Sealed(sealed) => sealed.footer.next_sequence,
    }
}
