//! The bridge as its dashboard shows it. It changes nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use storage::journal::Reader;
use storage::record::Status;
use storage::view::View;

use super::Bridge;
use crate::clock::{Millis, rfc3339};
use crate::dashboard::{Gauges, Subject, tally};

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
}

impl Overview {
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
        let (waiting, failed, oldest) = store.messages(|messages| {
            let failed = tally::outbound(messages, |status| status == Status::Failed);
            (tally::outbound(messages, tally::waits), failed, tally::oldest(messages))
        });
        let now = self.bridge.clock().now();
        Gauges {
            is_up: link.connected,
            link_ms: link.latency_ms.filter(|_| link.connected),
            waiting,
            failed,
            oldest_seconds: oldest.map_or(0, |at| now.saturating_sub(at) / 1_000),
            agents: u64::try_from(self.bridge.settings().agents.all().len()).unwrap_or(u64::MAX),
        }
    }

    fn overview(&self) -> Value {
        let snapshot = self.bridge.snapshot();
        let latency_ms = self.bridge.0.link.read().latency_ms;
        let (counts, oldest) = self
            .bridge
            .store()
            .messages(|messages| (tally::counts(messages), tally::oldest(messages)));
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
            "unfinished": tally::by_peer(&self.view).ok(),
            "oldest_waiting_at": oldest.map(rfc3339),
            "tasks": snapshot.tasks,
            "tasks_by_agent": self.tasks_by_agent(),
            "storage": {
                "journal_bytes": bytes,
                "rows_behind": lag.published.saturating_sub(lag.applied),
            },
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
