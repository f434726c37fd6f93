//! Removing the oldest segments, when nobody needs them any more (JOURNAL rule 22). Which those are
//! is for the caller to say, who has written down before how the chain of the others begins. One
//! that is damaged is moved into quarantine, where it stays for as long as the caller says.

use super::Compactor;
use super::catalog::{Segment, io_error};
use super::compact::CompactError;
use super::files::{self, QUARANTINE};
use super::recover::found_no_room;
use super::sync::SyncPoint;
use super::{OpenError, ReadError};
use parking_lot::Mutex;
use std::fs::{self, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

/// What a folder takes with its first name, generously.
const FOLDER_BYTES: u64 = 64 << 10;

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
    /// files. Those of which `is_evidence` says so are kept in quarantine, from `now` on.
    ///
    /// # Errors
    /// When a file cannot be removed; those before it are gone.
    pub fn trim(
        &self,
        through: u64,
        is_evidence: &dyn Fn(&Path) -> bool,
        now: u64,
    ) -> Result<(u64, u64), CompactError> {
        let (mut segments, mut bytes) = (0, 0);
        while let Some(oldest) = self.oldest(through) {
            // Readers that are at work go on with the file, which they hold.
            let file = self.catalog.file(&oldest)?;
            bytes += file.metadata().map_err(io_error(&oldest.path))?.len();
            oldest.pin(file);
            if is_evidence(&oldest.path) {
                self.set_aside(&oldest.path, now)?;
            } else {
                match fs::remove_file(&oldest.path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed.map_err(failed("remove", &oldest.path))?,
                }
            }
            self.catalog.remove_first(&oldest);
            // One after the other, so that what a power cut leaves has no hole.
            let synced = self.syncer.dir(&self.dir, SyncPoint::Trimmed);
            synced.map_err(failed("sync", &self.dir))?;
            segments += 1;
        }
        Ok((segments, bytes))
    }

    /// Moves a segment into quarantine; its file says since when it lies there.
    fn set_aside(&self, path: &Path, now: u64) -> Result<(), CompactError> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(now);
        let dated = fs::File::options().write(true).open(path);
        let dated = dated.and_then(|file| {
            file.set_times(FileTimes::new().set_modified(at))?;
            self.syncer.all(&file, SyncPoint::Quarantine)
        });
        match dated {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            dated => dated.map_err(failed("date", path))?,
        }
        // The folder may have to be made, also on a full disk.
        let moved = self.space.with_reserve(FOLDER_BYTES, found_no_room, || {
            files::quarantine_whole(&self.dir, path, &self.syncer)
        });
        moved.map(|_| ()).map_err(refused)
    }

    /// Keeps the bytes of a frame that does not read back in quarantine, and says how many they
    /// are; `None` when there is no such frame.
    ///
    /// # Errors
    /// When the segment cannot be read or the copy not be written.
    pub fn quarantine(&self, sequence: u64) -> Result<Option<u64>, CompactError> {
        let copied = self.reader().quarantine(sequence, &self.syncer).map_err(refused)?;
        Ok(copied.map(|(len, _)| len))
    }

    /// Removes what lies in quarantine since before a time; how many files, and their bytes.
    ///
    /// # Errors
    /// When a file cannot be removed; others are gone.
    pub fn clear_quarantine(&self, before: u64) -> Result<(u64, u64), CompactError> {
        let before = SystemTime::UNIX_EPOCH + Duration::from_millis(before);
        let (mut count, mut bytes) = (0, 0);
        for (path, file) in quarantined(&self.dir) {
            if file.modified().is_ok_and(|since| since < before) {
                match fs::remove_file(&path) {
                    // A person was quicker.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    removed => removed.map_err(failed("remove", &path))?,
                }
                (count, bytes) = (count + 1, bytes + file.len());
            }
        }
        Ok((count, bytes))
    }

    /// The oldest segment, if it may go.
    fn oldest(&self, through: u64) -> Option<Arc<Segment>> {
        let segments = self.catalog.segments.read();
        let oldest = segments.list.first().filter(|_| segments.list.len() > 1)?;
        let last = oldest.range().1;
        (last <= through && last < self.catalog.holds.first()).then(|| Arc::clone(oldest))
    }
}

/// The files in the quarantine of a journal.
pub fn quarantined(dir: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    // Hardly any journal has one.
    let entries = fs::read_dir(dir.join(QUARANTINE)).into_iter().flatten().flatten();
    // What a person put there is none of ours.
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("segment-"));
    let files = ours.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    files.filter(|(_, file)| file.is_file()).collect()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CompactError {
    let path = path.to_path_buf();
    move |source| CompactError::Io { action, path, source }
}

fn refused(error: OpenError) -> CompactError {
    match error {
        OpenError::Io { action, path, source } => CompactError::Io { action, path, source },
        other => {
            let source = io::Error::other(other.to_string());
            ReadError::Io { path: PathBuf::from(QUARANTINE), source }.into()
        }
    }
}
