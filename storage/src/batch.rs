//! A frame in the making: what was decided, in order, and what the decisions after it are to see.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ledger::Ledger;
use crate::messages::{Fingerprint, Live};
use crate::record::{EntryId, Record};

/// A record and its body, on their way into a frame.
pub(crate) struct Staged {
    pub(crate) record: Record,
    /// The record as it will lie in the frame.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Option<Vec<u8>>,
}

/// What was decided and is not published yet: only the committer sees it.
#[derive(Default)]
pub(crate) struct Ahead {
    pub(crate) sequence: u64,
    pub(crate) ledger: Ledger,
    pub(crate) accepted: HashMap<Fingerprint, EntryId>,
    pub(crate) changed: HashMap<EntryId, Live>,
    /// By the index of the entry.
    pub(crate) bodies: Vec<Option<Vec<u8>>>,
}

/// A frame in the making.
pub(crate) struct Batch {
    pub(crate) staged: Vec<Staged>,
    pub(crate) ahead: Ahead,
    /// The frame before this one, while it is being synced.
    pub(crate) before: Option<Arc<Ahead>>,
    pub(crate) bytes: usize,
}

impl Batch {
    /// A frame after `before`, or after all that is published, whose ledger is given.
    pub(crate) fn new(sequence: u64, published: &Ledger, before: Option<Arc<Ahead>>) -> Self {
        let ledger = before.as_ref().map_or(published, |before| &before.ledger).clone();
        let ahead = Ahead { sequence, ledger, ..Ahead::default() };
        Self { staged: Vec::new(), ahead, before, bytes: 0 }
    }

    /// About how many bytes the frame has so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it adds, for whoever decides after it, and its records.
    pub(crate) fn close(mut self) -> (Ahead, Vec<Record>) {
        let (mut records, mut bodies) = (Vec::new(), Vec::new());
        for one in self.staged {
            records.push(one.record);
            bodies.push(one.body);
        }
        self.ahead.bodies = bodies;
        (self.ahead, records)
    }
}
