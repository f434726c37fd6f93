//! The state of the link as it is shown: what the session writes and the API, the command line
//! and the metrics read. Counts are taken from the store when somebody asks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage::ledger::Ledger;
use storage::messages::Messages;
use storage::record::Direction;
use storage::store::Store;

use super::board::Board;
use super::mail::DESTINATION;
use super::oldest::{Oldest, Waiting, waits};
use super::settings::Settings;
use super::witness;
use crate::clock::{Clock, Millis, rfc3339};
use crate::outbox::GateState;
use crate::outbox::pause::{Pause, Pauses};

/// What the session knows of its link.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// A session is open.
    pub connected: bool,
    /// `websocket` or `http`, of the session that is open.
    pub transport: Option<&'static str>,
    /// The server's id of it.
    pub session_id: Option<String>,
    /// When it was opened, or when it ended.
    pub since: Option<Millis>,
    /// Why the last session ended, or why there is none.
    pub last_error: Option<String>,
    /// When a heartbeat was sent last.
    pub last_heartbeat: Option<Millis>,
    /// How long the last answer took.
    pub latency_ms: Option<u64>,
    /// Times in a row that the server answered, and opened no WebSocket.
    pub upgrades_failed: u32,
    /// How long the server remembers message ids.
    pub dedup_window: Option<Duration>,
    /// A person has disconnected the bridge.
    pub parked: bool,
    /// Another program took over our id.
    pub replaced: bool,
}

/// The answer of `GET /api/openclaw/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// A session is open.
    pub connected: bool,
    /// The bridge's id.
    pub agent_id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its server.
    pub server: Option<String>,
    /// `websocket` or `http`.
    pub transport: Option<String>,
    /// The server's id of the session.
    pub session_id: Option<String>,
    /// Since when it is so.
    pub since: Option<String>,
    /// Why there is no session, or why the last one ended.
    pub last_error: Option<String>,
    /// How many messages stand where.
    pub messages: BTreeMap<String, u64>,
    /// Messages that the server does not have yet.
    pub messages_pending: u64,
    /// The age of the oldest of them.
    pub oldest_pending_seconds: Option<u64>,
    /// How many tasks stand where.
    pub tasks: BTreeMap<String, u64>,
    /// `closed`, `open`, `probing`, or `parked` when a person disconnected the bridge.
    pub circuit: String,
    /// Until when nothing is tried, while the circuit is open.
    pub circuit_until: Option<String>,
    /// Why new messages are refused: the disk has no room. Left out when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_full: Option<String>,
    /// That a store was found to have gone back, ours or the server's, and when: the last time.
    pub rollback: Option<String>,
    /// What a person has paused.
    #[serde(default)]
    pub paused: Vec<Paused>,
    /// The version of this program.
    pub version: String,
}

/// Deliveries that a person has paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Whose; `None`: all.
    pub to: Option<String>,
    /// By whom.
    pub by: String,
    /// Since when.
    pub since: String,
}

/// What is paused, as people are shown it.
pub fn paused(pauses: &Pauses) -> Vec<Paused> {
    let one = |to: Option<&String>, pause: &Pause| Paused {
        to: to.cloned(),
        by: pause.by.clone(),
        since: rfc3339(pause.since),
    };
    let all = pauses.all.iter().map(|pause| one(None, pause));
    all.chain(pauses.peers.iter().map(|(peer, pause)| one(Some(peer), pause))).collect()
}

/// The answer of `GET /api/openclaw/health`: these five fields and no other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// A session is open.
    pub connected: bool,
    /// The server.
    pub server: Option<String>,
    /// When a heartbeat was sent last.
    pub last_heartbeat: Option<String>,
    /// How long the last answer took.
    pub latency_ms: Option<u64>,
    /// Messages that the server does not have yet.
    pub messages_pending: u64,
}

/// Whose state a snapshot shows.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The bridge's id.
    pub agent_id: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its server.
    pub server: Option<&'a str>,
}

/// What was looked up for a snapshot.
pub struct Found {
    /// How many tasks stand where.
    pub tasks: BTreeMap<String, u64>,
    /// The oldest message that waits.
    pub oldest: Option<Waiting>,
}

/// Takes the snapshot.
pub fn snapshot(
    settings: &Settings,
    store: &Store,
    link: &LinkState,
    gate: &GateState,
    (board, oldest): (&Board, &Oldest),
    clock: &Clock,
) -> Snapshot {
    let owner = Owner {
        agent_id: &settings.agent_id,
        namespace: &settings.namespace,
        server: settings.server.as_deref(),
    };
    let ledger = store.ledger();
    let found = Found { tasks: board.counts(), oldest: oldest.of(store) };
    let shown =
        store.messages(|messages| shown(owner, (messages, &ledger), found, link, clock.now()));
    Snapshot {
        circuit: if link.parked { "parked" } else { gate.circuit }.to_owned(),
        circuit_until: gate.until.map(rfc3339),
        last_error: gate.reason.clone().or(shown.last_error),
        storage_full: store.full().map(|error| error.to_string()),
        ..shown
    }
}

/// The snapshot of these messages and entities, with the circuit closed.
pub fn shown(
    owner: Owner<'_>,
    (messages, ledger): (&Messages, &Ledger),
    found: Found,
    link: &LinkState,
    now: Millis,
) -> Snapshot {
    let mut counts = BTreeMap::new();
    for ((_, _, status), count) in messages.counts().iter().filter(|(_, count)| **count > 0) {
        *counts.entry(status.as_str().to_owned()).or_default() += count;
    }
    Snapshot {
        connected: link.connected,
        agent_id: owner.agent_id.to_owned(),
        namespace: owner.namespace.to_owned(),
        server: owner.server.map(str::to_owned),
        transport: link.transport.map(str::to_owned),
        session_id: link.session_id.clone(),
        since: link.since.map(rfc3339),
        last_error: link.last_error.clone(),
        messages: counts,
        messages_pending: pending(messages),
        oldest_pending_seconds: found.oldest.map(|one| now.saturating_sub(one.created_at) / 1_000),
        tasks: found.tasks,
        circuit: "closed".to_owned(),
        circuit_until: None,
        storage_full: None,
        rollback: witness::told(ledger, owner.namespace),
        paused: paused(&Pauses::of(ledger, DESTINATION)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The seed's five fields.
pub fn health(settings: &Settings, store: &Store, link: &LinkState) -> Health {
    Health {
        connected: link.connected,
        server: settings.server.clone(),
        last_heartbeat: link.last_heartbeat.map(rfc3339),
        latency_ms: link.latency_ms,
        messages_pending: store.messages(pending),
    }
}

fn pending(messages: &Messages) -> u64 {
    let outbound = |direction: Direction| direction == Direction::Outbound;
    let counts = messages.counts().iter();
    counts
        .filter(|((_, direction, status), _)| outbound(*direction) && waits(*status))
        .map(|(_, count)| count)
        .sum()
}
