//! `cargo bench --bench peers`: see `suite/peers/mod.rs`.

#[path = "suite/peers/mod.rs"]
mod peers;
#[path = "support/mod.rs"]
mod support;

fn main() -> support::Outcome<()> {
    peers::measure(support::is_short())?.print()
}
