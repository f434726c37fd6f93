//! What a decision of the server works on: the transaction, the rules, the clock and the signs of
//! life; with the few reads and writes that all decisions share. It decides nothing.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use storage::event::Event;
use storage::record::{EntityKey, Kind, Level};
use storage::store::Store;
use storage::transaction::{Act, Body, Transaction};

use super::life::Life;
use super::mail;
use super::members::{self, Members};
use super::model::{self, Agent, Task, decode, encode};
use crate::audit::is_written;
use crate::audit::witness::Traffic;
use crate::clock::{Clock, Millis};
use crate::config::{Audit, AuditLevel};
use crate::outbox;
use crate::protocol::{Envelope, ErrorCode, Fields, MessageType, Refusal, SERVER_AGENT_ID};
use crate::trace::{self, traced};

/// What the server goes by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How often an agent gives a sign of life; after three without one it is lost.
    pub heartbeat: Duration,
    /// How long an offer waits for its answer.
    pub offer_timeout: Duration,
    /// How many grants may end without an answer.
    pub max_attempts: u32,
    /// How long message ids are remembered.
    pub dedup_window: Duration,
    /// How long a message may lie in a mailbox.
    pub max_age: Duration,
    /// How long finished tasks are kept.
    pub retention: Duration,
    /// Host names of this server: a browser's page under any other one may be somebody else's.
    pub hosts: Vec<String>,
    /// What is written to the audit log beside what the server needs.
    pub audit: Audit,
    /// Prefixes of shared state whose values are merged.
    pub merge_prefixes: Vec<String>,
    /// Keys of shared state that only the current version may change; `*` is one segment.
    pub reject_prefixes: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(30),
            offer_timeout: Duration::from_secs(30),
            max_attempts: 5,
            dedup_window: Duration::from_hours(8 * 24),
            max_age: Duration::from_hours(7 * 24),
            retention: Duration::from_hours(30 * 24),
            hosts: Vec::new(),
            audit: Audit { level: AuditLevel::Debug, ..Audit::default() },
            merge_prefixes: vec!["queue/".to_owned()],
            reject_prefixes: vec!["agent/*/status".to_owned()],
        }
    }
}

/// Bytes after which a decision of the server's own is full; a frame has 8 MiB.
const DECISION_BYTES_MAX: usize = 1 << 20;

/// Heartbeat intervals without a sign of life after which an agent is lost.
const MISSED_MAX: u64 = 3;

impl Rules {
    /// How long an agent may give no sign of life, in milliseconds.
    pub fn patience(&self) -> Millis {
        millis(self.heartbeat).saturating_mul(MISSED_MAX)
    }
}

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// One decision's tools.
pub struct Desk<'a, 'b> {
    /// What is decided so far, and where decisions go.
    pub tx: &'a mut Transaction<'b>,
    /// Time for ids and leases.
    pub clock: &'a Clock,
    /// What the agents said lately, which is not durable.
    pub life: &'a Life,
    /// What the server goes by.
    pub rules: &'a Rules,
    /// Where bodies are read.
    pub store: &'a Store,
    /// What is worth showing of the journal.
    pub traffic: &'a Traffic,
    /// The body of the message that this decision is about, with its bytes: it was made outside the
    /// decision, which everybody waits for.
    pub prepared: Option<(Bytes, Body)>,
}

impl Desk<'_, '_> {
    /// The time of the decision.
    pub fn now(&self) -> Millis {
        self.tx.now()
    }

    /// Whether the decision has as much in it as one that nobody asked for should: one more task,
    /// however large, still fits into the frame.
    pub fn is_laden(&self) -> bool {
        self.tx.bytes() >= DECISION_BYTES_MAX
    }

    /// Whether an event that is informative only is written.
    pub fn writes(&self, event: Event, level: Level) -> bool {
        is_written(&self.rules.audit, event, level)
    }

    /// Records what is informative only, if such events are written.
    pub fn note(&mut self, act: Act) {
        if self.writes(act.event, act.level) {
            self.tx.note(act);
        }
    }

    /// The task of this id.
    pub fn find_task(&self, namespace: &str, task_id: &str) -> Option<Task> {
        decode(&self.tx.get(&model::task_key(namespace, task_id))?.value)
    }

    /// The trace that a message belongs to: its own, or that of its task.
    pub fn trace(&self, namespace: &str, envelope: &Envelope) -> Option<String> {
        let of_task = || {
            let entity = self.tx.get(&model::task_key(namespace, envelope.task_id()?))?;
            trace::of_object(&entity.value)
        };
        envelope.traceparent().map(str::to_owned).or_else(of_task)
    }

    /// The task of this id.
    ///
    /// # Errors
    /// `unknown_task`.
    pub fn task(&self, namespace: &str, task_id: &str) -> Result<Task, Refusal> {
        self.find_task(namespace, task_id).ok_or_else(|| unknown_task(task_id))
    }

    /// The agent of this id, if it ever registered.
    pub fn agent(&self, namespace: &str, agent_id: &str) -> Option<Agent> {
        decode(&self.tx.get(&model::agent_key(namespace, agent_id))?.value)
    }

    /// Whether the agent of this id ever registered.
    pub fn is_known(&self, namespace: &str, agent_id: &str) -> bool {
        self.tx.get(&model::agent_key(namespace, agent_id)).is_some()
    }

    /// The agents of a namespace.
    pub fn agents(&self, namespace: &str) -> Vec<Agent> {
        let prefix = format!("{namespace}\0");
        let found = self.tx.ledger().scan(Kind::Agent, &prefix);
        found.filter_map(|(_, entity)| decode(&entity.value)).collect()
    }

    /// Slots of this agent that are taken.
    pub fn running(&self, namespace: &str, agent_id: &str) -> u32 {
        let prefix = model::slot_prefix(namespace, agent_id);
        let taken = self.tx.ledger().scan(Kind::Lease, &prefix).count();
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    /// The tasks that take slots of this agent.
    pub fn slots(&self, namespace: &str, agent_id: &str) -> Vec<Task> {
        let prefix = model::slot_prefix(namespace, agent_id);
        let slots = self.tx.ledger().scan(Kind::Lease, &prefix);
        let ids: Vec<String> =
            slots.filter_map(|(key, _)| key.name.rsplit('\0').next().map(str::to_owned)).collect();
        ids.iter().filter_map(|id| self.find_task(namespace, id)).collect()
    }

    /// Writes a task, and its places among the waiting, the deadlines and the slots.
    pub fn put_task(&mut self, event: Event, actor: &str, task: &Task) {
        use super::model::TaskStatus;
        let trace = task.traceparent.as_deref();
        let note = |event| Act::new(event, actor, &task.namespace, &task.task_id);
        let quiet = || traced(note(event).level(Level::Debug), trace);
        let details = json!({
            "status": task.status,
            "attempt": task.attempt,
            "agent_id": task.agent_id,
        });
        let act = traced(note(event).details(details.to_string()), trace);
        self.tx.put(act, task.key(), encode(task));
        let waiting = task.waiting_key();
        if task.status == TaskStatus::Pending {
            if self.tx.get(&waiting).is_none() {
                self.tx.put(quiet(), waiting, Vec::new());
            }
        } else {
            self.tx.remove(quiet(), waiting);
        }
        if let Some(deadline) = task.deadline {
            let key = model::deadline_key(deadline, &task.namespace, &task.task_id);
            if task.status.is_terminal() {
                self.tx.remove(quiet(), key);
            } else if self.tx.get(&key).is_none() {
                self.tx.put(quiet(), key, Vec::new());
            }
        }
    }

    /// Takes or frees the slot of a task on an agent.
    pub fn slot(&mut self, event: Event, task: &Task, agent_id: &str, taken: bool) {
        let key = model::slot_key(&task.namespace, agent_id, &task.task_id);
        let act = Act::new(event, SERVER_AGENT_ID, &task.namespace, &task.task_id);
        let act = traced(act.level(Level::Debug), task.traceparent.as_deref());
        self.write(act, key, taken.then(Vec::new));
    }

    fn write(&mut self, act: Act, key: EntityKey, value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.tx.put(act, key, value),
            None => self.tx.remove(act, key),
        }
    }

    /// Puts a message of the server into an agent's mailbox.
    ///
    /// # Errors
    /// When it is too large to be written.
    pub fn send(
        &mut self,
        to: &str,
        namespace: &str,
        message_type: MessageType,
        payload: &impl Serialize,
        more: &Fields<'_>,
    ) -> Result<(), Refusal> {
        self.send_with(to, namespace, message_type, payload, more, &Members::new()).map(|_| ())
    }

    /// As [`Desk::send`], with envelope members that somebody else added; gives back the id.
    ///
    /// # Errors
    /// When it is too large to be written.
    pub fn send_with(
        &mut self,
        to: &str,
        namespace: &str,
        message_type: MessageType,
        payload: &impl Serialize,
        more: &Fields<'_>,
        extra: &Members,
    ) -> Result<String, Refusal> {
        let message_id = self.clock.message_id();
        let fields = Fields {
            message_id: Some(&message_id),
            agent_id: Some(SERVER_AGENT_ID),
            namespace: Some(namespace),
            timestamp: Some(self.now()),
            to: Some(to),
            ..more.clone()
        };
        let envelope = members::added(&Envelope::compose(message_type, fields, payload)?, extra)?;
        self.post(&envelope, to)?;
        Ok(message_id)
    }

    /// Puts a message into an agent's mailbox. An id that lies there already is an error: whoever
    /// sent the message must not be told that it is on its way.
    fn post(&mut self, envelope: &Envelope, to: &str) -> Result<(), Refusal> {
        let mailbox = mail::mailbox(envelope.namespace(), to);
        let prepared = self.prepared.take().filter(|(bytes, _)| bytes == envelope.raw());
        let body = || prepared.map_or_else(|| Body::new(envelope.raw()), |(_, body)| body);
        if outbox::stage_with(self.tx, envelope, (&mailbox, to), body).is_some() {
            return Ok(());
        }
        let detail = format!("send it again later; the mailbox of {to} has this id already");
        Err(Refusal::new(ErrorCode::Unavailable, detail))
    }

    /// Passes a received message on to an agent, as it is but for its routing fields.
    ///
    /// # Errors
    /// When a routing field is not valid.
    pub fn forward(
        &mut self,
        envelope: &Envelope,
        namespace: &str,
        sender: &str,
        to: &str,
    ) -> Result<(), Refusal> {
        let taken = envelope
            .message_id()
            .is_some_and(|id| self.tx.find(&mail::outbound(namespace, to, id)).is_some());
        // To draw an id takes a call of the system, for which every other decision waits.
        let is_wanted = taken || envelope.message_id().is_none();
        let fresh = is_wanted.then(|| self.clock.message_id());
        let filled = envelope.fill_missing(&Fields {
            message_id: fresh.as_deref(),
            agent_id: Some(sender),
            namespace: Some(namespace),
            timestamp: Some(self.now()),
            to: Some(to),
            ..Fields::default()
        })?;
        let routed = filled.with_fields(&Fields { to: Some(to), ..Fields::default() })?;
        // Two senders may use the same id for the same recipient; a mailbox has each id once.
        let routed = match &fresh {
            Some(fresh) if taken => members::renamed(&routed, fresh)?,
            _ => routed,
        };
        self.post(&routed, to)
    }
}

/// There is no such task.
pub fn unknown_task(task_id: &str) -> Refusal {
    let detail = format!("check the task id; this namespace has no task {task_id}");
    Refusal::new(ErrorCode::UnknownTask, detail)
}
