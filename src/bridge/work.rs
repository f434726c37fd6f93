//! The work on tasks: starts what may start, ends what must not run on, gives back what is left
//! when the program stops, and shares what no agent here serves. It decides nothing about offers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use storage::event::Event;
use storage::record::{Direction, Status as Sent};
use storage::store::CommitError;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, warn};

use super::follow::{SHUTTING_DOWN, give_back, start};
use super::mail::{DESTINATION, published_status, sent_status};
use super::open::Open;
use super::task::{self, LocalTask, Origin, TaskStatus};
use super::{Shared, meter};
use crate::executor::{CancelHandle, Run};
use crate::outbox;
use crate::protocol::SERVER_AGENT_ID;
use crate::shutdown::Phase;

/// What is due is looked for again after this time, whatever was announced.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a stopping bridge waits for the server to take what is due.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// How often it looks whether that is so.
const FLUSH_LOOK: Duration = Duration::from_millis(20);

/// Works until the program has drained.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut runs = JoinSet::new();
    let mut open = Open::new(shared.board.news(), &shared.settings.namespace);
    open.read(&shared.store);
    adopt(&shared, &mut runs, &open).await;
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if shared.shutdown.phase() == Phase::Running {
            open.read(&shared.store);
            advance(&shared, &mut runs, &open).await;
        }
        tokio::select! {
            () = changed => {}
            Some(_) = runs.join_next() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = shared.shutdown.draining() => break,
        }
    }
    tokio::select! {
        () = drain(&shared, &mut runs) => {}
        () = shared.shutdown.stopping() => {}
    }
    shared.tell(shared.act(Event::SessionStop, &shared.settings.agent_id));
    shared.shutdown.stop();
}

/// Waits for running tasks as long as the settings allow; those that still run then are ended and
/// go back to where they came from. A second signal stops this at any moment: what runs then goes
/// on under its supervisor, and the next start adopts it.
async fn drain(shared: &Arc<Shared>, runs: &mut JoinSet<()>) {
    give_back_unstarted(shared).await;
    let patience = tokio::time::sleep(shared.settings.drain_timeout);
    tokio::pin!(patience);
    while !runs.is_empty() {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        end_cancelled(shared).await;
        tokio::select! {
            () = changed => {}
            Some(_) = runs.join_next() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = &mut patience => break,
        }
    }
    if !runs.is_empty() {
        warn!(count = runs.len(), "tasks still run after the drain timeout, giving them back");
        let handles: Vec<CancelHandle> = shared.runs.lock().values().cloned().collect();
        for handle in handles {
            if let Err(error) = handle.cancel(SHUTTING_DOWN).await {
                warn!(%error, "cannot end a run; the next start adopts it");
            }
        }
        while runs.join_next().await.is_some() {}
    }
    flush(shared).await;
}

/// What was accepted and has not begun goes back at once.
async fn give_back_unstarted(shared: &Arc<Shared>) {
    for task_id in shared.board.of_status(TaskStatus::Accepted) {
        change(shared, &task_id, Event::TaskReject, |inner, tx, task| {
            let is_waiting = task.status == TaskStatus::Accepted;
            if is_waiting {
                give_back(inner, tx, task);
            }
            is_waiting
        })
        .await;
    }
}

/// Lets the link deliver what is due, so that the server need not wait for the next start to know.
async fn flush(shared: &Shared) {
    let is_waiting = || {
        let waits = |status| matches!(status, Sent::Pending | Sent::Sending);
        shared.link.read().connected
            && shared.store.messages(|messages| {
                let counts = messages.counts().iter();
                counts
                    .filter(|((_, way, status), _)| *way == Direction::Outbound && waits(*status))
                    .any(|(_, count)| *count > 0)
            })
    };
    let flushed = async {
        while is_waiting() {
            tokio::time::sleep(FLUSH_LOOK).await;
        }
    };
    if timeout(FLUSH_MAX, flushed).await.is_err() {
        warn!("messages still wait for the server; the next start delivers them");
    }
}

/// Another program has our id, and so the tasks that were offered to us: ours must not run beside
/// its own.
pub(super) async fn abandon(shared: &Arc<Shared>) {
    let mut open = Open::new(shared.board.news(), &shared.settings.namespace);
    let tasks = open.read(&shared.store);
    for task in tasks.iter().filter(|task| task.origin == Origin::Offered) {
        change(shared, &task.task_id, Event::TaskCancel, |_, tx, task| {
            let is_open = !task.status.is_terminal();
            if is_open {
                let now = tx.now();
                task.finish(TaskStatus::Cancelled, now);
            }
            is_open
        })
        .await;
    }
    end_cancelled(shared).await;
}

/// Ends the runs of tasks that are no longer wanted.
async fn end_cancelled(shared: &Shared) {
    let over: Vec<(String, CancelHandle)> = {
        let runs = shared.runs.lock();
        let over = runs.iter().filter(|(task_id, _)| !shared.board.is_open(task_id));
        over.map(|(task_id, handle)| (task_id.clone(), handle.clone())).collect()
    };
    for (task_id, handle) in over {
        let task = task::get(&shared.store.ledger(), &shared.settings.namespace, &task_id);
        if let Some(task) = task.filter(|task| task.status == TaskStatus::Cancelled)
            && let Err(error) = handle.cancel("cancelled").await
        {
            let traceparent = task.traceparent.as_deref();
            warn!(%error, task = task.task_id, traceparent, "cannot cancel a run");
        }
    }
}

/// Follows again what an earlier start left running, and clears away what it left over.
async fn adopt(shared: &Arc<Shared>, runs: &mut JoinSet<()>, open: &Open) {
    let running =
        |task: &LocalTask| task.status == TaskStatus::InProgress && task.origin != Origin::Shared;
    for task in open.tasks().filter(|task| running(task)) {
        start(shared, runs, task.clone()).await;
    }
    let left = match shared.executor.adopt().await {
        Ok(left) => left,
        Err(error) => return warn!(%error, "cannot look for runs of an earlier start"),
    };
    for run in left {
        let key = run.key().clone();
        let wanted = open.tasks().any(|task| {
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
async fn advance(shared: &Arc<Shared>, runs: &mut JoinSet<()>, open: &Open) {
    end_cancelled(shared).await;
    let mut free = shared.settings.slots().saturating_sub(shared.board.holders().len());
    for task in open.tasks() {
        let sent = task
            .waits_for
            .as_deref()
            .and_then(|sent| published_status(&shared.store, &shared.settings.namespace, sent));
        match (task.status, sent) {
            // Nothing can be decided before the server has answered.
            (TaskStatus::Accepted, Some(Sent::Pending | Sent::Sending | Sent::Held)) => {}
            (TaskStatus::Accepted, _) => granted(shared, runs, &task.task_id).await,
            (TaskStatus::Offered, None | Some(Sent::Failed | Sent::Pruned)) => {
                check_offer(shared, task).await;
            }
            (TaskStatus::Pending, _) => match choose(shared, task) {
                Some(agent) if free > 0 => {
                    free -= 1;
                    begin(shared, runs, &task.task_id, agent).await;
                }
                Some(_) => {}
                None => share(shared, &task.task_id).await,
            },
            _ => {}
        }
    }
}

fn choose(shared: &Shared, task: &LocalTask) -> Option<String> {
    let elsewhere = task.target_agent.as_ref().is_some_and(|id| *id != shared.settings.agent_id);
    let agent = shared.settings.agents.choose(&task.task_type, task.model());
    agent.filter(|_| !elsewhere).map(|agent| agent.agent_type.clone())
}

/// Changes a task in the store; `None` when `change` left it alone, or it was not written: the next
/// look tries again.
pub(super) async fn change(
    shared: &Arc<Shared>,
    task_id: &str,
    event: Event,
    change: impl FnOnce(&Shared, &mut storage::transaction::Transaction<'_>, &mut LocalTask) -> bool
    + Send
    + 'static,
) -> Option<LocalTask> {
    written(shared, task_id, event, change).await.unwrap_or_default()
}

/// Changes a task in the store; `None` when `change` left it alone. Only a store that stopped
/// stops the program: one that has no room will have some.
pub(super) async fn written(
    shared: &Arc<Shared>,
    task_id: &str,
    event: Event,
    change: impl FnOnce(&Shared, &mut storage::transaction::Transaction<'_>, &mut LocalTask) -> bool
    + Send
    + 'static,
) -> Result<Option<LocalTask>, CommitError> {
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
        inner.slots.note(&task);
        task::put(tx, event, &settings.agent_id, &settings.namespace, &task);
        Ok(Some(task))
    });
    match meter::durable(commit).await {
        Ok(Ok(changed)) => Ok(changed),
        Err(CommitError::Stopped) => {
            error!("a change of a task is not durable, stopping: the store has stopped");
            shared.shutdown.stop();
            Err(CommitError::Stopped)
        }
        Err(error) => {
            warn!(%error, "a change of a task is not durable, trying again");
            Err(error)
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
async fn check_offer(shared: &Arc<Shared>, task: &LocalTask) {
    let refused = |inner: &Shared, tx: &storage::transaction::Transaction<'_>, id: &str| {
        let sent = sent_status(tx, &inner.settings.namespace, id);
        matches!(sent, Some(Sent::Failed | Sent::Pruned))
    };
    if task.waits_for.is_none() {
        return;
    }
    change(shared, &task.task_id, Event::TaskFail, move |inner, tx, task| {
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
        let (message_id, trace) = (inner.clock.message_id(), task.traceparent.as_deref());
        match inner.author.write(&message_id, None, None, trace, &task.offer()) {
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
