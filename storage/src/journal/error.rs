//! What can go wrong in the journal: one enum an operation, each saying which file.

use std::io;
use std::path::PathBuf;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the journal.
    #[error("journal is in use by another process: {} is locked", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "{} was written by a newer version (format {found}, this program reads up to \
         {supported}); start the newer program, or restore a backup made before the upgrade",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known here.
        supported: u32,
    },
    /// A segment of another journal lies in the directory.
    #[error("{} belongs to another journal; move it out of the directory", path.display())]
    Foreign {
        /// The segment.
        path: PathBuf,
    },
    /// Frames are left but no header or footer says which journal they belong to.
    #[error("{} has frames but its header is lost; restore it from a backup", path.display())]
    HeaderLost {
        /// The segment.
        path: PathBuf,
    },
    /// A setting that cannot work.
    #[error("segment size {bytes} is outside {min} to {max} bytes")]
    SegmentSize {
        /// What was asked for.
        bytes: u64,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Why a frame was not appended or is not known to be durable.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Refused: a frame has at least one entry.
    #[error("a frame needs at least one entry")]
    Empty,
    /// Refused: the frame would be too big.
    #[error("a frame of {bytes} bytes is above the limit of {max} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// [`super::FRAME_BYTES_MAX`].
        max: usize,
    },
    /// Refused: no room for another segment. Nothing was written; it may be tried again.
    #[error("no segment can be made at {}: {source}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another writer has begun a newer epoch; this one must stop.
    #[error("epoch {epoch} is fenced off by a newer one")]
    Fenced {
        /// The epoch of this writer.
        epoch: u32,
    },
    /// The frame may or may not have been appended; fold on to find out.
    #[error("it is unknown whether the frame was appended")]
    Unknown,
    /// A write failed; the journal takes nothing more until it is opened again.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The segment.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A sync failed; what was not acknowledged before is not known to be durable.
    #[error("cannot sync {}: {source}", path.display())]
    Sync {
        /// The segment.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An earlier error was final.
    #[error("the journal stopped after an earlier error and must be opened again")]
    Stopped,
}

impl AppendError {
    /// Whether nothing more can be appended until the journal is opened again (rule 4).
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Empty | Self::TooLarge { .. } | Self::Full { .. } | Self::Unknown)
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such frame: damaged, dropped, or not durable yet.
    #[error("frame {sequence} is not in the journal")]
    NoFrame {
        /// The sequence asked for.
        sequence: u64,
    },
    /// The frame is there, the body is not: compaction dropped it, or the reference is wrong.
    #[error("frame {sequence} has no body of {len} bytes at {offset}")]
    NoBody {
        /// The frame.
        sequence: u64,
        /// The offset asked for.
        offset: u32,
        /// The length asked for.
        len: u32,
    },
    /// The bytes do not pass their checksum.
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The frame; 0 when it is not one.
        sequence: u64,
        /// What is wrong.
        reason: super::DamageReason,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
