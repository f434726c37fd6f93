//! What the two sides of a session saw of each other's journals, as their stores keep it, and how
//! often they show them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use storage::event::Event;
use storage::ledger::Ledger;
use storage::record::Kind;
use storage::store::Store;

use crate::clock::Millis;

/// The entity that remembers it.
pub const NAME: &str = "witness";

/// Between two ends of a journal that heartbeats show to one peer. What is cut off is noticed back
/// to the last one.
pub const PACE: Millis = 60_000;

/// Whether an event only tells of an end that was shown or signed: it is no reason for another one,
/// or two idle programs would keep each other writing.
pub fn is_witnessing(event: Event) -> bool {
    matches!(event, Event::AuditSign | Event::StoreWitness)
}

/// The newest frame of a store with more in it than what tells of its ends.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<AtomicU64>);

impl Traffic {
    /// That of a store, from now on.
    pub fn of(store: &Store) -> Self {
        let traffic = Self::default();
        let newest = Arc::downgrade(&traffic.0);
        store.listen(Box::new(move |published| {
            let Some(newest) = newest.upgrade() else { return false };
            let entries = published.entries.iter();
            let told = entries.filter(|(_, record, _)| !is_witnessing(record.event));
            if let Some(sequence) = told.map(|(entry, ..)| entry.sequence).max() {
                newest.fetch_max(sequence, Ordering::Relaxed);
            }
            true
        }));
        traffic
    }

    /// Its sequence; 0 before the first one.
    pub fn newest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one peer was shown last by heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    at: Option<Millis>,
    sequence: u64,
}

impl Pace {
    /// Whether an end is to be shown at this monotonic time, when `newest` is the newest traffic.
    pub fn is_due(&self, monotonic: Millis, newest: u64) -> bool {
        let is_time = self.at.is_none_or(|at| monotonic.saturating_sub(at) >= PACE);
        is_time && newest > self.sequence
    }

    /// This end was shown.
    pub fn shown(&mut self, monotonic: Millis, head: &str) {
        let sequence = super::heads::sequence(head).unwrap_or_default();
        *self = Self { at: Some(monotonic), sequence };
    }
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// The end of our journal that the server certainly saw last.
    pub acked: Option<String>,
    /// The one that was shown since, or was about to be: the server may have seen it.
    pub shown: Option<String>,
    /// The end of the server's journal that it showed last.
    pub seen: Option<String>,
    /// The last time that one of the two was found to have gone back.
    pub rollback: Option<Rollback>,
}

/// A store that went back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// `bridge` or `server`.
    pub whose: String,
    /// When it was found.
    pub at: Millis,
}

impl Witness {
    /// What is kept; nothing when that cannot be read.
    pub fn read(value: &[u8]) -> Self {
        serde_json::from_slice(value).unwrap_or_default()
    }
}

/// An end of a journal that a peer saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Who saw it.
    pub by: String,
    /// `<journal id>:<epoch>:<sequence>:<hash>`.
    pub head: String,
}

fn witnesses(ledger: &Ledger) -> impl Iterator<Item = (&str, Witness)> {
    ledger.scan(Kind::Meta, NAME).filter_map(|(key, entity)| {
        let [name, _, server] = *key.name.split('\0').collect::<Vec<_>>() else { return None };
        (name == NAME).then(|| (server, Witness::read(&entity.value)))
    })
}

/// What a server keeps of an agent, as far as it is about journals.
#[derive(Deserialize)]
struct Registered {
    agent_id: String,
    journal_head: Option<String>,
    peer_head: Option<String>,
}

fn agents(ledger: &Ledger) -> impl Iterator<Item = Registered> {
    let agents = ledger.scan(Kind::Agent, "");
    agents.filter_map(|(_, entity)| serde_json::from_slice(&entity.value).ok())
}

/// The ends of its own journal that a store knows its peers to have seen: those of a bridge, whose
/// server confirms them, and those of a server, whose agents do.
pub fn acked(ledger: &Ledger) -> Vec<Seen> {
    let by_servers = witnesses(ledger).filter_map(|(server, witness)| {
        let by = if server.is_empty() { "the server" } else { server };
        Some(Seen { by: by.to_owned(), head: witness.acked? })
    });
    let by_agents = agents(ledger)
        .filter_map(|agent| Some(Seen { by: agent.agent_id, head: agent.peer_head? }));
    by_servers.chain(by_agents).collect()
}

/// The ends of other journals that a store saw: a server's those of its agents, a bridge's those of
/// its servers.
pub fn seen(ledger: &Ledger, by: &str) -> Vec<Seen> {
    let agents = agents(ledger).filter_map(|agent| agent.journal_head);
    let servers = witnesses(ledger).filter_map(|(_, witness)| witness.seen);
    agents.chain(servers).map(|head| Seen { by: by.to_owned(), head }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_shown_once_a_minute_and_only_after_traffic() {
        let mut pace = Pace::default();
        assert!(!pace.is_due(5, 0), "nothing happened yet");
        assert!(pace.is_due(5, 3));
        pace.shown(5, "ab:1:4:cd");
        for (monotonic, newest, due) in
            [(PACE + 4, 9, false), (PACE + 5, 4, false), (PACE + 5, 5, true), (10 * PACE, 4, false)]
        {
            assert_eq!(pace.is_due(monotonic, newest), due, "{monotonic} {newest}");
        }
    }
}
