//! The journal's guarantees, each a test that fails without it; one binary.

mod damage;
mod layout;
mod model;
mod recovery;
mod search;
mod support;
