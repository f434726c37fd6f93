//! `loki config`: shows the settings with their sources. It judges and changes nothing.

use std::process::ExitCode;

use clap::Subcommand;

use super::arguments::Global;
use super::{Done, output_of};
use crate::config::{BridgeConfig, process_environment};

/// The commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show every setting, its value, and where that was given
    Show,
}

/// Runs the command.
pub fn run(global: &Global, command: &Command) -> Done {
    let Command::Show = command;
    let loaded = BridgeConfig::unchecked(&global.overrides(), &process_environment())?;
    for warning in &loaded.warnings {
        super::output::say(&format!("warning: {warning}"));
    }
    let settings = loaded.describe();
    let values: Vec<_> = settings.iter().filter_map(|it| serde_json::to_value(it).ok()).collect();
    output_of(global).texts(&values, &["name", "value", "source"]);
    Ok(ExitCode::SUCCESS)
}
