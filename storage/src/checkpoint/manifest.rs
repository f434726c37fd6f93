//! The file that names the chunks of one checkpoint. It reads and writes that file only.
//!
//! ```text
//!   0  magic "LOKICKP3"     8
//!   8  Manifest             a record of the codec
//!      SHA-256 of all before 32
//! ```

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bincode::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::{CheckpointError, Place};
use crate::codec;
use crate::journal::{SyncPoint, Syncer};
use crate::messages::Counts;
use crate::record::{Direction, EntityKey, EntryId, Millis, Status};

/// The first bytes of a manifest. `LOKICKP1`, a whole state in one file, and `LOKICKP2`, whose
/// chunks had the heads of messages in them, were never released: the journal is folded instead.
const MAGIC: &[u8; 8] = b"LOKICKP3";

/// A frame and the chain's hash after it.
pub(super) type Mark = (u64, [u8; 32]);

/// One checkpoint. Its chunks are of different positions between `first` and `last`; together with
/// the frames between these they give the state at `last`.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Manifest {
    pub(super) journal: [u8; 16],
    pub(super) first: Mark,
    pub(super) last: Mark,
    /// The marks of remembered ids at `first`: replaying goes through what they did since.
    pub(super) forgotten_before: Millis,
    pub(super) evicted_through: EntryId,
    /// The state at `last`, but for its items.
    pub(super) time: Millis,
    pub(super) superseded: u64,
    pub(super) checksum: u128,
    pub(super) counts: Vec<(Arc<str>, Direction, Status, u64)>,
    pub(super) entities: Vec<Chunk<EntityKey>>,
    pub(super) messages: Vec<Chunk<EntryId>>,
}

/// A stretch of keys as it was at a position.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Chunk<K> {
    /// Its first key; `None` in the first chunk, which begins before all keys.
    pub(super) start: Option<K>,
    /// The last frame whose effect is in it.
    pub(super) position: u64,
    pub(super) place: Place,
}

impl Manifest {
    pub(super) fn counts(&self) -> Counts {
        let counts = self.counts.iter();
        counts
            .map(|(destination, direction, status, count)| {
                ((Arc::clone(destination), *direction, *status), *count)
            })
            .collect()
    }

    /// Where all its chunks lie.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let entities = self.entities.iter().map(|chunk| chunk.place);
        entities.chain(self.messages.iter().map(|chunk| chunk.place))
    }

    /// Writes it aside, syncs it, and gives it its name.
    pub(super) fn write(&self, folder: &Path, syncer: &Syncer) -> Result<PathBuf, CheckpointError> {
        let path = folder.join(format!("{:020}.checkpoint", self.last.0));
        let io = |source| CheckpointError::Io { path: path.clone(), source };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(codec::encode(self).map_err(|error| damaged(&path, &error))?);
        let digest = Sha256::digest(&bytes);
        bytes.extend(digest);
        let aside = path.with_extension("writing");
        let mut file = File::create(&aside).map_err(io)?;
        file.write_all(&bytes).map_err(io)?;
        // Guarantee: a checkpoint under its final name is whole.
        syncer.all(&file, SyncPoint::Checkpoint).map_err(io)?;
        fs::rename(&aside, &path).map_err(io)?;
        // Guarantee: the name survives a power cut before an older checkpoint is removed.
        syncer.dir(folder, SyncPoint::CheckpointName).map_err(io)?;
        Ok(path)
    }

    pub(super) fn read(path: &Path) -> Result<Self, CheckpointError> {
        let bytes =
            fs::read(path).map_err(|source| CheckpointError::Io { path: path.into(), source })?;
        let end = bytes.len().checked_sub(32).ok_or_else(|| damaged(path, &"it is too short"))?;
        let (content, digest) = bytes.split_at(end);
        if Sha256::digest(content).as_slice() != digest {
            return Err(damaged(path, &"its digest does not match"));
        }
        let record =
            content.strip_prefix(MAGIC).ok_or_else(|| damaged(path, &"it is of another format"))?;
        codec::decode(record).map_err(|error| damaged(path, &error))
    }
}

/// The manifests of a folder, the newest first.
pub(super) fn list(folder: &Path) -> Vec<PathBuf> {
    let mut paths = super::files(folder, "checkpoint");
    paths.reverse();
    paths
}

pub(super) fn damaged(path: &Path, what: &dyn std::fmt::Display) -> CheckpointError {
    CheckpointError::Damaged { path: path.into(), what: what.to_string() }
}
