//! `loki openclaw tasks`: the tasks of the running bridge.

use std::process::ExitCode;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::{Done, look, output_of};

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let bridge = Client::bridge(&look(global)?)?;
    let answer = bridge.get("/api/openclaw/tasks", &[]).await?;
    let tasks = answer["tasks"].as_array().cloned().unwrap_or_default();
    let columns = ["task_id", "origin", "type", "status", "attempt", "agent", "description"];
    output_of(global).list(&tasks, &columns);
    Ok(ExitCode::SUCCESS)
}
