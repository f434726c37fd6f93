//! The agent side program.

use std::process::ExitCode;

fn main() -> ExitCode {
    loki_openclaw::cli::main()
}
