//! Storage.

pub mod journal;
