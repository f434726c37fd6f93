//! `loki openclaw retry`: sends failed messages again, these or all, with the bridge running or
//! stopped. A stopped one delivers them at its next start.

use std::process::ExitCode;

use clap::Args;

use super::selection::Selection;
use crate::cli::arguments::Global;
use crate::cli::{Done, look, output, output_of, store};

/// Which messages; without any of these, all that failed.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Of this status, the only one that can be sent again
    #[arg(long, value_parser = ["failed"])]
    status: Option<String>,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let config = look(global)?;
    let body = arguments.selection.body(arguments.status.as_deref());
    let (answer, running) = store::post(&config, "/api/openclaw/retry", &body).await?;
    if global.json {
        output_of(global).object(&answer, &[]);
    } else {
        let count = answer["retried"].as_u64().unwrap_or_default();
        let noun = if count == 1 { "message is" } else { "messages are" };
        let when = if running || count == 0 { "" } else { " at the next start" };
        output::line(&format!("{count} {noun} sent again{when}"));
    }
    Ok(ExitCode::SUCCESS)
}
