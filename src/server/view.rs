//! Tasks, agents and state as the REST interface shows them. It reads, and decides nothing.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use storage::ledger::Ledger;
use storage::record::Kind;

use super::life::{Life, name};
use super::mail::mailbox;
use super::model::{self, Agent, Step, Task, TaskStatus};
use crate::clock::{Millis, rfc3339};
use crate::outbox::pause::Pauses;
use crate::protocol::payload::{Artifact, Priority, Requirements, TaskError};

fn time(at: Option<Millis>) -> Value {
    at.map_or(Value::Null, |at| rfc3339(at).into())
}

/// A task as the REST interface shows it. What agents said goes on with the bytes in which it came.
#[derive(Serialize)]
struct Shown<'a> {
    task_id: &'a str,
    namespace: &'a str,
    task_type: &'a str,
    description: Option<&'a str>,
    files: &'a [String],
    priority: Priority,
    deadline: Value,
    requirements: Option<&'a Requirements>,
    target_agent: Option<&'a str>,
    offered_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    status: TaskStatus,
    pending_reason: Option<&'a str>,
    agent_id: Option<&'a str>,
    assigned_agent: Option<&'a str>,
    attempt: u32,
    progress: Option<f64>,
    message: Option<&'a str>,
    result: Option<&'a RawValue>,
    error: Option<&'a TaskError>,
    artifacts: &'a [Artifact],
    cost_usd: Option<f64>,
    duration_seconds: Option<f64>,
    created_at: String,
    updated_at: String,
    history: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<Box<RawValue>>,
}

/// A task with everything that is known of it.
pub fn task(task: &Task) -> Box<RawValue> {
    let offered = || task.extra.get("sealed").cloned();
    let sealed = task.sealed_result.as_ref().and_then(|sealed| to_raw_value(sealed).ok());
    let shown = Shown {
        task_id: &task.task_id,
        namespace: &task.namespace,
        task_type: &task.task_type,
        description: task.description.as_deref(),
        files: &task.files,
        priority: task.priority,
        deadline: time(task.deadline),
        requirements: task.requirements.as_ref(),
        target_agent: task.target_agent.as_deref(),
        offered_by: task.offered_by.as_deref(),
        traceparent: task.traceparent.as_deref(),
        status: task.status,
        pending_reason: task.pending_reason.as_deref(),
        agent_id: task.agent_id.as_deref(),
        assigned_agent: task.assigned_agent.as_deref(),
        attempt: task.attempt,
        progress: task.progress,
        message: task.message.as_deref(),
        result: task.result.as_deref(),
        error: task.error.as_ref(),
        artifacts: &task.artifacts,
        cost_usd: task.cost_usd,
        duration_seconds: task.duration_seconds,
        created_at: rfc3339(task.created_at),
        updated_at: rfc3339(task.updated_at),
        history: task.history.iter().map(step).collect(),
        sealed: sealed.or_else(offered),
    };
    // Its keys are strings and its numbers finite, so this cannot fail.
    to_raw_value(&shown).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn step(step: &Step) -> Value {
    let mut view = json!({
        "at": rfc3339(step.at),
        "status": step.status,
        "attempt": step.attempt,
        "agent_id": step.agent_id,
        "detail": step.detail,
    });
    if let (true, Some(view)) = (step.late, view.as_object_mut()) {
        view.insert("late".to_owned(), true.into());
    }
    view
}

/// An agent as the registry shows it.
pub fn agent(agent: &Agent, ledger: &Ledger, life: &Life) -> Value {
    let prefix = model::slot_prefix(&agent.namespace, &agent.agent_id);
    let running: Vec<Value> = ledger
        .scan(Kind::Lease, &prefix)
        .filter_map(|(key, _)| {
            let task_id = key.name.rsplit('\0').next()?;
            let entity = ledger.get(&model::task_key(&agent.namespace, task_id))?;
            let task: Task = model::decode(&entity.value)?;
            Some(json!({"task_id": task_id, "attempt": task.attempt, "status": task.status}))
        })
        .collect();
    let vital = life.vital(&name(&agent.namespace, &agent.agent_id));
    let session = agent.session.as_ref().map(|session| {
        json!({
            "session_id": session.session_id,
            "instance_id": session.instance_id,
            "opened_at": rfc3339(session.opened_at),
        })
    });
    json!({
        "agent_id": agent.agent_id,
        "namespace": agent.namespace,
        "name": agent.name,
        "version": agent.version,
        "provider": agent.provider,
        "agent_types": agent.agent_types,
        "capabilities": agent.capabilities,
        "supported_models": agent.supported_models,
        "status": agent.status,
        "activity": vital.status,
        "running": running,
        "max_concurrent_tasks": agent.max_concurrent_tasks,
        "last_heartbeat": time(vital.seen_at),
        "rollback_at": time(agent.rollback_at),
        "session": session,
        "paused": paused(&Pauses::of(ledger, &mailbox(&agent.namespace, &agent.agent_id))),
    })
}

/// Who holds a mailbox, and since when; `null` when nobody does.
pub fn paused(pauses: &Pauses) -> Value {
    pauses
        .all
        .as_ref()
        .map_or(Value::Null, |pause| json!({"by": pause.by, "since": rfc3339(pause.since)}))
}

/// An agent as an answer about capabilities names it.
pub fn able(agent: &Agent, running: u32) -> Value {
    json!({
        "agent_id": agent.agent_id,
        "status": agent.status,
        "agent_types": agent.agent_types,
        "capabilities": agent.capabilities,
        "supported_models": agent.supported_models,
        "free_slots": agent.max_concurrent_tasks.saturating_sub(running),
    })
}
