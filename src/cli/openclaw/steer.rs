//! `loki openclaw disconnect` and `reconnect`: asks the bridge, and does not wait for the link.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::{Done, look, output_of};

/// Runs the command of this name.
pub async fn run(global: &Global, command: &str) -> Done {
    let bridge = Client::bridge(&look(global)?).await?;
    let answer = bridge.post(&format!("/api/openclaw/{command}"), &json!({})).await?;
    output_of(global).object(&answer, &[]);
    Ok(ExitCode::SUCCESS)
}
