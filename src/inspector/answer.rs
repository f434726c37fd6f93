//! An answer with what is missing from it. It looks for nothing: what opening the store found, and
//! reading it since, is known.

use serde::Serialize;
use storage::inspect;
use storage::journal::Reader;

/// An answer that names what the store has lost.
#[derive(Clone, Debug, Serialize)]
pub struct Answer<T> {
    #[serde(flatten)]
    answer: T,
    /// What cannot be read of the store, a sentence each.
    damage: Vec<String>,
}

impl<T> Answer<T> {
    /// An answer that was found in a store with this journal.
    pub fn of(answer: T, journal: &Reader) -> Self {
        Self { answer, damage: missing(journal) }
    }
}

/// What cannot be read of a store, a sentence each.
pub fn missing(journal: &Reader) -> Vec<String> {
    inspect::told(&inspect::missing(journal))
}
