//! `loki store backup`: copies the store into a new folder, from which it opens by itself. It reads
//! what is on the disk, so that it works beside a running bridge or server, and without one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use storage::backup::{Backup, BackupError, backup};
use storage::journal::Syncer;

use super::open::{AGENT_ID_FILE, check_there};
use crate::audit::heads::hex;
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output_of};

/// Where to.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A new or empty folder. To go on from it, name it with --data-dir, or put it in the place of
    /// the store's
    dir: PathBuf,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: &Arguments) -> Done {
    let dir = look(global)?.openclaw.data_dir;
    check_there(&dir)?;
    let (from, to) = (dir.clone(), arguments.dir.clone());
    let made = tokio::task::spawn_blocking(move || {
        backup(&from, &to, &[AGENT_ID_FILE], &Syncer::default())
    });
    let failed = |error: &dyn std::fmt::Display| Failure::new(Code::Store, error.to_string());
    let made = made.await.map_err(|error| failed(&error))?;
    let Backup { journal, head, files, bytes } = made.map_err(|error| match error {
        BackupError::NotEmpty { .. } => Failure::new(Code::Usage, error.to_string()),
        other => failed(&other),
    })?;
    let answer = json!({
        "store": dir.display().to_string(),
        "backup": arguments.dir.display().to_string(),
        "journal": hex(&journal),
        "epoch": head.position.epoch,
        "sequence": head.position.sequence,
        "hash": hex(&head.hash),
        "files": files,
        "bytes": bytes,
    });
    output_of(global).object(&answer, &["store", "backup", "sequence", "files", "bytes"]);
    Ok(ExitCode::SUCCESS)
}
