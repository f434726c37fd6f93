//! `loki store`: the store itself, of a bridge or a server. One file a command; `open.rs` opens a
//! store for the other commands.

mod migrate;
mod open;

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
    /// Bring the store of an older version to the format of this one, as a start does by itself
    Migrate(migrate::Arguments),
}

/// Runs the command.
pub fn run(global: &Global, command: &Command) -> Done {
    match command {
        Command::Migrate(migrate) => migrate::run(global, migrate),
    }
}
