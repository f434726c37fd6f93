//! Which messages damage touches: those that lost records, by the indexes that still name them and
//! by the records about them that are left. It repairs nothing.

use std::collections::{BTreeSet, HashSet};

use crate::fold::State;
use crate::journal::{Damage, Reader};
use crate::messages::fingerprint;
use crate::record::{Fact, Prune};

/// Message ids of one answer at the most; the others are counted.
pub const TOUCHED_IDS_MAX: usize = 1_000;

/// The messages of which records are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Their ids, at most [`TOUCHED_IDS_MAX`].
    pub ids: BTreeSet<String>,
    /// Messages more that an index counts, and whose ids nothing tells any more.
    pub unnamed: usize,
}

/// The messages that damage touches. It reads the whole journal, if there is damage.
pub fn touched(reader: &Reader, state: &State, damage: &[Damage]) -> Touched {
    let lost: Vec<(u64, u64)> = damage.iter().map(|one| (one.first, one.last)).collect();
    let lost: Vec<(u64, u64)> = lost.into_iter().filter(|(first, last)| first <= last).collect();
    if lost.is_empty() {
        return Touched::default();
    }
    let is_lost = |sequence| lost.iter().any(|(first, last)| (*first..=*last).contains(&sequence));
    let mut search = Search { wanted: HashSet::new(), named: HashSet::new(), ids: BTreeSet::new() };
    for segment in reader.segments() {
        for (first, last) in &lost {
            search.wanted.extend(segment.ids(*first, *last).unwrap_or_default());
        }
    }
    let key = reader.identity().key;
    // Memory knows that they are there; their ids are in what was recorded of them later, if they
    // are anywhere.
    let heads_lost = state.messages.iter().filter(|one| is_lost(one.place().1));
    search.wanted.extend(heads_lost.map(|one| one.fingerprint));
    for frame in reader.frames(1).flatten() {
        for (_, record, _) in crate::view::records(&frame) {
            match &record.fact {
                Fact::Accept(head) => {
                    let print = fingerprint(&key, &head.key());
                    if search.wanted.contains(&print) {
                        search.name(print, &head.message_id);
                    }
                }
                Fact::Carry(carried) if search.wanted.contains(&carried.state.fingerprint) => {
                    search.name(carried.state.fingerprint, &carried.head.message_id);
                }
                Fact::Change(change) | Fact::Prune(Prune { change, .. })
                    if is_lost(change.message.sequence)
                        || search.wanted.contains(&change.fingerprint) =>
                {
                    search.name(change.fingerprint, &record.resource);
                }
                _ => {}
            }
        }
    }
    let unnamed = search.wanted.difference(&search.named).count();
    Touched { ids: search.ids, unnamed }
}

struct Search {
    /// Fingerprints of messages with lost records.
    wanted: HashSet<u128>,
    /// Those whose ids were found.
    named: HashSet<u128>,
    ids: BTreeSet<String>,
}

impl Search {
    fn name(&mut self, print: u128, id: &str) {
        if self.ids.len() < TOUCHED_IDS_MAX || self.ids.contains(id) {
            self.named.insert(print);
            self.ids.insert(id.to_owned());
        } else {
            self.wanted.insert(print);
        }
    }
}
