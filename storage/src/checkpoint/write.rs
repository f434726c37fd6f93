//! Writes a checkpoint while the store goes on: it locks the state for one chunk at a time. It
//! does not say when.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::manifest::{self, Chunk, Manifest, damaged};
use super::part::{Items, messages_from};
use super::{CheckpointError, KEPT, Place, Ranges, files, pack_path};
use crate::fold::State;
use crate::journal::{SyncPoint, Syncer};
use crate::record::{EntityKey, EntryId, Millis};

/// Items of a chunk: copying them keeps the committer waiting for about a quarter of a millisecond.
const CHUNK_ITEMS: usize = 2_048;

/// Bytes of entities in a chunk, which may be large.
const CHUNK_BYTES: usize = 1 << 20;

/// A chunk with less than this part of the items that it may have takes the next one in.
const FEW_PART: usize = 4;

/// Files are rewritten when they are this many times larger than what is needed of them, and
const WASTE_FACTOR: u64 = 2;
/// larger than this.
const WASTE_BYTES: u64 = 16 << 20;

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The manifest.
    pub path: PathBuf,
    /// Opening replays the frames after this one.
    pub first: u64,
    /// The state that it gives is that after this frame.
    pub last: u64,
    /// Bytes of chunks that were written; the others were there.
    pub bytes: u64,
}

/// Where the state is that goes on meanwhile.
pub trait Access {
    /// Does some short work while nobody else changes the state.
    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R;
}

impl Access for RwLock<State> {
    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.write())
    }
}

/// The one writer of a folder of checkpoints.
pub struct Writer {
    folder: PathBuf,
    journal: [u8; 16],
    newest: Option<Manifest>,
    chunk_items: usize,
    syncer: Arc<Syncer>,
}

/// The chain's hash after a frame, if it is there.
pub type HashOf<'a> = &'a dyn Fn(u64) -> Option<[u8; 32]>;

impl Writer {
    /// A writer for the checkpoints of a journal; `newest` is the checkpoint that the state was
    /// loaded from.
    pub(super) fn new(folder: &Path, journal: [u8; 16], newest: Option<Manifest>) -> Self {
        Self {
            folder: folder.into(),
            journal,
            newest,
            chunk_items: CHUNK_ITEMS,
            syncer: Arc::default(),
        }
    }

    /// With this one for its syncs.
    #[must_use]
    pub fn syncer(self, syncer: Arc<Syncer>) -> Self {
        Self { syncer, ..self }
    }

    /// With chunks of so many items at the most.
    #[must_use]
    pub fn chunk_items(self, items: usize) -> Self {
        Self { chunk_items: items.max(1), ..self }
    }

    /// A writer that begins anew, for a state that was loaded from no checkpoint.
    pub fn begin(folder: &Path, journal: [u8; 16]) -> Self {
        Self::new(folder, journal, None)
    }

    /// Writes a checkpoint of the state as it goes. Older ones go.
    ///
    /// # Errors
    /// When the file system refuses; the earlier checkpoints are then still there.
    pub fn write(
        &mut self,
        state: &impl Access,
        hash_of: HashOf<'_>,
    ) -> Result<Written, CheckpointError> {
        if !self.folder.is_dir() {
            fs::create_dir_all(&self.folder).map_err(io(&self.folder))?;
            let above = self.folder.parent().unwrap_or(Path::new("."));
            self.syncer.dir(above, SyncPoint::CheckpointFolder).map_err(io(above))?;
        }
        let first = state.with(|state| {
            let messages = &state.messages;
            (state.sequence, messages.forgotten_before(), messages.evicted_through())
        });
        let mut pack = Pack::new(&self.folder);
        let before = self.newest.take();
        let (entities, messages) = before.map_or_else(Default::default, |manifest| {
            (by_start(manifest.entities), by_start(manifest.messages))
        });
        let items = self.chunk_items;
        let written = write_chunks(state, &entities, &mut pack, items)
            .and_then(|entities| Ok((entities, write_chunks(state, &messages, &mut pack, items)?)));
        let finished = written.and_then(|chunks| Ok((chunks, pack.finish(&self.syncer)?)));
        let ((entities, messages), bytes) = finished.inspect_err(|_| forget(state))?;
        let manifest = self.seal(state, first, (entities, messages), hash_of);
        let written = manifest
            .and_then(|manifest| Ok((manifest.write(&self.folder, &self.syncer)?, manifest)));
        let (path, manifest) = written.inspect_err(|_| forget(state))?;
        let last = manifest.last.0;
        self.remove_old(state, &manifest)?;
        self.newest = Some(manifest);
        Ok(Written { path, first: first.0, last, bytes })
    }

    /// The state is past all chunks now: what it adds up to is what they and the frames give.
    fn seal(
        &self,
        state: &impl Access,
        (first, forgotten_before, evicted_through): (u64, Millis, EntryId),
        (entities, messages): (Vec<Chunk<EntityKey>>, Vec<Chunk<EntryId>>),
        hash_of: HashOf<'_>,
    ) -> Result<Manifest, CheckpointError> {
        let hash = |sequence| {
            let what = format!("frame {sequence} cannot be read");
            hash_of(sequence).ok_or_else(|| damaged(&self.folder, &what))
        };
        let manifest = state.with(|state| {
            let counts = state.messages.counts().iter().filter(|(_, count)| **count > 0);
            Manifest {
                journal: self.journal,
                first: (first, [0; 32]),
                last: (state.sequence, [0; 32]),
                time: state.time,
                superseded: state.superseded,
                forgotten_before,
                evicted_through,
                checksum: state.checksum().0,
                counts: counts
                    .map(|((destination, direction, status), count)| {
                        (Arc::clone(destination), *direction, *status, *count)
                    })
                    .collect(),
                entities,
                messages,
            }
        });
        let last = manifest.last.0;
        let (first, last) = ((first, hash(first)?), (last, hash(last)?));
        Ok(Manifest { first, last, ..manifest })
    }

    /// Removes checkpoints beyond [`KEPT`] and files that none of the others needs, and has those
    /// chunks written again next time that alone keep a large file.
    fn remove_old(&self, state: &impl Access, newest: &Manifest) -> Result<(), CheckpointError> {
        let mut needed: BTreeSet<u64> = BTreeSet::new();
        let mut kept = 0;
        for path in manifest::list(&self.folder) {
            match Manifest::read(&path) {
                // One that is ahead of this one is of another history.
                Ok(one) if kept < KEPT && one.last.0 <= newest.last.0 => {
                    needed.extend(one.places().map(|place| place.pack));
                    kept += 1;
                }
                _ => fs::remove_file(&path).map_err(io(&path))?,
            }
        }
        for path in files(&self.folder, "writing") {
            fs::remove_file(&path).map_err(io(&path))?;
        }
        let mut sizes = BTreeMap::new();
        for path in files(&self.folder, "chunks") {
            let number = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
            match number.filter(|number| needed.contains(number)) {
                Some(number) => {
                    sizes.insert(number, fs::metadata(&path).map_or(0, |file| file.len()));
                }
                None => fs::remove_file(&path).map_err(io(&path))?,
            }
        }
        let live: u64 = newest.places().map(|place| u64::from(place.length)).sum();
        let all: u64 = sizes.values().sum();
        if all > WASTE_BYTES + WASTE_FACTOR * live
            && let Some(oldest) = sizes.keys().next()
        {
            touch(state, newest, *oldest);
        }
        Ok(())
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError + use<> {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path: path.clone(), source }
}

/// What was marked as written was not: the next checkpoint writes everything.
fn forget(state: &impl Access) {
    state.with(|state| {
        *state.touched() = Ranges::default();
        *state.messages.touched() = Ranges::default();
    });
}

/// Has the chunks in a file written again.
fn touch(state: &impl Access, manifest: &Manifest, pack: u64) {
    let first = EntityKey::first();
    state.with(|state| {
        for chunk in manifest.entities.iter().filter(|chunk| chunk.place.pack == pack) {
            state.touched().touch(chunk.start.as_ref().unwrap_or(&first));
        }
        for chunk in manifest.messages.iter().filter(|chunk| chunk.place.pack == pack) {
            state.messages.touched().touch(&chunk.start.unwrap_or_default());
        }
    });
}

fn by_start<K: Ord + Clone>(chunks: Vec<Chunk<K>>) -> BTreeMap<Option<K>, Chunk<K>> {
    chunks.into_iter().map(|chunk| (chunk.start.clone(), chunk)).collect()
}

/// How far one chunk goes.
struct Extent<'a, K> {
    start: Option<&'a K>,
    /// Where the next chunk begins that did not change.
    end: Option<&'a K>,
    items_max: usize,
}

impl<K: Ord> Extent<'_, K> {
    /// Whether a chunk of this many items ends before `key`. One of few items takes some of the
    /// next one in, even if that did not change.
    fn ends(&self, items: usize, key: &K) -> bool {
        let few = items < self.items_max / FEW_PART;
        items >= self.items_max || (!few && self.end.is_some_and(|end| key >= end))
    }
}

/// A kind of items that chunks are made of.
trait Item: Ord + Clone {
    /// Which stretches changed.
    fn ranges(state: &mut State) -> &mut Ranges<Self>;

    /// Writes the items of a chunk. Says where the rest begins.
    fn copy(state: &State, extent: &Extent<'_, Self>) -> (Items, Option<Self>);
}

/// What became of a stretch.
enum Stretch<K> {
    Kept(Chunk<K>),
    Copied(Items),
}

/// Goes through all stretches: those that changed are copied and written, the others are kept.
fn write_chunks<K: Item>(
    state: &impl Access,
    before: &BTreeMap<Option<K>, Chunk<K>>,
    pack: &mut Pack,
    items_max: usize,
) -> Result<Vec<Chunk<K>>, CheckpointError> {
    let mut chunks = Vec::new();
    let mut start: Option<K> = None;
    loop {
        let (position, stretch, next) = state.with(|state| {
            let position = state.sequence;
            let (changed, end) = K::ranges(state).look(start.as_ref());
            let end = end.cloned();
            if let Some(kept) = before.get(&start).filter(|_| !changed) {
                return (position, Stretch::Kept(kept.clone()), end);
            }
            let extent = Extent { start: start.as_ref(), end: end.as_ref(), items_max };
            let (items, next) = K::copy(state, &extent);
            K::ranges(state).cut(start.as_ref(), next.as_ref());
            (position, Stretch::Copied(items), next)
        });
        chunks.push(match stretch {
            Stretch::Kept(kept) => Chunk { position, ..kept },
            Stretch::Copied(items) => {
                Chunk { start: start.clone(), position, place: pack.put(items)? }
            }
        });
        if next.is_none() {
            return Ok(chunks);
        }
        start = next;
    }
}

fn from<K: Clone>(start: Option<&K>) -> Bound<K> {
    start.map_or(Bound::Unbounded, |start| Bound::Included(start.clone()))
}

impl Item for EntityKey {
    fn ranges(state: &mut State) -> &mut Ranges<Self> {
        state.touched()
    }

    fn copy(state: &State, extent: &Extent<'_, Self>) -> (Items, Option<Self>) {
        let mut items = Items::default();
        for (key, entity) in state.ledger.range((from(extent.start), Bound::Unbounded)) {
            if items.bytes.len() >= CHUNK_BYTES || extent.ends(items.count, key) {
                return (items, Some(key.clone()));
            }
            items.entity(key, entity);
        }
        (items, None)
    }
}

impl Item for EntryId {
    fn ranges(state: &mut State) -> &mut Ranges<Self> {
        state.messages.touched()
    }

    fn copy(state: &State, extent: &Extent<'_, Self>) -> (Items, Option<Self>) {
        let mut items = Items::default();
        let goes_on = |count: usize, at: &Self| !extent.ends(count, at);
        let next = messages_from(state, &mut items, from(extent.start), goes_on);
        (items, next)
    }
}

/// A file of chunks in the making; it is made with its first chunk.
struct Pack {
    folder: PathBuf,
    number: u64,
    file: Option<BufWriter<File>>,
    bytes: u64,
}

impl Pack {
    fn new(folder: &Path) -> Self {
        let newest = files(folder, "chunks").pop();
        let newest = newest.and_then(|path| path.file_stem()?.to_str()?.parse::<u64>().ok());
        let number = newest.map_or(1, |newest| newest + 1);
        Self { folder: folder.into(), number, file: None, bytes: 0 }
    }

    fn put(&mut self, items: Items) -> Result<Place, CheckpointError> {
        let path = pack_path(&self.folder, self.number);
        let io = &io(&path);
        if let Some(error) = &items.broken {
            return Err(damaged(&path, error));
        }
        let bytes = items.bytes;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(File::create(&path).map_err(io)?)),
        };
        file.write_all(&bytes).map_err(io)?;
        let place = Place {
            pack: self.number,
            offset: self.bytes,
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            checksum: crc32c::crc32c(&bytes),
        };
        self.bytes += bytes.len() as u64;
        Ok(place)
    }

    /// Makes the file durable; its name is by the directory's sync for the manifest.
    fn finish(self, syncer: &Syncer) -> Result<u64, CheckpointError> {
        let path = pack_path(&self.folder, self.number);
        let io = &io(&path);
        let Some(file) = self.file else { return Ok(0) };
        let file = file.into_inner().map_err(|error| io(error.into_error()))?;
        // Guarantee: a manifest names only chunks that are on the disk.
        syncer.all(&file, SyncPoint::CheckpointChunks).map_err(io)?;
        Ok(self.bytes)
    }
}
