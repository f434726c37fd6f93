//! The state written aside, so that opening replays only what came after. It is fuzzy: chunks are
//! copied one by one while the store goes on, each stamped with its position, and only those that
//! changed are written again. A checkpoint that does not read back is ignored: the journal has it
//! all.
//!
//! ```text
//! <folder>/NNN.chunks       chunks end to end, each the items of a stretch of keys
//! <folder>/NNN.checkpoint   which chunks make the checkpoint at frame NNN, and what they add up to
//! ```

mod load;
mod manifest;
mod part;
mod ranges;
mod write;

use std::fs;
use std::path::{Path, PathBuf};

use bincode::{Decode, Encode};

pub use load::{Loaded, Stamp, candidates};
pub(crate) use load::{firsts, packs};
pub(crate) use part::canonical;
pub use ranges::Ranges;
pub use write::{Access, Writer, Written};

/// Two are kept: the newest may be the one that a crash cut short.
pub(crate) const KEPT: usize = 2;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
struct Place {
    /// The number of the file.
    pack: u64,
    offset: u64,
    length: u32,
    /// CRC32C of its bytes.
    checksum: u32,
}

/// A checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system said no.
    #[error("checkpoint {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not a whole checkpoint of this journal.
    #[error("checkpoint {} is of no use: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

fn pack_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.chunks"))
}

/// The files of a folder with this extension, by name.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|this| this == extension))
        .collect();
    paths.sort();
    paths
}
