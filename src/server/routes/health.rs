//! `/health`: whether the server works, and what it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use storage::messages::Messages;
use storage::record::{Direction, Status};

use crate::clock::rfc3339;
use crate::server::core::Core;
use crate::server::witness;

/// `GET /health`.
pub(super) async fn show(State(core): State<Arc<Core>>) -> Json<Value> {
    // A round trip through the committer, because a server that cannot write is of no use.
    let writes = core.decided(|_| Ok(())).await.is_ok();
    let full = core.store.full().map(|error| error.to_string());
    let stopping = *core.stopping.borrow();
    let tasks: BTreeMap<&str, usize> =
        core.census.tasks().into_iter().map(|(status, count)| (status.as_str(), count)).collect();
    let agents = core.census.agents().into_iter();
    let agents: BTreeMap<&str, usize> =
        agents.map(|(status, count)| (status.as_str(), count)).collect();
    let (sequence, unfinished) =
        core.store.state(|state| (state.sequence, state.messages.live_len()));
    let (messages, pending) = core.store.messages(counted);
    let rollback_at = witness::own_at(&core.store.ledger());
    let uptime = core.clock.monotonic().saturating_sub(core.started) / 1_000;
    Json(json!({
        "status": if writes && full.is_none() { "ok" } else { "degraded" },
        "ready": writes && !stopping,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": uptime,
        "storage": {
            "writable": writes,
            "full": full,
            "sequence": sequence,
            "unfinished_messages": unfinished,
            "rollback_at": rollback_at.map(rfc3339),
        },
        "agents": agents,
        "tasks": tasks,
        "messages": messages,
        "messages_pending": pending,
        "damage": core.missing(),
    }))
}

/// How many messages stand where, and how many wait in mailboxes.
fn counted(messages: &Messages) -> (BTreeMap<&'static str, u64>, u64) {
    let (mut counts, mut pending) = (BTreeMap::new(), 0);
    for ((_, direction, status), count) in messages.counts().iter().filter(|(_, count)| **count > 0)
    {
        *counts.entry(status.as_str()).or_default() += count;
        let waits = matches!(status, Status::Pending | Status::Sending);
        if *direction == Direction::Outbound && waits {
            pending += count;
        }
    }
    (counts, pending)
}
