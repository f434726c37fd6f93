//! The command line as types. It runs nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{config, doctor, enterprise, openclaw, start, store};
use crate::config::{LogFormat, Overrides};

/// Runs the tasks of a PRD with the agents of this machine, alone or through OpenClaw.
#[derive(Debug, Parser)]
#[command(name = "loki", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Under the help of the program, section 9 of the protocol.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 not so (a task failed, not connected, no such id); \
                          2 usage, configuration, port taken; 3 store; 4 nobody answers; 5 refused";

/// Over the options that every command has.
const HEADING: &str = "Options of every command";

/// What holds for every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// The configuration file, instead of .loki/config.yaml
    #[arg(long, global = true, value_name = "PATH", help_heading = HEADING)]
    pub config: Option<PathBuf>,
    /// The folder of the store, instead of .loki/openclaw
    #[arg(long, global = true, value_name = "PATH", help_heading = HEADING)]
    pub data_dir: Option<PathBuf>,
    /// Data as JSON, lists as a line each
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, help_heading = HEADING, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What is said with -v, as lines of text or of JSON
    #[arg(long, global = true, help_heading = HEADING, value_name = "FORM")]
    #[arg(env = "LOKI_LOG_FORMAT", hide_env_values = true, value_parser = ["text", "json"])]
    pub log_format: Option<String>,
}

impl Global {
    /// In which form it logs.
    pub fn log_format(&self) -> LogFormat {
        match self.log_format.as_deref() {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Text,
        }
    }

    /// What the command line says about the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            ..Overrides::default()
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Do the tasks of a PRD, or take tasks from the server
    Start(start::Arguments),
    /// Have the running bridge drain and stop, and wait for its end
    Stop,
    /// Look at the bridge, running or not, and steer it
    #[command(subcommand)]
    Openclaw(openclaw::Command),
    /// Look at the audit log
    #[command(subcommand)]
    Enterprise(enterprise::Command),
    /// Look after the store on the disk
    #[command(subcommand)]
    Store(store::Command),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Check that everything that a start needs is there
    Doctor(doctor::Arguments),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Supervise one run; the bridge starts itself so
    #[command(hide = true)]
    Supervise {
        /// The folder of the run
        run_dir: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_stand_anywhere() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).expect(line).global;
        for line in ["loki --json openclaw status", "loki openclaw status --json"] {
            assert!(parse(line).json);
        }
        let global = parse("loki start -vv --data-dir d --openclaw prd.md");
        assert_eq!((global.verbose, global.data_dir), (2, Some("d".into())));
    }

    #[test]
    fn what_is_not_a_command_is_refused() {
        for line in ["loki", "loki begin", "loki openclaw send", "loki openclaw messages --limit x"]
        {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
