//! The work on tasks: starts what may start, follows what runs, records how it ended, and shares
//! what no agent here serves. It decides nothing about offers and knows no socket.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use storage::event::Event;
use storage::record::Status as Sent;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, warn};

use super::Shared;
use super::mail::{DESTINATION, sent_status};
use super::receive::busy;
use super::task::{self, LocalTask, Origin, TaskStatus};
use crate::clock::Millis;
use crate::executor::agents::{AgentTask, run_spec};
use crate::executor::{Outcome, Run, RunSpec, Status, Update};
use crate::outbox;
use crate::protocol::SERVER_AGENT_ID;
use crate::protocol::payload::{self, TaskComplete, TaskError, TaskUpdate};
use crate::shutdown::Phase;

/// What is due is looked for again after this time, whatever was announced.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// At most one progress report of a task is stored in this time, section 2 of the protocol.
const UPDATE_INTERVAL: Millis = 1_000;

/// Works until the program has drained.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut runs = JoinSet::new();
    adopt(&shared, &mut runs).await;
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if shared.shutdown.phase() == Phase::Running {
            advance(&shared, &mut runs).await;
        }
        tokio::select! {
            () = changed => {}
            Some(_) = runs.join_next() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = shared.shutdown.draining() => break,
        }
    }
    drain(&shared, &mut runs).await;
    shared.shutdown.stop();
}

/// Waits for running tasks as long as the settings allow. What still runs then goes on under its
/// supervisor, and the next start adopts it.
async fn drain(shared: &Shared, runs: &mut JoinSet<()>) {
    let all = async { while runs.join_next().await.is_some() {} };
    tokio::select! {
        drained = timeout(shared.settings.drain_timeout, all) => if drained.is_err() {
            warn!("tasks still run after the drain timeout; the next start adopts them");
        },
        () = shared.shutdown.stopping() => {}
    }
}

/// Follows again what an earlier start left running, and clears away what it left over.
async fn adopt(shared: &Arc<Shared>, runs: &mut JoinSet<()>) {
    let tasks = task::list(&shared.store.ledger(), &shared.settings.namespace);
    let running =
        |task: &LocalTask| task.status == TaskStatus::InProgress && task.origin != Origin::Shared;
    for task in tasks.iter().filter(|task| running(task)) {
        start(shared, runs, task.clone()).await;
    }
    let left = match shared.executor.adopt().await {
        Ok(left) => left,
        Err(error) => return warn!(%error, "cannot look for runs of an earlier start"),
    };
    for run in left {
        let key = run.key().clone();
        let wanted = tasks.iter().any(|task| {
            running(task) && task.task_id == key.task_id && u64::from(task.attempt) == key.attempt
        });
        if !wanted {
            runs.spawn(clear(run));
        }
    }
}

/// Ends a run that nobody wants and removes it.
async fn clear(mut run: Run) {
    let cleared = async {
        run.cancel("no longer wanted").await?;
        run.wait().await?;
        run.forget().await
    };
    if let Err(error) = cleared.await {
        warn!(%error, "cannot clear a run away");
    }
}

/// Moves every task on that can move.
async fn advance(shared: &Arc<Shared>, runs: &mut JoinSet<()>) {
    let tasks = task::list(&shared.store.ledger(), &shared.settings.namespace);
    let mut free = shared.settings.slots().saturating_sub(busy(&tasks));
    for task in tasks {
        match task.status {
            TaskStatus::Accepted => granted(shared, runs, &task.task_id).await,
            TaskStatus::Offered => check_offer(shared, &task.task_id).await,
            TaskStatus::Cancelled => {
                let handle = shared.runs.lock().get(&task.task_id).cloned();
                if let Some(handle) = handle
                    && let Err(error) = handle.cancel("cancelled").await
                {
                    warn!(%error, task = task.task_id, "cannot cancel a run");
                }
            }
            TaskStatus::Pending => match choose(shared, &task) {
                Some(agent) if free > 0 => {
                    free -= 1;
                    begin(shared, runs, &task.task_id, agent).await;
                }
                Some(_) => {}
                None => share(shared, &task.task_id).await,
            },
            TaskStatus::InProgress | TaskStatus::Completed | TaskStatus::Failed => {}
        }
    }
}

fn choose(shared: &Shared, task: &LocalTask) -> Option<String> {
    let elsewhere = task.target_agent.as_ref().is_some_and(|id| *id != shared.settings.agent_id);
    let agent = shared.settings.agents.choose(&task.task_type, task.model());
    agent.filter(|_| !elsewhere).map(|agent| agent.agent_type.clone())
}

/// Changes a task in the store; `None` when `change` left it alone.
async fn change(
    shared: &Arc<Shared>,
    task_id: &str,
    event: Event,
    change: impl FnOnce(&Shared, &mut storage::transaction::Transaction<'_>, &mut LocalTask) -> bool
    + Send
    + 'static,
) -> Option<LocalTask> {
    let (inner, task_id) = (Arc::clone(shared), task_id.to_owned());
    let commit = shared.store.commit(move |tx| -> Result<Option<LocalTask>, Infallible> {
        let settings = &inner.settings;
        let Some(mut task) = task::get(tx.ledger(), &settings.namespace, &task_id) else {
            return Ok(None);
        };
        if !change(&inner, tx, &mut task) {
            return Ok(None);
        }
        let event = match (event, task.status) {
            (Event::TaskComplete, TaskStatus::Failed) => Event::TaskFail,
            (event, _) => event,
        };
        task::put(tx, event, &settings.agent_id, &settings.namespace, &task);
        Ok(Some(task))
    });
    match commit.await {
        Ok(Ok(changed)) => changed,
        Err(error) => {
            error!(%error, "a change of a task is not durable, stopping");
            shared.shutdown.stop();
            None
        }
    }
}

/// Starts one of our own tasks.
async fn begin(shared: &Arc<Shared>, runs: &mut JoinSet<()>, task_id: &str, agent: String) {
    let started = change(shared, task_id, Event::TaskStart, move |_, tx, task| {
        let waits = task.status == TaskStatus::Pending;
        task.status = TaskStatus::InProgress;
        task.agent = Some(agent);
        task.started_at = Some(tx.now());
        waits
    });
    if let Some(task) = started.await {
        start(shared, runs, task).await;
    }
}

/// Starts an offered task once the server has our word, and drops it when it will not have it.
async fn granted(shared: &Arc<Shared>, runs: &mut JoinSet<()>, task_id: &str) {
    let started = change(shared, task_id, Event::TaskStart, |inner, tx, task| {
        let accept = task.waits_for.as_deref().unwrap_or_default();
        let sent = sent_status(tx, &inner.settings.namespace, accept);
        match sent {
            _ if task.status != TaskStatus::Accepted => false,
            Some(Sent::Delivered) => {
                task.status = TaskStatus::InProgress;
                task.started_at = Some(tx.now());
                task.waits_for = None;
                true
            }
            Some(Sent::Pending | Sent::Sending | Sent::Held) => false,
            _ => {
                let now = tx.now();
                task.finish(TaskStatus::Cancelled, now);
                true
            }
        }
    });
    if let Some(task) = started.await.filter(|task| task.status == TaskStatus::InProgress) {
        start(shared, runs, task).await;
    }
}

/// A shared task that the server refused has failed.
async fn check_offer(shared: &Arc<Shared>, task_id: &str) {
    let refused = |inner: &Shared, tx: &storage::transaction::Transaction<'_>, id: &str| {
        sent_status(tx, &inner.settings.namespace, id) == Some(Sent::Failed)
    };
    let ledger = shared.store.ledger();
    let known = task::get(&ledger, &shared.settings.namespace, task_id);
    if known.is_none_or(|task| task.waits_for.is_none()) {
        return;
    }
    change(shared, task_id, Event::TaskFail, move |inner, tx, task| {
        let offer = task.waits_for.clone().unwrap_or_default();
        let failed = task.status == TaskStatus::Offered && refused(inner, tx, &offer);
        if failed {
            task.fail("offer_refused", "the server refused to share this task", tx.now());
        }
        failed
    })
    .await;
}

/// Gives a task that no agent here serves to the server, or fails it.
async fn share(shared: &Arc<Shared>, task_id: &str) {
    change(shared, task_id, Event::TaskOffer, |inner, tx, task| {
        if task.status != TaskStatus::Pending {
            return false;
        }
        let settings = &inner.settings;
        let now = tx.now();
        if settings.server.is_none() || !settings.features.task_sharing {
            let text = format!("no agent here serves {}, and tasks are not shared", task.task_type);
            task.fail("unsupported", &text, now);
            return true;
        }
        let message_id = inner.clock.message_id();
        match inner.author.write(&message_id, None, None, &task.offer()) {
            Ok(envelope) => {
                outbox::stage(tx, &envelope, DESTINATION, SERVER_AGENT_ID);
                task.origin = Origin::Shared;
                task.status = TaskStatus::Offered;
                task.waits_for = Some(message_id);
            }
            Err(refusal) => task.fail(refusal.code.as_str(), &refusal.detail, now),
        }
        true
    })
    .await;
}

/// Starts the run of a task, or follows it when it runs already.
async fn start(shared: &Arc<Shared>, runs: &mut JoinSet<()>, task: LocalTask) {
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
                status: TaskStatus::Failed,
                result: None,
                error: Some(TaskError { code: Some("not_started".into()), message: Some(message) }),
                duration_seconds: 0.0,
                finished_at: now,
            };
            finish(shared, &task, end).await;
        }
    }
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
    run_spec(agent, agents.provider(), &what, key, input).map_err(|error| error.to_string())
}

/// Follows a run to its end, and forgets it when that is durable.
async fn follow(shared: Arc<Shared>, task: LocalTask, mut run: Run) {
    let ended = tokio::select! {
        ended = watch(&shared, &task, &mut run) => ended,
        // The run goes on under its supervisor: the next start follows it.
        () = shared.shutdown.stopping() => return,
    };
    match ended {
        Ok(outcome) => {
            if finish(&shared, &task, End::from(outcome)).await
                && let Err(error) = run.forget().await
            {
                warn!(%error, task = task.task_id, "cannot remove a finished run");
            }
        }
        Err(error) => error!(%error, task = task.task_id, "cannot follow a run"),
    }
    shared.runs.lock().remove(&task.task_id);
}

async fn watch(shared: &Arc<Shared>, task: &LocalTask, run: &mut Run) -> io::Result<Outcome> {
    let mut stored_at = 0;
    while let Some(update) = run.update().await? {
        let now = shared.clock.monotonic().max(1);
        if stored_at == 0 || now >= stored_at + UPDATE_INTERVAL {
            stored_at = now;
            report(shared, task, update).await;
        }
    }
    run.wait().await
}

async fn report(shared: &Arc<Shared>, task: &LocalTask, update: Update) {
    let attempt = task.attempt;
    change(shared, &task.task_id, Event::TaskUpdate, move |inner, tx, task| {
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
                ..TaskUpdate::default()
            };
            let message_id = inner.clock.message_id();
            match inner.author.write(&message_id, None, None, &payload) {
                Ok(envelope) => drop(outbox::stage(tx, &envelope, DESTINATION, SERVER_AGENT_ID)),
                Err(error) => warn!(%error, task = task.task_id, "a progress report is not sent"),
            }
        }
        true
    })
    .await;
}

/// How a task ended, as its record needs it.
struct End {
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
        let error = outcome
            .error
            .map(|failure| TaskError { code: Some(failure.code), message: Some(failure.message) });
        let (duration_seconds, finished_at) = (outcome.duration_seconds, outcome.finished_at);
        Self { status, result: outcome.result, error, duration_seconds, finished_at }
    }
}

/// Records the end of a task and, of an offered one, tells the server, in one commit. Whether
/// that is durable, so that the run can be forgotten.
async fn finish(shared: &Arc<Shared>, task: &LocalTask, end: End) -> bool {
    let attempt = task.attempt;
    change(shared, &task.task_id, Event::TaskComplete, move |inner, tx, task| {
        if task.status != TaskStatus::InProgress || task.attempt != attempt {
            return false;
        }
        task.finish(end.status, end.finished_at);
        if end.status == TaskStatus::Completed {
            task.progress = 1.0;
            metrics::counter!("loki_openclaw_tasks_completed_total").increment(1);
        }
        task.result = end.result;
        task.error = end.error;
        if task.origin == Origin::Offered {
            complete(inner, tx, task, end.duration_seconds);
        }
        true
    })
    .await;
    let ledger = shared.store.ledger();
    task::get(&ledger, &shared.settings.namespace, &task.task_id)
        .is_none_or(|task| task.status != TaskStatus::InProgress || task.attempt != attempt)
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
    let message_id = inner.clock.message_id();
    let mut written = inner.author.write(&message_id, None, None, &payload);
    if let Err(refusal) = &written {
        // A result that does not fit into a message is an end all the same.
        task.fail(refusal.code.as_str(), &refusal.detail, tx.now());
        payload.status = Some(payload::Outcome::Failed);
        payload.result = None;
        payload.error.clone_from(&task.error);
        written = inner.author.write(&message_id, None, None, &payload);
    }
    match written {
        Ok(envelope) => drop(outbox::stage(tx, &envelope, DESTINATION, SERVER_AGENT_ID)),
        Err(error) => error!(%error, task = task.task_id, "the end of a task cannot be told"),
    }
}
