//! What the server keeps in the ledger: tasks, agents and sessions, as JSON, and the names under
//! which they lie. It decides nothing.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use storage::record::{EntityKey, Kind};

use super::members::Members;
use crate::clock::Millis;
use crate::protocol::BRIEF_BYTES_MAX;
use crate::protocol::payload::{
    Artifact, Priority, RejectReason, Requirements, TaskError, TaskOffer,
};

use crate::protocol::text::cut;

/// Steps of a task's history that are kept; beyond it the oldest but the first go.
const HISTORY_STEPS_MAX: usize = 200;

/// Bytes of a step's detail, a sentence for people. With as many steps as are kept, the history of
/// a task takes less than a message.
pub const DETAIL_BYTES_MAX: usize = 4 << 10;

/// Grants of a task that are remembered: an answer to an older one comes from a stranger.
const GRANTS_MAX: usize = 1_000;

/// Where a task stands.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waits for an agent.
    #[default]
    Pending,
    /// Offered to an agent that did not answer yet.
    Offered,
    /// An agent took it.
    Accepted,
    /// An agent reported progress.
    InProgress,
    /// An agent waits for an answer.
    InputRequired,
    /// Done.
    Completed,
    /// Given up, by its agent or by the server.
    Failed,
    /// Its deadline passed.
    Expired,
    /// Somebody no longer wants it.
    Cancelled,
}

impl TaskStatus {
    /// Every status, in the order of a task's life.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Offered,
        Self::Accepted,
        Self::InProgress,
        Self::InputRequired,
        Self::Completed,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::InProgress => "in_progress",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of a word, or `None`.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Nothing happens to the task any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }

    /// An agent has the task in its hands or in its mailbox.
    pub fn is_granted(self) -> bool {
        matches!(self, Self::Offered | Self::Accepted | Self::InProgress | Self::InputRequired)
    }
}

/// One step of a task's life.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: Millis,
    /// The status after it.
    pub status: TaskStatus,
    /// The grant that it belongs to.
    pub attempt: u32,
    /// The agent that caused it, or that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// What happened, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A result of an earlier grant, which changed nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

/// An agent once had the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The number of the grant, from 1.
    pub attempt: u32,
    /// The agent.
    pub agent_id: String,
}

/// An agent will not have the task in this session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The agent.
    pub agent_id: String,
    /// The session in which it said so.
    pub session_id: Option<String>,
    /// Why.
    pub reason: RejectReason,
}

/// A task.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Task {
    /// Its id, unique in its namespace.
    pub task_id: String,
    /// Its namespace.
    pub namespace: String,
    /// What kind of work it is.
    pub task_type: String,
    /// The work itself, unless it is sealed.
    pub description: Option<String>,
    /// The files that it is about.
    pub files: Vec<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// When it must be done.
    pub deadline: Option<Millis>,
    /// What an agent must have for it.
    pub requirements: Option<Requirements>,
    /// The only agent that may have it.
    pub target_agent: Option<String>,
    /// The agent that shared it; `None` for one of the REST interface.
    pub offered_by: Option<String>,
    /// Members of the offer that go on as they are: unknown ones, `sealed` and `requirements`.
    pub extra: Members,
    /// Members of the envelope that shared it which this version does not know.
    #[serde(default)]
    pub envelope_extra: Members,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// Where it stands.
    pub status: TaskStatus,
    /// Why it is still pending.
    pub pending_reason: Option<String>,
    /// The agent that has it.
    pub agent_id: Option<String>,
    /// The agent type that does it.
    pub assigned_agent: Option<String>,
    /// The number of the current or last grant; 0 before the first.
    pub attempt: u32,
    /// Grants that ended without an answer: what `max_attempts` bounds.
    pub misses: u32,
    /// The message that made the last offer.
    #[serde(default)]
    pub offer_id: Option<String>,
    /// The agent of the last grant.
    pub last_offered: Option<String>,
    /// How much is done, 0 to 1.
    pub progress: Option<f64>,
    /// When an update of the agent was kept last.
    #[serde(default)]
    pub reported_at: Option<Millis>,
    /// What the agent said last: its progress or its question.
    pub message: Option<String>,
    /// The result, any JSON.
    pub result: Option<Box<RawValue>>,
    /// What went wrong.
    pub error: Option<TaskError>,
    /// Sealed content of the result or the error.
    pub sealed_result: Option<Value>,
    /// What it cost, in US dollars.
    pub cost_usd: Option<f64>,
    /// How long it took, in seconds.
    pub duration_seconds: Option<f64>,
    /// Parts of the result.
    pub artifacts: Vec<Artifact>,
    /// Who had it.
    pub grants: Vec<Grant>,
    /// Who refused it.
    pub rejections: Vec<Rejection>,
    /// When it was created.
    pub created_at: Millis,
    /// When it changed last.
    pub updated_at: Millis,
    /// Its life.
    pub history: Vec<Step>,
}

impl Task {
    /// A new task of this offer.
    pub fn new(namespace: &str, offer: TaskOffer, offered_by: Option<&str>, now: Millis) -> Self {
        let mut task = Self {
            task_id: offer.task_id,
            namespace: namespace.to_owned(),
            task_type: offer.task_type,
            description: offer.description,
            files: offer.files,
            priority: offer.priority,
            deadline: offer.deadline,
            requirements: offer.requirements,
            target_agent: offer.target_agent,
            offered_by: offered_by.map(str::to_owned),
            created_at: now,
            ..Self::default()
        };
        task.step(now, TaskStatus::Pending, None, None);
        task
    }

    /// Enters a status, with its step of the history.
    pub fn step(
        &mut self,
        now: Millis,
        status: TaskStatus,
        agent_id: Option<&str>,
        detail: Option<&str>,
    ) {
        self.status = status;
        self.updated_at = now;
        self.record(Step {
            at: now,
            status,
            attempt: self.attempt,
            agent_id: agent_id.map(str::to_owned),
            detail: detail.map(str::to_owned),
            late: false,
        });
    }

    /// Adds a step about a grant that is over.
    pub fn late(
        &mut self,
        now: Millis,
        status: TaskStatus,
        agent_id: &str,
        what: (Option<u32>, &str),
    ) {
        let (attempt, detail) = what;
        self.record(Step {
            at: now,
            status,
            attempt: attempt.unwrap_or(self.attempt),
            agent_id: Some(agent_id.to_owned()),
            detail: Some(detail.to_owned()),
            late: true,
        });
    }

    fn record(&mut self, step: Step) {
        let detail = step.detail.map(|detail| cut(detail, DETAIL_BYTES_MAX));
        self.history.push(Step { detail, ..step });
        if self.history.len() > HISTORY_STEPS_MAX {
            self.history.remove(1);
        }
    }

    /// Notes that an agent has the task under the current attempt.
    pub fn grant(&mut self, agent_id: &str) {
        self.grants.push(Grant { attempt: self.attempt, agent_id: agent_id.to_owned() });
        if self.grants.len() > GRANTS_MAX {
            self.grants.remove(0);
        }
    }

    /// Whether this agent had the task at some time.
    pub fn was_granted_to(&self, agent_id: &str, attempt: Option<u32>) -> bool {
        self.grants.iter().any(|grant| {
            grant.agent_id == agent_id && attempt.is_none_or(|wanted| wanted == grant.attempt)
        })
    }

    /// Whether this agent has the task now, under this grant.
    pub fn is_held_by(&self, agent_id: &str, attempt: Option<u32>) -> bool {
        self.status.is_granted()
            && self.agent_id.as_deref() == Some(agent_id)
            && attempt.is_none_or(|wanted| wanted == self.attempt)
    }

    /// Leaves out what may be large and is not needed to list the task.
    pub fn shorten(&mut self) {
        (self.result, self.sealed_result) = (None, None);
        self.extra.remove("sealed");
        self.description = self.description.take().map(|text| cut(text, BRIEF_BYTES_MAX));
        self.files.clear();
        self.artifacts.clear();
        self.history.clear();
    }

    /// Its key.
    pub fn key(&self) -> EntityKey {
        task_key(&self.namespace, &self.task_id)
    }

    /// Its place among the waiting tasks: priority, earliest deadline, age.
    pub fn waiting_key(&self) -> EntityKey {
        let priority = (self.priority as u8).to_string();
        let deadline = self.deadline.map_or_else(|| "~".to_owned(), padded);
        let created = padded(self.created_at);
        let parts = [&self.namespace, &priority, &deadline, &created, &self.task_id];
        EntityKey::new(Kind::Waiting, &parts.map(String::as_str))
    }
}

/// Whether an agent is there.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It gives signs of life.
    Online,
    /// It stopped to give them.
    Lost,
    /// It said goodbye, or its connection was closed in order.
    #[default]
    Offline,
}

impl Presence {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Lost => "lost",
            Self::Offline => "offline",
        }
    }
}

/// An agent of the registry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id, unique in its namespace.
    pub agent_id: String,
    /// Its namespace.
    pub namespace: String,
    /// Name of the software.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Whose models it uses.
    pub provider: Option<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// The agent types that it declares.
    pub agent_types: Vec<String>,
    /// How many tasks it runs at once.
    pub max_concurrent_tasks: u32,
    /// The models that it can use.
    pub supported_models: Vec<String>,
    /// Whether it is there.
    pub status: Presence,
    /// When it registered last.
    pub registered_at: Millis,
    /// When its status changed last, or it registered.
    #[serde(default)]
    pub updated_at: Millis,
    /// The end of its journal as it said last.
    #[serde(default)]
    pub journal_head: Option<String>,
    /// The end of the server's journal that it said to keep last.
    #[serde(default)]
    pub peer_head: Option<String>,
    /// When its journal was found to have gone back, the last time.
    #[serde(default)]
    pub rollback_at: Option<Millis>,
    /// Its session, while it has one.
    pub session: Option<Session>,
}

/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_MILLIS: Millis = 24 * 60 * 60 * 1_000;

/// The answer that an idempotency key stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Remembered {
    /// SHA-256 of the body.
    pub digest: Vec<u8>,
    /// The task that was made.
    pub task_id: String,
    /// When.
    pub at: Millis,
}

/// A session of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub session_id: String,
    /// The start of the agent that opened it.
    pub instance_id: Option<String>,
    /// The message that opened it, when it came with an id of its own.
    #[serde(default)]
    pub register_id: Option<String>,
    /// When it was opened.
    pub opened_at: Millis,
    /// The agent said in it that it shuts down: it gets no more offers.
    #[serde(default)]
    pub is_leaving: bool,
}

impl Agent {
    /// Its key.
    pub fn key(&self) -> EntityKey {
        agent_key(&self.namespace, &self.agent_id)
    }

    /// Whether it said in its session that it shuts down.
    pub fn is_leaving(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_leaving)
    }

    /// The id of its session.
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.session_id.as_str())
    }
}

/// Decimal digits in the order of the numbers.
fn padded(at: Millis) -> String {
    format!("{at:020}")
}

/// The key of a task.
pub fn task_key(namespace: &str, task_id: &str) -> EntityKey {
    EntityKey::new(Kind::Task, &[namespace, task_id])
}

/// The key of an agent.
pub fn agent_key(namespace: &str, agent_id: &str) -> EntityKey {
    EntityKey::new(Kind::Agent, &[namespace, agent_id])
}

/// The key of a slot that a task takes on an agent.
pub fn slot_key(namespace: &str, agent_id: &str, task_id: &str) -> EntityKey {
    EntityKey::new(Kind::Lease, &["slot", namespace, agent_id, task_id])
}

/// What the keys of an agent's slots begin with.
pub fn slot_prefix(namespace: &str, agent_id: &str) -> String {
    ["slot", namespace, agent_id, ""].join("\0")
}

/// The key of a task's deadline, in the order of time.
pub fn deadline_key(deadline: Millis, namespace: &str, task_id: &str) -> EntityKey {
    EntityKey::new(Kind::Lease, &["deadline", &padded(deadline), namespace, task_id])
}

/// The parts of an entity's name.
pub fn parts(name: &str) -> Vec<&str> {
    name.split('\0').collect()
}

/// Reads an entity's value; `None` when it is not what this version wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// Writes an entity's value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Our own types have string keys and finite numbers, so this cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
}
