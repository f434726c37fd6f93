//! A sealed segment's footer: encoding, and reading one section at a time. Decides nothing.
//!
//! ```text
//!   0  magic "LKFT"       4 | format 4
//!   8  journal id        16
//!  24  fingerprint key   16
//!  40  segment number     8
//!  48  nonce              8
//!  56  epoch              4 | last epoch 4
//!  64  first sequence     8
//!  72  last sequence      8    first - 1 without frames
//!  80  next sequence      8
//!  88  earliest time, ms  8
//!  96  latest time, ms    8
//! 104  previous hash     32
//! 136  chain hash        32    after the last frame
//! 168  six sections × { offset 4 | length 4 | items 4 | CRC32C 4 }, offsets from the footer
//! 264  zero              4 | CRC32C of 0..268
//! 272  sections: frames, events, ids, actors, filter, damage
//! ```

use super::bloom::Bloom;
use super::chain::Hash;
use super::codec::{Cursor, narrow, put_varint};
use super::index::{FrameRow, IdRow, SegmentIndex};
use super::segment::{BlockFault, FORMAT, SegmentHeader};
use super::{Damage, DamageReason, EntryRef, Identity};
use std::path::Path;

pub(super) const MAGIC: [u8; 4] = *b"LKFT";
/// The footer without its sections.
pub(super) const HEAD_BYTES: usize = 272;
const CRC_AT: usize = 268;
const SECTIONS: usize = 6;
/// Rows of a page of the ids section: 146 × 28 bytes, a count and a checksum.
const PAGE_ROWS: usize = 146;
/// A page of the ids section, read and checked alone.
pub(super) const PAGE_BYTES: usize = 4096;
const FRAME_ROW_BYTES: usize = 24;
/// The bit of a row's heads length that says bodies were dropped; a length never has it.
const STRIPPED: u32 = 1 << 31;
const DAMAGE_ROW_BYTES: usize = 40;

/// The parts of a footer, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Frames,
    Events,
    Ids,
    Actors,
    Filter,
    Damage,
}

/// Where a section lies and how it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SectionRef {
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) items: u32,
    pub(super) crc: u32,
}

/// The first 272 bytes of a footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FooterHead {
    pub(super) header: SegmentHeader,
    pub(super) last_epoch: u32,
    pub(super) last_sequence: u64,
    pub(super) next_sequence: u64,
    pub(super) times: (u64, u64),
    pub(super) hash: Hash,
    pub(super) sections: [SectionRef; SECTIONS],
}

impl FooterHead {
    pub(super) fn section(&self, section: Section) -> SectionRef {
        self.sections[section as usize]
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BlockFault> {
        let covered = bytes.get(..CRC_AT).ok_or(BlockFault::Bad)?;
        let sum = bytes.get(CRC_AT..).and_then(|rest| Cursor::new(rest).u32());
        let mut cursor = Cursor::new(covered);
        if cursor.array() != Some(MAGIC) || sum != Some(crc32c::crc32c(covered)) {
            return Err(BlockFault::Bad);
        }
        match cursor.u32() {
            Some(FORMAT) => Self::fields(&mut cursor).ok_or(BlockFault::Bad),
            Some(newer) if newer > FORMAT => Err(BlockFault::Newer(newer)),
            _ => Err(BlockFault::Bad),
        }
    }

    fn fields(cursor: &mut Cursor<'_>) -> Option<Self> {
        let identity = Identity { journal: cursor.array()?, key: cursor.array()? };
        let (number, nonce) = (cursor.u64()?, cursor.u64()?);
        let (epoch, last_epoch) = (cursor.u32()?, cursor.u32()?);
        let (first_sequence, last_sequence) = (cursor.u64()?, cursor.u64()?);
        let next_sequence = cursor.u64()?;
        let times = (cursor.u64()?, cursor.u64()?);
        let (previous, hash) = (cursor.array()?, cursor.array()?);
        let mut sections = [SectionRef::default(); SECTIONS];
        for section in &mut sections {
            *section = SectionRef {
                offset: cursor.u32()?,
                len: cursor.u32()?,
                items: cursor.u32()?,
                crc: cursor.u32()?,
            };
        }
        let created = times.0;
        let header =
            SegmentHeader { identity, number, nonce, epoch, first_sequence, previous, created };
        Some(Self { header, last_epoch, last_sequence, next_sequence, times, hash, sections })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        let SegmentHeader { identity, number, nonce, epoch, first_sequence, previous, .. } =
            &self.header;
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&identity.journal);
        out.extend_from_slice(&identity.key);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&nonce.to_le_bytes());
        out.extend_from_slice(&epoch.to_le_bytes());
        out.extend_from_slice(&self.last_epoch.to_le_bytes());
        let numbers =
            [*first_sequence, self.last_sequence, self.next_sequence, self.times.0, self.times.1];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(previous);
        out.extend_from_slice(&self.hash);
        for section in &self.sections {
            for field in [section.offset, section.len, section.items, section.crc] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        out.extend_from_slice(&[0; 4]);
        let sum = crc32c::crc32c(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }
}

/// The footer of a segment with this index, and its head.
pub(super) fn encode(header: &SegmentHeader, index: &SegmentIndex) -> (FooterHead, Vec<u8>) {
    let mut ids = index.ids.clone();
    ids.sort_unstable();
    let bloom = Bloom::new(ids.iter().map(|row| row.id));
    let bodies: [(usize, Vec<u8>); SECTIONS] = [
        (index.rows.len(), encode_rows(&index.rows)),
        (index.events.len(), encode_events(index)),
        (ids.len(), encode_ids(&ids)),
        (index.actors.len(), index.actors.iter().flat_map(|actor| actor.to_le_bytes()).collect()),
        (0, bloom.bytes().to_vec()),
        (index.damage.len(), encode_damage(index)),
    ];
    let mut sections = [SectionRef::default(); SECTIONS];
    let mut offset = narrow(HEAD_BYTES);
    for (section, (items, body)) in sections.iter_mut().zip(&bodies) {
        let len = narrow(body.len());
        *section = SectionRef { offset, len, items: narrow(*items), crc: crc32c::crc32c(body) };
        offset = offset.saturating_add(len);
    }
    let head = FooterHead {
        header: *header,
        last_epoch: index.last.epoch,
        last_sequence: index.last.sequence,
        next_sequence: index.next_sequence,
        times: index.times.unwrap_or((header.created, header.created)),
        hash: index.hash,
        sections,
    };
    let mut out = head.encode();
    for (_, body) in &bodies {
        out.extend_from_slice(body);
    }
    (head, out)
}

/// For each: sequence 8, time 8, offset 4, heads length 4.
fn encode_rows(rows: &[FrameRow]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * FRAME_ROW_BYTES);
    for row in rows {
        out.extend_from_slice(&row.sequence.to_le_bytes());
        out.extend_from_slice(&row.time.to_le_bytes());
        out.extend_from_slice(&row.offset.to_le_bytes());
        let mark = if row.stripped { STRIPPED } else { 0 };
        out.extend_from_slice(&(row.heads_len | mark).to_le_bytes());
    }
    out
}

pub(super) fn decode_rows(bytes: &[u8]) -> Option<Vec<FrameRow>> {
    let mut cursor = Cursor::new(bytes);
    let count = bytes.len() / FRAME_ROW_BYTES;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let (sequence, time, offset) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
        let marked = cursor.u32()?;
        let (heads_len, stripped) = (marked & !STRIPPED, marked & STRIPPED != 0);
        rows.push(FrameRow { sequence, time, offset, heads_len, stripped });
    }
    Some(rows)
}

/// For each event: number 2, postings 4, bytes 4, then varints (sequence step, entry index).
fn encode_events(index: &SegmentIndex) -> Vec<u8> {
    let mut out = Vec::new();
    for (event, postings) in &index.events {
        let mut list = Vec::with_capacity(postings.len() * 2);
        let mut before = 0;
        for at in postings {
            put_varint(&mut list, at.sequence.wrapping_sub(before));
            put_varint(&mut list, u64::from(at.index));
            before = at.sequence;
        }
        out.extend_from_slice(&event.to_le_bytes());
        out.extend_from_slice(&narrow(postings.len()).to_le_bytes());
        out.extend_from_slice(&narrow(list.len()).to_le_bytes());
        out.extend_from_slice(&list);
    }
    out
}

/// The postings of the events that `wanted` names, unsorted.
pub(super) fn decode_events(
    bytes: &[u8],
    events: u32,
    wanted: impl Fn(u16) -> bool,
) -> Option<Vec<EntryRef>> {
    let mut cursor = Cursor::new(bytes);
    let mut found = Vec::new();
    for _ in 0..events {
        let (event, count, len) = (cursor.u16()?, cursor.u32()?, cursor.u32()?);
        let mut list = Cursor::new(cursor.take(len as usize)?);
        if !wanted(event) {
            continue;
        }
        let mut sequence = 0u64;
        for _ in 0..count {
            sequence = sequence.wrapping_add(list.varint()?);
            let index = u32::try_from(list.varint()?).ok()?;
            found.push(EntryRef { sequence, index });
        }
    }
    Some(found)
}

fn encode_ids(ids: &[IdRow]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ids.len().div_ceil(PAGE_ROWS) * PAGE_BYTES);
    for page in ids.chunks(PAGE_ROWS) {
        let start = out.len();
        for row in page {
            out.extend_from_slice(&row.id.to_le_bytes());
            out.extend_from_slice(&row.at.sequence.to_le_bytes());
            out.extend_from_slice(&row.at.index.to_le_bytes());
        }
        out.resize(start + PAGE_BYTES - 8, 0);
        out.extend_from_slice(&narrow(page.len()).to_le_bytes());
        let sum = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&sum.to_le_bytes());
    }
    out
}

/// One page of the ids section.
pub(super) fn decode_id_page(page: &[u8]) -> Option<Vec<IdRow>> {
    let covered = page.get(..PAGE_BYTES - 4)?;
    let mut trailer = Cursor::new(page.get(PAGE_BYTES - 8..)?);
    let (count, sum) = (trailer.u32()? as usize, trailer.u32()?);
    if sum != crc32c::crc32c(covered) || count > PAGE_ROWS {
        return None;
    }
    let mut cursor = Cursor::new(covered);
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let id = cursor.u128()?;
        let at = EntryRef { sequence: cursor.u64()?, index: cursor.u32()? };
        rows.push(IdRow { id, at });
    }
    Some(rows)
}

pub(super) fn decode_actors(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut cursor = Cursor::new(bytes);
    (0..bytes.len() / 8).map(|_| cursor.u64()).collect()
}

/// For each: offset 8, length 8, first sequence 8, last sequence 8, reason 2, zeros to 40.
fn encode_damage(index: &SegmentIndex) -> Vec<u8> {
    let mut out = Vec::new();
    for damage in &index.damage {
        for field in [damage.offset, damage.len, damage.first, damage.last] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&reason_number(damage.reason).to_le_bytes());
        out.extend_from_slice(&[0; 6]);
    }
    out
}

pub(super) fn decode_damage(bytes: &[u8], path: &Path) -> Option<Vec<Damage>> {
    let mut cursor = Cursor::new(bytes);
    let decode = |_| {
        let (offset, len) = (cursor.u64()?, cursor.u64()?);
        let (first, last) = (cursor.u64()?, cursor.u64()?);
        let reason = reason_of(cursor.u16()?)?;
        cursor.take(6)?;
        Some(Damage { segment: path.to_path_buf(), offset, len, first, last, reason })
    };
    (0..bytes.len() / DAMAGE_ROW_BYTES).map(decode).collect()
}

fn reason_number(reason: DamageReason) -> u16 {
    match reason {
        DamageReason::Header => 1,
        DamageReason::Frame => 2,
        DamageReason::Missing => 3,
        DamageReason::Chain => 4,
        DamageReason::Footer => 5,
        DamageReason::Unreadable => 6,
    }
}

fn reason_of(number: u16) -> Option<DamageReason> {
    use DamageReason::{Chain, Footer, Frame, Header, Missing, Unreadable};
    let reasons = [Header, Frame, Missing, Chain, Footer, Unreadable];
    reasons.get(usize::from(number).checked_sub(1)?).copied()
}
