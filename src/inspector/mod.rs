//! What people ask of a store's messages, the same of a bridge and of a server, whether the program
//! runs or not, and what they do with those that wait for a person. It knows no route.

pub mod answer;
pub mod bulk;
pub mod causes;
pub mod changes;
pub mod explain;
pub mod history;
pub mod look;
pub mod receipt;
pub mod rot;
pub mod selection;
pub mod tries;

use crate::protocol::{ErrorCode, Refusal};

/// The refusal when the store has no answer.
fn unavailable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, error.to_string())
}
