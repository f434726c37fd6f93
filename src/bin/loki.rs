//! The agent side program.

use std::path::Path;
use std::process::ExitCode;

use loki_openclaw::executor::supervise;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Hidden: the bridge starts itself so, once for every task.
    match (arguments.next(), arguments.next()) {
        (Some(command), Some(run)) if command == "supervise" => {
            ExitCode::from(supervise::main(Path::new(&run)))
        }
        _ => ExitCode::SUCCESS,
    }
}
