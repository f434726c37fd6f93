//! sled opens on a thread of its own while the journal is folded: after a long time under load
//! both take long, and neither needs the other.

use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use super::ViewError;
use super::tree::Tree;

/// Rows that are being opened. Dropped, it waits for that: nobody else could open them meanwhile.
pub struct Early {
    path: PathBuf,
    thread: Option<JoinHandle<Result<Tree, ViewError>>>,
}

impl Early {
    /// Begins to open a directory.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn begin(path: &Path) -> Result<Self, ViewError> {
        let here = path.to_path_buf();
        let thread = Builder::new().name("rows".into()).spawn(move || Tree::open(&here));
        let thread = thread.map_err(|source| ViewError::io(path, source))?;
        Ok(Self { path: path.into(), thread: Some(thread) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What opening came to; it is waited for.
    pub(super) fn tree(&mut self) -> Result<Tree, ViewError> {
        let opened = self.thread.take().and_then(|thread| thread.join().ok());
        opened.unwrap_or_else(|| Err(ViewError::Panicked { path: self.path.clone() }))
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
