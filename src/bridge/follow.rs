//! Follows one run of a task: starts it, reports its progress, records how it ended and tells the
//! server. It does not decide what runs.

use std::io;
use std::sync::Arc;

use storage::event::Event;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{error, warn};

use super::Shared;
use super::mail::DESTINATION;
use super::task::{self, LocalTask, Origin, TaskStatus};
use super::work::{LOOK_AGAIN, change, written};
use crate::clock::Millis;
use crate::executor::agents::{AgentTask, run_spec};
use crate::executor::{Outcome, Run, RunSpec, Status, Update};
use crate::outbox;
use crate::protocol::SERVER_AGENT_ID;
use crate::protocol::payload::{
    self, Artifact, RejectReason, TaskComplete, TaskError, TaskReject, TaskUpdate,
};
use crate::trace;

/// At most one progress report of a task is stored in this time, section 2 of the protocol.
const UPDATE_INTERVAL: Millis = 1_000;

/// Why a run was ended that goes back to where it came from.
pub(super) const SHUTTING_DOWN: &str = "shutting_down";

/// Starts the run of a task, or follows it when it runs already.
pub(super) async fn start(shared: &Arc<Shared>, runs: &mut JoinSet<()>, task: LocalTask) {
    let run = match spec(shared, &task) {
        Ok(spec) => shared.executor.start(spec).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    match run {
        Ok(run) => {
            shared.runs.lock().insert(task.task_id.clone(), run.cancel_handle());
            runs.spawn(follow(Arc::clone(shared), task, run));
        }
        Err(message) => {
            let now = shared.clock.now();
            let end = End {
                goes_back: false,
                status: TaskStatus::Failed,
                result: None,
                error: Some(TaskError { code: Some("not_started".into()), message: Some(message) }),
                duration_seconds: 0.0,
                finished_at: now,
            };
            if !finish(shared, &task, &end).await {
                runs.spawn(ended(Arc::clone(shared), task, end));
            }
        }
    }
}

/// Records how a task ended, and again until that is durable. A program that stops leaves it to
/// the next start.
async fn ended(shared: Arc<Shared>, task: LocalTask, end: End) {
    while !finish(&shared, &task, &end).await && again(&shared).await {}
}

fn spec(shared: &Shared, task: &LocalTask) -> Result<RunSpec, String> {
    let name = task.agent.as_deref().unwrap_or_default();
    let agents = &shared.settings.agents;
    let agent =
        agents.named(name).ok_or_else(|| format!("agent {name} is not configured any more"))?;
    let what = AgentTask {
        task_type: &task.task_type,
        description: &task.description,
        files: &task.files,
        model: task.model(),
    };
    let mut offer = task.offer();
    offer.task_id.clone_from(&task.task_id);
    offer.attempt = Some(task.attempt);
    let input = serde_json::to_vec(&offer).map_err(|error| error.to_string())?;
    let key = (task.task_id.as_str(), u64::from(task.attempt));
    let run = run_spec(agent, agents.provider(), &what, key, input);
    let mut run = run.map_err(|error| error.to_string())?;
    // What the command does is a part of the trace, and tools that know traces look there.
    run.env.extend(task.traceparent.clone().map(|trace| (trace::VARIABLE.to_owned(), trace)));
    Ok(run)
}

/// Follows a run to its end, and forgets it when that is durable.
async fn follow(shared: Arc<Shared>, task: LocalTask, mut run: Run) {
    let outcome = tokio::select! {
        outcome = watch(&shared, &task, &mut run) => outcome,
        // The run goes on under its supervisor: the next start follows it.
        () = shared.shutdown.stopping() => return,
    };
    match outcome {
        Ok(outcome) => {
            ended(Arc::clone(&shared), task.clone(), End::from(outcome)).await;
            if is_recorded(&shared, &task)
                && let Err(error) = run.forget().await
            {
                let traceparent = task.traceparent.as_deref();
                warn!(%error, task = task.task_id, traceparent, "cannot remove a finished run");
            }
        }
        Err(error) => {
            let traceparent = task.traceparent.as_deref();
            error!(%error, task = task.task_id, traceparent, "cannot follow a run");
        }
    }
    shared.runs.lock().remove(&task.task_id);
}

async fn watch(shared: &Arc<Shared>, task: &LocalTask, run: &mut Run) -> io::Result<Outcome> {
    let mut stored_at = 0;
    while let Some(update) = run.update().await? {
        let now = shared.clock.monotonic().max(1);
        let artifact = artifact(&update);
        // A part of the result must not be lost for coming early.
        let is_due = stored_at == 0 || now >= stored_at + UPDATE_INTERVAL;
        if artifact.is_some() {
            room(shared, task).await;
        } else if !is_due || shared.store.is_full() {
            // What only says how far it is takes no room from what must be written.
            continue;
        }
        stored_at = now;
        while !report(shared, task, update.clone(), artifact.clone()).await && artifact.is_some() {
            if !again(shared).await {
                return Err(io::Error::other("a part of its result cannot be recorded"));
            }
        }
    }
    run.wait().await
}

/// Waits until the disk has room. What the run says meanwhile is kept in its folder. A program that
/// is about to stop takes what is kept for what must be written.
async fn room(shared: &Shared, task: &LocalTask) {
    if shared.store.is_full() {
        let traceparent = task.traceparent.as_deref();
        warn!(task = task.task_id, traceparent, "a part of a result waits until the disk has room");
    }
    while shared.store.is_full() && again(shared).await {}
}

/// Waits until something may be tried again; `false` when the program is about to stop.
async fn again(shared: &Shared) -> bool {
    tokio::select! {
        () = sleep(LOOK_AGAIN) => true,
        () = shared.shutdown.draining() => false,
    }
}

/// The part of the result that a command's report carries.
fn artifact(update: &Update) -> Option<Artifact> {
    #[derive(serde::Deserialize)]
    struct Report {
        artifact: Option<Artifact>,
    }
    serde_json::from_str::<Report>(update.object.get()).ok()?.artifact
}

/// Records a report. Whether that is durable.
async fn report(
    shared: &Arc<Shared>,
    task: &LocalTask,
    update: Update,
    artifact: Option<Artifact>,
) -> bool {
    let attempt = task.attempt;
    written(shared, &task.task_id, Event::TaskUpdate, move |inner, tx, task| {
        if task.status != TaskStatus::InProgress || task.attempt != attempt {
            return false;
        }
        task.progress = update.progress.clamp(0.0, 1.0);
        if task.origin == Origin::Offered {
            let payload = TaskUpdate {
                task_id: task.task_id.clone(),
                attempt: Some(attempt),
                progress: Some(task.progress),
                message: update.message,
                artifact,
                ..TaskUpdate::default()
            };
            let message_id = inner.clock.message_id();
            let traceparent = task.traceparent.as_deref();
            match inner.author.write(&message_id, None, None, traceparent, &payload) {
                Ok(envelope) => drop(outbox::stage(tx, &envelope, DESTINATION, SERVER_AGENT_ID)),
                Err(error) => {
                    let task = &task.task_id;
                    warn!(%error, task, traceparent, "a progress report is not sent");
                }
            }
        }
        true
    })
    .await
    .is_ok()
}

/// How a task ended, as its record needs it.
#[derive(Clone)]
struct End {
    /// It was ended so that somebody else, or a later start, does it.
    goes_back: bool,
    status: TaskStatus,
    result: Option<Box<serde_json::value::RawValue>>,
    error: Option<TaskError>,
    duration_seconds: f64,
    finished_at: Millis,
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        let status = match outcome.status {
            Status::Completed => TaskStatus::Completed,
            Status::Failed => TaskStatus::Failed,
            Status::Cancelled => TaskStatus::Cancelled,
        };
        // A command that ended in time, or by itself, has an outcome of its own.
        let goes_back = outcome.status == Status::Cancelled
            && outcome.error.as_ref().is_some_and(|failure| failure.message == SHUTTING_DOWN);
        let (duration_seconds, finished_at) = (outcome.duration_seconds, outcome.finished_at);
        let error = outcome
            .error
            .map(|failure| TaskError { code: Some(failure.code), message: Some(failure.message) });
        Self { goes_back, status, result: outcome.result, error, duration_seconds, finished_at }
    }
}

/// Records the end of a task and, of an offered one, tells the server, in one commit. Whether
/// that is durable, so that the run can be forgotten.
async fn finish(shared: &Arc<Shared>, task: &LocalTask, end: &End) -> bool {
    let (attempt, end) = (task.attempt, end.clone());
    let event = if end.goes_back { Event::TaskReject } else { Event::TaskComplete };
    let finished = change(shared, &task.task_id, event, move |inner, tx, task| {
        if task.status != TaskStatus::InProgress || task.attempt != attempt {
            return false;
        }
        if end.goes_back {
            give_back(inner, tx, task);
            return true;
        }
        task.finish(end.status, end.finished_at);
        if end.status == TaskStatus::Completed {
            task.progress = 1.0;
        }
        task.result = end.result;
        task.error = end.error;
        if task.origin == Origin::Offered {
            complete(inner, tx, task, end.duration_seconds);
        }
        true
    });
    if finished.await.is_some_and(|task| task.status == TaskStatus::Completed) {
        metrics::counter!("loki_openclaw_tasks_completed_total").increment(1);
    }
    is_recorded(shared, task)
}

/// Whether the end of a task is durable.
fn is_recorded(shared: &Shared, task: &LocalTask) -> bool {
    let attempt = task.attempt;
    let ledger = shared.store.ledger();
    task::get(&ledger, &shared.settings.namespace, &task.task_id)
        .is_none_or(|task| task.status != TaskStatus::InProgress || task.attempt != attempt)
}

/// Gives a task back that will not be done now: one of our own waits for the next start, one that
/// was offered goes back to the server. Its run is over, or never began.
pub(super) fn give_back(
    inner: &Shared,
    tx: &mut storage::transaction::Transaction<'_>,
    task: &mut LocalTask,
) {
    if task.origin != Origin::Offered {
        task.again();
        return;
    }
    let now = tx.now();
    task.finish(TaskStatus::Cancelled, now);
    let payload = TaskReject {
        task_id: task.task_id.clone(),
        attempt: Some(task.attempt),
        reason: Some(RejectReason::ShuttingDown),
        detail: Some("the agent stops before the task is done".to_owned()),
    };
    let (message_id, trace) = (inner.clock.message_id(), task.traceparent.as_deref());
    match inner.author.write(&message_id, None, None, trace, &payload) {
        Ok(envelope) => drop(outbox::stage(tx, &envelope, DESTINATION, SERVER_AGENT_ID)),
        Err(error) => {
            let traceparent = task.traceparent.as_deref();
            error!(%error, task = task.task_id, traceparent, "a task cannot be given back");
        }
    }
}

fn complete(
    inner: &Shared,
    tx: &mut storage::transaction::Transaction<'_>,
    task: &mut LocalTask,
    duration_seconds: f64,
) {
    let status = match task.status {
        TaskStatus::Completed => payload::Outcome::Completed,
        _ => payload::Outcome::Failed,
    };
    let mut payload = TaskComplete {
        task_id: task.task_id.clone(),
        attempt: Some(task.attempt),
        status: Some(status),
        result: task.result.clone(),
        error: task.error.clone(),
        cost_usd: None,
        duration_seconds: Some(duration_seconds),
    };
    let (message_id, trace) = (inner.clock.message_id(), task.traceparent.clone());
    let write = |payload: &TaskComplete| {
        inner.author.write(&message_id, None, None, trace.as_deref(), payload)
    };
    let mut written = write(&payload);
    if let Err(refusal) = &written {
        // A result that does not fit into a message is an end all the same.
        task.fail(refusal.code.as_str(), &refusal.detail, tx.now());
        payload.status = Some(payload::Outcome::Failed);
        payload.result = None;
        payload.error.clone_from(&task.error);
        written = write(&payload);
    }
    match written {
        Ok(envelope) => drop(outbox::stage(tx, &envelope, DESTINATION, SERVER_AGENT_ID)),
        Err(error) => {
            let traceparent = task.traceparent.as_deref();
            error!(%error, task = task.task_id, traceparent, "the end of a task cannot be told");
        }
    }
}
