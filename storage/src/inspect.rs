//! Looking at a store without touching it.
