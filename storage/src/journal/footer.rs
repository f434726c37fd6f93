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
//! 272  two more sections                       format 2
//! 304  zero              4 | CRC32C of 272..308
//! 312  sections: frames, events, ids, actors, filter, damage, levels, resources
//! ```
//!
//! Format 1 has no second part, its sections begin at 272, and its actors have no postings.

use super::bloom::Bloom;
use super::chain::Hash;
use super::codec::{Cursor, narrow, put_varint};
use super::index::{FrameRow, IdRow, ResourceRow, SegmentIndex};
use super::segment::{BlockFault, SegmentHeader};
use super::{Damage, DamageReason, EntryRef, Identity};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) const MAGIC: [u8; 4] = *b"LKFT";
/// The footer format written here and the newest one read.
pub(super) const FORMAT: u32 = 2;
/// The format without levels and resources, and with actors that have no postings.
const FORMAT_WITHOUT_POSTINGS: u32 = 1;
/// The head of format 1.
pub(super) const HEAD_BYTES_MIN: usize = 272;
/// The footer without its sections.
pub(super) const HEAD_BYTES: usize = 312;
const CRC_AT: usize = 268;
const MORE_CRC_AT: usize = 308;
const SECTIONS: usize = 8;
/// Sections in the first part of the head.
const SECTIONS_FIRST: usize = 6;
/// Rows of a page of the resources section: 340 × 12 bytes, zeros, a count and a checksum.
const RESOURCE_ROWS: usize = 340;
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
    Levels,
    Resources,
}

/// Where a section lies and how it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SectionRef {
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) items: u32,
    pub(super) crc: u32,
}

/// A footer without its sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FooterHead {
    pub(super) format: u32,
    pub(super) header: SegmentHeader,
    pub(super) last_epoch: u32,
    pub(super) last_sequence: u64,
    pub(super) next_sequence: u64,
    pub(super) times: (u64, u64),
    pub(super) hash: Hash,
    pub(super) sections: [SectionRef; SECTIONS],
}

impl SectionRef {
    fn encode(self, out: &mut Vec<u8>) {
        for field in [self.offset, self.len, self.items, self.crc] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        let (offset, len) = (cursor.u32()?, cursor.u32()?);
        Some(Self { offset, len, items: cursor.u32()?, crc: cursor.u32()? })
    }
}

impl FooterHead {
    pub(super) fn section(&self, section: Section) -> SectionRef {
        self.sections[section as usize]
    }

    /// Whether it was written by an older program and has less than this one writes.
    pub(super) fn is_old(&self) -> bool {
        self.format < FORMAT
    }

    /// Reads the head at the beginning of `bytes`, which may go on after it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BlockFault> {
        let covered = bytes.get(..CRC_AT).ok_or(BlockFault::Bad)?;
        let sum = bytes.get(CRC_AT..).and_then(|rest| Cursor::new(rest).u32());
        let mut cursor = Cursor::new(covered);
        if cursor.array() != Some(MAGIC) || sum != Some(crc32c::crc32c(covered)) {
            return Err(BlockFault::Bad);
        }
        match cursor.u32() {
            Some(FORMAT_WITHOUT_POSTINGS) => {
                Self::fields(&mut cursor, FORMAT_WITHOUT_POSTINGS).ok_or(BlockFault::Bad)
            }
            Some(FORMAT) => Self::both(&mut cursor, bytes).ok_or(BlockFault::Bad),
            Some(newer) if newer > FORMAT => Err(BlockFault::Newer(newer)),
            _ => Err(BlockFault::Bad),
        }
    }

    /// A head with its second part.
    fn both(cursor: &mut Cursor<'_>, bytes: &[u8]) -> Option<Self> {
        let mut head = Self::fields(cursor, FORMAT)?;
        let covered = bytes.get(HEAD_BYTES_MIN..MORE_CRC_AT)?;
        if Cursor::new(bytes.get(MORE_CRC_AT..)?).u32()? != crc32c::crc32c(covered) {
            return None;
        }
        let mut more = Cursor::new(covered);
        for section in &mut head.sections[SECTIONS_FIRST..] {
            *section = SectionRef::decode(&mut more)?;
        }
        Some(head)
    }

    fn fields(cursor: &mut Cursor<'_>, format: u32) -> Option<Self> {
        let identity = Identity { journal: cursor.array()?, key: cursor.array()? };
        let (number, nonce) = (cursor.u64()?, cursor.u64()?);
        let (epoch, last_epoch) = (cursor.u32()?, cursor.u32()?);
        let (first_sequence, last_sequence) = (cursor.u64()?, cursor.u64()?);
        let next_sequence = cursor.u64()?;
        let times = (cursor.u64()?, cursor.u64()?);
        let (previous, hash) = (cursor.array()?, cursor.array()?);
        let mut sections = [SectionRef::default(); SECTIONS];
        for section in &mut sections[..SECTIONS_FIRST] {
            *section = SectionRef::decode(cursor)?;
        }
        let created = times.0;
        let header =
            SegmentHeader { identity, number, nonce, epoch, first_sequence, previous, created };
        Some(Self {
            format,
            header,
            last_epoch,
            last_sequence,
            next_sequence,
            times,
            hash,
            sections,
        })
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
        let (first, more) = self.sections.split_at(SECTIONS_FIRST);
        for (part, from) in [(first, 0), (more, HEAD_BYTES_MIN)] {
            for section in part {
                section.encode(&mut out);
            }
            out.extend_from_slice(&[0; 4]);
            let sum = crc32c::crc32c(&out[from..]);
            out.extend_from_slice(&sum.to_le_bytes());
        }
        out
    }
}

/// The footer of a segment with this index, and its head.
pub(super) fn encode(header: &SegmentHeader, index: &SegmentIndex) -> (FooterHead, Vec<u8>) {
    let packed = index.id_times.pack(times(header, index));
    encode_with(header, index, (Bloom::new, packed))
}

/// The same as it was before it knew the times of ids, to check one that was written then.
pub(super) fn encode_before(header: &SegmentHeader, index: &SegmentIndex) -> Vec<u8> {
    encode_with(header, index, (Bloom::by_entry, 0)).1
}

/// Between which times its records lie.
pub(super) fn times(header: &SegmentHeader, index: &SegmentIndex) -> (u64, u64) {
    index.times.unwrap_or((header.created, header.created))
}

fn encode_with(
    header: &SegmentHeader,
    index: &SegmentIndex,
    (filter, id_times): (fn(&[IdRow]) -> Bloom, u32),
) -> (FooterHead, Vec<u8>) {
    let mut ids = index.ids.clone();
    ids.sort_unstable();
    let bloom = filter(&ids);
    let bodies: [(usize, Vec<u8>); SECTIONS] = [
        (index.rows.len(), encode_rows(&index.rows)),
        (index.events.len(), encode_postings(&index.events)),
        (ids.len(), encode_ids(&ids)),
        (index.actors.len(), encode_postings(&index.actors)),
        (id_times as usize, bloom.bytes().to_vec()),
        (index.damage.len(), encode_damage(index)),
        (index.levels.len(), encode_postings(&index.levels)),
        (index.resources.len(), encode_resources(&index.resources)),
    ];
    let mut sections = [SectionRef::default(); SECTIONS];
    let mut offset = narrow(HEAD_BYTES);
    for (section, (items, body)) in sections.iter_mut().zip(&bodies) {
        let len = narrow(body.len());
        *section = SectionRef { offset, len, items: narrow(*items), crc: crc32c::crc32c(body) };
        offset = offset.saturating_add(len);
    }
    let head = FooterHead {
        format: FORMAT,
        header: *header,
        last_epoch: index.last.epoch,
        last_sequence: index.last.sequence,
        next_sequence: index.next_sequence,
        times: times(header, index),
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

/// By what entries are listed.
pub(super) trait Key: Copy {
    fn write(self, out: &mut Vec<u8>);
    fn read(cursor: &mut Cursor<'_>) -> Option<Self>;
}

/// An event, or a level.
impl Key for u16 {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        cursor.u16()
    }
}

/// The hash of an actor.
impl Key for u64 {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        cursor.u64()
    }
}

/// For each key: its bytes, postings 4, bytes 4, then varints (sequence step, entry index).
fn encode_postings<K: Key>(lists: &BTreeMap<K, Vec<EntryRef>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, postings) in lists {
        let mut list = Vec::with_capacity(postings.len() * 2);
        let mut before = 0;
        for at in postings {
            put_varint(&mut list, at.sequence.wrapping_sub(before));
            put_varint(&mut list, u64::from(at.index));
            before = at.sequence;
        }
        key.write(&mut out);
        out.extend_from_slice(&narrow(postings.len()).to_le_bytes());
        out.extend_from_slice(&narrow(list.len()).to_le_bytes());
        out.extend_from_slice(&list);
    }
    out
}

/// The postings of the keys that `wanted` names, unsorted.
pub(super) fn decode_postings<K: Key>(
    bytes: &[u8],
    keys: u32,
    mut wanted: impl FnMut(K) -> bool,
) -> Option<Vec<EntryRef>> {
    let mut cursor = Cursor::new(bytes);
    let mut found = Vec::new();
    for _ in 0..keys {
        let (key, count, len) = (K::read(&mut cursor)?, cursor.u32()?, cursor.u32()?);
        let mut list = Cursor::new(cursor.take(len as usize)?);
        if !wanted(key) {
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
        end_page(&mut out, start, page.len());
    }
    out
}

/// One page of the ids section.
pub(super) fn decode_id_page(page: &[u8]) -> Option<Vec<IdRow>> {
    let (mut cursor, count) = checked_page(page, PAGE_ROWS)?;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let id = cursor.u128()?;
        let at = EntryRef { sequence: cursor.u64()?, index: cursor.u32()? };
        rows.push(IdRow { id, at });
    }
    Some(rows)
}

/// Pages of: short hash 4, place of the frame 4, entry index 4; sorted.
fn encode_resources(rows: &[ResourceRow]) -> Vec<u8> {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    let mut out = Vec::with_capacity(rows.len().div_ceil(RESOURCE_ROWS) * PAGE_BYTES);
    for page in rows.chunks(RESOURCE_ROWS) {
        let start = out.len();
        for row in page {
            for field in [row.resource, row.row, row.index] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        end_page(&mut out, start, page.len());
    }
    out
}

/// One page of the resources section.
pub(super) fn decode_resource_page(page: &[u8]) -> Option<Vec<ResourceRow>> {
    let (mut cursor, count) = checked_page(page, RESOURCE_ROWS)?;
    let mut row = || {
        let (resource, row, index) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        Some(ResourceRow { resource, row, index })
    };
    (0..count).map(|_| row()).collect()
}

/// Fills a page that begins at `start`, and ends it with its count and checksum.
fn end_page(out: &mut Vec<u8>, start: usize, count: usize) {
    out.resize(start + PAGE_BYTES - 8, 0);
    out.extend_from_slice(&narrow(count).to_le_bytes());
    let sum = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&sum.to_le_bytes());
}

/// The rows of a page that passes its checksum, and how many they are.
fn checked_page(page: &[u8], max: usize) -> Option<(Cursor<'_>, usize)> {
    let covered = page.get(..PAGE_BYTES - 4)?;
    let mut trailer = Cursor::new(page.get(PAGE_BYTES - 8..)?);
    let (count, sum) = (trailer.u32()? as usize, trailer.u32()?);
    (sum == crc32c::crc32c(covered) && count <= max).then(|| (Cursor::new(covered), count))
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
