//! `cargo bench --bench audit`: see `suite/audit.rs`.

#[path = "suite/audit.rs"]
mod audit;
#[path = "support/mod.rs"]
mod support;

fn main() -> support::Outcome<()> {
    audit::measure(support::is_short())?.print()
}
