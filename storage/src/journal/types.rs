//! The journal's vocabulary: positions, entries, frames, body references. No bytes on disk here.

use super::chain::Hash;
use std::cmp::Ordering;
use std::path::PathBuf;

/// Where a frame stands: ordered by sequence; the epoch says which start of a writer made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// Grows by one at each start of a writer.
    pub epoch: u32,
    /// Grows by one at each frame and is never reused; the first frame is 1.
    pub sequence: u64,
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.sequence, self.epoch).cmp(&(other.sequence, other.epoch))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The newest frame of a chain and the hash after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its position; sequence 0 before the first frame.
    pub position: Position,
    /// The chain's hash after it.
    pub hash: Hash,
}

/// Who a journal is; the same in all its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Random, drawn when the journal was made.
    pub journal: [u8; 16],
    /// Key of the fingerprints in footers, so that nobody outside can make ids collide.
    pub key: [u8; 16],
}

/// By what an entry is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexKeys {
    /// The kind of event, as the caller numbers it.
    pub event: u16,
    /// How much an operator should care, as the caller numbers it; 0 is not indexed.
    pub level: u8,
    /// A hash of who caused it.
    pub actor: u64,
    /// A hash of what it is about.
    pub resource: u64,
    /// The keyed fingerprint of the message id that the entry is about.
    pub id: Option<u128>,
    /// When that id was made, if the entry is the one that accepted it.
    pub made: Made,
}

/// What an id says of its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Made {
    /// The entry accepts no id.
    #[default]
    Elsewhere,
    /// The id has no time in it.
    Unknown,
    /// Milliseconds since the Unix epoch, by the clock of whoever made it.
    At(u64),
}

/// A message id that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its keyed fingerprint.
    pub id: u128,
    /// The time in it, milliseconds since the Unix epoch.
    pub made_at: Option<u64>,
    /// What was recorded before this time may be missing from the answer.
    pub since: u64,
}

/// Computes an entry's keys from its head, so that an index can be rebuilt from frames alone.
pub type IndexFn = fn(head: &[u8], identity: &Identity) -> IndexKeys;

/// One entry to append.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The encoded record, opaque here; hashed into the chain and kept for ever.
    pub head: &'a [u8],
    /// Bytes kept once in the frame's body area, which compaction may drop later.
    pub body: Option<&'a [u8]>,
    /// What the journal's [`IndexFn`] gives for the head.
    pub index: IndexKeys,
}

/// Where a body lies, in terms that survive compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyRef {
    /// The frame.
    pub sequence: u64,
    /// Offset in the frame's body area as it was first written.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// What an append gave: the frame is written but not yet durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Of the frame.
    pub position: Position,
    /// The chain's hash after the frame.
    pub hash: Hash,
    /// For each entry where its body lies.
    pub bodies: Vec<Option<BodyRef>>,
}

/// One frame as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its position.
    pub position: Position,
    /// Record time, milliseconds since the Unix epoch, as the caller gave it.
    pub time: u64,
    /// The chain's hash before it.
    pub previous: Hash,
    /// The chain's hash after it.
    pub hash: Hash,
    /// Its entries in order.
    pub entries: Vec<FrameEntry>,
}

/// One entry of a frame as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameEntry {
    /// Its place in the frame.
    pub index: u32,
    /// The encoded record.
    pub head: Vec<u8>,
    /// Where its body lies, if it had one; it may have been dropped since.
    pub body: Option<BodyRef>,
}

/// One entry's place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryRef {
    /// The frame.
    pub sequence: u64,
    /// The entry in it.
    pub index: u32,
}

/// Something on the disk that should be there and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file.
    pub segment: PathBuf,
    /// Where the bad bytes begin in it.
    pub offset: u64,
    /// How many they are; 0 when bytes are missing rather than bad.
    pub len: u64,
    /// First sequence that is lost.
    pub first: u64,
    /// Last sequence that is lost; below `first` when no frame is.
    pub last: u64,
    /// What is wrong.
    pub reason: DamageReason,
}

impl Damage {
    /// Whether all that another one names is named by this.
    pub fn covers(&self, other: &Self) -> bool {
        let lost = |one: &Self| one.first <= one.last;
        if lost(other) {
            return self.first <= other.first && other.last <= self.last;
        }
        let place = |one: &Self| (one.segment.clone(), one.offset, one.reason);
        place(self) == place(other)
    }
}

/// What is wrong with damaged bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DamageReason {
    /// The segment's first block does not pass its checksum.
    #[error("segment header does not pass its checksum")]
    Header,
    /// A frame is not one, or does not pass its checksum.
    #[error("frame does not pass its checksum")]
    Frame,
    /// Frames that were made durable are not there.
    #[error("frames are missing")]
    Missing,
    /// A frame does not continue the chain of the one before it.
    #[error("frame does not continue the hash chain")]
    Chain,
    /// The index of a sealed segment is wrong; it is rebuilt from the frames.
    #[error("segment footer does not pass its checksum")]
    Footer,
    /// The file cannot be read.
    #[error("segment cannot be read")]
    Unreadable,
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the journal was stopped cleanly, or is new.
    pub clean: bool,
    /// The head of the chain that the new epoch continues.
    pub head: Head,
    /// The epoch that begins.
    pub epoch: u32,
    /// What was found damaged now; earlier damage is in the footers.
    pub damage: Vec<Damage>,
    /// Bytes of an unfinished frame that were cut.
    pub torn_bytes: u64,
    /// Files that keep what was cut or skipped.
    pub quarantined: Vec<PathBuf>,
}
