//! The command line of `loki`: one file a command. A command parses, builds, runs and returns an
//! exit code; what it does is elsewhere.

mod arguments;
mod client;
mod config;
mod doctor;
mod enterprise;
mod failure;
mod moment;
mod openclaw;
mod output;
mod past;
mod start;
mod stop;
mod store;
mod trace;
mod waiting;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tracing_appender::non_blocking::WorkerGuard;

use crate::config::{BridgeConfig, process_environment};
use crate::executor::supervise;
use crate::logging;

use arguments::{Arguments, Command, Global};
use failure::{Code, Failure};
use output::Output;

/// What a command did: everything, or something that is not so.
type Done = Result<ExitCode, Failure>;

/// Runs `loki` with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and the version come this way too, and are no error.
            let code = if error.use_stderr() { Code::Usage.into() } else { ExitCode::SUCCESS };
            let _ = error.print();
            return code;
        }
    };
    if let Command::Supervise { run_dir } = &arguments.command {
        return ExitCode::from(supervise::main(run_dir));
    }
    let done = run(arguments);
    output::end();
    match done {
        Ok(code) => code,
        Err(failure) => {
            output::error(&failure);
            failure.code.into()
        }
    }
}

fn run(arguments: Arguments) -> Done {
    let _log = log_to_stderr(&arguments.global);
    // Another provider that is there already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(dispatch(arguments))
}

async fn dispatch(arguments: Arguments) -> Done {
    let global = &arguments.global;
    match arguments.command {
        Command::Start(start) => start::run(global, start).await,
        Command::Stop => stop::run(global).await,
        Command::Openclaw(command) => openclaw::run(global, command).await,
        Command::Enterprise(command) => enterprise::run(global, command).await,
        Command::Store(command) => store::run(global, &command).await,
        Command::Config(command) => config::run(global, &command),
        Command::Doctor(doctor) => doctor::run(global, &doctor).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "loki", &mut script);
            output::raw(&script);
            Ok(ExitCode::SUCCESS)
        }
        // Taken before there is a runtime.
        Command::Supervise { .. } => Ok(ExitCode::SUCCESS),
    }
}

/// The configuration, for commands that only look.
fn look(global: &Global) -> Result<BridgeConfig, Failure> {
    let loaded = BridgeConfig::unchecked(&global.overrides(), &process_environment())?;
    Ok(loaded.config)
}

fn output_of(global: &Global) -> Output {
    Output { json: global.json }
}

fn log_to_stderr(global: &Global) -> WorkerGuard {
    let level = match global.verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    logging::start(level, global.log_format(), logging::has_colours(), output::Talk)
}
