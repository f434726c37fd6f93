//! The command line: one file a command; each parses, builds, runs and returns an exit code.
