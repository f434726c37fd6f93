//! `loki store rebuild`: makes the rows of all messages again, from the journal.

use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use storage::database::Database;
use storage::journal;

use super::open::{check_free, check_there, close, open};
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::waiting::Waiting;
use crate::cli::{Done, look, output_of};
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
    let waiting = Waiting::new(global, "opening the store");
    let database = open(&dir, &config.openclaw.store, &Clock::system(), &Shutdown::default())?;
    waiting.step("making the rows");
    let rows = watch(&database, &waiting).await;
    let frames = database.view().lag().applied;
    waiting.step("closing the store");
    close(database)?;
    drop(waiting);
    let messages = rows.map_err(|error| failed(&error))?;
    let answer =
        json!({ "store": dir.display().to_string(), "frames": frames, "messages": messages });
    output_of(global).object(&answer, &["store", "frames", "messages"]);
    Ok(ExitCode::SUCCESS)
}

/// Waits until every row is there, and tells how far that is; then counts them.
async fn watch(database: &Database, waiting: &Waiting) -> Result<u64, storage::view::ViewError> {
    let view = database.view().clone();
    let settled = tokio::task::spawn_blocking(move || view.settle());
    while !settled.is_finished() {
        let lag = database.view().lag();
        waiting.at(lag.applied, lag.published);
        tokio::time::sleep(PAUSE).await;
    }
    settled.await.unwrap_or(Err(storage::view::ViewError::Closed))?;
    let lag = database.view().lag();
    waiting.at(lag.applied, lag.published);
    Ok(database.store().messages(|messages| messages.counts().values().sum()))
}
