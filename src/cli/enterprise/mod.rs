//! `loki enterprise audit`: the audit log of a bridge or a server, running or not. It changes
//! nothing.

mod export;
mod follow;
mod read;
mod search;
mod summary;
mod tail;
mod verify;

use clap::{Args, Subcommand};

use super::arguments::Global;
use super::{Done, moment};

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
    Tail(tail::Arguments),
    /// Count entries by event, level and actor
    Summary(summary::Arguments),
    /// Show the last entries with a text in them
    Search(search::Arguments),
    /// Write entries as JSON Lines, CSV or syslog, the oldest first
    Export(export::Arguments),
    /// Say whether the log is what was recorded, and up to where a peer can tell
    Verify(verify::Arguments),
    /// Write the newest end of this log, and the ends of others that it saw, for their `verify`
    Heads,
}

/// Which entries.
#[derive(Args, Clone, Debug, Default)]
pub struct Filters {
    /// Only these events; a trailing * stands for any ending. May be given more than once
    #[arg(long)]
    event: Vec<String>,
    /// Only of this level or a graver one
    #[arg(long, value_parser = ["debug", "info", "warning", "error"])]
    level: Option<String>,
    /// Only what this agent or person caused
    #[arg(long)]
    actor: Option<String>,
    /// Only what is about this: a message id, a task id, an agent id
    #[arg(long)]
    resource: Option<String>,
    /// Only since this time: 2026-02-15T14:30:00Z, or 15m for the last 15 minutes
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    since: Option<String>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    until: Option<String>,
}

impl Filters {
    /// As the REST interface asks, without the beginning of the period.
    fn query(&self) -> Vec<(&'static str, String)> {
        let events = self.event.iter().map(|event| ("event", event.clone()));
        let one = |name, value: &Option<String>| Some((name, value.clone()?));
        let others = [
            one("level", &self.level),
            one("actor", &self.actor),
            one("resource", &self.resource),
            one("end", &self.until),
        ];
        events.chain(others.into_iter().flatten()).collect()
    }

    /// The beginning of the period, as the REST interface asks.
    fn start(&self) -> Option<(&'static str, String)> {
        Some(("start", self.since.clone()?))
    }

    /// All of it, as the REST interface asks.
    fn whole(&self) -> Vec<(&'static str, String)> {
        self.query().into_iter().chain(self.start()).collect()
    }
}

/// Runs the command.
pub async fn run(global: &Global, command: Command) -> Done {
    let Command::Audit(audit) = command;
    match audit {
        Audit::Tail(arguments) => tail::run(global, arguments).await,
        Audit::Summary(arguments) => summary::run(global, &arguments).await,
        Audit::Search(arguments) => search::run(global, &arguments).await,
        Audit::Export(arguments) => export::run(global, arguments).await,
        Audit::Verify(arguments) => verify::run(global, arguments).await,
        Audit::Heads => verify::heads(global),
    }
}
