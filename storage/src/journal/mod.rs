//! The journal: append-only segments of frames on disk, the truth that everything else is a view
//! of.
//!
//! Entries are opaque. It knows nothing of messages, of the fold or of the view, takes the time
//! and its randomness from the caller, and makes no decision. The bytes are drawn in
//! `storage/FORMAT.md`.

mod bloom;
mod catalog;
mod chain;
mod check;
mod codec;
mod error;
mod file_log;
mod files;
mod footer;
mod frame;
mod helper;
mod index;
mod memory;
mod read_only;
mod reader;
mod recover;
mod scan;
mod segment;
mod sync;
mod types;

pub use chain::{
    Hash, entry_chain_hash, genesis, inclusion_proof, leaf_hash, merkle_root, next_hash,
    verify_inclusion,
};
pub use check::{Check, check};
pub use error::{AppendError, OpenError, ReadError};
pub use file_log::{FileLog, Options, SyncTicket};
pub use frame::FRAME_BYTES_MAX;
pub use memory::{MemoryLog, MemoryReader, Outcome};
pub use read_only::ReadOnly;
pub use reader::{Frames, Reader, SegmentView};
pub use sync::{SyncFault, SyncPoint, Syncer};
pub use types::{
    Appended, BodyRef, Damage, DamageReason, Entry, EntryRef, Frame, FrameEntry, Head, Identity,
    IndexFn, IndexKeys, Position, Recovery,
};

use std::sync::Arc;

/// Reading a journal; only what is durable is seen (JOURNAL rule 1).
pub trait ReadLog: Send + Sync {
    /// Who the journal is.
    fn identity(&self) -> Identity;

    /// The newest durable frame.
    fn head(&self) -> Head;

    /// The frames from a sequence to the newest durable one, oldest first. A frame that cannot be
    /// read is an error, after which the iterator goes on with the next.
    fn frames(&self, from: u64) -> Box<dyn Iterator<Item = Result<Frame, ReadError>> + Send + '_>;

    /// The bytes of a body. They are not checked here: the caller has their digest.
    ///
    /// # Errors
    /// When the frame or the body is not there, or cannot be read.
    fn body(&self, body: &BodyRef) -> Result<Vec<u8>, ReadError>;

    /// The entries about an id, oldest first.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn find(&self, id: u128) -> Result<Vec<EntryRef>, ReadError>;

    /// The newest entries of some events, newest first; with `before` only older ones, so that
    /// the last of a page leads to the next page.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn by_event(
        &self,
        events: &[u16],
        before: Option<EntryRef>,
        limit: usize,
    ) -> Result<Vec<EntryRef>, ReadError>;
}

/// Appending to a journal: a local directory now, a shared log later (JOURNAL rule 27).
pub trait Log: Send {
    /// Writes one frame, all of it or nothing. It is not durable before [`Log::sync`] returns.
    ///
    /// # Errors
    /// Refused, or final: see [`AppendError::is_final`].
    fn append(&mut self, time: u64, entries: &[Entry<'_>]) -> Result<Appended, AppendError>;

    /// Makes everything appended durable and visible, and says through where.
    ///
    /// # Errors
    /// Final (JOURNAL rule 4).
    fn sync(&mut self) -> Result<Position, AppendError>;

    /// The newest frame appended, durable or not; only the committer may act on it.
    fn appended(&self) -> Head;

    /// A handle for reading, for any thread.
    fn reader(&self) -> Arc<dyn ReadLog>;
}
