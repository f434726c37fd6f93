//! `cargo bench --bench steady`: see `suite/steady.rs`.

#[path = "suite/steady.rs"]
mod steady;
#[path = "support/mod.rs"]
mod support;

fn main() -> support::Outcome<()> {
    steady::measure(support::is_short())?.print()
}
