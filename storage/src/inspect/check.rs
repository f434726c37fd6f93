//! A full check of a store: every frame of its journal, what is derived from it, and which messages
//! damage touches. It trusts no index, takes no lock and changes nothing.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Inspect, Touched, touched};
use crate::checkpoint::{self, Loaded};
use crate::database::index_of;
use crate::journal::{self, BodyRef, Damage, Hash, ReadError, Reader};
use crate::messages::BodyPlace;
use crate::record::{EntryId, Fact};

/// What a check found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Segments and good frames, and their bytes.
    pub segments: u64,
    /// Good frames.
    pub frames: u64,
    /// Bytes of good frames.
    pub bytes: u64,
    /// The chain's hash after the newest frame; `None` without segments.
    pub hash: Option<Hash>,
    /// All that is wrong with the journal, oldest first.
    pub damage: Vec<Damage>,
    /// The messages that it touches.
    pub touched: Touched,
    /// Checkpoints that do not read back, and why. They are derived, and made again.
    pub checkpoints: Vec<String>,
    /// Bodies that were compared with their digests; 0 unless that was asked for.
    pub bodies: u64,
    /// Those that differ: the entry that accepted the message, and its id.
    pub bad_bodies: Vec<(EntryId, String)>,
}

impl Checked {
    /// Nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.checkpoints.is_empty() && self.bad_bodies.is_empty()
    }
}

/// Checks the store in a directory; with `bodies` also each body against its digest.
///
/// # Errors
/// When its journal cannot be read, or a newer program wrote it. Damage is no error.
pub fn check(dir: &Path, bodies: bool) -> Result<Checked, journal::OpenError> {
    let look = Inspect::open(dir)?;
    let found = journal::check(&dir.join("journal"), index_of)?;
    let mut damage = found.damage;
    for known in look.damage() {
        if !damage.iter().any(|one| one.covers(&known)) {
            damage.push(known);
        }
    }
    damage.sort_by_key(|one| (one.segment.clone(), one.offset));
    let touched = touched(look.reader(), look.state(), &damage);
    let key = look.reader().identity().key;
    // A writer beside this look may have replaced one since it was listed.
    let unsound = |path: &PathBuf| {
        let error = Loaded::read(path, key).err().filter(|_| path.exists());
        error.map(|error| error.to_string())
    };
    let checkpoints = checkpoint::candidates(&dir.join("checkpoints"));
    let mut checked = Checked {
        segments: found.segments,
        frames: found.frames,
        bytes: found.bytes,
        hash: found.hash,
        damage,
        touched,
        checkpoints: checkpoints.iter().filter_map(unsound).collect(),
        bodies: 0,
        bad_bodies: Vec::new(),
    };
    if bodies {
        compare(look.reader(), &mut checked);
    }
    Ok(checked)
}

/// Compares every body that is still kept with its digest.
fn compare(reader: &Reader, checked: &mut Checked) {
    for frame in reader.frames(1).flatten() {
        for (entry, record, place) in crate::view::records(&frame) {
            let (entry, head) = match &record.fact {
                Fact::Accept(head) => (entry, head),
                Fact::Carry(carried) => (carried.state.message, &carried.head),
                _ => continue,
            };
            let BodyPlace { sequence, offset, length: len } = place;
            if place.is_empty() {
                continue;
            }
            match reader.body(&BodyRef { sequence, offset, len }) {
                // It was dropped, which is no damage.
                Err(ReadError::NoBody { .. }) => {}
                Ok(bytes) if head.digest == <[u8; 32]>::from(Sha256::digest(&bytes)) => {
                    checked.bodies += 1;
                }
                _ => {
                    checked.bodies += 1;
                    checked.bad_bodies.push((entry, head.message_id.clone()));
                }
            }
        }
    }
}
