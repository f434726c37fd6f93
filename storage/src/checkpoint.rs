//! The state written aside, so that opening replays only what came after. Encodes and decodes;
//! the caller says when. A checkpoint that does not read back is ignored: the journal has it all.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bincode::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::codec;
use crate::fold::State;
use crate::ledger::Entity;
use crate::messages::{BodyPlace, Counts, Finished, Live, Messages};
use crate::record::{Direction, EntityKey, EntryId, MessageHead, Millis, Reason, Status};

/// The first bytes of a checkpoint file; the journal's id, the chain's hash at the state's
/// position and the parts follow, and a SHA-256 of everything is at the end.
const MAGIC: &[u8; 8] = b"LOKICKP1";

/// Which history a checkpoint belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The journal's id.
    pub journal: [u8; 16],
    /// The chain's hash after the last frame of the state.
    pub hash: [u8; 32],
}

/// Two are kept: the newest may be the one that a crash cut short.
const KEPT: usize = 2;

/// One part of a state. A file is a sequence of them, each with its length before it.
#[derive(Encode, Decode)]
enum Part {
    Position { sequence: u64, time: Millis, superseded: u64 },
    Entity { key: EntityKey, version: u64, value: Arc<[u8]> },
    Live(Box<LivePart>),
    Finished { fingerprint: u128, entry: EntryId, body: BodyPlace, at: Millis, status: Status },
    Count { destination: Arc<str>, direction: Direction, status: Status, count: u64 },
}

#[derive(Encode, Decode)]
struct LivePart {
    head: Arc<MessageHead>,
    entry: EntryId,
    body: BodyPlace,
    status: Status,
    reason: Reason,
    attempts: u32,
    next_attempt_at: Millis,
    maybe_delivered: bool,
    error: Arc<str>,
    updated_at: Millis,
}

/// A checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system said no.
    #[error("checkpoint {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not a whole checkpoint.
    #[error("checkpoint {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The canonical form of a state, part by part.
pub(crate) fn parts(state: &State) -> impl Iterator<Item = Vec<u8>> + use<'_> {
    let (sequence, time, superseded) = (state.sequence, state.time, state.superseded);
    let position = std::iter::once(Part::Position { sequence, time, superseded });
    let entities = state.ledger.iter().map(|(key, entity)| Part::Entity {
        key: key.clone(),
        version: entity.version,
        value: Arc::clone(&entity.value),
    });
    let live = state.messages.iter().map(|live| Part::Live(Box::new(live_part(live))));
    let finished = state.messages.finished().map(|(fingerprint, finished)| Part::Finished {
        fingerprint,
        entry: finished.entry,
        body: finished.body,
        at: finished.accepted_at,
        status: finished.status,
    });
    let counts = state.messages.counts().iter().map(|((destination, direction, status), count)| {
        Part::Count {
            destination: Arc::clone(destination),
            direction: *direction,
            status: *status,
            count: *count,
        }
    });
    let parts = position.chain(entities).chain(live).chain(finished).chain(counts);
    parts.filter_map(|part| codec::encode(&part).ok())
}

fn live_part(live: &Live) -> LivePart {
    LivePart {
        head: Arc::clone(&live.head),
        entry: live.entry,
        body: live.body,
        status: live.status,
        reason: live.reason,
        attempts: live.attempts,
        next_attempt_at: live.next_attempt_at,
        maybe_delivered: live.maybe_delivered,
        error: Arc::clone(&live.error),
        updated_at: live.updated_at,
    }
}

/// Writes the state aside: a new file, synced, renamed, its directory synced. Older ones go.
///
/// # Errors
/// When the file system refuses; the earlier checkpoints are then still there.
pub fn write(directory: &Path, state: &State, stamp: &Stamp) -> Result<PathBuf, CheckpointError> {
    let path = directory.join(format!("{:020}.checkpoint", state.sequence));
    let io = |source| CheckpointError::Io { path: path.clone(), source };
    fs::create_dir_all(directory).map_err(io)?;
    let aside = path.with_extension("writing");
    write_parts(&aside, state, stamp).map_err(io)?;
    fs::rename(&aside, &path).map_err(io)?;
    // Guarantee: the name survives a power cut before an older checkpoint is removed.
    File::open(directory).and_then(|folder| folder.sync_all()).map_err(io)?;
    for old in list(directory).into_iter().rev().skip(KEPT) {
        fs::remove_file(&old).map_err(io)?;
    }
    Ok(path)
}

fn write_parts(path: &Path, state: &State, stamp: &Stamp) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut hasher = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        file.write_all(bytes)
    };
    put(MAGIC)?;
    put(&stamp.journal)?;
    put(&stamp.hash)?;
    for part in parts(state) {
        put(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        put(&part)?;
    }
    file.write_all(&hasher.finalize())?;
    // Guarantee: a checkpoint under its final name is whole.
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// The newest checkpoint that reads back and that `fits` the journal, given its stamp and its
/// position; and what was wrong with newer ones.
pub fn newest(
    directory: &Path,
    hash_key: [u8; 16],
    fits: impl Fn(&Stamp, u64) -> bool,
) -> (Option<State>, Vec<CheckpointError>) {
    let mut errors = Vec::new();
    for path in list(directory).into_iter().rev() {
        match read(&path, hash_key) {
            Ok((stamp, state)) if fits(&stamp, state.sequence) => return (Some(state), errors),
            Ok(_) => errors.push(CheckpointError::Damaged {
                path,
                what: "it is of another journal or another history".into(),
            }),
            Err(error) => errors.push(error),
        }
    }
    (None, errors)
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "checkpoint"))
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path, hash_key: [u8; 16]) -> Result<(Stamp, State), CheckpointError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|source| CheckpointError::Io { path: path.into(), source })?;
    let damaged = |what: &str| CheckpointError::Damaged { path: path.into(), what: what.into() };
    let end = bytes.len().checked_sub(32).ok_or_else(|| damaged("it is too short"))?;
    let (content, digest) = bytes.split_at(end);
    if Sha256::digest(content).as_slice() != digest {
        return Err(damaged("its digest does not match"));
    }
    let rest = content.strip_prefix(MAGIC).ok_or_else(|| damaged("it is of another format"))?;
    let stamped = rest.split_first_chunk::<16>().and_then(|(journal, rest)| {
        let (hash, rest) = rest.split_first_chunk::<32>()?;
        Some((Stamp { journal: *journal, hash: *hash }, rest))
    });
    let (stamp, mut rest) = stamped.ok_or_else(|| damaged("it is too short"))?;
    let mut state = State::new(hash_key);
    let mut counts = Counts::new();
    while !rest.is_empty() {
        let (length, after) =
            rest.split_first_chunk::<4>().ok_or_else(|| damaged("a part is cut"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let part = after.get(..length).ok_or_else(|| damaged("a part is cut"))?;
        let part = codec::decode(part).map_err(|error| damaged(&error.to_string()))?;
        restore(&mut state, &mut counts, part);
        rest = &after[length..];
    }
    state.messages.restore_counts(counts);
    Ok((stamp, state))
}

fn restore(state: &mut State, counts: &mut Counts, part: Part) {
    match part {
        Part::Position { sequence, time, superseded } => {
            state.sequence = sequence;
            state.time = time;
            state.superseded = superseded;
        }
        Part::Entity { key, version, value } => {
            state.ledger.restore(key, Entity { version, value });
        }
        Part::Live(live) => restore_live(&mut state.messages, *live),
        Part::Finished { fingerprint, entry, body, at, status } => {
            let finished = Finished { entry, body, accepted_at: at, status };
            state.messages.restore_finished(fingerprint, finished);
        }
        Part::Count { destination, direction, status, count } => {
            counts.insert((destination, direction, status), count);
        }
    }
}

fn restore_live(messages: &mut Messages, part: LivePart) {
    messages.restore_live(Live {
        head: part.head,
        entry: part.entry,
        body: part.body,
        status: part.status,
        reason: part.reason,
        attempts: part.attempts,
        next_attempt_at: part.next_attempt_at,
        maybe_delivered: part.maybe_delivered,
        error: part.error,
        updated_at: part.updated_at,
    });
}
