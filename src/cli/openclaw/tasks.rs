//! `loki openclaw tasks`: the tasks of the bridge, running or not, or of the server whose data
//! directory this is.

use std::process::ExitCode;

use serde_json::Value;
use storage::record::Kind;

use crate::bridge::task;
use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::{Done, look, output_of, past, store};
use crate::config::BridgeConfig;
use crate::server::model::{Task, decode};
use crate::server::view;

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let config = look(global)?;
    let tasks = match Client::holder(&config)? {
        Some(holder) => match holder.all("/api/openclaw/tasks", "tasks").await {
            Err(failure) if failure.absent => holder.all("/tasks", "tasks").await?,
            answer => answer?,
        },
        None => stopped(&config).await?,
    };
    let of_server = tasks.first().is_some_and(|task| task.get("task_type").is_some());
    let columns: &[&str] = if of_server {
        &["task_id", "task_type", "status", "attempt", "agent_id", "description"]
    } else {
        &["task_id", "origin", "type", "status", "attempt", "agent", "description"]
    };
    output_of(global).list(&tasks, columns);
    Ok(ExitCode::SUCCESS)
}

async fn stopped(config: &BridgeConfig) -> Result<Vec<Value>, Failure> {
    let inspect = past::inspect(config).await?;
    let state = inspect.state();
    if store::is_of_server(&state.ledger) {
        let entities = state.ledger.scan(Kind::Task, "");
        let tasks = entities.filter_map(|(_, entity)| decode::<Task>(&entity.value));
        let shown = tasks.map(|task| view::task(&task));
        return Ok(shown.filter_map(|one| serde_json::from_str(one.get()).ok()).collect());
    }
    let tasks = task::list(&state.ledger, &config.openclaw.namespace);
    Ok(tasks.iter().filter_map(|task| serde_json::to_value(task).ok()).collect())
}
