//! `cargo bench --bench enqueue`: see `suite/enqueue.rs`.

#[path = "suite/enqueue.rs"]
mod enqueue;
#[path = "support/mod.rs"]
mod support;

fn main() -> support::Outcome<()> {
    enqueue::measure(support::is_short())?.print()
}
