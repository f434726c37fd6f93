//! Why a command did not do what it was asked, and the exit code for it: section 9 of the
//! protocol. It prints nothing.

use std::process::ExitCode;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A task failed, not connected, unknown id.
    NotSo = 1,
    /// Usage, configuration, or a port that is taken.
    Usage = 2,
    /// The store is missing, corrupt, locked or newer.
    Store = 3,
    /// The bridge or the server cannot be reached.
    Unreachable = 4,
    /// Somebody refused who we are.
    Refused = 5,
}

/// A sentence for the person at the terminal, and the code for the program that called.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// The sentence, lower case.
    pub message: String,
    /// Nobody who knows this is running; what is on disk may tell.
    pub absent: bool,
}

impl Failure {
    /// A failure with this code and sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), absent: false }
    }

    /// The same, as nobody is running who could answer.
    pub fn absent(self) -> Self {
        Self { absent: true, ..self }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::NotSo, error.to_string())
    }
}

impl From<storage::store::CommitError> for Failure {
    fn from(error: storage::store::CommitError) -> Self {
        Self::new(Code::Store, error.to_string())
    }
}
