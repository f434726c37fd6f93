//! `loki store rebuild`: makes the rows of all messages again, from the journal.

use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use storage::database::Database;
use storage::journal;

use super::open::{check_free, check_there, close, open};
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output, output_of};
use crate::clock::Clock;
use crate::shutdown::Shutdown;

/// The arguments of the command: it has none of its own.
#[derive(Args, Debug)]
pub struct Arguments {}

/// Between two looks at how far it is.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs the command.
pub async fn run(global: &Global, _: &Arguments) -> Done {
    let config = look(global)?;
    let dir = config.openclaw.data_dir;
    check_there(&dir)?;
    check_free(&dir)?;
    let failed = |error: &dyn std::fmt::Display| Failure::new(Code::Store, error.to_string());
    {
        let _lock = journal::lock(&dir.join("journal")).map_err(|error| failed(&error))?;
        let rows = dir.join("messages");
        match fs::remove_dir_all(&rows) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed(&format!("cannot remove {}: {error}", rows.display())));
            }
            _ => {}
        }
    }
    let database = open(&dir, &config.openclaw.store, &Clock::system(), &Shutdown::default())?;
    let rows = watch(&database).await;
    let frames = database.view().lag().applied;
    close(database)?;
    let messages = rows.map_err(|error| failed(&error))?;
    let answer =
        json!({ "store": dir.display().to_string(), "frames": frames, "messages": messages });
    output_of(global).object(&answer, &["store", "frames", "messages"]);
    Ok(ExitCode::SUCCESS)
}

/// Shows how far it is, until every row is there; then counts them.
async fn watch(database: &Database) -> Result<u64, storage::view::ViewError> {
    let view = database.view().clone();
    let settled = tokio::task::spawn_blocking(move || view.settle());
    let bar = output::is_terminal().then(|| {
        let bar = ProgressBar::new(database.view().lag().published);
        let style = ProgressStyle::with_template("{bar:30} frame {pos} of {len}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        output::screen().add(bar)
    });
    while !settled.is_finished() {
        if let Some(bar) = &bar {
            let lag = database.view().lag();
            bar.set_length(lag.published);
            bar.set_position(lag.applied);
        }
        tokio::time::sleep(PAUSE).await;
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    settled.await.unwrap_or(Err(storage::view::ViewError::Closed))?;
    Ok(database.store().messages(|messages| messages.counts().values().sum()))
}
