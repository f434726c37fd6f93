//! Copying a journal as it was found into another directory, beside a writer: sealed segments as
//! hard links where that works, of the others the frames that the look found. It takes no lock.

use super::catalog::{Segment, State};
use super::files::io_error;
use super::segment::FRAMES_START;
use super::sync::{SyncPoint, Syncer};
use super::{OpenError, ReadOnly};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

impl ReadOnly {
    /// Copies the journal into a directory, and syncs every file of it; the names are for the
    /// caller to sync. What the copy has is durable in the original as well.
    ///
    /// # Errors
    /// When a segment cannot be read, perhaps because a writer replaced it since the look, or the
    /// copy cannot be written.
    pub fn copy_to(&self, to: &Path, syncer: &Syncer) -> Result<(), OpenError> {
        fs::create_dir_all(to).map_err(io_error("create", to))?;
        let segments = self.reader().catalog.all();
        for segment in &segments {
            let end = match &*segment.state.read() {
                State::Sealed(_) => None,
                // The newest segment of a writer that has nothing to say yet.
                State::Open(_, index) if index.rows.is_empty() && segments.len() > 1 => continue,
                State::Open(_, index) => Some(index.end.max(FRAMES_START)),
            };
            copy(segment, end, to, syncer)?;
        }
        Ok(())
    }
}

/// Copies one segment, up to `end` when it is not sealed.
fn copy(segment: &Segment, end: Option<u64>, to: &Path, syncer: &Syncer) -> Result<(), OpenError> {
    let path = &segment.path;
    let copy = to.join(path.file_name().unwrap_or_default());
    let mut file = File::open(path).map_err(io_error("open", path))?;
    // A frame that was found may be in the page cache only; from here on it is on the disk.
    syncer.data(&file, SyncPoint::Backup).map_err(io_error("sync", path))?;
    if end.is_none() && fs::hard_link(path, &copy).is_ok() {
        return Ok(());
    }
    let mut out = File::create(&copy).map_err(io_error("create", &copy))?;
    file.rewind().map_err(io_error("read", path))?;
    let wanted = end.unwrap_or(u64::MAX);
    let copied = io::copy(&mut file.take(wanted), &mut out).map_err(io_error("copy", path))?;
    if end.is_some_and(|end| copied < end) {
        let short = io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile");
        return Err(io_error("copy", path)(short));
    }
    out.flush().map_err(io_error("write", &copy))?;
    syncer.data(&out, SyncPoint::Backup).map_err(io_error("sync", &copy))
}
