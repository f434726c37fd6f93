//! `loki openclaw retry`: sends failed messages again, these or all, with the bridge running or
//! stopped. A stopped one delivers them at its next start.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::messages::reasons;
use crate::cli::arguments::Global;
use crate::cli::{Done, look, moment, output, output_of, store};

/// Which messages; without any of these, all that failed.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Their ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Of this status, the only one that can be sent again
    #[arg(long, value_parser = ["failed"])]
    status: Option<String>,
    /// That failed for this reason
    #[arg(long, value_parser = reasons())]
    reason: Option<String>,
    /// Of this type
    #[arg(long = "type")]
    message_type: Option<String>,
    /// For this agent
    #[arg(long, visible_alias = "to")]
    peer: Option<String>,
    /// Written at this time or later: 2026-02-15T14:30:00Z, or 15m for the last 15 minutes
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    since: Option<String>,
    /// Written before this time
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    until: Option<String>,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let config = look(global)?;
    let body = json!({
        "message_ids": arguments.ids,
        "status": arguments.status,
        "reason": arguments.reason,
        "type": arguments.message_type,
        "peer": arguments.peer,
        "since": arguments.since,
        "until": arguments.until,
    });
    let (answer, running) = store::post(&config, "/api/openclaw/retry", &body).await?;
    if global.json {
        output_of(global).object(&answer, &[]);
    } else {
        let count = answer["retried"].as_u64().unwrap_or_default();
        let noun = if count == 1 { "message is" } else { "messages are" };
        let when = if running || count == 0 { "" } else { " at the next start of the bridge" };
        output::line(&format!("{count} {noun} sent again{when}"));
    }
    Ok(ExitCode::SUCCESS)
}
