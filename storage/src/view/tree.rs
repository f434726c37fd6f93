//! The sled side of the view: opening one tree, what goes into a batch, and ranges of it. It keeps
//! no thread, and it never repairs: what cannot be trusted is wiped and rebuilt by its caller.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::{self, CodecError};
use crate::journal::{SyncPoint, Syncer};
use crate::messages::Counts;
use crate::record::{EntryId, Status};
use crate::view::ViewError;
use crate::view::handle::{self, Handle};
use crate::view::overlay::{Patch, Patches};
use crate::view::row::{
    APPLIED_KEY, Applied, IDS, ROWS, Row, entry_of, has_room, id_hash, status_prefix, with_entry,
};

/// Blocks that are read before sled is made to look for what it may let go of,
const EVICT_BLOCKS: usize = 2_048;
/// by reading them so many times more.
const EVICT_ROUNDS: usize = 10;

/// Blocks of rows that are removed in one batch.
const TRIM_BLOCKS: usize = 1_024;

/// Memory that sled may use for pages.
const CACHE_BYTES: u64 = 16 << 20;

/// One sled tree and where it lies.
#[derive(Clone)]
pub(crate) struct Tree {
    db: Arc<Handle>,
    path: PathBuf,
}

impl Tree {
    fn db(&self) -> Result<&sled::Db, ViewError> {
        self.db.get().ok_or(ViewError::Closed)
    }
}

impl Tree {
    /// Opens the directory, making it if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, ViewError> {
        fs::create_dir_all(path).map_err(|source| ViewError::io(path, source))?;
        handle::wait_released(path);
        remove_half_written(path)?;
        let config =
            sled::Config::new().path(path).flush_every_ms(None).cache_capacity(CACHE_BYTES);
        // sled panics on some damage instead of returning an error.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        let db = opened.map_err(|_| ViewError::Panicked { path: path.into() })?;
        let db = db.map_err(|error| ViewError::sled(path, &error))?;
        Ok(Self { db: Arc::new(Handle::of(db)), path: path.into() })
    }

    /// One that is not open.
    pub(crate) fn closed(path: &Path) -> Self {
        Self { db: Arc::new(Handle::default()), path: path.into() }
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
        let value = self.db().ok()?.get(APPLIED_KEY).ok()??;
        codec::decode(&value).ok()
    }

    /// Nothing was ever written here.
    pub(crate) fn is_new(&self) -> bool {
        self.db().is_ok_and(|db| db.is_empty())
    }

    /// The row of an entry.
    pub(crate) fn row(&self, entry: EntryId) -> Result<Option<Row>, ViewError> {
        let Some((_, rows)) = self.block_of(entry)? else { return Ok(None) };
        Ok(rows.into_iter().find(|row| row.entry == entry))
    }

    /// The block that has an entry, or would have it.
    fn block_of(&self, entry: EntryId) -> Result<Option<(EntryId, Vec<Row>)>, ViewError> {
        let last = with_entry(ROWS, entry);
        let found = self.db()?.range(ROWS.to_vec()..=last).next_back().transpose();
        let Some((key, value)) = found.map_err(|error| self.failed(&error))? else {
            return Ok(None);
        };
        entry_of(&key).map(|first| self.decode(&value).map(|rows| (first, rows))).transpose()
    }

    fn decode(&self, value: &[u8]) -> Result<Vec<Row>, ViewError> {
        codec::decode(value).map_err(|error| self.damaged(&error))
    }

    /// Writes patches and how far they go, in one batch.
    pub(crate) fn write(&self, patches: &Patches, applied: &Applied) -> Result<(), ViewError> {
        let mut writing = Writing { tree: self, blocks: BTreeMap::new(), tail: None };
        for (entry, patch) in patches {
            match patch {
                Patch::Row(row) if row.kept_by() == row.entry.sequence => writing.append(row)?,
                // It was carried forward: there is an older row of it, or it goes among older ones.
                Patch::Row(row) => writing.insert(row)?,
                Patch::Change(change, time) => {
                    // A message whose acceptance was lost to damage has no row.
                    if let Some(row) = writing.row(*entry)? {
                        row.change(change, *time);
                    }
                }
            }
        }
        let mut batch = sled::Batch::default();
        for (first, block) in &writing.blocks {
            self.put(&mut batch, *first, block)?;
        }
        batch.insert(APPLIED_KEY, self.encode(applied)?);
        self.db()?.apply_batch(batch).map_err(|error| self.failed(&error))
    }

    fn put(&self, batch: &mut sled::Batch, first: EntryId, block: &Block) -> Result<(), ViewError> {
        let after = unfinished(&block.rows);
        for status in block.before.difference(&after) {
            batch.remove(with_entry(&status_prefix(*status), first));
        }
        for status in after.difference(&block.before) {
            batch.insert(with_entry(&status_prefix(*status), first), &[][..]);
        }
        if block.rows.is_empty() {
            batch.remove(with_entry(IDS, first));
            batch.remove(with_entry(ROWS, first));
            return Ok(());
        }
        if block.rows.len() != block.length_before {
            let hashes = block.rows.iter().flat_map(|row| id_hash(&row.message_id));
            batch.insert(with_entry(IDS, first), hashes.collect::<Vec<u8>>());
        }
        batch.insert(with_entry(ROWS, first), self.encode(&block.rows)?);
        Ok(())
    }

    /// How many rows stand where; reads all of them.
    pub(crate) fn counts(&self) -> Result<Counts, ViewError> {
        let mut counts = Counts::new();
        let (mut first, mut blocks) = (None, 0);
        for item in self.db()?.scan_prefix(ROWS) {
            let (key, value) = item.map_err(|error| self.failed(&error))?;
            for row in self.decode(&value)? {
                *counts.entry((row.destination.into(), row.direction, row.status)).or_default() +=
                    1;
            }
            blocks += 1;
            let from = first.get_or_insert_with(|| key.clone());
            if blocks % EVICT_BLOCKS == 0 {
                self.evict(from, &key)?;
                first = None;
            }
        }
        Ok(counts)
    }

    /// Has sled let go of the blocks of a range that were read once: it looks for pages to evict
    /// only after 64 reads in one of its 256 shards, and so keeps up to 16,384 pages too many.
    fn evict(&self, from: &[u8], to: &[u8]) -> Result<(), ViewError> {
        for _ in 0..EVICT_ROUNDS {
            for item in self.db()?.range(from..=to) {
                item.map_err(|error| self.failed(&error))?;
            }
        }
        Ok(())
    }

    /// Removes the rows of messages that nothing but the frames up to this one has; all of them
    /// are finished.
    pub(crate) fn trim(&self, through: u64) -> Result<(), ViewError> {
        if through == 0 {
            return Ok(());
        }
        let last = EntryId { sequence: through, index: u32::MAX };
        let (mut batch, mut count) = (sled::Batch::default(), 0);
        for item in self.db()?.range(ROWS.to_vec()..=with_entry(ROWS, last)) {
            let (key, value) = item.map_err(|error| self.failed(&error))?;
            let Some(first) = entry_of(&key) else { continue };
            let mut block = Block::read(self.decode(&value)?);
            block.rows.retain(|row| row.kept_by() > through);
            if block.rows.len() == block.length_before {
                continue;
            }
            self.put(&mut batch, first, &block)?;
            count += 1;
            if count % TRIM_BLOCKS == 0 {
                let full = std::mem::take(&mut batch);
                self.db()?.apply_batch(full).map_err(|error| self.failed(&error))?;
            }
        }
        self.db()?.apply_batch(batch).map_err(|error| self.failed(&error))
    }

    /// Removes all rows.
    pub(crate) fn clear(&self) -> Result<(), ViewError> {
        self.db()?.clear().map_err(|error| self.failed(&error))
    }

    /// Takes back that everything is durable, and makes that so before anything else is written.
    pub(crate) fn mark_used(&self, applied: &Applied, syncer: &Syncer) -> Result<(), ViewError> {
        let value = self.encode(&Applied { clean: false, ..applied.clone() })?;
        self.db()?.insert(APPLIED_KEY, value).map_err(|error| self.failed(&error))?;
        self.sync(syncer, SyncPoint::RowsUsed)
    }

    /// Makes everything durable and says so, in this order: the word must not reach the disk
    /// before what it speaks of. sled's own flush does not reach the disk's cache.
    pub(crate) fn mark_clean(&self, applied: &Applied, syncer: &Syncer) -> Result<(), ViewError> {
        self.sync(syncer, SyncPoint::Rows)?;
        let value = self.encode(&Applied { clean: true, ..applied.clone() })?;
        self.db()?.insert(APPLIED_KEY, value).map_err(|error| self.failed(&error))?;
        self.sync(syncer, SyncPoint::RowsTrusted)
    }

    fn sync(&self, syncer: &Syncer, guarantee: SyncPoint) -> Result<(), ViewError> {
        handle::flush(self.db()?).map_err(|error| self.failed(&error))?;
        let entries = fs::read_dir(&self.path).map_err(|error| ViewError::io(&self.path, error))?;
        for entry in entries {
            let path = entry.map_err(|error| ViewError::io(&self.path, error))?.path();
            match File::open(&path).and_then(|file| syncer.all(&file, guarantee)) {
                // A snapshot is renamed while sled goes on.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ViewError::io(&path, error));
                }
                _ => {}
            }
        }
        let above = self.path.parent().unwrap_or(Path::new("."));
        for folder in [&self.path, above] {
            syncer.dir(folder, guarantee).map_err(|error| ViewError::io(folder, error))?;
        }
        Ok(())
    }

    /// The rows older than `after`, the newest first; with a status, those of the blocks that have
    /// an unfinished message with it.
    pub(crate) fn backwards(
        &self,
        status: Option<Status>,
        after: Option<EntryId>,
    ) -> impl Iterator<Item = Result<Row, ViewError>> + use<'_> {
        let prefix = status.map_or_else(|| ROWS.to_vec(), status_prefix);
        let newest = EntryId { sequence: u64::MAX, index: u32::MAX };
        let end = with_entry(&prefix, after.unwrap_or(newest));
        let range = self.db().map(|db| db.range(prefix..end).rev());
        let (range, closed) = range.map_or_else(|error| (None, Some(error)), |it| (Some(it), None));
        let items =
            range.into_iter().flatten().map(|item| item.map_err(|error| self.failed(&error)));
        closed.map(Err).into_iter().chain(items).flat_map(move |item| {
            let rows = item.and_then(|(key, value)| match (status, entry_of(&key)) {
                (None, _) => self.decode(&value),
                (Some(_), Some(first)) => self.block(first),
                (Some(_), None) => Ok(Vec::new()),
            });
            let (rows, error) =
                rows.map_or_else(|error| (Vec::new(), Some(error)), |rows| (rows, None));
            let older = move |row: &Row| after.is_none_or(|after| row.entry < after);
            error.map(Err).into_iter().chain(rows.into_iter().rev().filter(older).map(Ok))
        })
    }

    /// The rows from one entry to another, oldest first.
    pub(crate) fn rows_of(
        &self,
        (first, last): (EntryId, EntryId),
        look: &mut dyn FnMut(&Row),
    ) -> Result<(), ViewError> {
        let begin = self.block_of(first)?.map_or(first, |(block, _)| block);
        let range = with_entry(ROWS, begin)..=with_entry(ROWS, last);
        for item in self.db()?.range(range) {
            let (_, value) = item.map_err(|error| self.failed(&error))?;
            let rows = self.decode(&value)?;
            rows.iter().filter(|row| row.entry >= first && row.entry <= last).for_each(&mut *look);
        }
        Ok(())
    }

    fn block(&self, first: EntryId) -> Result<Vec<Row>, ViewError> {
        let value = self.db()?.get(with_entry(ROWS, first)).map_err(|error| self.failed(&error))?;
        value.map_or_else(|| Ok(Vec::new()), |value| self.decode(&value))
    }

    /// The entries of the rows with a message id.
    pub(crate) fn by_id(&self, message_id: &str) -> Result<Vec<EntryId>, ViewError> {
        let wanted = id_hash(message_id);
        let mut found = Vec::new();
        for item in self.db()?.scan_prefix(IDS) {
            let (key, hashes) = item.map_err(|error| self.failed(&error))?;
            let Some(first) = entry_of(&key) else { continue };
            if hashes.chunks_exact(2).any(|hash| hash == wanted) {
                let rows = self.block(first)?;
                let same = rows.iter().filter(|row| row.message_id == message_id);
                found.extend(same.map(|row| row.entry));
            }
        }
        Ok(found)
    }

    fn encode<T: bincode::Encode>(&self, value: &T) -> Result<Vec<u8>, ViewError> {
        codec::encode(value).map_err(|error| self.damaged(&error))
    }

    fn damaged(&self, error: &CodecError) -> ViewError {
        ViewError::Damaged { path: self.path.clone(), what: error.to_string() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, error: &sled::Error) -> ViewError {
        ViewError::sled(&self.path, error)
    }
}

/// A block that is being written.
struct Block {
    rows: Vec<Row>,
    /// How many rows and which unfinished statuses it has in sled.
    length_before: usize,
    before: BTreeSet<Status>,
}

impl Block {
    /// One as sled has it.
    fn read(rows: Vec<Row>) -> Self {
        let (length_before, before) = (rows.len(), unfinished(&rows));
        Self { rows, length_before, before }
    }
}

/// The blocks that a batch touches, each read once.
struct Writing<'a> {
    tree: &'a Tree,
    blocks: BTreeMap<EntryId, Block>,
    /// The block that takes new rows: they are newer than all that sled has.
    tail: Option<EntryId>,
}

impl Writing<'_> {
    fn append(&mut self, row: &Row) -> Result<(), ViewError> {
        if self.tail.is_none() {
            self.tail = self.near(row.entry)?;
        }
        let tail = self.tail.and_then(|tail| self.blocks.get_mut(&tail));
        if let Some(block) = tail.filter(|block| has_room(&block.rows)) {
            block.rows.push(row.clone());
            return Ok(());
        }
        self.begin(vec![row.clone()]);
        self.tail = Some(row.entry);
        Ok(())
    }

    /// Puts a row in the place of an older one of the same message, or where it belongs.
    fn insert(&mut self, row: &Row) -> Result<(), ViewError> {
        if let Some(known) = self.row(row.entry)? {
            *known = row.clone();
            return Ok(());
        }
        self.tail = None;
        let near = self.near(row.entry)?;
        let Some(block) = near.and_then(|first| self.blocks.get_mut(&first)) else {
            self.begin(vec![row.clone()]);
            return Ok(());
        };
        let is_full = !has_room(&block.rows);
        let at = block.rows.partition_point(|other| other.entry < row.entry);
        block.rows.insert(at, row.clone());
        if is_full {
            let rest = block.rows.split_off(block.rows.len() / 2);
            self.begin(rest);
        }
        Ok(())
    }

    /// A block that sled has not.
    fn begin(&mut self, rows: Vec<Row>) {
        let Some(first) = rows.first().map(|row| row.entry) else { return };
        let (length_before, before) = (0, BTreeSet::new());
        self.blocks.insert(first, Block { rows, length_before, before });
    }

    fn row(&mut self, entry: EntryId) -> Result<Option<&mut Row>, ViewError> {
        let place = |rows: &[Row]| rows.binary_search_by_key(&entry, |row| row.entry).ok();
        let near = self.blocks.range(..=entry).next_back();
        let here = near.filter(|(_, block)| place(&block.rows).is_some()).map(|(first, _)| *first);
        let first = match here {
            Some(first) => Some(first),
            None => self.load(entry)?,
        };
        let Some(block) = first.and_then(|first| self.blocks.get_mut(&first)) else {
            return Ok(None);
        };
        Ok(place(&block.rows).and_then(|at| block.rows.get_mut(at)))
    }

    /// The block that has an entry, or would have it, among those of sled and the new ones.
    fn near(&mut self, entry: EntryId) -> Result<Option<EntryId>, ViewError> {
        self.load(entry)?;
        Ok(self.blocks.range(..=entry).next_back().map(|(first, _)| *first))
    }

    fn load(&mut self, entry: EntryId) -> Result<Option<EntryId>, ViewError> {
        let Some((first, rows)) = self.tree.block_of(entry)? else { return Ok(None) };
        self.blocks.entry(first).or_insert_with(|| Block::read(rows));
        Ok(Some(first))
    }
}

fn unfinished(rows: &[Row]) -> BTreeSet<Status> {
    rows.iter().map(|row| row.status).filter(|status| !status.is_finished()).collect()
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
