//! The life of a task: decisions over the ledger, from its creation to its end. Who gets it is in
//! [`super::matching`]; when to look is the scheduler's.

use std::collections::BTreeSet;

use storage::event::Event;

use super::desk::Desk;
use super::life::{Name, name};
use super::model::{DETAIL_BYTES_MAX, Rejection, Task, TaskStatus};
use super::{mail, registry};
use crate::clock::Millis;
use crate::protocol::payload::{
    Outcome, RejectReason, TaskAccept, TaskCancel, TaskComplete, TaskError, TaskInput, TaskOffer,
    TaskReject,
};
use crate::protocol::text::cut;
use crate::protocol::{Envelope, ErrorCode, Fields, MessageType, Refusal, SERVER_AGENT_ID};

/// Creates a task: pending, or expired at once when its deadline has passed.
///
/// # Errors
/// `task_exists`.
pub fn create(desk: &mut Desk<'_, '_>, mut task: Task) -> Result<Task, Refusal> {
    if desk.find_task(&task.namespace, &task.task_id).is_some() {
        let detail = format!("choose another task id; {} is taken", task.task_id);
        return Err(Refusal::new(ErrorCode::TaskExists, detail).at("task_id"));
    }
    let actor = task.offered_by.clone().unwrap_or_else(|| SERVER_AGENT_ID.to_owned());
    desk.put_task(Event::TaskCreate, &actor, &task);
    if task.deadline.is_some_and(|deadline| deadline <= desk.now()) {
        expire(desk, &mut task)?;
    }
    Ok(task)
}

/// Offers a waiting task to an agent: a new grant, a slot, a message in its mailbox.
///
/// # Errors
/// When the offer is too large to be written.
pub fn offer(desk: &mut Desk<'_, '_>, task: &mut Task, agent_id: &str) -> Result<(), Refusal> {
    // The place among the waiting depends on nothing that changes here, so `put_task` finds it.
    task.attempt = task.attempt.saturating_add(1);
    task.agent_id = Some(agent_id.to_owned());
    task.assigned_agent = None;
    task.last_offered = Some(agent_id.to_owned());
    task.pending_reason = None;
    task.grant(agent_id);
    let now = desk.now();
    task.step(now, TaskStatus::Offered, Some(agent_id), None);
    let offer = TaskOffer {
        task_id: task.task_id.clone(),
        task_type: task.task_type.clone(),
        description: task.description.clone(),
        files: task.files.clone(),
        priority: task.priority,
        deadline: task.deadline,
        // Among the members that go on with their exact text.
        requirements: None,
        target_agent: task.target_agent.clone(),
        attempt: Some(task.attempt),
        offered_by: task.offered_by.clone(),
    };
    let mut payload = task.extra.clone();
    if let Ok(serde_json::Value::Object(known)) = serde_json::to_value(&offer) {
        for (name, value) in known {
            payload.extend(serde_json::value::to_raw_value(&value).ok().map(|raw| (name, raw)));
        }
    }
    let fields = of_trace(task);
    let kind = MessageType::TaskOffer;
    let extra = &task.envelope_extra;
    let offer_id = desk.send_with(agent_id, &task.namespace, kind, &payload, &fields, extra)?;
    task.offer_id = Some(offer_id);
    desk.slot(Event::TaskOffer, task, agent_id, true);
    desk.put_task(Event::TaskOffer, SERVER_AGENT_ID, task);
    Ok(())
}

/// An agent takes an offer. Said twice it is judged again.
///
/// # Errors
/// `unknown_task`, `not_owner` or `wrong_state`.
pub fn accept(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    sender: &str,
    accept: &TaskAccept,
) -> Result<(), Refusal> {
    let mut task = desk.task(namespace, &accept.task_id)?;
    check_holder(&task, sender, accept.attempt)?;
    if task.status != TaskStatus::Offered {
        return Ok(());
    }
    task.assigned_agent.clone_from(&accept.assigned_agent);
    task.step(desk.now(), TaskStatus::Accepted, Some(sender), None);
    desk.put_task(Event::TaskAccept, sender, &task);
    Ok(())
}

/// An agent declines an offer, or gives a task back that it took. From a former holder it comes too
/// late: it is kept in the history, and changes nothing.
///
/// # Errors
/// `unknown_task` or `not_owner`.
pub fn reject(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    sender: &str,
    reject: &TaskReject,
) -> Result<(), Refusal> {
    let mut task = desk.task(namespace, &reject.task_id)?;
    if !task.was_granted_to(sender, reject.attempt) {
        return Err(not_owner(&task));
    }
    let reason = reject.reason.unwrap_or(RejectReason::Unsupported);
    if reason == RejectReason::ShuttingDown {
        registry::leaving(desk, namespace, sender);
    }
    if !task.is_held_by(sender, reject.attempt) {
        let what = (reject.attempt, reason.as_str());
        task.late(desk.now(), TaskStatus::Pending, sender, what);
        desk.put_task(Event::TaskReject, sender, &task);
        return Ok(());
    }
    // Its own words are only for people.
    let why = match &reject.detail {
        Some(detail) => format!("{}: {detail}", reason.as_str()),
        None => reason.as_str().to_owned(),
    };
    match reason {
        RejectReason::ShuttingDown if task.status != TaskStatus::Offered => {
            return take_back(desk, &mut task, sender, &why);
        }
        RejectReason::Capacity => desk.life.full(&name(namespace, sender), true),
        RejectReason::ShuttingDown => {}
        RejectReason::Unsupported | RejectReason::Deadline | RejectReason::Policy => {
            remember(desk, &mut task, sender, reason);
        }
    }
    release(desk, &mut task, Event::TaskReject);
    task.step(desk.now(), TaskStatus::Pending, Some(sender), Some(&why));
    desk.put_task(Event::TaskReject, sender, &task);
    Ok(())
}

/// Remembers that an agent will not have the task in its session; what was said in sessions that
/// are over is forgotten.
fn remember(desk: &Desk<'_, '_>, task: &mut Task, agent_id: &str, reason: RejectReason) {
    let namespace = task.namespace.clone();
    let session_of = |agent_id: &str| {
        let agent = desk.agent(&namespace, agent_id);
        agent.and_then(|agent| agent.session_id().map(str::to_owned))
    };
    task.rejections.retain(|known| {
        known.agent_id != agent_id && known.session_id == session_of(&known.agent_id)
    });
    let session_id = session_of(agent_id);
    task.rejections.push(Rejection { agent_id: agent_id.to_owned(), session_id, reason });
}

/// An agent ends a task. A result of an earlier grant is kept in the history, and changes nothing.
///
/// # Errors
/// `unknown_task` or `not_owner`.
pub fn complete(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    sender: &str,
    envelope: &Envelope,
    complete: TaskComplete,
) -> Result<(), Refusal> {
    let mut task = desk.task(namespace, &complete.task_id)?;
    let outcome = complete.outcome();
    let status = match outcome {
        Outcome::Completed => TaskStatus::Completed,
        Outcome::Failed => TaskStatus::Failed,
    };
    let now = desk.now();
    if !task.is_held_by(sender, complete.attempt) {
        if !task.was_granted_to(sender, complete.attempt) {
            return Err(not_owner(&task));
        }
        task.late(now, status, sender, (complete.attempt, "a result that came late"));
        desk.put_task(Event::TaskUpdate, sender, &task);
        return Ok(());
    }
    task.result = complete.result;
    task.error = complete.error.map(TaskError::kept);
    task.sealed_result = envelope.payload_value().get("sealed").cloned();
    task.cost_usd = complete.cost_usd;
    task.duration_seconds = complete.duration_seconds;
    if outcome == Outcome::Completed {
        task.progress = Some(1.0);
    }
    desk.slot(Event::TaskComplete, &task, sender, false);
    desk.life.full(&name(namespace, sender), false);
    task.step(now, status, Some(sender), None);
    let event = if outcome == Outcome::Completed { Event::TaskComplete } else { Event::TaskFail };
    desk.put_task(event, sender, &task);
    forward_to_origin(desk, &task, envelope, sender)
}

/// Cancels a task; cancelled again it stays so.
///
/// # Errors
/// `unknown_task`, or `wrong_state` when it ended otherwise.
pub fn cancel(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    task_id: &str,
    by: Option<&str>,
    reason: Option<&str>,
) -> Result<Task, Refusal> {
    // The agent that has the task is told as much as is kept.
    let reason = reason.map(|reason| cut(reason.to_owned(), DETAIL_BYTES_MAX));
    let reason = reason.as_deref();
    let mut task = desk.task(namespace, task_id)?;
    if by.is_some() && task.offered_by.as_deref() != by {
        return Err(not_owner(&task));
    }
    if task.status == TaskStatus::Cancelled {
        return Ok(task);
    }
    if task.status.is_terminal() {
        return Err(wrong_state(&task));
    }
    withdraw(desk, &task, reason)?;
    release(desk, &mut task, Event::TaskCancel);
    task.step(desk.now(), TaskStatus::Cancelled, by, reason);
    desk.put_task(Event::TaskCancel, by.unwrap_or(SERVER_AGENT_ID), &task);
    if by.is_none() {
        tell_origin(desk, &task, "cancelled", "the task was cancelled")?;
    }
    Ok(task)
}

/// Answers a task that asked for input.
///
/// # Errors
/// `unknown_task`, or `wrong_state` when it asked nothing.
pub fn input(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    task_id: &str,
    message: &str,
) -> Result<Task, Refusal> {
    let mut task = desk.task(namespace, task_id)?;
    let holder = match (&task.agent_id, task.status) {
        (Some(agent_id), TaskStatus::InputRequired) => agent_id.clone(),
        _ => return Err(wrong_state(&task)),
    };
    let answer = TaskInput {
        task_id: task_id.to_owned(),
        attempt: Some(task.attempt),
        message: Some(message.to_owned()),
    };
    desk.send(&holder, namespace, MessageType::TaskInput, &answer, &of_trace(&task))?;
    task.step(desk.now(), TaskStatus::InProgress, Some(&holder), Some("input was given"));
    desk.put_task(Event::TaskUpdate, SERVER_AGENT_ID, &task);
    Ok(task)
}

/// A grant ended without an answer: back to pending, or failed when that happened too often.
///
/// # Errors
/// When a message cannot be written.
pub fn take_back(
    desk: &mut Desk<'_, '_>,
    task: &mut Task,
    by: &str,
    why: &str,
) -> Result<(), Refusal> {
    if !task.status.is_granted() {
        return Ok(());
    }
    let holder = task.agent_id.clone();
    if let (TaskStatus::Offered, Some(agent_id), Some(offer_id)) =
        (task.status, &holder, &task.offer_id)
    {
        mail::withdraw(desk, &task.namespace, agent_id, offer_id);
    }
    task.misses = task.misses.saturating_add(1);
    release(desk, task, Event::TaskReject);
    if task.misses < desk.rules.max_attempts {
        task.step(desk.now(), TaskStatus::Pending, holder.as_deref(), Some(why));
        desk.put_task(Event::TaskReject, by, task);
        return Ok(());
    }
    let why = cut(why.to_owned(), DETAIL_BYTES_MAX);
    let message = format!("given up after {} attempts: {why}", task.misses);
    let code = Some("max_attempts".to_owned());
    task.error = Some(TaskError { code, message: Some(message.clone()) });
    task.step(desk.now(), TaskStatus::Failed, holder.as_deref(), Some(&message));
    desk.put_task(Event::TaskFail, SERVER_AGENT_ID, task);
    tell_origin(desk, task, "max_attempts", &message)
}

/// A task that cannot be offered at all, because its offer would be too large, fails.
///
/// # Errors
/// When a message cannot be written.
pub fn fail(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    task_id: &str,
    refusal: &Refusal,
) -> Result<(), Refusal> {
    let mut task = desk.task(namespace, task_id)?;
    let code = refusal.code.as_str();
    task.error =
        Some(TaskError { code: Some(code.to_owned()), message: Some(refusal.detail.clone()) });
    task.step(desk.now(), TaskStatus::Failed, None, Some(&refusal.detail));
    desk.put_task(Event::TaskFail, SERVER_AGENT_ID, &task);
    tell_origin(desk, &task, code, &refusal.detail)
}

/// The offer of this grant was not answered in time.
///
/// # Errors
/// When a message cannot be written.
pub fn offer_timed_out(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    task_id: &str,
    attempt: u32,
) -> Result<(), Refusal> {
    let Some(mut task) = desk.find_task(namespace, task_id) else { return Ok(()) };
    if task.status != TaskStatus::Offered || task.attempt != attempt {
        return Ok(());
    }
    take_back(desk, &mut task, SERVER_AGENT_ID, "the offer was not answered in time")
}

/// A task's deadline passed.
///
/// # Errors
/// When a message cannot be written.
pub fn expire(desk: &mut Desk<'_, '_>, task: &mut Task) -> Result<(), Refusal> {
    if task.status.is_terminal() {
        return Ok(());
    }
    withdraw(desk, task, Some("the deadline passed"))?;
    release(desk, task, Event::TaskExpire);
    task.step(desk.now(), TaskStatus::Expired, None, Some("the deadline passed"));
    desk.put_task(Event::TaskExpire, SERVER_AGENT_ID, task);
    tell_origin(desk, task, "expired", "the deadline passed")
}

/// Frees the slot; the agent no longer has the task.
fn release(desk: &mut Desk<'_, '_>, task: &mut Task, event: Event) {
    if let Some(agent_id) = task.agent_id.take() {
        desk.slot(event, task, &agent_id, false);
    }
    task.assigned_agent = None;
}

/// Tells the agent that has the task to stop.
fn withdraw(desk: &mut Desk<'_, '_>, task: &Task, reason: Option<&str>) -> Result<(), Refusal> {
    let Some(holder) = task.agent_id.as_deref() else { return Ok(()) };
    let cancel = TaskCancel {
        task_id: task.task_id.clone(),
        attempt: Some(task.attempt),
        reason: reason.map(str::to_owned),
    };
    desk.send(holder, &task.namespace, MessageType::TaskCancel, &cancel, &of_trace(task))
}

/// Tells the offering agent that the server ended its task.
fn tell_origin(
    desk: &mut Desk<'_, '_>,
    task: &Task,
    code: &str,
    message: &str,
) -> Result<(), Refusal> {
    let Some(origin) = task.offered_by.as_deref() else { return Ok(()) };
    let error = TaskError { code: Some(code.to_owned()), message: Some(message.to_owned()) };
    let end = TaskComplete {
        task_id: task.task_id.clone(),
        attempt: Some(task.attempt),
        status: Some(Outcome::Failed),
        error: Some(error),
        ..TaskComplete::default()
    };
    desk.send(origin, &task.namespace, MessageType::TaskComplete, &end, &of_trace(task))
}

/// What every message about the task has in its envelope.
fn of_trace(task: &Task) -> Fields<'_> {
    Fields { traceparent: task.traceparent.as_deref(), ..Fields::default() }
}

/// Passes what an agent said about a task on to the agent that shared it.
///
/// # Errors
/// When a routing field is not valid.
pub fn forward_to_origin(
    desk: &mut Desk<'_, '_>,
    task: &Task,
    envelope: &Envelope,
    sender: &str,
) -> Result<(), Refusal> {
    match task.offered_by.clone() {
        Some(origin) if origin != sender => {
            // Not every agent says to which trace a task belongs.
            let envelope = envelope.fill_missing(&of_trace(task))?;
            desk.forward(&envelope, &task.namespace, sender, &origin)
        }
        _ => Ok(()),
    }
}

/// The current holder may go on; a former one is too late, and anybody else has no say.
///
/// # Errors
/// `wrong_state` or `not_owner`.
pub fn check_holder(task: &Task, sender: &str, attempt: Option<u32>) -> Result<(), Refusal> {
    if task.is_held_by(sender, attempt) {
        return Ok(());
    }
    let had_it = task.was_granted_to(sender, attempt);
    Err(if had_it { wrong_state(task) } else { not_owner(task) })
}

/// The task's status does not allow this.
pub fn wrong_state(task: &Task) -> Refusal {
    let detail = format!(
        "read task {} again; it is {}, which does not allow this",
        task.task_id,
        task.status.as_str()
    );
    Refusal::new(ErrorCode::WrongState, detail)
}

fn not_owner(task: &Task) -> Refusal {
    let detail = format!("only an agent that was granted task {} may do this", task.task_id);
    Refusal::new(ErrorCode::NotOwner, detail)
}

/// Tasks whose deadline has passed at `now`, at most `limit`, but for those that are left alone.
pub fn overdue(
    ledger: &storage::ledger::Ledger,
    now: Millis,
    limit: usize,
    aside: &BTreeSet<Name>,
) -> Vec<Name> {
    let due = deadlines(ledger).take_while(|(at, _)| *at <= now).map(|(_, task)| task);
    due.filter(|task| !aside.contains(task)).take(limit).collect()
}

/// The deadlines of all tasks that did not end, the earliest first.
pub fn deadlines(
    ledger: &storage::ledger::Ledger,
) -> impl Iterator<Item = (Millis, (String, String))> {
    ledger.scan(storage::record::Kind::Lease, "deadline\0").filter_map(|(key, _)| {
        match super::model::parts(&key.name).as_slice() {
            [_, at, namespace, task_id] => Some((at.parse().ok()?, name(namespace, task_id))),
            _ => None,
        }
    })
}
