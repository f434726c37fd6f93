//! The fold: `(state, record) → state`. No clock, no randomness, no configuration, no disk: time
//! is the record's, and whatever policy or chance decided is in the record.

use sha2::{Digest as _, Sha256};

use crate::ledger::Ledger;
use crate::messages::{BodyPlace, Messages};
use crate::record::{EntryId, Fact, Millis, Record};

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
}

impl State {
    /// The state of an empty journal.
    pub fn new(hash_key: [u8; 16]) -> Self {
        Self { messages: Messages::new(hash_key), ..Self::default() }
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
                self.messages.change(change, self.time);
            }
            Fact::Put(write) => {
                if !self.ledger.apply(write) {
                    self.superseded += 1;
                }
            }
            Fact::Forget(before) => self.messages.forget(*before),
        }
    }

    /// A copy for a checkpoint, at one position.
    pub(crate) fn snapshot(&self) -> Self {
        Self { ledger: self.ledger.clone(), messages: self.messages.snapshot(), ..*self }
    }

    /// SHA-256 of the canonical form of the state: equal digests, equal states.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for part in crate::checkpoint::parts(self) {
            hasher.update(part);
        }
        hasher.finalize().into()
    }
}
