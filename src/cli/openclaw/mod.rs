//! `loki openclaw`: looks at the bridge, running or not, and its server, and steers the bridge.

mod agents;
mod cancel;
mod explain;
mod messages;
mod pause;
mod prune;
mod retry;
mod selection;
mod send;
mod show;
mod status;
mod steer;
mod submit;
mod tasks;
mod test;

use clap::Subcommand;

use super::Done;
use super::arguments::Global;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Whether the bridge is connected, and what waits
    Status,
    /// Send the server a test message, and tell how long it took
    Test,
    /// List messages, newest first
    Messages(messages::Arguments),
    /// Show one message with its content and history
    Show {
        /// Its id
        id: String,
    },
    /// Say in one sentence why a message is not delivered yet, or what became of it
    Explain {
        /// Its id
        id: String,
    },
    /// List the agents that the server knows
    Agents,
    /// Send a message
    Send(send::Arguments),
    /// Send failed messages again: these, or all
    Retry(retry::Arguments),
    /// End messages that nobody wants delivered any more: these, or all that failed
    Prune(prune::Arguments),
    /// Hold deliveries, all or those to one agent, also over a restart
    Pause(pause::Arguments),
    /// Let paused deliveries go on
    Resume(pause::Arguments),
    /// End the session and stay away
    Disconnect,
    /// Connect now
    Reconnect,
    /// List the tasks of the bridge
    Tasks,
    /// Submit a task to the server
    Submit(submit::Arguments),
    /// Ask the server to cancel a task
    Cancel {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Runs the command.
pub async fn run(global: &Global, command: Command) -> Done {
    match command {
        Command::Status => status::run(global).await,
        Command::Test => test::run(global).await,
        Command::Messages(arguments) => messages::run(global, arguments).await,
        Command::Show { id } => show::run(global, &id).await,
        Command::Explain { id } => explain::run(global, &id).await,
        Command::Agents => agents::run(global).await,
        Command::Send(arguments) => send::run(global, arguments).await,
        Command::Retry(arguments) => retry::run(global, arguments).await,
        Command::Prune(arguments) => prune::run(global, arguments).await,
        Command::Pause(arguments) => pause::run(global, "pause", arguments).await,
        Command::Resume(arguments) => pause::run(global, "resume", arguments).await,
        Command::Disconnect => steer::run(global, "disconnect").await,
        Command::Reconnect => steer::run(global, "reconnect").await,
        Command::Tasks => tasks::run(global).await,
        Command::Cancel { id, reason } => cancel::run(global, &id, reason).await,
        Command::Submit(arguments) => submit::run(global, arguments).await,
    }
}
