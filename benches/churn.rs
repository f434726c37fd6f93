//! `cargo bench --bench churn`: see `suite/churn.rs`.

#[path = "suite/churn.rs"]
mod churn;
#[path = "support/mod.rs"]
mod support;

fn main() -> support::Outcome<()> {
    churn::measure(support::is_short())?.print()
}
