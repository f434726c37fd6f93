//! `loki store info`: what the store takes on the disk, from the running bridge, or read from the
//! folder of a stopped program or of a server.

use std::process::ExitCode;

use serde_json::Value;
use storage::info::{Tally, info};
use storage::view::{Filter, PAGE_ROWS_MAX};

use super::open::check_there;
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output_of, past};
use crate::config::BridgeConfig;
use crate::upkeep;

/// The members in the order in which a person needs them.
const MEMBERS: [&str; 17] = [
    "format",
    "segments",
    "bytes",
    "live_bytes",
    "spare_segments",
    "spare_bytes",
    "reserve_bytes",
    "quarantined_files",
    "quarantined_bytes",
    "first_frame",
    "last_frame",
    "recorded_since",
    "oldest_unfinished",
    "last_trim",
    "last_compaction",
    "full",
    "messages",
];

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let config = look(global)?;
    check_there(&config.openclaw.data_dir)?;
    let answer = match past::asked(&config, "/api/openclaw/store", &[]).await? {
        Some(answer) => answer,
        None => of_folder(&config).await?,
    };
    output_of(global).object(&answer, &MEMBERS);
    Ok(ExitCode::SUCCESS)
}

async fn of_folder(config: &BridgeConfig) -> Result<Value, Failure> {
    let inspect = past::inspect(config).await?;
    let dir = config.openclaw.data_dir.clone();
    let retention = upkeep::retention(&config.openclaw.store, config.openclaw.retention);
    let read = tokio::task::spawn_blocking(move || {
        let mut tally = Tally::new(retention, inspect.state().time);
        let mut filter = Filter { limit: PAGE_ROWS_MAX, ..Filter::default() };
        loop {
            let page = inspect.list(&filter);
            page.rows.iter().for_each(|row| tally.count(row));
            filter.after = page.next;
            if filter.after.is_none() {
                return info(&dir, inspect.reader(), tally);
            }
        }
    });
    let failed = |error: &dyn std::fmt::Display| Failure::new(Code::Store, error.to_string());
    let info = read.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok(upkeep::shown(&info, None))
}
