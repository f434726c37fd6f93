//! `loki enterprise audit search`: the last entries with a text in details, resource or actor.

use std::process::ExitCode;

use clap::Args;

use super::Filters;
use super::read::{COLUMNS, Told, newest};
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output_of};

/// What.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The text, in capitals or not
    text: String,
    /// How many, up to 1000
    #[arg(short = 'n', value_name = "COUNT", default_value_t = 20)]
    count: usize,
    #[command(flatten)]
    filters: Filters,
}

/// Runs the command.
pub async fn run(global: &Global, search: &Arguments) -> Done {
    let config = look(global)?;
    if search.text.is_empty() {
        return Err(Failure::new(Code::Usage, "give a text to look for, or use `tail`"));
    }
    let mut query = search.filters.whole();
    query.push(("text", search.text.clone()));
    let entries = newest(&config, &query, search.count, &mut Told::default()).await?;
    output_of(global).list(&entries, &COLUMNS);
    Ok(ExitCode::SUCCESS)
}
