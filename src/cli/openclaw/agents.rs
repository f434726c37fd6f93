//! `loki openclaw agents`: the agents that the server knows.

use std::process::ExitCode;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::{Done, look, output_of};

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let server = Client::server(&look(global)?)?;
    let answer = server.get("/agents", &[]).await?;
    let agents = answer["agents"].as_array().cloned().unwrap_or_default();
    let columns = ["agent_id", "namespace", "status", "agent_types", "last_heartbeat"];
    output_of(global).list(&agents, &columns);
    Ok(ExitCode::SUCCESS)
}
