//! The number of the format that a store has, in the file `format` of its directory. It reads and
//! writes the number; what has to change from one to the next is for the migrations.
//!
//! ```text
//! <dir>/format       "loki-openclaw store 2\n"
//! ```
//!
//! A store without the file is of format 1, whose programs did not write one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::journal::{SyncPoint, Syncer};

/// The format that this program writes, and the newest that it opens.
pub const CURRENT: u32 = 2;

const FIRST: u32 = 1;
const NAME: &str = "format";
const WORDS: &str = "loki-openclaw store ";

/// The format of a store is not known.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file says nothing that any program of ours wrote.
    #[error("{} is damaged; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The file with the number.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// The format of the store in a directory; `None` when no store is there.
///
/// # Errors
/// When the file is damaged or cannot be read.
pub fn of(dir: &Path) -> Result<Option<u32>, FormatError> {
    let path = path(dir);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let number = text.strip_prefix(WORDS).and_then(|rest| rest.trim_end().parse().ok());
            number.map(Some).ok_or(FormatError::Damaged { path })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(has_segment(&dir.join("journal")).then_some(FIRST))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(FormatError::Damaged { path })
        }
        Err(source) => Err(FormatError::Io { action: "read", path, source }),
    }
}

/// Whether a journal was begun: a name without a segment is what a start that was cut short left.
fn has_segment(journal: &Path) -> bool {
    let Ok(entries) = fs::read_dir(journal) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("segment-"))
}

/// Writes the number: aside, synced, renamed. The name is for the caller to sync.
///
/// # Errors
/// When the operating system refuses.
pub fn write(dir: &Path, number: u32, syncer: &Syncer) -> Result<(), FormatError> {
    let (path, aside) = (path(dir), dir.join("format.new"));
    let failed = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| FormatError::Io { action, path, source }
    };
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let mut file = File::create(&aside).map_err(failed("create", &aside))?;
    file.write_all(format!("{WORDS}{number}\n").as_bytes()).map_err(failed("write", &aside))?;
    syncer.data(&file, SyncPoint::Format).map_err(failed("sync", &aside))?;
    fs::rename(&aside, &path).map_err(failed("rename", &aside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of(dir.path()).unwrap(), None);
        write(dir.path(), 7, &Syncer::default()).unwrap();
        assert_eq!(of(dir.path()).unwrap(), Some(7));
        for bad in ["", "loki-openclaw store \n", "loki-openclaw store 2x\n", "2\n"] {
            fs::write(path(dir.path()), bad).unwrap();
            assert!(matches!(of(dir.path()), Err(FormatError::Damaged { .. })), "{bad:?}");
        }
        fs::write(path(dir.path()), [0xff; 9]).unwrap();
        assert!(matches!(of(dir.path()), Err(FormatError::Damaged { .. })));
    }

    #[test]
    fn a_store_without_a_number_is_of_the_first_format() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("journal")).unwrap();
        assert_eq!(of(dir.path()).unwrap(), None);
        fs::write(dir.path().join("journal").join("segment-0000000001.log"), "").unwrap();
        assert_eq!(of(dir.path()).unwrap(), Some(1));
    }
}
