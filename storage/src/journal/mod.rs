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
mod compact;
mod copy;
mod error;
mod file_log;
mod files;
mod footer;
mod found;
mod frame;
mod heads;
mod helper;
mod ids;
mod index;
mod memory;
mod postings;
mod read_only;
mod reader;
mod recover;
mod refoot;
mod scan;
mod segment;
mod slices;
mod space;
mod sync;
mod ticket;
mod trim;
mod types;
mod zone;

pub use chain::{
    Hash, entry_chain_hash, genesis, inclusion_proof, leaf_hash, merkle_root, next_hash,
    verify_inclusion,
};
pub use check::{Check, check, check_watched};
pub use compact::{CompactError, Compacted, Compactor, Weight};
pub use error::{AppendError, OpenError, ReadError};
pub use file_log::{FileLog, Options};
pub use files::{Lock, lock};
pub use frame::FRAME_BYTES_MAX;
pub(crate) use index::KeyedHash;
pub use memory::{MemoryLog, MemoryReader, Outcome};
pub use read_only::ReadOnly;
pub use reader::{Frames, Reader, SegmentView};
pub use refoot::{OldFooter, Refooted, old_footers, refoot};
pub(crate) use space::is_full;
pub use space::{OWED_BYTES, Space};
pub use sync::{SyncFault, SyncPoint, Syncer};
pub use trim::{Hold, quarantined};
pub use types::{
    Appended, BodyRef, Damage, DamageReason, Entry, EntryRef, Frame, FrameEntry, Head, Identity,
    IndexFn, IndexKeys, Made, Position, Recovery, Wanted,
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

    /// What is known to be damaged or missing.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn damage(&self) -> Result<Vec<Damage>, ReadError>;

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

    /// The entry that accepted an id and those after it that are about it, oldest first. The time
    /// in the id spares most segments the question.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn find_accepted(&self, wanted: &Wanted) -> Result<Vec<EntryRef>, ReadError>;

    /// One frame.
    ///
    /// # Errors
    /// When it is not in the journal or is damaged.
    fn frame(&self, sequence: u64) -> Result<Frame, ReadError>;

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

/// A sync under way.
pub trait Syncing: Send {
    /// Waits for the disk; the result goes to [`Log::finish_sync`].
    ///
    /// # Errors
    /// Final: nothing is known of what was written since the last success.
    fn run(self: Box<Self>) -> Result<Position, AppendError>;
}

/// Appending to a journal: a local directory now, a shared log later (JOURNAL rule 27).
pub trait Log: Send {
    /// Writes one frame, all of it or nothing. It is not durable before [`Log::sync`] returns.
    ///
    /// # Errors
    /// Refused, or final: see [`AppendError::is_final`].
    fn append(&mut self, time: u64, entries: &[Entry<'_>]) -> Result<Appended, AppendError>;

    /// The same, and hands the sync of the frame over as soon as it can begin: what is left to do
    /// for the frame is done while the disk is busy. After an error nothing was handed over.
    ///
    /// # Errors
    /// Those of [`Log::append`].
    fn append_with(
        &mut self,
        time: u64,
        entries: &[Entry<'_>],
        hand_over: &mut dyn FnMut(Box<dyn Syncing>),
    ) -> Result<Appended, AppendError> {
        let appended = self.append(time, entries)?;
        hand_over(self.begin_sync());
        Ok(appended)
    }

    /// Begins a sync of everything appended so far. It waits for the disk on any thread, and more
    /// may be appended meanwhile (JOURNAL rule 3); [`Log::finish_sync`] takes its result.
    fn begin_sync(&mut self) -> Box<dyn Syncing>;

    /// Makes visible what a sync made durable, and says through where.
    ///
    /// # Errors
    /// That of the sync; it is final (JOURNAL rule 4).
    fn finish_sync(&mut self, done: Result<Position, AppendError>)
    -> Result<Position, AppendError>;

    /// Makes everything appended durable and visible, and says through where.
    ///
    /// # Errors
    /// Final (JOURNAL rule 4).
    fn sync(&mut self) -> Result<Position, AppendError> {
        let done = self.begin_sync().run();
        self.finish_sync(done)
    }

    /// The sequence that the next frame gets.
    fn next_sequence(&self) -> u64;

    /// The newest frame appended, durable or not; only the committer may act on it.
    fn appended(&self) -> Head;

    /// A handle for reading, for any thread.
    fn reader(&self) -> Arc<dyn ReadLog>;
}

/// A log that was given back to its owner: it takes nothing.
pub(crate) struct Ended;

impl Log for Ended {
    fn append(&mut self, _: u64, _: &[Entry<'_>]) -> Result<Appended, AppendError> {
        Err(AppendError::Stopped)
    }

    fn begin_sync(&mut self) -> Box<dyn Syncing> {
        Box::new(Self)
    }

    fn finish_sync(&mut self, _: Result<Position, AppendError>) -> Result<Position, AppendError> {
        Err(AppendError::Stopped)
    }

    fn next_sequence(&self) -> u64 {
        u64::MAX
    }

    fn appended(&self) -> Head {
        Head { position: Position::default(), hash: [0; 32] }
    }

    fn reader(&self) -> Arc<dyn ReadLog> {
        Arc::new(MemoryLog::new(Identity { journal: [0; 16], key: [0; 16] }).reader())
    }
}

impl Syncing for Ended {
    fn run(self: Box<Self>) -> Result<Position, AppendError> {
        Err(AppendError::Stopped)
    }
}
