//! `loki store`: the store itself, of a bridge or a server. One file a command; `open.rs` opens a
//! store for the other commands.

mod backup;
mod check;
mod compact;
mod export;
mod import;
mod info;
mod lines;
mod migrate;
mod open;
mod rebuild;

use clap::Subcommand;

use super::Done;
use super::arguments::Global;

pub use open::{
    agent_id, check_free, check_there, close, folder, is_held, is_of_server, make, open,
    past_failure, post,
};

/// The commands about the store.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy the store into a new folder, also while it is in use
    Backup(backup::Arguments),
    /// Read all of it and name what is damaged, and which messages that touches
    Check(check::Arguments),
    /// Write everything as JSON Lines, to be read by people or by `import`
    Export(export::Arguments),
    /// Make a store from an export; one that has something is left alone
    Import(import::Arguments),
    /// Make the rows of all messages again, from the journal
    Rebuild(rebuild::Arguments),
    /// Show what the store takes on the disk
    Info,
    /// Write every file of the journal anew that has content which nobody keeps
    Compact,
    /// Bring the store of an older version to the format of this one, as a start does by itself
    Migrate(migrate::Arguments),
}

/// Runs the command.
pub async fn run(global: &Global, command: &Command) -> Done {
    match command {
        Command::Backup(backup) => backup::run(global, backup).await,
        Command::Check(check) => check::run(global, check).await,
        Command::Export(export) => export::run(global, export).await,
        Command::Import(import) => import::run(global, import).await,
        Command::Rebuild(rebuild) => rebuild::run(global, rebuild).await,
        Command::Info => info::run(global).await,
        Command::Compact => compact::run(global).await,
        Command::Migrate(migrate) => migrate::run(global, migrate),
    }
}
