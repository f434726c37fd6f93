//! `/health`: whether the server works, and what it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use storage::record::Kind;

use crate::server::core::Core;
use crate::server::model::{Agent, Task, decode};

/// `GET /health`.
pub(super) async fn show(State(core): State<Arc<Core>>) -> Json<Value> {
    // A round trip through the committer, because a server that cannot write is of no use.
    let writes = core.decided(|_| Ok(())).await.is_ok();
    let stopping = *core.stopping.borrow();
    let ledger = core.store.ledger();
    let mut tasks: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, entity) in ledger.scan(Kind::Task, "") {
        if let Some(task) = decode::<Task>(&entity.value) {
            *tasks.entry(task.status.as_str()).or_default() += 1;
        }
    }
    let mut agents: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, entity) in ledger.scan(Kind::Agent, "") {
        if let Some(agent) = decode::<Agent>(&entity.value) {
            *agents.entry(agent.status.as_str()).or_default() += 1;
        }
    }
    let (sequence, unfinished) =
        core.store.state(|state| (state.sequence, state.messages.live_len()));
    let uptime = core.clock.monotonic().saturating_sub(core.started) / 1_000;
    Json(json!({
        "status": if writes { "ok" } else { "degraded" },
        "ready": writes && !stopping,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": uptime,
        "storage": {
            "writable": writes,
            "sequence": sequence,
            "unfinished_messages": unfinished,
        },
        "agents": agents,
        "tasks": tasks,
    }))
}
