//! The copy of what a migration replaces, kept until the store was opened after it: hard links,
//! because a replaced file is another file. Where there are no links it copies.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use storage::journal::{SyncPoint, Syncer};

use crate::MigrateError;

/// What the name of the copy's folder begins with; the format follows that the store had.
const PREFIX: &str = "before-format-";

fn failed<'a>(
    dir: &'a Path,
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> MigrateError + 'a {
    move |source| MigrateError::Io {
        dir: dir.to_path_buf(),
        action,
        path: path.to_path_buf(),
        source,
    }
}

fn folder(dir: &Path) -> Option<(u32, PathBuf)> {
    let entries = fs::read_dir(dir).ok()?;
    entries.flatten().find_map(|entry| {
        let name = entry.file_name();
        let to = name.to_str()?.strip_prefix(PREFIX)?.parse::<u32>().ok()?;
        Some((to.checked_sub(1)?, entry.path()))
    })
}

/// The format that the store had before a migration whose copy is still there.
pub(crate) fn from(dir: &Path) -> Option<u32> {
    folder(dir).map(|(from, _)| from)
}

/// The files of the copy.
pub(crate) fn kept(dir: &Path) -> Vec<PathBuf> {
    let Some((_, folder)) = folder(dir) else { return Vec::new() };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Keeps these files of the journal; what an interrupted start kept already stays.
pub(crate) fn keep<'a>(
    dir: &Path,
    from: u32,
    files: impl Iterator<Item = &'a Path>,
    syncer: &Syncer,
) -> Result<(), MigrateError> {
    let folder = dir.join(format!("{PREFIX}{}", from + 1));
    fs::create_dir_all(&folder).map_err(failed(dir, "create", &folder))?;
    for file in files {
        let copy = folder.join(file.file_name().unwrap_or(OsStr::new("")));
        match fs::hard_link(file, &copy) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => copy_file(dir, file, &copy, syncer)?,
            Ok(()) => {}
        }
    }
    sync_dir(dir, &folder, syncer, SyncPoint::Kept)?;
    sync_dir(dir, dir, syncer, SyncPoint::Kept)
}

fn copy_file(dir: &Path, from: &Path, to: &Path, syncer: &Syncer) -> Result<(), MigrateError> {
    let aside = to.with_extension("copying");
    fs::copy(from, &aside).map_err(failed(dir, "copy", from))?;
    let file = File::open(&aside).map_err(failed(dir, "open", &aside))?;
    syncer.data(&file, SyncPoint::Kept).map_err(failed(dir, "sync", &aside))?;
    fs::rename(&aside, to).map_err(failed(dir, "rename", &aside))
}

/// Puts the copy in the place of what was written anew.
pub(crate) fn put_back(dir: &Path, syncer: &Syncer) -> Result<(), MigrateError> {
    let journal = dir.join("journal");
    for copy in kept(dir) {
        let place = journal.join(copy.file_name().unwrap_or(OsStr::new("")));
        fs::rename(&copy, &place).map_err(failed(dir, "rename", &copy))?;
    }
    sync_dir(dir, &journal, syncer, SyncPoint::RefootedName)?;
    forget(dir)
}

/// Removes the copy. One that comes back after a power cut is found, told of and removed again.
pub(crate) fn forget(dir: &Path) -> Result<(), MigrateError> {
    let Some((_, folder)) = folder(dir) else { return Ok(()) };
    fs::remove_dir_all(&folder).map_err(failed(dir, "remove", &folder))
}

pub(crate) fn sync_dir(
    dir: &Path,
    path: &Path,
    syncer: &Syncer,
    guarantee: SyncPoint,
) -> Result<(), MigrateError> {
    syncer.dir(path, guarantee).map_err(failed(dir, "sync", path))
}
