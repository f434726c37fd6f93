//! Runs one task as a command under a supervisor process that outlives the bridge.
