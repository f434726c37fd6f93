//! One sync of the journal in a local directory, which waits for the disk on any thread. It makes
//! nothing visible.

use super::sync::{SyncPoint, Syncer};
use super::{AppendError, Position, Syncing};
use parking_lot::Mutex;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// A sync that was begun: it waits for the disk without holding the journal.
pub(super) struct SyncTicket {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) gate: Arc<Mutex<bool>>,
    pub(super) syncer: Arc<Syncer>,
    pub(super) through: Position,
    pub(super) needed: bool,
}

impl Syncing for SyncTicket {
    fn run(self: Box<Self>) -> Result<Position, AppendError> {
        self.run_as(SyncPoint::Commit)
    }
}

impl SyncTicket {
    pub(super) fn run_as(self, guarantee: SyncPoint) -> Result<Position, AppendError> {
        let mut failed = self.gate.lock();
        if *failed {
            return Err(AppendError::Stopped);
        }
        if self.needed
            && let Err(source) = self.syncer.data(&self.file, guarantee)
        {
            *failed = true;
            return Err(AppendError::Sync { path: self.path, source });
        }
        Ok(self.through)
    }
}
