//! Opening a journal: from whatever lies on the disk to sealed segments only (rules 6, 7, 8).
//!
//! Each step leaves a directory that the next start can recover again. No segment that recovery
//! touched is ever appended to.

use super::catalog::{Sealed, Segment, State};
use super::codec::index;
use super::files::{self, ASIDE, Loaded, Spare, io_error, newer, quarantine};
use super::footer;
use super::scan::{Scan, Scope, first_frame, scan};
use super::segment::{FLAG_RECOVERED, HEADER_BYTES, SegmentHeader, Tail};
use super::space::{Space, is_full};
use super::sync::{SyncPoint, Syncer};
use super::{Damage, DamageReason, Head, Identity, IndexFn, OpenError, Position, chain};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A journal's directory after recovery.
pub(super) struct Recovered {
    /// Oldest first, all sealed.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) spares: Vec<Spare>,
    /// `None` in a new directory.
    pub(super) identity: Option<Identity>,
    pub(super) head: Option<Head>,
    /// The newest epoch seen.
    pub(super) epoch: u32,
    pub(super) next_sequence: u64,
    pub(super) next_number: u64,
    pub(super) clean: bool,
    pub(super) damage: Vec<Damage>,
    pub(super) torn_bytes: u64,
    pub(super) quarantined: Vec<PathBuf>,
}

/// Recovers the directory; `spare_bytes` is the size of the spares that are kept.
pub(super) fn recover(
    dir: &Path,
    spare_bytes: u64,
    index_fn: IndexFn,
    (syncer, space): (&Syncer, &Space),
) -> Result<Recovered, OpenError> {
    files::remove_unfinished(dir)?;
    let (loaded, spares, next_number) = load_all(dir, spare_bytes, syncer)?;
    let identity = one_identity(&loaded)?;
    let clean = loaded.last().is_none_or(|last| last.tail.is_some_and(|tail| tail.is_clean()));
    let state = Recovered {
        segments: Vec::new(),
        spares,
        identity,
        head: None,
        epoch: 0,
        next_sequence: 1,
        next_number,
        clean,
        damage: Vec::new(),
        torn_bytes: 0,
        quarantined: Vec::new(),
    };
    let mut work = Work { dir, syncer, space, index: index_fn, state };
    for (at, segment) in loaded.iter().enumerate() {
        let following = loaded[at + 1..].iter().find_map(Loaded::first_sequence);
        work.segment(segment, following)?;
    }
    Ok(work.state)
}

type Everything = (Vec<Loaded>, Vec<Spare>, u64);

/// Loads every segment and sorts the blank ones out: the newest are spares, others go.
fn load_all(dir: &Path, spare_bytes: u64, syncer: &Syncer) -> Result<Everything, OpenError> {
    let mut loaded = Vec::new();
    for (number, path) in files::list(dir)? {
        loaded.extend(files::load(number, path, true)?);
    }
    let next_number = loaded.last().map_or(1, |last| last.number.saturating_add(1));
    let newest = loaded.iter().filter(|one| !one.blank).map(|one| one.number).max();
    let (blank, used): (Vec<_>, Vec<_>) = loaded.into_iter().partition(|one| one.blank);
    let mut spares = Vec::new();
    for Loaded { number, path, file, len, .. } in blank {
        if Some(number) > newest && len == spare_bytes {
            syncer.data(&file, SyncPoint::FoundSpare).map_err(io_error("sync", &path))?;
            let is_filled = !files::has_no_data(&file);
            spares.push(Spare { number, path, file, len, is_filled });
        } else {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    // A start that was cut short may have renamed a recovered segment and not synced the name.
    syncer.dir(dir, SyncPoint::FoundName).map_err(io_error("sync", dir))?;
    Ok((used, spares, next_number))
}

/// The identity that all segments agree on.
pub(super) fn one_identity(loaded: &[Loaded]) -> Result<Option<Identity>, OpenError> {
    let identity = loaded.iter().find_map(Loaded::identity);
    let foreign = loaded.iter().find(|one| one.identity().is_some() && one.identity() != identity);
    match foreign {
        Some(one) => Err(OpenError::Foreign { path: one.path.clone() }),
        None => Ok(identity),
    }
}

/// The header, or what can be told of it from the first good frame.
pub(super) fn salvage(
    loaded: &Loaded,
    bytes: &[u8],
    identity: Option<Identity>,
    expected: u64,
) -> Result<Option<SegmentHeader>, OpenError> {
    if loaded.header.is_some() {
        return Ok(loaded.header);
    }
    let Some(view) = first_frame(bytes) else { return Ok(None) };
    let lost = || OpenError::HeaderLost { path: loaded.path.clone() };
    let identity = identity.ok_or_else(lost)?;
    Ok(Some(SegmentHeader {
        identity,
        number: loaded.number,
        nonce: view.header.nonce,
        epoch: view.header.position.epoch,
        first_sequence: view.header.position.sequence.min(expected),
        previous: view.header.previous,
        created: view.header.time,
    }))
}

/// The sequence through which a segment was durable once, as what follows it says.
pub(super) fn floor_of(loaded: &Loaded, following: Option<u64>) -> u64 {
    let next = loaded.tail.map(|tail| tail.next_sequence).max(following);
    next.map_or(0, |next| next.saturating_sub(1))
}

/// The bytes that can hold frames: a tail says where they end, even when its footer is damaged.
pub(super) fn frames_of<'a>(loaded: &Loaded, bytes: &'a [u8]) -> &'a [u8] {
    let limit = loaded.tail.map_or(bytes.len(), |tail| index(tail.footer_offset));
    &bytes[..limit.clamp(HEADER_BYTES.min(bytes.len()), bytes.len())]
}

/// The work on one directory.
struct Work<'a> {
    dir: &'a Path,
    syncer: &'a Syncer,
    space: &'a Space,
    index: IndexFn,
    state: Recovered,
}

impl Work<'_> {
    fn segment(&mut self, loaded: &Loaded, following: Option<u64>) -> Result<(), OpenError> {
        let sealed = match (loaded.footer, loaded.tail) {
            (Some(footer), Some(tail)) => {
                if loaded.header.is_none() {
                    self.note(loaded, DamageReason::Header, (1, 0));
                }
                Some(Sealed { footer, footer_offset: tail.footer_offset })
            }
            _ => self.unsealed(loaded, following)?,
        };
        let Some(sealed) = sealed else { return Ok(()) };
        if self.is_foreign(&sealed) {
            return self.set_aside(loaded, &sealed);
        }
        self.join(loaded, &sealed);
        let header = sealed.footer.header;
        let segment = Segment::new(loaded.path.clone(), header, State::Sealed(Arc::new(sealed)));
        self.state.segments.push(segment);
        Ok(())
    }

    /// Whether a segment has numbers that were given already: it is of another history, such as a
    /// backup that was put back over newer files.
    fn is_foreign(&self, sealed: &Sealed) -> bool {
        let first = sealed.footer.header.first_sequence;
        !self.state.segments.is_empty() && first < self.state.next_sequence
    }

    /// Moves a segment out of the journal, into quarantine under its own name.
    fn set_aside(&mut self, loaded: &Loaded, sealed: &Sealed) -> Result<(), OpenError> {
        let lost = (sealed.footer.header.first_sequence, sealed.footer.last_sequence);
        self.note(loaded, DamageReason::Chain, lost);
        // However old it is, it lies there from now on.
        files::date(&loaded.path, self.syncer)?;
        let place = files::quarantine_whole(self.dir, &loaded.path, self.syncer)?;
        self.state.quarantined.push(place);
        Ok(())
    }

    /// Compares a segment with the one before it, and makes it the newest.
    fn join(&mut self, loaded: &Loaded, sealed: &Sealed) {
        let footer = &sealed.footer;
        let first = footer.header.first_sequence;
        if let Some(head) = self.state.head {
            if first > self.state.next_sequence {
                let lost = (self.state.next_sequence, first - 1);
                self.note(loaded, DamageReason::Missing, lost);
            } else if first == head.position.sequence.saturating_add(1)
                && footer.header.previous != head.hash
            {
                self.note(loaded, DamageReason::Chain, (1, 0));
            }
        }
        let position = Position { epoch: footer.last_epoch, sequence: footer.last_sequence };
        self.state.head = Some(Head { position, hash: footer.hash });
        self.state.epoch = self.state.epoch.max(footer.header.epoch).max(footer.last_epoch);
        self.state.next_sequence = self.state.next_sequence.max(footer.next_sequence);
    }

    fn note(&mut self, loaded: &Loaded, reason: DamageReason, (first, last): (u64, u64)) {
        let segment = loaded.path.clone();
        self.state.damage.push(Damage { segment, offset: 0, len: 0, first, last, reason });
    }

    /// Scans a segment without a footer and seals a copy of it in its place.
    fn unsealed(
        &mut self,
        loaded: &Loaded,
        following: Option<u64>,
    ) -> Result<Option<Sealed>, OpenError> {
        let bytes = loaded.bytes()?;
        let expected = self.expected();
        let Some(header) = salvage(loaded, &bytes, self.state.identity, expected)? else {
            return self.without_frames(loaded, &bytes, following).map(|()| None);
        };
        if loaded.tail.is_some() {
            self.note(loaded, DamageReason::Footer, (1, 0));
        }
        let floor = floor_of(loaded, following);
        let scope = Scope { path: &loaded.path, header: &header, floor, index: self.index };
        let found = scan(frames_of(loaded, &bytes), &scope)
            .map_err(|format| newer(&loaded.path, u32::from(format)))?;
        if loaded.header.is_none() && found.was_durable(&header) {
            self.note(loaded, DamageReason::Header, (1, 0));
        }
        self.keep(loaded, &bytes, &found)?;
        self.seal_copy(loaded, &bytes, &header, &found).map(Some)
    }

    fn expected(&self) -> u64 {
        if self.state.segments.is_empty() { u64::MAX } else { self.state.next_sequence }
    }

    /// A file with a lost header and no frame: one that was just begun, or one that was lost.
    fn without_frames(
        &mut self,
        loaded: &Loaded,
        bytes: &[u8],
        following: Option<u64>,
    ) -> Result<(), OpenError> {
        let last = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let copy = self.quarantine(loaded, 0, &bytes[..last])?;
        self.state.quarantined.push(copy);
        let (first, floor) = (self.state.next_sequence, floor_of(loaded, following));
        if floor >= first {
            self.note(loaded, DamageReason::Header, (first, floor));
            self.state.next_sequence = floor.saturating_add(1);
        } else {
            self.state.torn_bytes += last as u64;
        }
        // It may come back after a power cut, and is then kept aside and removed once more.
        fs::remove_file(&loaded.path).map_err(io_error("remove", &loaded.path))
    }

    /// Keeps bytes in quarantine, on a full disk with room from the reserve.
    fn quarantine(&self, loaded: &Loaded, at: u64, bytes: &[u8]) -> Result<PathBuf, OpenError> {
        self.space.with_reserve(bytes.len() as u64, found_no_room, || {
            quarantine(self.dir, loaded.number, at, bytes, self.syncer)
        })
    }

    /// Copies damaged and torn bytes to quarantine.
    fn keep(&mut self, loaded: &Loaded, bytes: &[u8], found: &Scan) -> Result<(), OpenError> {
        let end = found.index.end;
        let torn = (found.torn > 0).then_some((end, found.torn));
        let damaged = found.index.damage.iter().map(|damage| (damage.offset, damage.len));
        for (offset, len) in damaged.filter(|(_, len)| *len > 0).chain(torn) {
            let range = index(offset)..index(offset.saturating_add(len));
            let bad = bytes.get(range).unwrap_or_default();
            let copy = self.quarantine(loaded, offset, bad)?;
            self.state.quarantined.push(copy);
        }
        self.state.torn_bytes += found.torn;
        self.state.damage.extend(found.index.damage.iter().cloned());
        Ok(())
    }

    /// Rule 7: what was read may be in the page cache only, so it is written again, synced and
    /// sealed before anything acts on it.
    fn seal_copy(
        &self,
        loaded: &Loaded,
        bytes: &[u8],
        header: &SegmentHeader,
        found: &Scan,
    ) -> Result<Sealed, OpenError> {
        let aside = loaded.path.with_extension(ASIDE);
        let (footer, encoded) = footer::encode(header, &found.index);
        let end = found.index.end;
        let clean = loaded.tail.map_or(0, |tail| tail.flags);
        let tail = Tail {
            flags: FLAG_RECOVERED | clean,
            footer_offset: end,
            next_sequence: footer.next_sequence,
        };
        let frames = bytes.get(HEADER_BYTES..index(end)).unwrap_or_default();
        let parts = [header.encode().as_slice(), frames, &encoded, &tail.encode()].concat();
        let file = self.space.with_reserve(parts.len() as u64, found_no_room, || {
            let file = File::create(&aside).map_err(io_error("create", &aside))?;
            file.write_all_at(&parts, 0).map_err(io_error("write", &aside))?;
            Ok(file)
        })?;
        self.syncer.data(&file, SyncPoint::Recovered).map_err(io_error("sync", &aside))?;
        fs::rename(&aside, &loaded.path).map_err(io_error("rename", &aside))?;
        let synced = self.syncer.dir(self.dir, SyncPoint::RecoveredName);
        synced.map_err(io_error("sync", self.dir))?;
        Ok(Sealed { footer, footer_offset: end })
    }
}

/// Whether opening failed because the disk is full.
pub(super) fn found_no_room(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { source, .. } if is_full(source))
}

/// The head that a journal continues from: its newest frame, or its genesis.
pub(super) fn head_of(recovered: &Recovered, identity: &Identity) -> Head {
    let genesis = Head { position: Position::default(), hash: chain::genesis(&identity.journal) };
    recovered.head.unwrap_or(genesis)
}
