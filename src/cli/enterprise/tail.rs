//! `loki enterprise audit tail`: the last entries, and with `--follow` those that come.

use std::process::ExitCode;

use clap::Args;

use super::Filters;
use super::follow::{Begin, PAUSE, follow};
use super::read::{COLUMNS, Told, newest};
use crate::cli::arguments::Global;
use crate::cli::failure::Code;
use crate::cli::{Done, look, output_of};

/// Which entries.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many, up to 1000
    #[arg(short = 'n', value_name = "COUNT", default_value_t = 20)]
    count: usize,
    /// Go on with those that come, through stops and starts of the bridge
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    filters: Filters,
}

/// Runs the command.
pub async fn run(global: &Global, tail: Arguments) -> Done {
    let config = look(global)?;
    let query = tail.filters.whole();
    // Of none the newest is still the one after which to go on.
    let count = tail.count.max(1);
    let mut told = Told::default();
    let mut entries = loop {
        match newest(&config, &query, count, &mut told).await {
            // A bridge that starts or ends has no answer for a moment.
            Err(failure) if tail.follow && failure.code == Code::Unreachable => {
                tokio::time::sleep(PAUSE).await;
            }
            answer => break answer?,
        }
    };
    let last = entries.last().cloned();
    if tail.count == 0 {
        entries.clear();
    }
    if tail.follow {
        let begin = Begin { last, since: tail.filters.start(), told };
        return follow(global, &config, tail.filters.query(), (entries, begin)).await;
    }
    output_of(global).list(&entries, &COLUMNS);
    Ok(ExitCode::SUCCESS)
}
