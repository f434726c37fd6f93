//! Where a value came from, and the line that `loki config show` prints about it. Reads nothing.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde::Serializer;

/// Where the value of a setting was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Nowhere: the built-in default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Environment(name) => formatter.write_str(name),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Default => formatter.write_str("default"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One setting as it stands: its name, its value and where that came from.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Setting {
    /// The key path, as in the file.
    pub name: &'static str,
    /// The value in the notation of the file, `***` for a secret, `None` when there is none.
    pub value: Option<String>,
    /// Where it was given.
    pub source: Source,
}
