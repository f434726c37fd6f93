//! `loki openclaw status`: 0 when the bridge is connected, 1 when it is not, also when it is
//! stopped: then its journal tells what waits and when it was connected last.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};
use storage::event::Event;
use storage::fold::State;
use storage::inspect::{AuditEntry, AuditFilter, Inspect};
use storage::record::Kind;

use crate::bridge::status::{Found, LinkState, Owner, shown};
use crate::bridge::{oldest, task};
use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output, output_of, past, store};
use crate::clock::{Clock, rfc3339};
use crate::config::BridgeConfig;
use crate::server::model::{Agent, Task, decode};

/// The members in the order in which a person needs them.
const MEMBERS: [&str; 16] = [
    "connected",
    "running",
    "agent_id",
    "namespace",
    "server",
    "since",
    "last_error",
    "last_connected_at",
    "storage_full",
    "transport",
    "circuit",
    "paused",
    "messages_pending",
    "oldest_pending_seconds",
    "messages",
    "tasks",
];

/// The same of a server.
const OF_SERVER: [&str; 6] = ["status", "ready", "agents", "tasks", "messages", "messages_pending"];

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let config = look(global)?;
    let status = match past::asked(&config, "/api/openclaw/status", &[]).await? {
        Some(status) => status,
        None => match Client::holder(&config)? {
            Some(server) => return of_server(global, &server).await,
            None => stopped(&config).await?,
        },
    };
    output_of(global).object(&status, &MEMBERS);
    if let Some(count @ 1..) = status["messages"]["failed"].as_u64() {
        let (list, again) = ("loki openclaw messages --status failed", "loki openclaw retry");
        output::say(&format!("failed for good: {count}; see `{list}`, send again with `{again}`"));
    }
    let connected = status["connected"] == json!(true);
    Ok(if connected { ExitCode::SUCCESS } else { Code::NotSo.into() })
}

/// The data directory belongs to a server, which is as good as connected when it is well.
async fn of_server(global: &Global, server: &Client) -> Done {
    let mut health = server.get("/health", &[]).await?;
    for counts in ["agents", "tasks"] {
        // As a store tells it, which knows only those that there are.
        if let Some(counts) = health[counts].as_object_mut() {
            counts.retain(|_, count| *count != json!(0));
        }
    }
    output_of(global).object(&health, &OF_SERVER);
    let well = health["status"] == json!("ok");
    Ok(if well { ExitCode::SUCCESS } else { Code::NotSo.into() })
}

async fn stopped(config: &BridgeConfig) -> Result<Value, Failure> {
    let inspect = past::inspect(config).await?;
    let unreadable = |error: &dyn std::fmt::Display| Failure::new(Code::Store, error.to_string());
    let events = [Event::Connect, Event::Disconnect];
    let read = tokio::task::spawn_blocking(move || {
        let newest = events.map(|event| newest(&inspect, event));
        (inspect, newest)
    });
    let (inspect, newest) = read.await.map_err(|error| unreadable(&error))?;
    let [connect, disconnect] = newest.map(|one| one.map_err(|error| unreadable(&error)));
    let (state, connect) = (inspect.state(), connect?);
    let status = told(config, state, connect.as_ref(), disconnect?.as_ref())?;
    let (of_server, dir) = (store::is_of_server(&state.ledger), config.openclaw.data_dir.display());
    let program = if of_server { "server" } else { "bridge" };
    output::say(&format!("the {program} is stopped; this is what {dir} tells"));
    Ok(if of_server { told_of_server(state, &status) } else { status })
}

fn told(
    config: &BridgeConfig,
    state: &State,
    connect: Option<&AuditEntry>,
    disconnect: Option<&AuditEntry>,
) -> Result<Value, Failure> {
    let bridge = &config.openclaw;
    let agent_id = store::agent_id(&bridge.data_dir, bridge.agent_id.as_deref(), false)?;
    let owner = Owner {
        agent_id: &agent_id,
        namespace: &bridge.namespace,
        server: bridge.endpoint.as_deref(),
    };
    // A bridge that was killed had no time to say that it is gone.
    let (since, last_error) = match (connect, disconnect) {
        (None, None) => (None, "it was never connected".to_owned()),
        (connect, Some(end)) if connect.is_none_or(|begin| begin.entry < end.entry) => {
            (Some(end.time), detail(end))
        }
        _ => (Some(state.time), "it was killed while it was connected".to_owned()),
    };
    let link = LinkState { since, last_error: Some(last_error), ..LinkState::default() };
    let now = Clock::system().now();
    let mut tasks = BTreeMap::new();
    for task in task::list(&state.ledger, &bridge.namespace) {
        *tasks.entry(task.status.as_str().to_owned()).or_default() += 1;
    }
    let found = Found { tasks, oldest: oldest::of(&state.messages) };
    let snapshot = shown(owner, (&state.messages, &state.ledger), found, &link, now);
    let mut status = serde_json::to_value(snapshot).unwrap_or_default();
    status["running"] = false.into();
    status["circuit"] = "stopped".into();
    status["last_connected_at"] = connect.map(|entry| rfc3339(entry.time)).into();
    Ok(status)
}

/// The same for the store of a server, which has agents and no link.
fn told_of_server(state: &State, status: &Value) -> Value {
    let (mut tasks, mut agents) = (BTreeMap::new(), BTreeMap::new());
    for (_, entity) in state.ledger.scan(Kind::Task, "") {
        if let Some(task) = decode::<Task>(&entity.value) {
            *tasks.entry(task.status.as_str()).or_insert(0_u64) += 1;
        }
    }
    for (_, entity) in state.ledger.scan(Kind::Agent, "") {
        if let Some(agent) = decode::<Agent>(&entity.value) {
            *agents.entry(agent.status.as_str()).or_insert(0_u64) += 1;
        }
    }
    json!({
        "connected": false,
        "running": false,
        "status": "stopped",
        "ready": false,
        "since": rfc3339(state.time),
        "messages": status["messages"],
        "messages_pending": status["messages_pending"],
        "oldest_pending_seconds": status["oldest_pending_seconds"],
        "tasks": tasks,
        "agents": agents,
        "version": status["version"],
    })
}

/// The newest entry of an event.
fn newest(
    inspect: &Inspect,
    event: Event,
) -> Result<Option<AuditEntry>, storage::journal::ReadError> {
    let events = vec![event.name().to_owned()];
    let filter = AuditFilter { events, limit: 1, ..AuditFilter::default() };
    Ok(inspect.audit(&filter)?.entries.into_iter().next())
}

fn detail(entry: &AuditEntry) -> String {
    let details: Value = serde_json::from_str(&entry.record.details).unwrap_or_default();
    details["detail"].as_str().unwrap_or("it was stopped").to_owned()
}
