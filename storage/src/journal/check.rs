//! A full check: every segment is scanned again, and compared with its footer and with the chain.
//!
//! It trusts no footer, changes nothing, and checks no body: their digests are the caller's.

use super::catalog::{Sealed, Segment, State};
use super::files::{self, newer, read_at};
use super::footer;
use super::recover::{floor_of, frames_of, salvage};
use super::scan::{Scope, scan};
use super::segment::SegmentHeader;
use super::{Damage, DamageReason, Hash, IndexFn, OpenError, ReadOnly};
use std::io;
use std::path::Path;

/// What a full check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Segments scanned.
    pub segments: u64,
    /// Good frames.
    pub frames: u64,
    /// Entries in good frames.
    pub entries: u64,
    /// Bytes of good frames.
    pub bytes: u64,
    /// The chain's hash after the newest frame; `None` without segments.
    pub hash: Option<Hash>,
    /// All that is wrong, oldest first.
    pub damage: Vec<Damage>,
}

/// Scans a whole journal that nobody writes.
///
/// # Errors
/// When the directory cannot be listed or a segment not be read, or a newer program wrote it.
pub fn check(dir: &Path, index_fn: IndexFn) -> Result<Check, OpenError> {
    check_watched(dir, index_fn, &mut |_, _| {})
}

/// The same for somebody who waits: `watch` is told after each segment how many bytes of how many
/// are done.
///
/// # Errors
/// As [`check`].
pub fn check_watched(
    dir: &Path,
    index_fn: IndexFn,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<Check, OpenError> {
    let look = ReadOnly::open(dir, index_fn)?;
    let mut found =
        Check { segments: 0, frames: 0, entries: 0, bytes: 0, hash: None, damage: Vec::new() };
    let segments = look.reader().catalog.all();
    let size = |segment: &Segment| segment.path.metadata().map_or(0, |file| file.len());
    let (mut done, all) = (0, segments.iter().map(|segment| size(segment)).sum());
    for (at, segment) in segments.iter().enumerate() {
        let following = segments.get(at + 1).map(|next| next.header.first_sequence);
        match one(segment, following, index_fn, &mut found) {
            // A writer beside this look dropped it since it was listed.
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            checked => checked?,
        }
        done += size(segment);
        watch(done, all);
    }
    for damage in look.damage() {
        if !found.damage.iter().any(|one| one.covers(damage)) {
            found.damage.push(damage.clone());
        }
    }
    Ok(found)
}

fn one(
    segment: &Segment,
    following: Option<u64>,
    index_fn: IndexFn,
    found: &mut Check,
) -> Result<(), OpenError> {
    let path = &segment.path;
    let Some(loaded) = files::load(segment.header.number, path.clone(), false)? else {
        return Ok(());
    };
    let bytes = loaded.bytes()?;
    let header: SegmentHeader = salvage(&loaded, &bytes, Some(segment.header.identity), u64::MAX)?
        .unwrap_or(segment.header);
    let frames = frames_of(&loaded, &bytes);
    let floor = floor_of(&loaded, following);
    let scope = Scope { path, header: &header, floor, index: index_fn };
    let scanned = scan(frames, &scope).map_err(|format| newer(path, u32::from(format)))?.index;
    // A compaction may have replaced the file since the look: what counts is the one just read.
    let here = loaded.footer.zip(loaded.tail);
    let here = here.map(|(footer, tail)| Sealed { footer, footer_offset: tail.footer_offset });
    if let State::Sealed(known) = &*segment.state.read()
        && let sealed = here.as_ref().unwrap_or(known)
        && !sealed.footer.is_old()
        && !same_footer(&loaded, sealed, &header, &scanned)
    {
        let (offset, len) = (sealed.footer_offset, 0);
        let (segment, reason) = (path.clone(), DamageReason::Footer);
        found.damage.push(Damage { segment, offset, len, first: 1, last: 0, reason });
    }
    found.segments += 1;
    found.frames += scanned.rows.len() as u64;
    found.entries += scanned.resources.len() as u64;
    found.bytes += scanned.end;
    found.hash = Some(scanned.hash);
    found.damage.extend(scanned.damage);
    Ok(())
}

/// Whether the footer on the disk is, byte for byte, the one that its frames give.
fn same_footer(
    loaded: &files::Loaded,
    sealed: &Sealed,
    header: &SegmentHeader,
    scanned: &super::index::SegmentIndex,
) -> bool {
    let mut expected = scanned.clone();
    // Damage that a recovery cut away is known to the footer alone.
    if let Ok(Some(recorded)) = damage_of(loaded, sealed) {
        if scanned.damage.iter().any(|damage| !recorded.contains(damage)) {
            // Frames became damaged later: that is named, and the footer still has them.
            return true;
        }
        expected.damage = recorded;
        expected.next_sequence = sealed.footer.next_sequence;
    }
    let bytes = match sealed.footer.section(footer::Section::Filter).items {
        0 => footer::encode_before(header, &expected),
        _ => footer::encode(header, &expected).1,
    };
    let stored = read_at(&loaded.file, sealed.footer_offset, bytes.len() as u64);
    stored.is_ok_and(|stored| stored == bytes)
}

fn damage_of(loaded: &files::Loaded, sealed: &Sealed) -> std::io::Result<Option<Vec<Damage>>> {
    let place = sealed.footer.section(footer::Section::Damage);
    let at = sealed.footer_offset.saturating_add(u64::from(place.offset));
    if at.saturating_add(u64::from(place.len)) > loaded.len {
        return Ok(None);
    }
    let bytes = read_at(&loaded.file, at, u64::from(place.len))?;
    Ok(footer::decode_damage(&bytes, &loaded.path))
}
