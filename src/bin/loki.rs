//! The agent side program.
fn main() {}
