//! The sled side of the view: opening one tree, what goes into a batch, and ranges of it. It keeps
//! no thread, and it never repairs: what cannot be trusted is wiped and rebuilt by its caller.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::codec;
use crate::record::EntryId;
use crate::view::ViewError;
use crate::view::overlay::{Patch, Patches};
use crate::view::row::{
    APPLIED_KEY, Applied, Row, entry_of, id_key, id_prefix, row_key, status_key,
};

/// Memory that sled may use for pages.
const CACHE_BYTES: u64 = 32 << 20;

/// One sled tree and where it lies.
#[derive(Clone)]
pub(crate) struct Tree {
    db: sled::Db,
    path: PathBuf,
}

impl Tree {
    /// Opens the directory, making it if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, ViewError> {
        fs::create_dir_all(path).map_err(|source| ViewError::io(path, source))?;
        wait_released(path);
        remove_half_written(path)?;
        let config =
            sled::Config::new().path(path).flush_every_ms(None).cache_capacity(CACHE_BYTES);
        // sled panics on some damage instead of returning an error.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        let db = opened.map_err(|_| ViewError::Panicked { path: path.into() })?;
        Ok(Self { db: db.map_err(|error| ViewError::sled(path, &error))?, path: path.into() })
    }

    /// Removes everything and begins anew.
    pub(crate) fn create(path: &Path) -> Result<Self, ViewError> {
        if path.exists() {
            fs::remove_dir_all(path).map_err(|source| ViewError::io(path, source))?;
        }
        Self::open(path)
    }

    /// How far the rows go; `None` when that is not written or cannot be read.
    pub(crate) fn applied(&self) -> Option<Applied> {
        let value = self.db.get(APPLIED_KEY).ok()??;
        codec::decode(&value).ok()
    }

    /// Nothing was ever written here.
    pub(crate) fn is_new(&self) -> bool {
        self.db.is_empty()
    }

    /// The row of an entry.
    pub(crate) fn row(&self, entry: EntryId) -> Result<Option<Row>, ViewError> {
        let value = self.db.get(row_key(entry)).map_err(|error| self.failed(&error))?;
        value.map(|value| self.decode(&value)).transpose()
    }

    pub(crate) fn decode(&self, value: &[u8]) -> Result<Row, ViewError> {
        codec::decode(value).map_err(|error| ViewError::Damaged {
            path: self.path.clone(),
            what: error.to_string(),
        })
    }

    /// Writes patches and how far they go, in one batch.
    pub(crate) fn write(&self, patches: &Patches, applied: &Applied) -> Result<(), ViewError> {
        let mut batch = sled::Batch::default();
        for (entry, patch) in patches {
            match patch {
                Patch::Row(row) => {
                    batch.insert(id_key(&row.message_id, *entry), &[][..]);
                    self.put(&mut batch, row, None)?;
                }
                Patch::Change(change, time) => {
                    // A message whose acceptance was lost to damage has no row.
                    let Some(mut row) = self.row(*entry)? else { continue };
                    let before = row.clone();
                    row.change(change, *time);
                    self.put(&mut batch, &row, Some(&before))?;
                }
            }
        }
        batch.insert(APPLIED_KEY, self.encode(applied)?);
        self.db.apply_batch(batch).map_err(|error| self.failed(&error))
    }

    fn put(
        &self,
        batch: &mut sled::Batch,
        row: &Row,
        before: Option<&Row>,
    ) -> Result<(), ViewError> {
        if let Some(before) = before.filter(|before| before.status != row.status) {
            batch.remove(status_key(before.status, row.entry));
        }
        if !row.status.is_finished() {
            batch.insert(status_key(row.status, row.entry), &[][..]);
        }
        batch.insert(row_key(row.entry), self.encode(row)?);
        Ok(())
    }

    /// Makes everything durable and says so, in this order: the word must not reach the disk
    /// before what it speaks of. sled's own flush does not reach the disk's cache.
    pub(crate) fn mark_clean(&self, applied: &Applied) -> Result<(), ViewError> {
        self.sync()?;
        let value = self.encode(&Applied { clean: true, ..applied.clone() })?;
        self.db.insert(APPLIED_KEY, value).map_err(|error| self.failed(&error))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), ViewError> {
        self.db.flush().map_err(|error| self.failed(&error))?;
        let entries = fs::read_dir(&self.path).map_err(|error| ViewError::io(&self.path, error))?;
        for entry in entries {
            let path = entry.map_err(|error| ViewError::io(&self.path, error))?.path();
            // Guarantee: rows of a clean stop are there after a power cut.
            match File::open(&path).and_then(|file| file.sync_all()) {
                // A snapshot is renamed while sled goes on.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ViewError::io(&path, error));
                }
                _ => {}
            }
        }
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| ViewError::io(&self.path, error))
    }

    /// The entries whose keys begin with `prefix`, older than `after`, the newest first, with
    /// their values.
    pub(crate) fn backwards(
        &self,
        prefix: &[u8],
        after: Option<EntryId>,
    ) -> impl Iterator<Item = Result<(EntryId, sled::IVec), ViewError>> + use<'_> {
        let first = prefix.to_vec();
        let end = after.map_or_else(
            || [prefix, &[0xff; 13]].concat(),
            |at| [prefix, &at.sequence.to_be_bytes()[..], &at.index.to_be_bytes()[..]].concat(),
        );
        self.db.range(first..end).rev().filter_map(move |item| match item {
            Ok((key, value)) => entry_of(&key).map(|entry| Ok((entry, value))),
            Err(error) => Some(Err(self.failed(&error))),
        })
    }

    /// The entries that may have a message id, the newest first.
    pub(crate) fn by_id(&self, message_id: &str) -> Result<Vec<EntryId>, ViewError> {
        let found = self.backwards(&id_prefix(message_id), None);
        found.map(|item| item.map(|(entry, _)| entry)).collect()
    }

    fn encode<T: bincode::Encode>(&self, value: &T) -> Result<Vec<u8>, ViewError> {
        codec::encode(value).map_err(|error| ViewError::Damaged {
            path: self.path.clone(),
            what: error.to_string(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, error: &sled::Error) -> ViewError {
        ViewError::sled(&self.path, error)
    }
}

/// Waits until sled has let go of its directory: a thread of its own does so after the last handle
/// is dropped. Whoever still has it then is told by sled.
pub(crate) fn wait_released(path: &Path) {
    const TRIES: u32 = 500;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
    let Ok(file) = File::open(path.join("db")) else { return };
    for _ in 0..TRIES {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
}

/// A kill while sled opens leaves a half-written snapshot, and sled then refuses to open.
fn remove_half_written(path: &Path) -> Result<(), ViewError> {
    let entries = fs::read_dir(path).map_err(|source| ViewError::io(path, source))?;
    for entry in entries {
        let file = entry.map_err(|source| ViewError::io(path, source))?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&file).map_err(|source| ViewError::io(&file, source))?;
        }
    }
    Ok(())
}
