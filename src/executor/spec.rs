//! What a run is asked to do and how it ended, as it stands in the run folder. No I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::Millis;

/// The format of the run folder. A supervisor of an older program finishes its run while a newer
/// bridge reads it, so fields are only ever added; a change of meaning raises this number.
pub(super) const FORMAT: u32 = 1;

/// One run: an attempt at a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunKey {
    /// The task.
    pub task_id: String,
    /// Which attempt at it, counted from 1 by whoever grants it.
    pub attempt: u64,
}

impl fmt::Display for RunKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} attempt {}", self.task_id, self.attempt)
    }
}

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSpec {
    /// The task that it is for.
    pub task_id: String,
    /// Which attempt at it.
    pub attempt: u64,
    /// Program and arguments; no shell reads them.
    pub command: Vec<String>,
    /// Variables beside the inherited ones. They are written to the run folder.
    pub env: BTreeMap<String, String>,
    /// Names of further variables to inherit, such as a provider's key: only names go to disk.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// How long it may run; without one, as long as it likes.
    pub timeout: Option<Duration>,
    /// How its standard output is read.
    #[serde(default)]
    pub output: OutputFormat,
    /// The task as JSON, its standard input. It has a file of its own.
    #[serde(skip)]
    pub stdin: Vec<u8>,
}

impl RunSpec {
    /// The run that this describes.
    pub fn key(&self) -> RunKey {
        RunKey { task_id: self.task_id.clone(), attempt: self.attempt }
    }
}

/// Where the result stands in what a command prints. `progress` lines are read in every format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// The `result` of the last line that is an object with one: section 9 of the protocol.
    #[default]
    Lines,
    /// The text of the last `agent_message` among the events of `codex exec --json`.
    CodexEvents,
    /// The `response` of the one object that `gemini --output-format json` prints.
    GeminiDocument,
}

/// What `spec.json` holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredSpec {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// The folder in which the command runs.
    pub project_dir: std::path::PathBuf,
    /// What was asked for.
    pub run: RunSpec,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The command ended with status 0.
    Completed,
    /// It ended otherwise, took too long, or could not be run.
    Failed,
    /// [`super::Run::cancel`] ended it.
    Cancelled,
}

/// Why a run did not complete: `code` for programs, `message` for people.
///
/// Codes: `exit_N`, `signal_N`, `timeout`, `cancelled`, `command_not_found`,
/// `command_not_started`, `project_folder_missing`, `result_too_large`, `supervisor_lost`,
/// `supervisor_failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One of the codes above.
    pub code: String,
    /// A sentence, or the tail of what the command wrote to its standard error.
    pub message: String,
}

/// The end of a run, as it stands on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// What the command gave as its result, byte for byte; `None` when it gave none
    /// or `null`, which the protocol does not tell apart.
    pub result: Option<Box<RawValue>>,
    /// Why it did not complete; `None` when it did.
    pub error: Option<Failure>,
    /// Wall time of the command's start.
    pub started_at: Millis,
    /// Wall time of its end.
    pub finished_at: Millis,
    /// Time in between, on a clock that does not jump.
    pub duration_seconds: f64,
    /// The status that the command exited with; `None` when a signal ended it or it never ran.
    pub exit_code: Option<i32>,
}
