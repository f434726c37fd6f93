//! A copy of a store that opens by itself: made beside a running program, without its help, or of
//! a store that is stopped. The rows are left out, because they are derived.
//!
//! ```text
//! <to>/format
//! <to>/checkpoints/...          hard links or copies; before the journal, so that it is ahead
//! <to>/journal/segment-...      hard links or copies of sealed ones, the frames of the newest
//! <to>/<what the owner keeps>   such as the id of a bridge
//! <to>/manifest.sha256          as sha256sum writes it, last
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::checkpoint;
use crate::database::{OpenError, index_of, known_format};
use crate::format;
use crate::inspect;
use crate::journal::{self, Head, ReadOnly, SyncPoint, Syncer};

/// The list of files with their digests.
pub const MANIFEST: &str = "manifest.sha256";

/// How often the copy is begun again because the store changed under it.
const ATTEMPTS: usize = 5;

/// No backup was made. What was written of it is left behind, without its manifest.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something already.
    #[error("{} is not empty; name a new folder for the backup", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A part of the journal cannot be read or copied.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
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
    /// What was copied does not open.
    #[error("the copy in {} is not sound: {what}", path.display())]
    Unsound {
        /// The backup.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The journal's id.
    pub journal: [u8; 16],
    /// The newest frame in it.
    pub head: Head,
    /// Files, the manifest not counted.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_path_buf();
    move |source| BackupError::Io { action, path, source }
}

/// Copies the store in `dir` into the new or empty folder `to`, and the files of `dir` that are
/// named in `more`, where they are there. When it returns, the backup is on the disk.
///
/// # Errors
/// When `to` has something, the store cannot be read, or the copy cannot be written.
pub fn backup(
    dir: &Path,
    to: &Path,
    more: &[&str],
    syncer: &Syncer,
) -> Result<Backup, BackupError> {
    check_empty(to)?;
    let number = known_format(dir)?.unwrap_or(format::CURRENT);
    fs::create_dir_all(to).map_err(failed("create", to))?;
    let mut attempt = 1;
    let head = loop {
        match copy(dir, to, syncer) {
            Ok(head) => break head,
            // A writer replaced or removed what was about to be copied.
            Err(_) if attempt < ATTEMPTS => {
                for part in ["checkpoints", "journal"] {
                    let part = to.join(part);
                    if part.exists() {
                        fs::remove_dir_all(&part).map_err(failed("remove", &part))?;
                    }
                }
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    };
    // The first format has no number.
    if number > 1 {
        let written = format::write(to, number, syncer);
        written.map_err(|error| failed("write", to)(io::Error::other(error.to_string())))?;
    }
    for name in more.iter().filter(|name| dir.join(name).is_file()) {
        link(&dir.join(name), &to.join(name), syncer)?;
    }
    let (files, bytes) = write_manifest(to, &head, syncer)?;
    Ok(Backup { journal: head.0, head: head.1, files, bytes })
}

fn check_empty(to: &Path) -> Result<(), BackupError> {
    match fs::read_dir(to).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => Err(BackupError::NotEmpty { path: to.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed("read", to)(source)),
    }
}

/// Copies checkpoints and journal, and sees that the copy opens.
fn copy(dir: &Path, to: &Path, syncer: &Syncer) -> Result<([u8; 16], Head), BackupError> {
    let (from, checkpoints) = (dir.join("checkpoints"), to.join("checkpoints"));
    if from.is_dir() {
        fs::create_dir_all(&checkpoints).map_err(failed("create", &checkpoints))?;
        // What no manifest names is just being written, and changes yet.
        let whole = checkpoint::candidates(&from).into_iter().filter_map(|manifest| {
            let packs = checkpoint::packs(&manifest).ok()?;
            Some(packs.into_iter().chain([manifest]))
        });
        for path in whole.flatten().collect::<BTreeSet<PathBuf>>() {
            match link(&path, &checkpoints.join(path.file_name().unwrap_or_default()), syncer) {
                Err(BackupError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                }
                done => done?,
            }
        }
    }
    let journal = to.join("journal");
    let before = ReadOnly::open(&dir.join("journal"), index_of)?;
    before.copy_to(&journal, syncer)?;
    let after = ReadOnly::open(&journal, index_of)?;
    let unsound = |what: &str| BackupError::Unsound { path: to.into(), what: what.to_owned() };
    let (expected, head) = (before.reader().head(), after.reader().head());
    let told = |head: &Head| (head.position.sequence, head.hash);
    if told(&expected) != told(&head) || before.damage().len() != after.damage().len() {
        return Err(unsound("its journal is not the one that was copied"));
    }
    let key = after.reader().identity().key;
    let is_needed = after.reader().first_sequence() > 1;
    let fits = |path: &PathBuf| checkpoint::Loaded::read(path, key).is_ok();
    if is_needed && !checkpoint::candidates(&checkpoints).iter().any(fits) {
        return Err(unsound("it has no checkpoint for what was dropped from the journal"));
    }
    let look = inspect::Inspect::open(to)?;
    if look.state().sequence != head.position.sequence {
        return Err(unsound("its state does not reach the end of its journal"));
    }
    Ok((after.reader().identity().journal, head))
}

/// Links a file that is never changed, or copies it.
fn link(from: &Path, to: &Path, syncer: &Syncer) -> Result<(), BackupError> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).map_err(failed("copy", from))?;
    }
    let file = File::open(to).map_err(failed("open", to))?;
    syncer.data(&file, SyncPoint::Backup).map_err(failed("sync", to))
}

/// Writes the digests of all files, and makes every name outlive a power cut.
fn write_manifest(
    to: &Path,
    (journal, head): &([u8; 16], Head),
    syncer: &Syncer,
) -> Result<(usize, u64), BackupError> {
    let mut paths = Vec::new();
    let mut folders = vec![to.to_path_buf()];
    collect(to, &mut paths, &mut folders)?;
    paths.sort();
    let mut text = format!(
        "# journal {} epoch {} sequence {} hash {}\n",
        hex(journal),
        head.position.epoch,
        head.position.sequence,
        hex(&head.hash)
    );
    let mut bytes = 0;
    for path in &paths {
        let (digest, len) = digest(path)?;
        bytes += len;
        let name = path.strip_prefix(to).unwrap_or(path);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}  {}", hex(&digest), name.display());
    }
    let path = to.join(MANIFEST);
    let mut file = File::create(&path).map_err(failed("create", &path))?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(failed("write", &path))?;
    syncer.data(&file, SyncPoint::Backup).map_err(failed("sync", &path))?;
    // The folder itself has a name, and whoever made the folders above may not have synced them.
    let whole = fs::canonicalize(to).map_err(failed("find", to))?;
    folders.extend(whole.parent().map(Path::to_path_buf));
    for folder in folders.iter().rev() {
        syncer.dir(folder, SyncPoint::BackupName).map_err(failed("sync", folder))?;
    }
    Ok((paths.len(), bytes))
}

fn collect(
    folder: &Path,
    files: &mut Vec<PathBuf>,
    folders: &mut Vec<PathBuf>,
) -> Result<(), BackupError> {
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        if path.is_dir() {
            folders.push(path.clone());
            collect(&path, files, folders)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn digest(path: &Path) -> Result<([u8; 32], u64), BackupError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let (mut sum, mut buffer, mut len) = (Sha256::new(), vec![0; 1 << 18], 0);
    loop {
        let count = file.read(&mut buffer).map_err(failed("read", path))?;
        if count == 0 {
            return Ok((sum.finalize().into(), len));
        }
        sum.update(&buffer[..count]);
        len += count as u64;
    }
}

/// The files of a backup that are not what its manifest says, before it was ever opened: a start
/// seals the newest segment, and writes. `None`: this is no such backup.
///
/// # Errors
/// When the manifest cannot be read.
pub fn differing(dir: &Path) -> Result<Option<Vec<PathBuf>>, BackupError> {
    let path = dir.join(MANIFEST);
    if !path.is_file() || dir.join("journal").join("lock").exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut bad = Vec::new();
    for line in lines {
        let Some((wanted, name)) = line.split_once("  ") else {
            bad.push(path.clone());
            continue;
        };
        let file = dir.join(name);
        if digest(&file).ok().is_none_or(|(found, _)| hex(&found) != wanted) {
            bad.push(file);
        }
    }
    Ok(Some(bad))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
