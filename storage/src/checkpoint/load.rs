//! Reads a checkpoint back: its chunks, and then the frames that make one state of them. It
//! decides nothing about which checkpoint is used.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::manifest::{self, Chunk, Manifest, damaged};
use super::part;
use super::{CheckpointError, Place, Ranges, Writer, pack_path};
use crate::fold::State;
use crate::messages::BodyPlace;
use crate::record::{EntryId, Fact, Millis, Prune, Record};

/// Which history a checkpoint belongs to: two frames, each with the chain's hash after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The journal's id.
    pub journal: [u8; 16],
    /// The frame after which opening replays.
    pub first: (u64, [u8; 32]),
    /// The frame at which its chunks have become one state.
    pub last: (u64, [u8; 32]),
}

/// The manifests of a folder, the newest first.
pub fn candidates(folder: &Path) -> Vec<PathBuf> {
    manifest::list(folder)
}

/// The files of the chunks that a manifest names. None of them changes any more.
///
/// # Errors
/// When the manifest does not read back.
pub(crate) fn packs(manifest: &Path) -> Result<BTreeSet<PathBuf>, CheckpointError> {
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let named = Manifest::read(manifest)?;
    Ok(named.places().map(|place| pack_path(folder, place.pack)).collect())
}

/// After which frame the frames begin that each checkpoint of a folder needs; of those alone that
/// read back and are of this journal.
pub(crate) fn firsts(folder: &Path, journal: [u8; 16]) -> Vec<u64> {
    let manifests = candidates(folder).into_iter().filter_map(|path| Manifest::read(&path).ok());
    manifests.filter(|one| one.journal == journal).map(|one| one.first.0).collect()
}

/// A checkpoint that was read. Until the frame [`Stamp::last`] was replayed its chunks are of
/// different positions.
pub struct Loaded {
    path: PathBuf,
    manifest: Manifest,
    state: State,
    settled: bool,
}

impl Loaded {
    /// Reads the checkpoint of a manifest.
    ///
    /// # Errors
    /// When it does not read back.
    pub fn read(path: &Path, hash_key: [u8; 16]) -> Result<Self, CheckpointError> {
        let manifest = Manifest::read(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut state = State::new(hash_key);
        state.messages.restore_marks(manifest.forgotten_before, manifest.evicted_through);
        let unfinished = manifest.counts.iter().filter(|(_, _, status, _)| !status.is_finished());
        let unfinished = unfinished.map(|(.., count)| *count).sum::<u64>();
        state.messages.reserve(usize::try_from(unfinished).unwrap_or(0));
        let mut packs = HashMap::new();
        for place in manifest.places() {
            let bytes = read_chunk(folder, &mut packs, place)?;
            part::restore(&bytes, &mut state)
                .map_err(|what| damaged(&pack_path(folder, place.pack), &what))?;
        }
        state.sequence = manifest.first.0;
        *state.touched() = Ranges::unchanged(starts(&manifest.entities));
        *state.messages.touched() = Ranges::unchanged(starts(&manifest.messages));
        let mut loaded = Self { path: path.into(), manifest, state, settled: false };
        if loaded.manifest.first.0 == loaded.manifest.last.0 {
            loaded.settle()?;
        }
        Ok(loaded)
    }

    /// The history that it belongs to.
    pub fn stamp(&self) -> Stamp {
        let Manifest { journal, first, last, .. } = &self.manifest;
        Stamp { journal: *journal, first: *first, last: *last }
    }

    /// The last frame that was applied.
    pub fn sequence(&self) -> u64 {
        self.state.sequence
    }

    /// Applies one entry of a frame after [`Stamp::first`], in order.
    pub fn apply(&mut self, entry: EntryId, time: Millis, record: &Record, body: BodyPlace) {
        if !self.settled && self.is_in(entry, record) {
            // The chunk has it already.
            self.state.sequence = entry.sequence;
            return;
        }
        self.state.apply(entry, time, record, body);
    }

    /// All entries of a frame were applied.
    ///
    /// # Errors
    /// When the chunks and the frames do not add up to what the checkpoint says.
    pub fn end_frame(&mut self, sequence: u64) -> Result<(), CheckpointError> {
        self.state.sequence = sequence;
        if self.settled || sequence < self.manifest.last.0 {
            return Ok(());
        }
        self.settle()
    }

    /// The state, and what writes the next checkpoint.
    ///
    /// # Errors
    /// When frames are missing that the checkpoint needs.
    pub fn finish(mut self, folder: &Path) -> Result<(State, Writer), CheckpointError> {
        if !self.settled {
            let what = format!("frames up to {} are missing", self.manifest.last.0);
            return Err(damaged(&self.path, &what));
        }
        self.state.messages.fill_queues();
        let journal = self.manifest.journal;
        Ok((self.state, Writer::new(folder, journal, Some(self.manifest))))
    }

    /// Whether the chunk of what a record is about was copied after the record was applied.
    fn is_in(&self, entry: EntryId, record: &Record) -> bool {
        let position = match &record.fact {
            Fact::Accept(_) => position(&self.manifest.messages, &entry),
            Fact::Change(change) | Fact::Prune(Prune { change, .. }) => {
                position(&self.manifest.messages, &change.message)
            }
            Fact::Carry(carried) => position(&self.manifest.messages, &carried.state.message),
            Fact::Put(write) => position(&self.manifest.entities, &write.key),
            // They set marks, which only grow, and drop what is below them.
            // What a trim takes off the counts is off those that the checkpoint ends with.
            Fact::Forget(_) | Fact::Evict(_) | Fact::Trim(_) | Fact::Note => return false,
        };
        entry.sequence <= position
    }

    fn settle(&mut self) -> Result<(), CheckpointError> {
        self.settled = true;
        self.state.messages.restore_counts(self.manifest.counts());
        self.state.superseded = self.manifest.superseded;
        self.state.time = self.state.time.max(self.manifest.time);
        if self.state.checksum().0 == self.manifest.checksum {
            return Ok(());
        }
        Err(damaged(&self.path, &"its checksum is not that of the state"))
    }
}

fn starts<K: Clone>(chunks: &[Chunk<K>]) -> Vec<K> {
    chunks.iter().filter_map(|chunk| chunk.start.clone()).collect()
}

fn position<K: Ord>(chunks: &[Chunk<K>], key: &K) -> u64 {
    let after = chunks.partition_point(|chunk| chunk.start.as_ref() <= Some(key));
    after.checked_sub(1).and_then(|at| chunks.get(at)).map_or(0, |chunk| chunk.position)
}

fn read_chunk(
    folder: &Path,
    packs: &mut HashMap<u64, File>,
    place: Place,
) -> Result<Vec<u8>, CheckpointError> {
    let path = pack_path(folder, place.pack);
    let io = |source| CheckpointError::Io { path: path.clone(), source };
    let file = match packs.entry(place.pack) {
        std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
        std::collections::hash_map::Entry::Vacant(new) => {
            new.insert(File::open(&path).map_err(io)?)
        }
    };
    let mut bytes = vec![0; place.length as usize];
    file.read_exact_at(&mut bytes, place.offset).map_err(io)?;
    if crc32c::crc32c(&bytes) != place.checksum {
        return Err(damaged(&path, &format!("the chunk at {} is damaged", place.offset)));
    }
    Ok(bytes)
}
