//! Reads the journal by event type.
