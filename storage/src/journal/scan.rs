//! Reading a segment without a footer: which frames are good, which bytes are damage, where the
//! torn tail begins (JOURNAL rule 6). A pure function of the bytes; it changes nothing.

use super::codec::narrow;
use super::frame::{self, FrameFault, FrameView};
use super::index::SegmentIndex;
use super::segment::{HEADER_BYTES, SegmentHeader};
use super::{Damage, DamageReason, IndexFn, footer};
use std::path::Path;

/// What a scan needs to know besides the bytes.
pub(super) struct Scope<'a> {
    pub(super) path: &'a Path,
    pub(super) header: &'a SegmentHeader,
    /// Every sequence up to here was durable once, as a later segment or a trailer says.
    pub(super) floor: u64,
    pub(super) index: IndexFn,
}

/// What a scan found.
pub(super) struct Scan {
    pub(super) index: SegmentIndex,
    /// Bytes after the last good frame that are neither zeros, nor a footer, nor damage.
    pub(super) torn: u64,
    /// Every sequence up to here was durable once, as what follows the segment or a frame says.
    pub(super) floor: u64,
}

impl Scan {
    /// Whether a segment without its header was durable once, so that the header is damage. One
    /// that was not may have kept a frame in a power cut and lost what was written before it.
    pub(super) fn was_durable(&self, header: &SegmentHeader) -> bool {
        self.floor >= header.first_sequence
    }
}

/// Reads all frames of a segment; an error is the newer frame format that was met.
pub(super) fn scan(bytes: &[u8], scope: &Scope<'_>) -> Result<Scan, u16> {
    let header = scope.header;
    let mut index = SegmentIndex::new(header.epoch, header.first_sequence, header.previous);
    let mut at = HEADER_BYTES;
    let mut floor = scope.floor;
    let mut skipped = false;
    while let Some((offset, view)) = next_good(bytes, at, &index, header.nonce)? {
        note_gap(&mut index, scope.path, (at, offset), &view, skipped);
        skipped = offset > at;
        floor = floor.max(view.header.synced_through);
        index.push_view(&view, narrow(offset), scope.index, &header.identity);
        at = offset + view.len;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let garbage = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
    let is_footer = rest.starts_with(&footer::MAGIC);
    let mut torn = if is_footer { 0 } else { garbage };
    if floor >= index.next_sequence {
        let reason = if torn > 0 { DamageReason::Frame } else { DamageReason::Missing };
        let first = index.next_sequence;
        let segment = scope.path.to_path_buf();
        let offset = at as u64;
        index.damage.push(Damage { segment, offset, len: torn, first, last: floor, reason });
        index.next_sequence = floor.saturating_add(1);
        torn = 0;
    }
    Ok(Scan { index, torn, floor })
}

/// Records what lies between the last good frame and this one, and a chain that is broken.
fn note_gap(
    index: &mut SegmentIndex,
    path: &Path,
    (at, offset): (usize, usize),
    view: &FrameView<'_>,
    after_gap: bool,
) {
    let first = index.next_sequence;
    let last = view.header.position.sequence.saturating_sub(1);
    let reason = if offset > at {
        DamageReason::Frame
    } else if last >= first {
        DamageReason::Missing
    } else if view.header.previous != index.hash && !after_gap {
        DamageReason::Chain
    } else {
        return;
    };
    let (segment, len) = (path.to_path_buf(), (offset - at) as u64);
    index.damage.push(Damage { segment, offset: at as u64, len, first, last, reason });
}

/// The first good frame at or after `from` that may follow in this segment.
fn next_good<'a>(
    bytes: &'a [u8],
    from: usize,
    index: &SegmentIndex,
    nonce: u64,
) -> Result<Option<(usize, FrameView<'a>)>, u16> {
    let mut at = from;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= frame::HEADER_BYTES) {
        if rest.starts_with(&frame::MAGIC) && frame::claimed_nonce(rest) == Some(nonce) {
            match frame::decode(rest) {
                Ok(view) if view.header.position.sequence >= index.next_sequence => {
                    return Ok(Some((at, view)));
                }
                Err(FrameFault::Newer(format)) => return Err(format),
                _ => {}
            }
        }
        at += 8;
    }
    Ok(None)
}

/// The first good frame of any nonce: what is left to tell of a segment whose header is lost.
pub(super) fn first_frame(bytes: &[u8]) -> Option<FrameView<'_>> {
    let starts = (HEADER_BYTES..bytes.len()).step_by(8);
    starts
        .filter(|at| bytes[*at..].starts_with(&frame::MAGIC))
        .find_map(|at| frame::decode(&bytes[at..]).ok())
}
