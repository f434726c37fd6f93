//! `loki openclaw messages`: the messages of the bridge, running or not, newest first.

use std::process::ExitCode;

use clap::Args;

use crate::cli::arguments::Global;
use crate::cli::{Done, look, output_of, past};

/// Which messages.
#[derive(Args, Debug)]
pub struct Arguments {
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Of this status
    #[arg(long)]
    status: Option<String>,
    /// outbound or inbound
    #[arg(long)]
    direction: Option<String>,
    /// Of this type
    #[arg(long = "type")]
    message_type: Option<String>,
    /// To or from this agent
    #[arg(long)]
    peer: Option<String>,
    /// About this task
    #[arg(long)]
    task_id: Option<String>,
    /// Written at this time or later
    #[arg(long)]
    since: Option<String>,
    /// Written before this time
    #[arg(long)]
    until: Option<String>,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let config = look(global)?;
    let optional = [
        ("status", arguments.status),
        ("direction", arguments.direction),
        ("type", arguments.message_type),
        ("peer", arguments.peer),
        ("task_id", arguments.task_id),
        ("since", arguments.since),
        ("until", arguments.until),
    ];
    let mut query = vec![("limit", arguments.limit.to_string())];
    query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let answer = past::get(&config, "/api/openclaw/messages", &query).await?;
    let messages = answer["messages"].as_array().cloned().unwrap_or_default();
    let columns = ["message_id", "direction", "message_type", "peer", "status", "attempts"];
    output_of(global).list(&messages, &columns);
    Ok(ExitCode::SUCCESS)
}
