//! One frame's bytes: encoding and checked decoding. Knows no file and judges no neighbour.
//!
//! ```text
//!   0  magic "LKFR"      4 | format            2 | flags              2
//!   8  segment nonce     8
//!  16  epoch             4 | entry count       4
//!  24  sequence          8
//!  32  record time, ms   8
//!  40  synced_through    8
//!  48  heads length      4 | bodies length     4
//!  56  previous hash    32
//!  88  zero              4 | CRC32C of all but these 4 bytes
//!  96  entry table: count × { head length 4 | body length 4 | body offset 4 | body place 4 }
//!      heads, end to end; bodies, end to end; zeros to a multiple of 8
//! ```
//!
//! The heads length counts the table and the heads. A body's offset is where it was first
//! written and never changes; its place is where it lies now, and `u32::MAX` where it does not.

use super::chain::{self, Hash};
use super::codec::{Cursor, narrow, padded, patch};
use super::{BodyRef, Entry, Frame, FrameEntry, Position};

/// The largest frame; one decision, and a batch of them, is far below.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// The frame format written here and the newest one read.
pub(super) const FORMAT: u16 = 1;
pub(super) const MAGIC: [u8; 4] = *b"LKFR";
/// Set when bodies were dropped, so that a place may differ from an offset.
pub(super) const FLAG_STRIPPED: u16 = 1;
/// Bytes before the entry table.
pub(super) const HEADER_BYTES: usize = 96;
const CRC_AT: usize = 92;
const ROW_BYTES: usize = 16;
/// A body offset or place that says there is none.
const NONE: u32 = u32::MAX;

/// What a frame says about itself besides its entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHeader {
    pub(super) nonce: u64,
    pub(super) position: Position,
    pub(super) time: u64,
    pub(super) synced_through: u64,
    pub(super) previous: Hash,
}

/// A frame that passed its checksum, borrowing its bytes.
pub(super) struct FrameView<'a> {
    pub(super) header: FrameHeader,
    pub(super) stripped: bool,
    pub(super) count: u32,
    /// Table and heads together, as on disk.
    pub(super) heads_len: u32,
    /// All of it, padding too.
    pub(super) len: usize,
    rows: Vec<Row>,
    heads: &'a [u8],
    bodies: &'a [u8],
}

#[derive(Clone, Copy)]
struct Row {
    head_end: usize,
    head_start: usize,
    body_len: u32,
    body_offset: u32,
    body_place: u32,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameFault {
    /// Not a frame, or not a whole one, or one that was changed.
    Bad,
    /// A whole frame of a newer format.
    Newer(u16),
}

/// The bytes a frame of these entries takes, padding too.
pub(super) fn encoded_len(entries: &[Entry<'_>]) -> usize {
    let content = entries.iter().map(|entry| {
        ROW_BYTES.saturating_add(entry.head.len()).saturating_add(entry.body.map_or(0, <[u8]>::len))
    });
    padded(content.fold(HEADER_BYTES, usize::saturating_add))
}

/// What the heads length of a frame of these entries is: its table and heads.
pub(super) fn heads_len(entries: &[Entry<'_>]) -> u32 {
    narrow(entries.iter().map(|entry| ROW_BYTES + entry.head.len()).sum())
}

/// Replaces `out` by the frame. The caller has checked [`encoded_len`] against the limit.
pub(super) fn encode(out: &mut Vec<u8>, header: &FrameHeader, entries: &[Entry<'_>]) {
    out.clear();
    out.reserve(encoded_len(entries));
    let bodies_len = entries.iter().filter_map(|entry| entry.body).map(<[u8]>::len).sum();
    put_header(out, header, 0, narrow(entries.len()), [heads_len(entries), narrow(bodies_len)]);
    let mut offset = 0;
    for entry in entries {
        let place = if entry.body.is_some() { offset } else { NONE };
        let body_len = entry.body.map_or(0, |body| narrow(body.len()));
        put_row(out, narrow(entry.head.len()), body_len, place, place);
        offset += body_len;
    }
    for entry in entries {
        out.extend_from_slice(entry.head);
    }
    for body in entries.iter().filter_map(|entry| entry.body) {
        out.extend_from_slice(body);
    }
    finish(out);
}

fn put_header(out: &mut Vec<u8>, header: &FrameHeader, flags: u16, count: u32, lengths: [u32; 2]) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&header.nonce.to_le_bytes());
    out.extend_from_slice(&header.position.epoch.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&header.position.sequence.to_le_bytes());
    out.extend_from_slice(&header.time.to_le_bytes());
    out.extend_from_slice(&header.synced_through.to_le_bytes());
    out.extend_from_slice(&lengths[0].to_le_bytes());
    out.extend_from_slice(&lengths[1].to_le_bytes());
    out.extend_from_slice(&header.previous);
    out.extend_from_slice(&[0; 8]);
}

fn put_row(out: &mut Vec<u8>, head_len: u32, body_len: u32, offset: u32, place: u32) {
    for field in [head_len, body_len, offset, place] {
        out.extend_from_slice(&field.to_le_bytes());
    }
}

fn finish(out: &mut Vec<u8>) {
    out.resize(padded(out.len()), 0);
    let sum = checksum(out);
    patch(out, CRC_AT, &sum.to_le_bytes());
}

fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..CRC_AT]), &frame[HEADER_BYTES..])
}

/// The length that a frame's header claims, if it is one that a frame may have.
pub(super) fn claimed_len(bytes: &[u8]) -> Option<usize> {
    let mut cursor = Cursor::new(bytes);
    if cursor.array()? != MAGIC {
        return None;
    }
    cursor.take(44)?;
    let (heads, bodies) = (cursor.u32()? as usize, cursor.u32()? as usize);
    let len = padded(HEADER_BYTES.checked_add(heads)?.checked_add(bodies)?);
    (len <= FRAME_BYTES_MAX).then_some(len)
}

/// The nonce that a frame's header claims.
pub(super) fn claimed_nonce(bytes: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(bytes);
    cursor.take(8)?;
    cursor.u64()
}

/// Reads the frame at the beginning of `bytes`, which may go on after it.
pub(super) fn decode(bytes: &[u8]) -> Result<FrameView<'_>, FrameFault> {
    let len = claimed_len(bytes).ok_or(FrameFault::Bad)?;
    let bytes = bytes.get(..len).ok_or(FrameFault::Bad)?;
    let stored = Cursor::new(&bytes[CRC_AT..]).u32().ok_or(FrameFault::Bad)?;
    if checksum(bytes) != stored {
        return Err(FrameFault::Bad);
    }
    let mut cursor = Cursor::new(&bytes[MAGIC.len()..]);
    match cursor.u16() {
        Some(FORMAT) => decode_fields(bytes, &mut cursor).ok_or(FrameFault::Bad),
        Some(newer) if newer > FORMAT => Err(FrameFault::Newer(newer)),
        _ => Err(FrameFault::Bad),
    }
}

fn decode_fields<'a>(bytes: &'a [u8], cursor: &mut Cursor<'a>) -> Option<FrameView<'a>> {
    let flags = cursor.u16()?;
    let nonce = cursor.u64()?;
    let (epoch, count) = (cursor.u32()?, cursor.u32()?);
    let (sequence, time, synced_through) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    let (heads_len, bodies_len) = (cursor.u32()?, cursor.u32()?);
    let previous = cursor.array()?;
    cursor.take(8)?;
    let mut area = Cursor::new(cursor.take(heads_len as usize)?);
    let bodies = cursor.take(bodies_len as usize)?;
    let mut table = Cursor::new(area.take((count as usize).checked_mul(ROW_BYTES)?)?);
    let heads = area.take((heads_len as usize).checked_sub(count as usize * ROW_BYTES)?)?;
    let rows = decode_rows(&mut table, count, heads.len(), bodies.len())?;
    let position = Position { epoch, sequence };
    let header = FrameHeader { nonce, position, time, synced_through, previous };
    let stripped = flags & FLAG_STRIPPED != 0;
    Some(FrameView { header, stripped, count, heads_len, len: bytes.len(), rows, heads, bodies })
}

fn decode_rows(
    table: &mut Cursor<'_>,
    count: u32,
    heads: usize,
    bodies: usize,
) -> Option<Vec<Row>> {
    let mut rows = Vec::with_capacity(count as usize);
    let mut at = 0usize;
    for _ in 0..count {
        let head_end = at.checked_add(table.u32()? as usize)?;
        let (body_len, body_offset, body_place) = (table.u32()?, table.u32()?, table.u32()?);
        let body_end = (body_place as usize).checked_add(body_len as usize)?;
        if head_end > heads || (body_place != NONE && body_end > bodies) {
            return None;
        }
        rows.push(Row { head_start: at, head_end, body_len, body_offset, body_place });
        at = head_end;
    }
    (at == heads).then_some(rows)
}

impl FrameView<'_> {
    /// The entry heads in order.
    pub(super) fn heads(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|row| &self.heads[row.head_start..row.head_end])
    }

    /// The chain's hash after this frame.
    pub(super) fn hash(&self) -> Hash {
        let root = chain::merkle_root(self.heads());
        let FrameHeader { position, time, previous, .. } = &self.header;
        chain::next_hash(previous, *position, *time, self.count, &root)
    }

    /// The bytes of a body, if it is in this frame and was not dropped.
    pub(super) fn body(&self, wanted: &BodyRef) -> Option<&[u8]> {
        let row = self.rows.iter().find(|row| {
            row.body_offset == wanted.offset && row.body_len == wanted.len && row.body_place != NONE
        })?;
        let start = row.body_place as usize;
        self.bodies.get(start..start + row.body_len as usize)
    }

    /// A copy that outlives the bytes.
    pub(super) fn to_frame(&self) -> Frame {
        let sequence = self.header.position.sequence;
        let entries = (0..).zip(self.heads()).zip(&self.rows).map(|((index, head), row)| {
            let body = (row.body_offset != NONE).then_some(BodyRef {
                sequence,
                offset: row.body_offset,
                len: row.body_len,
            });
            FrameEntry { index, head: head.to_vec(), body }
        });
        Frame {
            position: self.header.position,
            time: self.header.time,
            previous: self.header.previous,
            hash: self.hash(),
            entries: entries.collect(),
        }
    }
}

/// Replaces `out` by the frame without the bodies that `goes` names by the index of their entry.
/// Everything else stays as it is, and so does the chain. Says how many bodies went; with none
/// `out` is left empty.
pub(super) fn strip(out: &mut Vec<u8>, view: &FrameView<'_>, goes: impl Fn(u32) -> bool) -> u64 {
    out.clear();
    let mut count = 0;
    let mut kept = Vec::new();
    let rows: Vec<Row> = (0..)
        .zip(&view.rows)
        .map(|(index, row)| {
            let mut row = *row;
            if row.body_place == NONE {
                return row;
            }
            if goes(index) {
                (row.body_place, count) = (NONE, count + 1);
                return row;
            }
            let start = row.body_place as usize;
            row.body_place = narrow(kept.len());
            kept.extend_from_slice(&view.bodies[start..start + row.body_len as usize]);
            row
        })
        .collect();
    if count == 0 {
        return 0;
    }
    put_header(out, &view.header, FLAG_STRIPPED, view.count, [view.heads_len, narrow(kept.len())]);
    for row in &rows {
        let head_len = narrow(row.head_end - row.head_start);
        put_row(out, head_len, row.body_len, row.body_offset, row.body_place);
    }
    out.extend_from_slice(view.heads);
    out.extend_from_slice(&kept);
    finish(out);
    count
}

/// Where each entry's body lies in a frame that was just encoded.
pub(super) fn body_refs(sequence: u64, entries: &[Entry<'_>]) -> Vec<Option<BodyRef>> {
    let mut offset = 0;
    let mut place = |body: &[u8]| {
        let here = BodyRef { sequence, offset, len: narrow(body.len()) };
        offset += here.len;
        here
    };
    entries.iter().map(|entry| entry.body.map(&mut place)).collect()
}
