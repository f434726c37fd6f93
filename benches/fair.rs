//! `cargo bench --bench fair`: see `suite/fair.rs`.

#[path = "suite/fair.rs"]
mod fair;
#[path = "support/mod.rs"]
mod support;

fn main() -> support::Outcome<()> {
    fair::measure(support::is_short())?.print()
}
