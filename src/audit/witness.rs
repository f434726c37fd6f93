//! What the two sides of a session saw of each other's journals, as their stores keep it.

use serde::{Deserialize, Serialize};
use storage::ledger::Ledger;
use storage::record::Kind;

use crate::clock::Millis;

/// The entity that remembers it.
pub const NAME: &str = "witness";

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

/// The ends of its own journal that a store knows its peers to have seen: those of a bridge, whose
/// server confirms them.
pub fn acked(ledger: &Ledger) -> Vec<Seen> {
    let seen = witnesses(ledger).filter_map(|(server, witness)| {
        let by = if server.is_empty() { "the server" } else { server };
        Some(Seen { by: by.to_owned(), head: witness.acked? })
    });
    seen.collect()
}

/// The ends of other journals that a store saw: a server's those of its agents, a bridge's those of
/// its servers.
pub fn seen(ledger: &Ledger, by: &str) -> Vec<Seen> {
    #[derive(Deserialize)]
    struct Agent {
        journal_head: Option<String>,
    }
    let agents = ledger.scan(Kind::Agent, "").filter_map(|(_, entity)| {
        serde_json::from_slice::<Agent>(&entity.value).ok()?.journal_head
    });
    let servers = witnesses(ledger).filter_map(|(_, witness)| witness.seen);
    agents.chain(servers).map(|head| Seen { by: by.to_owned(), head }).collect()
}
