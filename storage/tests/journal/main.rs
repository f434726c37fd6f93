//! The journal's guarantees, each a test that fails without it; one binary.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::cast_possible_truncation, reason = "made-up bytes are cut to size")]

mod damage;
mod layout;
mod model;
mod recovery;
mod search;
mod support;
