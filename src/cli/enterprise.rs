//! `loki enterprise audit`: the audit log of the bridge, running or not. It changes nothing.

use std::process::ExitCode;

use clap::Subcommand;

use super::arguments::Global;
use super::{Done, look, output_of, past};

/// The commands about what companies need.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The audit log
    #[command(subcommand)]
    Audit(Audit),
}

/// The commands about the audit log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Show the last entries
    Tail {
        /// How many
        #[arg(short = 'n', default_value_t = 20)]
        count: usize,
        /// Only these events; a trailing * stands for any ending
        #[arg(long)]
        event: Vec<String>,
        /// Only this level
        #[arg(long)]
        level: Option<String>,
        /// Only what this agent or person caused
        #[arg(long)]
        actor: Option<String>,
        /// Only since this time
        #[arg(long)]
        since: Option<String>,
    },
}

/// Runs the command.
pub async fn run(global: &Global, command: Command) -> Done {
    let Command::Audit(Audit::Tail { count, event, level, actor, since }) = command;
    let config = look(global)?;
    let mut query = vec![("limit", count.to_string())];
    query.extend(event.into_iter().map(|event| ("event", event)));
    query.extend(level.map(|level| ("level", level)));
    query.extend(actor.map(|actor| ("actor", actor)));
    query.extend(since.map(|since| ("start", since)));
    let answer = past::get(&config, "/api/audit", &query).await?;
    let mut entries = answer["entries"].as_array().cloned().unwrap_or_default();
    // The newest stands last, as in every tail.
    entries.reverse();
    let columns = ["timestamp", "event", "level", "actor", "resource", "details"];
    output_of(global).list(&entries, &columns);
    Ok(ExitCode::SUCCESS)
}
