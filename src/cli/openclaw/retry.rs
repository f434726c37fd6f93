//! `loki openclaw retry`: sends failed messages again, these or all.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::{Done, look, output_of};

/// Runs the command.
pub async fn run(global: &Global, ids: Vec<String>) -> Done {
    let bridge = Client::bridge(&look(global)?)?;
    let answer = bridge.post("/api/openclaw/retry", &json!({ "message_ids": ids })).await?;
    output_of(global).object(&answer);
    Ok(ExitCode::SUCCESS)
}
