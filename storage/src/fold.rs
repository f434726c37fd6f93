//! The fold: `(state, record) → state`. No clock, no randomness, no configuration, no disk: time
//! is the record's, and whatever policy or chance decided is in the record.

use sha2::{Digest as _, Sha256};

use crate::checkpoint::Ranges;
use crate::digest::{self, Checksum};
use crate::ledger::{Entity, Ledger};
use crate::messages::{BodyPlace, Messages};
use crate::record::{EntityKey, EntityWrite, EntryId, Fact, Millis, Record};

/// Everything that the journal says, up to a position.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Entities by key.
    pub ledger: Ledger,
    /// Messages that are not finished, and remembered ids.
    pub messages: Messages,
    /// The last frame that was applied; 0: none.
    pub sequence: u64,
    /// Its time.
    pub time: Millis,
    /// Guarded writes that were computed from another version.
    pub superseded: u64,
    /// The checksum of the ledger.
    entities: Checksum,
    hash_key: [u8; 16],
    touched: Ranges<EntityKey>,
}

impl State {
    /// The state of an empty journal.
    pub fn new(hash_key: [u8; 16]) -> Self {
        Self { messages: Messages::new(hash_key), hash_key, ..Self::default() }
    }

    /// Applies one entry of the frame `entry.sequence`, whose time is `time`.
    pub fn apply(&mut self, entry: EntryId, time: Millis, record: &Record, body: BodyPlace) {
        self.sequence = entry.sequence;
        self.time = self.time.max(time);
        match &record.fact {
            Fact::Note => {}
            Fact::Accept(head) => {
                self.messages.accept(head, entry, body, self.time);
            }
            Fact::Change(change) => {
                self.messages.change(entry, change, self.time);
            }
            Fact::Prune(prune) => {
                self.messages.change(entry, &prune.change, self.time);
            }
            Fact::Put(write) => self.put(write),
            Fact::Forget(before) => self.messages.forget(*before),
            Fact::Evict(through) => self.messages.evict(*through),
            Fact::Trim(trim) => self.messages.trim(trim),
            Fact::Carry(carried) => self.messages.carry(carried.state.message, body),
        }
    }

    fn put(&mut self, write: &EntityWrite) {
        let hash = |entity: &Entity| digest::entity(&self.hash_key, &write.key, entity);
        let before = self.ledger.get(&write.key).map(hash);
        if !self.ledger.apply(write) {
            self.superseded += 1;
            return;
        }
        let after = self.ledger.get(&write.key).map(hash);
        self.entities.remove(before.unwrap_or(0));
        self.entities.add(after.unwrap_or(0));
        self.touched.touch(&write.key);
    }

    /// Puts an entity back as a checkpoint recorded it.
    pub(crate) fn restore(&mut self, key: EntityKey, entity: Entity) {
        self.entities.add(digest::entity(&self.hash_key, &key, &entity));
        self.touched.touch(&key);
        self.ledger.restore(key, entity);
    }

    /// Which ranges of entities changed since the last checkpoint; derived.
    pub(crate) fn touched(&mut self) -> &mut Ranges<EntityKey> {
        &mut self.touched
    }

    /// The checksum of all items, kept up to date with each change.
    pub fn checksum(&self) -> Checksum {
        self.entities.with(self.messages.checksum())
    }

    /// SHA-256 of the canonical form of the state: equal digests, equal states. It walks through
    /// all of it.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        crate::checkpoint::canonical(self, |piece| hasher.update(piece));
        hasher.finalize().into()
    }
}
