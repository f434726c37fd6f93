//! `loki enterprise audit`: the audit log of the bridge, running or not. It changes nothing.

mod follow;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::arguments::Global;
use super::failure::Code;
use super::{Done, look, moment, output_of, past};
use follow::{Begin, PAUSE, follow};

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
    Tail(Tail),
}

/// Which entries.
#[derive(Args, Debug)]
pub struct Tail {
    /// How many, up to 1000
    #[arg(short = 'n', value_name = "COUNT", default_value_t = 20)]
    count: usize,
    /// Go on with those that come, through stops and starts of the bridge
    #[arg(short, long)]
    follow: bool,
    /// Only these events; a trailing * stands for any ending. May be given more than once
    #[arg(long)]
    event: Vec<String>,
    /// Only of this level or a graver one
    #[arg(long, value_parser = ["debug", "info", "warning", "error"])]
    level: Option<String>,
    /// Only what this agent or person caused
    #[arg(long)]
    actor: Option<String>,
    /// Only since this time: 2026-02-15T14:30:00Z, or 15m for the last 15 minutes
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    since: Option<String>,
}

/// The columns, the most important first.
const COLUMNS: [&str; 6] = ["timestamp", "event", "level", "resource", "actor", "details"];

/// Runs the command.
pub async fn run(global: &Global, command: Command) -> Done {
    let Command::Audit(Audit::Tail(tail)) = command;
    let config = look(global)?;
    let mut filters: Vec<(&str, String)> = Vec::new();
    filters.extend(tail.event.into_iter().map(|event| ("event", event)));
    filters.extend(tail.level.map(|level| ("level", level)));
    filters.extend(tail.actor.map(|actor| ("actor", actor)));
    let since = tail.since.map(|since| ("start", since));
    let mut query = filters.clone();
    // Of none the newest is still the one after which to go on.
    query.push(("limit", tail.count.max(1).to_string()));
    query.extend(since.clone());
    let answer = loop {
        match past::get(&config, "/api/audit", &query).await {
            // A bridge that starts or ends has no answer for a moment.
            Err(failure) if tail.follow && failure.code == Code::Unreachable => {
                tokio::time::sleep(PAUSE).await;
            }
            answer => break answer?,
        }
    };
    let mut entries = answer["entries"].as_array().cloned().unwrap_or_default();
    // The newest stands last, as in every tail.
    entries.reverse();
    let last = entries.last().cloned();
    if tail.count == 0 {
        entries.clear();
    }
    if tail.follow {
        let begin = Begin { last, since };
        return follow(global, &config, filters, (entries, begin)).await;
    }
    output_of(global).list(&entries, &COLUMNS);
    Ok(ExitCode::SUCCESS)
}
