//! A task as this agent keeps it in its ledger: its own, one that it was offered, or one of its
//! own that others do. Decides nothing and runs nothing.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use storage::event::Event;
use storage::ledger::Ledger;
use storage::record::{EntityKey, Kind};
use storage::transaction::{Act, Transaction};

use super::prd;
use crate::clock::Millis;
use crate::protocol::BRIEF_BYTES_MAX;
use crate::protocol::payload::{Priority, Requirements, TaskError, TaskOffer};
use crate::protocol::text::cut;
use crate::trace::traced;

/// Where a task came from and who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Ours, and done here.
    Local,
    /// Offered to us by the server.
    Offered,
    /// Ours, and done by somebody else.
    Shared,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waits for a slot here.
    Pending,
    /// Given to the server, which looks for somebody.
    Offered,
    /// Accepted from the server; starts when the server has our word.
    Accepted,
    /// Being done.
    InProgress,
    /// Done.
    Completed,
    /// Not done.
    Failed,
    /// No longer wanted.
    Cancelled,
}

impl TaskStatus {
    /// Every status, in the order of a task's life.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Offered,
        Self::Accepted,
        Self::InProgress,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Those of the tasks that hold a slot, unless they are shared: what runs, and what will
    /// as soon as it may.
    pub const HOLDING: [Self; 2] = [Self::Accepted, Self::InProgress];

    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing more happens to it.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// A task of the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LocalTask {
    /// Its id, unique in the namespace.
    pub task_id: String,
    /// Where it came from and who does it.
    pub origin: Origin,
    /// What kind of work it is.
    #[serde(rename = "type")]
    pub task_type: String,
    /// The work itself.
    pub description: String,
    /// The files that it is about.
    #[serde(default)]
    pub files: Vec<String>,
    /// How urgent it is.
    #[serde(default)]
    pub priority: Priority,
    /// When it must be done.
    pub deadline: Option<Millis>,
    /// What whoever does it must have.
    pub requirements: Option<Requirements>,
    /// The only agent that may do it, when it is shared.
    pub target_agent: Option<String>,
    /// Which attempt at it, from 1; of an offered task the server's count.
    pub attempt: u32,
    /// Where it stands.
    pub status: TaskStatus,
    /// How much is done, 0 to 1.
    #[serde(default)]
    pub progress: f64,
    /// The result, any JSON.
    pub result: Option<Box<RawValue>>,
    /// Why it failed.
    pub error: Option<TaskError>,
    /// Who does it: an agent type of ours, or another agent.
    pub agent: Option<String>,
    /// The outbound message on which it waits: our `task_accept`, or our `task_offer`.
    pub waits_for: Option<String>,
    /// The trace that it belongs to: that of its offer, or of the program that started us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The order among our own tasks.
    #[serde(default)]
    pub position: u64,
    /// When it was written here first.
    pub created_at: Millis,
    /// When it was started.
    pub started_at: Option<Millis>,
    /// When it ended.
    pub finished_at: Option<Millis>,
}

impl LocalTask {
    /// A task of a PRD, waiting for its first attempt.
    pub fn of_prd(task: prd::Task, position: u64, now: Millis) -> Self {
        let priority = match task.priority.as_str() {
            "critical" => Priority::Critical,
            "high" => Priority::High,
            "low" => Priority::Low,
            _ => Priority::Normal,
        };
        let (model, skills) = (task.model, task.skills);
        let requirements = (model.is_some() || !skills.is_empty()).then_some(Requirements {
            model,
            skills,
            estimated_cost: None,
        });
        Self {
            task_id: task.task_id,
            origin: Origin::Local,
            task_type: task.task_type,
            description: task.description,
            files: task.files,
            priority,
            deadline: task.deadline,
            requirements,
            target_agent: task.target_agent,
            attempt: 1,
            status: TaskStatus::Pending,
            progress: 0.0,
            result: None,
            error: None,
            agent: None,
            waits_for: None,
            traceparent: None,
            position,
            created_at: now,
            started_at: None,
            finished_at: None,
        }
    }

    /// A task that the server offered and that `agent` will do once `accept_id` is delivered.
    pub fn of_offer(offer: TaskOffer, agent: &str, accept_id: &str, now: Millis) -> Self {
        Self {
            task_id: offer.task_id,
            origin: Origin::Offered,
            task_type: offer.task_type,
            description: offer.description.unwrap_or_default(),
            files: offer.files,
            priority: offer.priority,
            deadline: offer.deadline,
            requirements: offer.requirements,
            target_agent: offer.target_agent,
            attempt: offer.attempt.unwrap_or(1),
            status: TaskStatus::Accepted,
            progress: 0.0,
            result: None,
            error: None,
            agent: Some(agent.to_owned()),
            waits_for: Some(accept_id.to_owned()),
            traceparent: None,
            position: 0,
            created_at: now,
            started_at: None,
            finished_at: None,
        }
    }

    /// The offer by which this task is shared.
    pub fn offer(&self) -> TaskOffer {
        TaskOffer {
            task_id: self.shared_id(),
            task_type: self.task_type.clone(),
            description: Some(self.description.clone()),
            files: self.files.clone(),
            priority: self.priority,
            deadline: self.deadline,
            requirements: self.requirements.clone(),
            target_agent: self.target_agent.clone(),
            attempt: None,
            offered_by: None,
        }
    }

    /// The id under which the server knows a shared task. A repeated one needs a new id, as the
    /// server keeps the task that failed.
    pub fn shared_id(&self) -> String {
        match self.attempt {
            0 | 1 => self.task_id.clone(),
            attempt => format!("{}.{attempt}", self.task_id),
        }
    }

    /// It holds a slot of this agent.
    pub fn holds_slot(&self) -> bool {
        self.origin != Origin::Shared && TaskStatus::HOLDING.contains(&self.status)
    }

    /// The model that it must run on.
    pub fn model(&self) -> Option<&str> {
        self.requirements.as_ref()?.model.as_deref()
    }

    /// Time between its start and its end, in seconds.
    pub fn duration_seconds(&self) -> Option<f64> {
        let millis = self.finished_at?.saturating_sub(self.started_at?);
        Some(std::time::Duration::from_millis(millis).as_secs_f64())
    }

    /// The task without what may be large and is not needed to list it: the end of its description,
    /// its files and its result.
    #[must_use]
    pub fn brief(self) -> Self {
        let description = cut(self.description, BRIEF_BYTES_MAX);
        Self { description, files: Vec::new(), result: None, ..self }
    }

    /// Ends the task.
    pub fn finish(&mut self, status: TaskStatus, now: Millis) {
        self.status = status;
        self.finished_at = Some(now);
        self.waits_for = None;
    }

    /// Ends the task with an error.
    pub fn fail(&mut self, code: &str, message: &str, now: Millis) {
        self.finish(TaskStatus::Failed, now);
        self.error = Some(TaskError { code: Some(code.into()), message: Some(message.into()) });
    }

    /// Makes a task that did not succeed wait for its next attempt.
    pub fn again(&mut self) {
        self.origin = Origin::Local;
        self.status = TaskStatus::Pending;
        self.attempt += 1;
        self.progress = 0.0;
        (self.result, self.error, self.agent, self.waits_for) = (None, None, None, None);
        (self.started_at, self.finished_at) = (None, None);
    }
}

/// The ledger's key of a task.
pub fn key(namespace: &str, task_id: &str) -> EntityKey {
    EntityKey::new(Kind::Task, &[namespace, task_id])
}

/// The task of this id.
pub fn get(ledger: &Ledger, namespace: &str, task_id: &str) -> Option<LocalTask> {
    decode(&ledger.get(&key(namespace, task_id))?.value)
}

fn decode(value: &[u8]) -> Option<LocalTask> {
    let task: LocalTask = serde_json::from_slice(value).ok()?;
    #[cfg(test)]
    if task.status.is_terminal() {
        ENDED_READ.lock().push(task.task_id.clone());
    }
    Some(task)
}

/// The tasks that were read after they had ended.
#[cfg(test)]
pub(super) static ENDED_READ: parking_lot::Mutex<Vec<String>> = parking_lot::Mutex::new(Vec::new());

/// The shared task that the server knows by this id.
pub fn get_shared(ledger: &Ledger, namespace: &str, shared_id: &str) -> Option<LocalTask> {
    let plain = get(ledger, namespace, shared_id);
    let base = || shared_id.rsplit_once('.').and_then(|(id, _)| get(ledger, namespace, id));
    plain
        .filter(|task| task.shared_id() == shared_id)
        .or_else(|| base().filter(|task| task.shared_id() == shared_id))
        .filter(|task| task.origin == Origin::Shared)
}

/// Every task of the namespace: our own in their order, then those of others by age. It reads all
/// that ever ended here: not for what is done at each change.
pub fn list(ledger: &Ledger, namespace: &str) -> Vec<LocalTask> {
    let prefix = format!("{namespace}\0");
    let mut tasks: Vec<LocalTask> =
        ledger.scan(Kind::Task, &prefix).filter_map(|(_, entity)| decode(&entity.value)).collect();
    tasks.sort_by_key(|task| (task.origin == Origin::Offered, task.position, task.created_at));
    tasks
}

/// Writes a task.
pub fn put(tx: &mut Transaction<'_>, event: Event, actor: &str, namespace: &str, task: &LocalTask) {
    let act = Act::new(event, actor, namespace, &task.task_id);
    let act = traced(act, task.traceparent.as_deref());
    // Its parts are strings, numbers and JSON that was read before.
    let value = serde_json::to_vec(task).unwrap_or_default();
    tx.put(act, key(namespace, &task.task_id), value);
}
