//! Tasks, agents and state as the REST interface shows them. It reads, and decides nothing.

use serde_json::{Value, json};
use storage::ledger::Ledger;
use storage::record::Kind;

use super::life::{Life, name};
use super::mail::mailbox;
use super::model::{self, Agent, Step, Task};
use crate::clock::{Millis, rfc3339};
use crate::outbox::pause::Pauses;

fn time(at: Option<Millis>) -> Value {
    at.map_or(Value::Null, |at| rfc3339(at).into())
}

/// A task with everything that is known of it.
pub fn task(task: &Task) -> Value {
    let mut view = json!({
        "task_id": task.task_id,
        "namespace": task.namespace,
        "task_type": task.task_type,
        "description": task.description,
        "files": task.files,
        "priority": task.priority,
        "deadline": time(task.deadline),
        "requirements": task.requirements,
        "target_agent": task.target_agent,
        "offered_by": task.offered_by,
        "status": task.status,
        "pending_reason": task.pending_reason,
        "agent_id": task.agent_id,
        "assigned_agent": task.assigned_agent,
        "attempt": task.attempt,
        "progress": task.progress,
        "message": task.message,
        "result": task.result,
        "error": task.error,
        "artifacts": task.artifacts,
        "cost_usd": task.cost_usd,
        "duration_seconds": task.duration_seconds,
        "created_at": rfc3339(task.created_at),
        "updated_at": rfc3339(task.updated_at),
        "history": task.history.iter().map(step).collect::<Vec<_>>(),
    });
    let offered = || task.extra.get("sealed").and_then(|it| serde_json::to_value(it).ok());
    let sealed = task.sealed_result.clone().or_else(offered);
    if let (Some(sealed), Some(view)) = (sealed, view.as_object_mut()) {
        view.insert("sealed".to_owned(), sealed);
    }
    view
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
