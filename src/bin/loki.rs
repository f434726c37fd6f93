//! The agent side program.

use std::process::ExitCode;

/// What one thread takes and another one frees costs a third less than with that of glibc, and the
/// memory of a large backlog stays as small.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    loki_openclaw::cli::main()
}
