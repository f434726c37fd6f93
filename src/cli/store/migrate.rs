//! `loki store migrate`: brings the store to the format of this version, or says what that would
//! do. A start does it by itself.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::open::{check_free, check_there, close, migrate_failure, migrated};
use crate::cli::arguments::Global;
use crate::cli::{Done, look, output_of};
use crate::clock::Clock;
use crate::shutdown::Shutdown;

/// How.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(global: &Global, arguments: &Arguments) -> Done {
    let config = look(global)?;
    let dir = &config.openclaw.data_dir;
    check_there(dir)?;
    check_free(dir)?;
    let plan = migrations::plan(dir).map_err(|error| migrate_failure(dir, &error))?;
    let mut answer = json!({
        "store": dir.display().to_string(),
        "from": plan.from,
        "to": plan.to,
        "needed": plan.is_needed(),
        "files": plan.files.len(),
        "bytes": plan.bytes,
        "done": false,
    });
    if !arguments.dry_run {
        let (database, done) =
            migrated(dir, &config.openclaw.store, &Clock::system(), &Shutdown::default())?;
        close(database)?;
        if let Some(done) = done {
            answer["done"] = true.into();
            answer["left"] = done.left.into();
        }
    }
    output_of(global).object(&answer, &["store", "from", "to", "needed", "files", "bytes"]);
    Ok(ExitCode::SUCCESS)
}
