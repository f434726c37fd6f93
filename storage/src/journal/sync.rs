//! The one place where the store forces bytes to the disk, each call named by its guarantee.
//!
//! It decides nothing about when to sync and never repeats a failed one (JOURNAL rule 4).

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a sync protects. For each point `tests/power/points.rs` has the power cut that breaks this
/// guarantee when the sync is left out; a point without one does not compile there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum SyncPoint {
    /// A frame is on the disk before its position is acknowledged.
    Commit,
    /// A segment is whole on the disk before a frame of the next one is acknowledged: the sync of
    /// that one says nothing of this one.
    Rotate,
    /// The blocks of a spare have their place, so that a commit in it cannot fail for want of room.
    SpareBlocks,
    /// The same for a spare that an earlier start left, perhaps in the page cache only.
    FoundSpare,
    /// The name of a spare outlives a power cut, and with it the frames acknowledged in it.
    SpareName,
    /// A tail record on the disk means a whole footer: one that is not whole is then damage.
    Seal,
    /// The trailer of a clean stop is on the disk before the stop is reported.
    CleanStop,
    /// Bytes that recovery found, perhaps only in the page cache, are on the disk before
    /// anything acts on them (rule 7).
    Recovered,
    /// The recovered file has taken the place of the one it replaces before anything acts on it.
    RecoveredName,
    /// The same for a file that an earlier start renamed, which ended before it synced the name.
    FoundName,
    /// Bytes that are cut or skipped are kept in quarantine before the original changes.
    Quarantine,
    /// The folder of the quarantine outlives a power cut before the original changes.
    QuarantineFolder,
    /// The quarantined copy keeps its name before the original changes.
    QuarantineName,
    /// The header of a start is on the disk before its first frame: a new journal whose first frame
    /// outlived its header would not say whose it is, and could not be opened.
    Epoch,
    /// The journal's own directory outlives a power cut.
    Directory,
    /// A manifest names only chunks that are on the disk.
    CheckpointChunks,
    /// A checkpoint under its final name is whole.
    Checkpoint,
    /// The folder of the checkpoints outlives a power cut.
    CheckpointFolder,
    /// A checkpoint keeps its name before it counts as written and older ones are removed.
    CheckpointName,
    /// The word that rows can be trusted is gone before rows are written that are not synced.
    RowsUsed,
    /// Rows are on the disk before the word that they can be trusted.
    Rows,
    /// That word, and with it the rows of a clean stop, are on the disk.
    RowsTrusted,
    /// The number of a store's format is on the disk before the journal has a frame, so that a new
    /// store is never taken for one of the first format.
    Format,
    /// What a migration replaces is kept under a name that outlives a power cut.
    Kept,
    /// A segment with its footer written anew is whole before it takes the place of the old one.
    Refooted,
    /// Every segment has its new footer before the store's number says so.
    RefootedName,
    /// A segment written anew without dead bodies is whole before it takes the old one's place.
    Compacted,
    /// A body that the audit log calls gone does not come back.
    CompactedName,
    /// A segment that was dropped is gone before the one after it is, so that what is kept has no
    /// hole.
    Trimmed,
    /// A backup is whole on the disk, and so is what it copied, before it is reported.
    Backup,
    /// The files of a backup keep their names.
    BackupName,
}

impl SyncPoint {
    /// Every point.
    pub const ALL: &[Self] = &[
        Self::Commit,
        Self::Rotate,
        Self::SpareBlocks,
        Self::FoundSpare,
        Self::SpareName,
        Self::Seal,
        Self::CleanStop,
        Self::Recovered,
        Self::RecoveredName,
        Self::FoundName,
        Self::Quarantine,
        Self::QuarantineFolder,
        Self::QuarantineName,
        Self::Epoch,
        Self::Directory,
        Self::CheckpointChunks,
        Self::Checkpoint,
        Self::CheckpointFolder,
        Self::CheckpointName,
        Self::RowsUsed,
        Self::Rows,
        Self::RowsTrusted,
        Self::Format,
        Self::Kept,
        Self::Refooted,
        Self::RefootedName,
        Self::Compacted,
        Self::CompactedName,
        Self::Trimmed,
        Self::Backup,
        Self::BackupName,
    ];
}

/// How many points there are.
const POINTS: usize = SyncPoint::ALL.len();

/// What a test makes of one sync point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SyncFault {
    /// Sync as usual.
    None = 0,
    /// Report success without syncing.
    Skip = 1,
    /// Report an input/output error without syncing.
    Fail = 2,
}

/// Carries out syncs and counts them by [`SyncPoint`].
#[derive(Debug)]
pub struct Syncer {
    counts: [AtomicU64; POINTS],
    faults: [AtomicU8; POINTS],
    /// How many syncs of a point still work before its fault begins.
    grace: [AtomicU64; POINTS],
}

impl Default for Syncer {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; POINTS],
            faults: [const { AtomicU8::new(0) }; POINTS],
            grace: [const { AtomicU64::new(0) }; POINTS],
        }
    }
}

impl Syncer {
    /// Forces the file's bytes (and its length where it changed) to the disk: `fdatasync`.
    ///
    /// # Errors
    /// The disk's error; it is final.
    pub fn data(&self, file: &File, guarantee: SyncPoint) -> io::Result<()> {
        self.run(guarantee, || file.sync_data())
    }

    /// The same, with everything that is known of the file: `fsync`.
    ///
    /// # Errors
    /// The disk's error.
    pub fn all(&self, file: &File, guarantee: SyncPoint) -> io::Result<()> {
        self.run(guarantee, || file.sync_all())
    }

    /// Forces the names in a directory to the disk.
    ///
    /// # Errors
    /// The disk's error; it is final.
    pub fn dir(&self, path: &Path, guarantee: SyncPoint) -> io::Result<()> {
        self.run(guarantee, || File::open(path)?.sync_all())
    }

    /// How often the point was reached.
    pub fn count(&self, point: SyncPoint) -> u64 {
        self.counts[point as usize].load(Ordering::Relaxed)
    }

    /// Makes a point behave differently from now on; for tests of the guarantees.
    pub fn set_fault(&self, point: SyncPoint, fault: SyncFault) {
        self.set_fault_after(point, 0, fault);
    }

    /// The same, after some more syncs of that point.
    pub fn set_fault_after(&self, point: SyncPoint, syncs: u64, fault: SyncFault) {
        self.grace[point as usize].store(syncs, Ordering::Relaxed);
        self.faults[point as usize].store(fault as u8, Ordering::Relaxed);
    }

    fn run(&self, point: SyncPoint, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.counts[point as usize].fetch_add(1, Ordering::Relaxed);
        let fault = self.faults[point as usize].load(Ordering::Relaxed);
        let less = |left: u64| left.checked_sub(1);
        let grace = &self.grace[point as usize];
        if fault == 0 || grace.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return sync();
        }
        match fault {
            1 => Ok(()),
            _ => Err(io::Error::other("sync failed as a test asked")),
        }
    }
}
