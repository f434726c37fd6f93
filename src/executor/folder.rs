//! The folder of one run: names, atomic writes and the lock. It starts and ends no process.
//!
//! ```text
//! <dir>/run-<32 hex of SHA-256 of the task id>-<attempt>/
//!   spec.json     what to run                written before the folder has its name
//!   stdin.json    the task, for the command  written before the folder has its name
//!   lock          locked while a supervisor lives
//!   started       written before the command starts; without it, nothing ever ran
//!   pid           the command's process group and when it began
//!   progress      one JSON object a line, started again when it is full
//!   stdout        the head of what the command printed
//!   stderr        the tail of what it complained about
//!   cancel        why it shall end; written by the bridge
//!   log           what the supervisor itself complained about
//!   outcome.json  how it ended; nothing is written after it
//! ```
//!
//! Names that begin with a dot are on their way in (`.new-`) or out (`.old-`).

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::spec::{FORMAT, Outcome, RunSpec, StoredSpec};

/// Digest bytes in a folder's name: 128 bits never meet by accident, and the name stays short.
const NAME_DIGEST_BYTES: usize = 16;

/// The longest small file that is read whole: an outcome has a bounded result and message, a
/// specification the arguments that the system itself limits to a few MiB.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The most that is read of `progress` at a time, so that a burst does not become one allocation.
const PROGRESS_READ_BYTES_MAX: u64 = 256 * 1024;

/// Tells folders apart that one process prepares at the same time.
static PREPARED: AtomicU64 = AtomicU64::new(0);

/// One run's folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// What [`Folder::create`] found.
pub(super) enum Created {
    /// The folder is new, and this is its lock, held.
    New(Folder, File),
    /// The run was created before.
    Exists(Folder),
}

impl Folder {
    /// Creates the folder of a run with everything that its supervisor needs, all or nothing.
    pub(super) fn create(dir: &Path, spec: &RunSpec, project_dir: &Path) -> io::Result<Created> {
        private_folders().recursive(true).create(dir)?;
        let name = name(spec);
        let folder = Self(dir.join(&name));
        if folder.0.exists() {
            return Ok(Created::Exists(folder));
        }
        let nth = PREPARED.fetch_add(1, Ordering::Relaxed);
        let fresh = Self(dir.join(format!(".new-{name}-{}-{nth}", std::process::id())));
        private_folders().create(&fresh.0)?;
        let lock = match fresh.fill(spec, project_dir) {
            Ok(lock) => lock,
            Err(error) => {
                // The first error is the one to tell; what is left is swept by the next list.
                let _ = fs::remove_dir_all(&fresh.0);
                return Err(error);
            }
        };
        match fs::rename(&fresh.0, &folder.0) {
            Ok(()) => {
                // The promise: a run that was started is found again after a power cut.
                sync_folder(dir)?;
                Ok(Created::New(folder, lock))
            }
            Err(error) => {
                fs::remove_dir_all(&fresh.0)?;
                let taken = [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::AlreadyExists];
                if taken.contains(&error.kind()) { Ok(Created::Exists(folder)) } else { Err(error) }
            }
        }
    }

    fn fill(&self, spec: &RunSpec, project_dir: &Path) -> io::Result<File> {
        let lock = private_files().create_new(true).open(self.file("lock"))?;
        lock.lock()?;
        let project_dir = project_dir.to_owned();
        let stored = StoredSpec { format: FORMAT, project_dir, run: spec.clone() };
        for (name, bytes) in
            [("spec.json", &serde_json::to_vec(&stored)?), ("stdin.json", &spec.stdin)]
        {
            let mut file = private_files().create_new(true).open(self.file(name))?;
            file.write_all(bytes)?;
            // A folder with its name has its whole content, also after a power cut.
            file.sync_all()?;
        }
        sync_folder(&self.0)?;
        Ok(lock)
    }

    /// Every run folder in `dir`. Leftovers of a crash on the way in or out are removed.
    pub(super) fn list(dir: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let folder = Self(entry.path());
            if name.starts_with("run-") {
                folders.push(folder);
            } else if name.starts_with(".old-")
                || (name.starts_with(".new-")
                    && folder.take_lock().is_ok_and(|lock| lock.is_some()))
            {
                fs::remove_dir_all(&folder.0)?;
            }
        }
        Ok(folders)
    }

    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn spec(&self) -> io::Result<StoredSpec> {
        let mut spec: StoredSpec = self.read_json("spec.json")?.ok_or_else(|| {
            let text = format!("{} is missing", self.file("spec.json").display());
            io::Error::new(io::ErrorKind::NotFound, text)
        })?;
        if spec.format > FORMAT {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("run folder format {} is newer than {FORMAT}", spec.format),
            ));
        }
        spec.run.stdin = fs::read(self.file("stdin.json"))?;
        Ok(spec)
    }

    pub(super) fn outcome(&self) -> io::Result<Option<Outcome>> {
        self.read_json("outcome.json")
    }

    /// Puts the outcome in place, whole and on stable storage, or not at all.
    pub(super) fn write_outcome(&self, outcome: &Outcome) -> io::Result<()> {
        self.replace("outcome.json", &serde_json::to_vec(outcome)?)
    }

    /// Asks the supervisor to end the run. The first reason stays.
    pub(super) fn write_cancel(&self, reason: &str) -> io::Result<()> {
        if self.file("cancel").exists() {
            Ok(())
        } else {
            self.replace("cancel", reason.as_bytes())
        }
    }

    pub(super) fn cancel_reason(&self) -> Option<String> {
        match fs::read(self.file("cancel")) {
            Ok(reason) => Some(String::from_utf8_lossy(&reason).into_owned()),
            Err(_) => None,
        }
    }

    pub(super) fn has_started(&self) -> bool {
        self.file("started").exists()
    }

    /// Records that the command is about to run. An error means that it was recorded before.
    pub(super) fn mark_started(&self) -> io::Result<()> {
        let file = private_files().create_new(true).open(self.file("started"))?;
        // The promise: a command whose run was cut off by a power cut does not run again.
        file.sync_all()?;
        sync_folder(&self.0)
    }

    pub(super) fn write_pid(&self, text: &str) -> io::Result<()> {
        private_files()
            .create(true)
            .truncate(true)
            .open(self.file("pid"))?
            .write_all(text.as_bytes())
    }

    pub(super) fn read_pid(&self) -> Option<String> {
        fs::read_to_string(self.file("pid")).ok()
    }

    /// Takes the lock; `None` while somebody else has it.
    pub(super) fn take_lock(&self) -> io::Result<Option<File>> {
        let lock = OpenOptions::new().read(true).write(true).open(self.file("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// A file that the supervisor appends to.
    pub(super) fn append(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600).open(self.file(name))
    }

    pub(super) fn append_to_log(&self) -> io::Result<File> {
        self.append("log")
    }

    /// The last `bytes` of a file as text; empty when there is none.
    pub(super) fn tail(&self, name: &str, bytes: u64) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.file(name))?;
            let from = file.metadata()?.len().saturating_sub(bytes);
            file.seek(SeekFrom::Start(from))?;
            let mut tail = Vec::new();
            file.take(bytes).read_to_end(&mut tail)?;
            Ok(tail)
        };
        read().map(|tail| String::from_utf8_lossy(&tail).trim().to_owned()).unwrap_or_default()
    }

    /// The whole lines of `progress` from `offset` on, and the offset after them. A file that is
    /// shorter than `offset` was started again.
    pub(super) fn progress_from(&self, offset: u64) -> io::Result<(Vec<u8>, u64)> {
        let mut file = match File::open(self.file("progress")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            file => file?,
        };
        let length = file.metadata()?.len();
        let offset = if length < offset { 0 } else { offset };
        file.seek(SeekFrom::Start(offset))?;
        let mut lines = Vec::new();
        file.take(PROGRESS_READ_BYTES_MAX).read_to_end(&mut lines)?;
        lines.truncate(lines.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1));
        let read = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        Ok((lines, offset.saturating_add(read)))
    }

    /// Removes the folder. It loses its name first: half of a run is never found.
    pub(super) fn remove(&self) -> io::Result<()> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let nth = PREPARED.fetch_add(1, Ordering::Relaxed);
        let old = self.0.with_file_name(format!(".old-{name}-{}-{nth}", std::process::id()));
        match fs::rename(&self.0, &old) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        fs::remove_dir_all(old)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let file = match File::open(self.file(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// Writes beside, syncs, renames, syncs the folder: a reader sees all of it or nothing.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let nth = PREPARED.fetch_add(1, Ordering::Relaxed);
        let beside = self.file(&format!(".{name}-{}-{nth}", std::process::id()));
        let mut file = private_files().create(true).truncate(true).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, self.file(name))?;
        sync_folder(&self.0)
    }
}

fn name(spec: &RunSpec) -> String {
    let mut name = String::from("run-");
    for byte in Sha256::digest(spec.task_id.as_bytes()).iter().take(NAME_DIGEST_BYTES) {
        // Writing into a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    let _ = write!(name, "-{}", spec.attempt);
    name
}

/// A task's text may be confidential: only this user reads it.
fn private_files() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn private_folders() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
