//! The bridge as its dashboard shows it. It changes nothing.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Value, json};
use storage::journal::Reader;
use storage::record::Status;
use storage::view::View;

use super::Bridge;
use crate::clock::{Millis, rfc3339};
use crate::dashboard::{Gauges, Subject, tally};
use crate::inspector::answer::missing;

/// How many times longer than it took a look is good for.
const REST_FACTOR: Millis = 20;

/// Agents whose tasks are counted, those first that have the most.
const AGENTS_MAX: usize = 50;

/// A bridge and the files of its store.
pub(super) struct Overview {
    /// The bridge.
    pub bridge: Bridge,
    /// How far its rows are behind.
    pub view: View,
    /// The files of its journal.
    pub journal: Reader,
    /// When it was started.
    pub started_at: Millis,
    /// What is unfinished by recipient.
    pub seen: Mutex<Seen>,
}

/// What was found, and the monotonic time until which nobody looks again.
#[derive(Default)]
pub(super) struct Seen {
    peers: Option<Value>,
    until: Millis,
}

impl Overview {
    /// What is unfinished by recipient, as it was a moment ago: looking takes at most a
    /// twentieth of the time, however many pages ask.
    fn unfinished(&self) -> Option<Value> {
        let mut seen = self.seen.lock();
        let begun = self.bridge.clock().monotonic();
        if begun >= seen.until {
            seen.peers = tally::by_peer(&self.view).ok();
            let ended = self.bridge.clock().monotonic();
            seen.until = ended + REST_FACTOR * ended.saturating_sub(begun);
        }
        seen.peers.clone()
    }

    fn tasks_by_agent(&self) -> Vec<Value> {
        let agents = self.bridge.board().agents(AGENTS_MAX).into_iter();
        let shown = agents.map(|(agent, counts)| {
            let counts: BTreeMap<&str, u64> =
                counts.iter().map(|(status, count)| (status.as_str(), *count)).collect();
            json!({"agent": agent, "tasks": counts})
        });
        shown.collect()
    }
}

impl Subject for Overview {
    fn gauges(&self) -> Gauges {
        let (link, store) = (self.bridge.0.link.read(), self.bridge.store());
        let (waiting, failed) = store.messages(|messages| {
            let failed = tally::outbound(messages, |status| status == Status::Failed);
            (tally::outbound(messages, tally::waits), failed)
        });
        let oldest = self.bridge.oldest();
        let now = self.bridge.clock().now();
        Gauges {
            is_up: link.connected,
            link_ms: link.latency_ms.filter(|_| link.connected),
            waiting,
            failed,
            oldest_seconds: oldest.map_or(0, |one| now.saturating_sub(one.accepted_at) / 1_000),
            agents: u64::try_from(self.bridge.settings().agents.all().len()).unwrap_or(u64::MAX),
        }
    }

    fn overview(&self) -> Value {
        let snapshot = self.bridge.snapshot();
        let latency_ms = self.bridge.0.link.read().latency_ms;
        let (counts, oldest) = (self.bridge.store().messages(tally::counts), self.bridge.oldest());
        let size = |path: &std::path::Path| path.metadata().map_or(0, |file| file.len());
        let bytes: u64 = self.journal.segments().iter().map(|segment| size(segment.path())).sum();
        let lag = self.view.lag();
        json!({
            "program": "loki",
            "version": snapshot.version,
            "agent_id": snapshot.agent_id,
            "namespace": snapshot.namespace,
            "started_at": rfc3339(self.started_at),
            "link": {
                "connected": snapshot.connected,
                "server": snapshot.server,
                "transport": snapshot.transport,
                "session_id": snapshot.session_id,
                "since": snapshot.since,
                "last_error": snapshot.last_error,
                "circuit": snapshot.circuit,
                "circuit_until": snapshot.circuit_until,
                "latency_ms": latency_ms,
                "paused": snapshot.paused,
            },
            "messages": counts,
            // Rows that cannot be read are told by the metrics and the lists.
            "unfinished": self.unfinished(),
            "oldest_waiting_at": oldest.map(|one| rfc3339(one.accepted_at)),
            "tasks": snapshot.tasks,
            "tasks_by_agent": self.tasks_by_agent(),
            "storage": {
                "journal_bytes": bytes,
                "rows_behind": lag.published.saturating_sub(lag.applied),
            },
            "damage": missing(&self.journal),
            "routes": routes(),
        })
    }
}

/// What the page may ask for here, so that it shows nothing that there is not.
fn routes() -> Value {
    json!({
        "messages": "/api/openclaw/messages",
        "audit": "/api/audit",
        "tasks": "/api/openclaw/tasks",
        "capabilities": "/api/openclaw/capabilities",
        "causes": "/api/openclaw/causes",
        "explain": "/api/openclaw/messages/{id}/explain",
        "retry": "/api/openclaw/retry",
        "prune": "/api/openclaw/prune",
        "pause": "/api/openclaw/pause",
        "resume": "/api/openclaw/resume",
        "disconnect": "/api/openclaw/disconnect",
        "reconnect": "/api/openclaw/reconnect",
    })
}
