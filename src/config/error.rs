//! What can be wrong with a configuration, each as one sentence that names the place to change.
//! Prints nothing; every one of these is exit code 2.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::source::Source;

/// The exit code of every configuration error.
pub const EXIT_CODE: u8 = 2;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that `--config` names is not there.
    #[error("configuration file {} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read configuration file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// The file is not YAML, or not the YAML of a configuration.
    #[error("{}:{line}: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        detail: String,
    },
    /// The same key stands more than once in one mapping.
    #[error("{}:{line}: key `{key}` is given more than once", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The line where it first stands.
        line: usize,
        /// The key path.
        key: String,
    },
    /// A key that no setting has.
    #[error("{}:{line}: unknown key `{key}`{}", path.display(), DidYouMean(nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key path.
        key: String,
        /// The known key path that comes closest.
        nearest: Option<String>,
    },
    /// A setting whose value cannot be what it is.
    #[error("{source_of_value}: `{key}` is {value}, expected {expected}")]
    BadValue {
        /// Where the value was given.
        source_of_value: Source,
        /// The key path.
        key: String,
        /// The value in quotes, or `***` when it is a secret.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// Two settings that do not go together, or one that lacks another.
    #[error("{source_of_value}: {detail}")]
    Conflict {
        /// Where the setting was given.
        source_of_value: Source,
        /// The sentence, with what to do.
        detail: String,
    },
    /// A setting that this release knows and cannot honour.
    #[error("{source_of_value}: `{key}` is not supported yet: {reason}")]
    Unsupported {
        /// Where the setting was given.
        source_of_value: Source,
        /// The key path.
        key: String,
        /// What is missing, and what to do meanwhile.
        reason: &'static str,
    },
}

impl ConfigError {
    /// The exit code of a program that stops on this error: always [`EXIT_CODE`].
    pub fn exit_code(&self) -> u8 {
        EXIT_CODE
    }
}

struct DidYouMean<'a>(Option<&'a str>);

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(nearest) => write!(formatter, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}
