//! Removing the oldest segments, when nobody needs them any more (JOURNAL rule 22). Which those are
//! is for the caller to say, who has written down before how the chain of the others begins.

use super::Compactor;
use super::catalog::{Segment, io_error};
use super::compact::CompactError;
use super::sync::SyncPoint;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::{fs, io};

/// Frames that a reader has not read yet: while it lives, they stay.
#[derive(Debug)]
pub struct Hold(Arc<AtomicU64>);

impl Hold {
    /// The reader needs nothing before this frame any more.
    pub fn advance(&self, sequence: u64) {
        self.0.fetch_max(sequence, Ordering::Relaxed);
    }
}

/// The readers that hold frames.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Vec<Weak<AtomicU64>>>);

impl Holds {
    pub(super) fn add(&self, from: u64) -> Hold {
        let position = Arc::new(AtomicU64::new(from));
        self.0.lock().push(Arc::downgrade(&position));
        Hold(position)
    }

    /// The first frame that somebody holds.
    pub(super) fn first(&self) -> u64 {
        let mut holds = self.0.lock();
        holds.retain(|one| one.strong_count() > 0);
        let positions = holds.iter().filter_map(Weak::upgrade);
        positions.map(|one| one.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX)
    }
}

impl Compactor {
    /// Removes the segments whose frames all lie up to a sequence, oldest first and never the
    /// newest one, as long as no reader holds them; how many they were, and the bytes of their
    /// files.
    ///
    /// # Errors
    /// When a file cannot be removed; those before it are gone.
    pub fn trim(&self, through: u64) -> Result<(u64, u64), CompactError> {
        let (mut segments, mut bytes) = (0, 0);
        while let Some(oldest) = self.oldest(through) {
            // Readers that are at work go on with the file, which they hold.
            let file = self.catalog.file(&oldest)?;
            bytes += file.metadata().map_err(io_error(&oldest.path))?.len();
            oldest.pin(file);
            let failed = |action, path: &Path| {
                let path = path.to_path_buf();
                move |source| CompactError::Io { action, path, source }
            };
            match fs::remove_file(&oldest.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(failed("remove", &oldest.path))?,
            }
            self.catalog.remove_first(&oldest);
            // One after the other, so that what a power cut leaves has no hole.
            let synced = self.syncer.dir(&self.dir, SyncPoint::Trimmed);
            synced.map_err(failed("sync", &self.dir))?;
            segments += 1;
        }
        Ok((segments, bytes))
    }

    /// The oldest segment, if it may go.
    fn oldest(&self, through: u64) -> Option<Arc<Segment>> {
        let segments = self.catalog.segments.read();
        let oldest = segments.list.first().filter(|_| segments.list.len() > 1)?;
        let last = oldest.range().1;
        (last <= through && last < self.catalog.holds.first()).then(|| Arc::clone(oldest))
    }
}
