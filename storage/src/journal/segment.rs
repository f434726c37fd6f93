//! A segment's first block, its tail record and its file name. Reads no frame.
//!
//! ```text
//! header, 4096 bytes                      tail, the last 40 bytes of a sealed segment
//!   0  magic "LOKISEG\0"   8                0  magic "LOKITAIL"     8
//!   8  format              4 | zero 4       8  format               4 | flags 4
//!  16  journal id         16               16  footer offset        8
//!  32  fingerprint key    16               24  next sequence        8
//!  48  segment number      8               32  zero                 4
//!  56  nonce               8               36  CRC32C of 0..36      4
//!  64  epoch               4 | zero 4
//!  72  first sequence      8
//!  80  previous hash      32
//! 112  created, ms         8
//! 120  zero                4 | CRC32C of 0..124
//! 128  zeros
//! ```
//!
//! Magic, format and checksum stay where they are in every format, so that a newer one is
//! recognised and refused by name.

use super::Identity;
use super::chain::Hash;
use super::codec::{Cursor, patch};
use std::path::{Path, PathBuf};

/// The segment format written here and the newest one read.
pub(super) const FORMAT: u32 = 1;
/// The block before the first frame.
pub(super) const HEADER_BYTES: usize = 4096;
/// [`HEADER_BYTES`] as a file offset.
pub(super) const FRAMES_START: u64 = HEADER_BYTES as u64;
/// The tail record.
pub(super) const TAIL_BYTES: usize = 40;
/// Set in a tail that a clean stop wrote; nothing after it may be cut.
pub(super) const FLAG_CLEAN: u32 = 1;
/// Set in a tail that recovery wrote.
pub(super) const FLAG_RECOVERED: u32 = 2;
/// A segment's file is read whole when it has no footer, and offsets are 32 bits in one.
pub(super) const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The header, a frame and room to breathe.
pub(super) const SEGMENT_BYTES_MIN: u64 = 8192;

const MAGIC: [u8; 8] = *b"LOKISEG\0";
const TAIL_MAGIC: [u8; 8] = *b"LOKITAIL";
const HEADER_CRC_AT: usize = 124;
const TAIL_CRC_AT: usize = 36;

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: Identity,
    pub(super) number: u64,
    pub(super) nonce: u64,
    pub(super) epoch: u32,
    pub(super) first_sequence: u64,
    pub(super) previous: Hash,
    pub(super) created: u64,
}

/// Why a block is not a header, or a record not a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockFault {
    Bad,
    Newer(u32),
}

/// Whether these bytes can be those of a segment whose header was cut while it was written, and
/// not something else altogether.
pub(super) fn begins_or_blank(bytes: &[u8]) -> bool {
    let first = &bytes[..MAGIC.len().min(bytes.len())];
    first.iter().zip(MAGIC).all(|(byte, wanted)| *byte == wanted || *byte == 0)
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.identity.journal);
        out.extend_from_slice(&self.identity.key);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.nonce.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(&self.created.to_le_bytes());
        out.resize(HEADER_BYTES, 0);
        let sum = crc32c::crc32c(&out[..HEADER_CRC_AT]);
        patch(&mut out, HEADER_CRC_AT, &sum.to_le_bytes());
        out
    }

    pub(super) fn decode(block: &[u8]) -> Result<Self, BlockFault> {
        let mut cursor = checked(block, MAGIC, HEADER_CRC_AT)?;
        Self::fields(&mut cursor).ok_or(BlockFault::Bad)
    }

    fn fields(cursor: &mut Cursor<'_>) -> Option<Self> {
        cursor.take(4)?;
        let identity = Identity { journal: cursor.array()?, key: cursor.array()? };
        let (number, nonce, epoch) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
        cursor.take(4)?;
        let (first_sequence, previous) = (cursor.u64()?, cursor.array()?);
        let created = cursor.u64()?;
        Some(Self { identity, number, nonce, epoch, first_sequence, previous, created })
    }
}

/// The record at the end of a sealed segment that leads to its footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) flags: u32,
    pub(super) footer_offset: u64,
    /// The sequence after the last one of this segment.
    pub(super) next_sequence: u64,
}

impl Tail {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TAIL_BYTES);
        out.extend_from_slice(&TAIL_MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.footer_offset.to_le_bytes());
        out.extend_from_slice(&self.next_sequence.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let sum = crc32c::crc32c(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    pub(super) fn decode(record: &[u8]) -> Result<Self, BlockFault> {
        let mut cursor = checked(record, TAIL_MAGIC, TAIL_CRC_AT)?;
        let fields = (cursor.u32(), cursor.u64(), cursor.u64());
        let (Some(flags), Some(footer_offset), Some(next_sequence)) = fields else {
            return Err(BlockFault::Bad);
        };
        Ok(Self { flags, footer_offset, next_sequence })
    }

    pub(super) fn is_clean(&self) -> bool {
        self.flags & FLAG_CLEAN != 0
    }
}

/// Checks magic, checksum and format, and returns a cursor after the format.
fn checked(block: &[u8], magic: [u8; 8], crc_at: usize) -> Result<Cursor<'_>, BlockFault> {
    let mut cursor = Cursor::new(block);
    let sum = block.get(crc_at..).and_then(|rest| Cursor::new(rest).u32());
    let covered = block.get(..crc_at).ok_or(BlockFault::Bad)?;
    if cursor.array() != Some(magic) || sum != Some(crc32c::crc32c(covered)) {
        return Err(BlockFault::Bad);
    }
    match cursor.u32() {
        Some(FORMAT) => Ok(cursor),
        Some(newer) if newer > FORMAT => Err(BlockFault::Newer(newer)),
        _ => Err(BlockFault::Bad),
    }
}

/// The file of a segment.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:010}.log"))
}

/// The number in a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    let plain = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}
