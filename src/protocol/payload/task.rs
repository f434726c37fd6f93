//! Payloads about one task, from its offer to its end. Which of them fits the task's status is
//! judged elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Payload, raw_text, wire};
use crate::clock::Millis;
use crate::protocol::MessageType;
use crate::protocol::text::cut;

/// How urgent a task is; the order of the variants is that of service.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before everything else.
    Critical,
    /// Before what is usual.
    High,
    /// As usual.
    #[default]
    Normal,
    /// When nothing else is there.
    Low,
}

impl Priority {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// What an agent must have for a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Requirements {
    /// A model, among its `supported_models`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Skills, each among its `capabilities` or `agent_types`.
    #[serde(default, deserialize_with = "wire::or_default", skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// What the task is expected to cost, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_cost: Option<f64>,
}

/// A task: offered to an agent by the server, or shared by an agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskOffer {
    /// The task, unique in its namespace.
    pub task_id: String,
    /// What kind of work it is.
    pub task_type: String,
    /// The work itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The files that it is about.
    #[serde(default, deserialize_with = "wire::or_default", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// How urgent it is.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub priority: Priority,
    /// When it must be done.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::time")]
    pub deadline: Option<Millis>,
    /// What an agent must have for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Requirements>,
    /// The only agent that may have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_agent: Option<String>,
    /// Which grant of the task this offer is for, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The agent that shared the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_by: Option<String>,
}

impl Payload for TaskOffer {
    const MESSAGE_TYPE: MessageType = MessageType::TaskOffer;
}

/// A task as somebody submits it: an offer that may lack an id.
#[derive(Deserialize)]
pub(super) struct Submission {
    task_id: Option<String>,
    task_type: String,
    description: Option<String>,
    #[serde(default, deserialize_with = "wire::or_default")]
    files: Vec<String>,
    #[serde(default, deserialize_with = "wire::or_default")]
    priority: Priority,
    #[serde(default, with = "wire::time")]
    deadline: Option<Millis>,
    requirements: Option<Requirements>,
    target_agent: Option<String>,
}

impl Submission {
    /// The task, with `new_id` unless it has an id.
    pub(super) fn offer(self, new_id: &str) -> TaskOffer {
        TaskOffer {
            task_id: self.task_id.unwrap_or_else(|| new_id.to_owned()),
            task_type: self.task_type,
            description: self.description,
            files: self.files,
            priority: self.priority,
            deadline: self.deadline,
            requirements: self.requirements,
            target_agent: self.target_agent,
            attempt: None,
            offered_by: None,
        }
    }
}

/// The agent takes the offer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskAccept {
    /// The task.
    pub task_id: String,
    /// Which grant of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The agent type that will do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_agent: Option<String>,
    /// How long it is expected to take, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "wire::amount::serialize")]
    pub estimated_duration: Option<f64>,
}

impl Payload for TaskAccept {
    const MESSAGE_TYPE: MessageType = MessageType::TaskAccept;
}

/// Why an agent declines an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// No free slot.
    Capacity,
    /// It cannot do such tasks.
    Unsupported,
    /// Not in time.
    Deadline,
    /// It must not.
    Policy,
    /// It is about to stop.
    ShuttingDown,
}

impl RejectReason {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Unsupported => "unsupported",
            Self::Deadline => "deadline",
            Self::Policy => "policy",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// The agent declines the offer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskReject {
    /// The task.
    pub task_id: String,
    /// Which grant of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<RejectReason>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Payload for TaskReject {
    const MESSAGE_TYPE: MessageType = MessageType::TaskReject;
}

/// Progress, a question, or a part of the result.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TaskUpdate {
    /// The task.
    pub task_id: String,
    /// Which grant of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How much is done, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// What is going on, or the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `input_required` when the agent waits for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// A part of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
}

impl TaskUpdate {
    /// Whether the agent waits for a `task_input`.
    pub fn is_input_required(&self) -> bool {
        self.status.as_deref() == Some("input_required")
    }
}

impl Payload for TaskUpdate {
    const MESSAGE_TYPE: MessageType = MessageType::TaskUpdate;
}

/// A piece of work, perhaps sent in chunks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Artifact {
    /// Which artifact of the task.
    pub artifact_id: String,
    /// Its name, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its content, any JSON.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub parts: Vec<Box<RawValue>>,
    /// Whether `parts` follow those that came before, instead of replacing them.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub append: bool,
    /// Whether nothing follows.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub last_chunk: bool,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With a result.
    Completed,
    /// With an error.
    Failed,
}

/// The end of a task.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TaskComplete {
    /// The task.
    pub task_id: String,
    /// Which grant of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How it ended, where the agent says so; see [`TaskComplete::outcome`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Outcome>,
    /// The result, any JSON.
    #[serde(default, deserialize_with = "wire::present", skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// What it cost, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// How long it took, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "wire::amount::serialize")]
    pub duration_seconds: Option<f64>,
}

impl TaskComplete {
    /// How the task ended: the status, or without one whether there is an error.
    pub fn outcome(&self) -> Outcome {
        let implied = if self.error.is_some() { Outcome::Failed } else { Outcome::Completed };
        self.status.unwrap_or(implied)
    }

    /// The text of the result, `null` when there is none.
    pub fn result_text(&self) -> &str {
        raw_text(self.result.as_deref())
    }
}

impl Payload for TaskComplete {
    const MESSAGE_TYPE: MessageType = MessageType::TaskComplete;
}

/// Why a task failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// The agent's own code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Bytes of an error's code that are kept.
pub const ERROR_CODE_BYTES_MAX: usize = 256;

/// Bytes of an error's message that are kept: the last words of a command, which are 8 KiB, with
/// what is said around them.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 16 << 10;

impl TaskError {
    /// What is kept of it: a long text loses its end.
    #[must_use]
    pub fn kept(self) -> Self {
        Self {
            code: self.code.map(|code| cut(code, ERROR_CODE_BYTES_MAX)),
            message: self.message.map(|message| cut(message, ERROR_MESSAGE_BYTES_MAX)),
        }
    }
}

/// The task is no longer wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCancel {
    /// The task.
    pub task_id: String,
    /// Which grant of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Payload for TaskCancel {
    const MESSAGE_TYPE: MessageType = MessageType::TaskCancel;
}

/// The answer to a task that asked for input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInput {
    /// The task.
    pub task_id: String,
    /// Which grant of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The answer; absent only while it is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Payload for TaskInput {
    const MESSAGE_TYPE: MessageType = MessageType::TaskInput;
}
