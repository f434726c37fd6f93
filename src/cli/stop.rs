//! `loki stop`: asks the running bridge to drain. It does not wait for the end of it.

use std::process::ExitCode;

use serde_json::json;

use super::arguments::Global;
use super::client::Client;
use super::{Done, look, output};

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let bridge = Client::bridge(&look(global)?)?;
    bridge.post("/api/openclaw/stop", &json!({})).await?;
    output::say("the bridge is draining");
    Ok(ExitCode::SUCCESS)
}
