//! `/health`: whether the server works, and what it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

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
    }))
}
