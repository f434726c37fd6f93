//! `cargo bench --bench recover`: see `suite/recover.rs`.

#[path = "suite/recover.rs"]
mod recover;
#[path = "support/mod.rs"]
mod support;

fn main() -> support::Outcome<()> {
    recover::measure(support::is_short())?.print()
}
