//! `cargo bench --bench lifecycle`: see `suite/lifecycle.rs`.

#[path = "suite/lifecycle.rs"]
mod lifecycle;
#[path = "support/mod.rs"]
mod support;

fn main() -> support::Outcome<()> {
    lifecycle::measure(support::is_short())?.print()
}
