//! Follows one run from outside, through its folder. It is not the parent of anything: dropping a
//! [`Run`] changes nothing, and following it again after a restart tells the same outcome.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tracing::warn;

use crate::clock::Clock;

use super::blocking;
use super::folder::Folder;
use super::output::Update;
use super::process::{self, Group};
use super::spec::{Failure, Outcome, RunKey, Status};

/// How often the folder is looked at: a person does not notice it, and it is two system calls.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);

/// How much of a dead supervisor's own complaints goes into the outcome: a panic's text.
const LOG_BYTES_MAX: u64 = 1024;

/// A run, running or finished.
#[derive(Debug)]
pub struct Run {
    key: RunKey,
    folder: Folder,
    clock: Clock,
    ticks: Interval,
    updates: VecDeque<Update>,
    offset: u64,
    outcome: Option<Outcome>,
}

/// Ends a run from elsewhere, while its [`Run`] is being waited for.
#[derive(Clone, Debug)]
pub struct CancelHandle(Folder);

/// What one look at the folder showed.
struct Look {
    lines: Vec<u8>,
    offset: u64,
    outcome: Option<Outcome>,
}

impl Run {
    pub(super) fn follow(folder: Folder, key: RunKey, clock: Clock) -> Self {
        let mut ticks = tokio::time::interval(FOLLOW_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let updates = VecDeque::new();
        Self { key, folder, clock, ticks, updates, offset: 0, outcome: None }
    }

    /// The task and attempt.
    pub fn key(&self) -> &RunKey {
        &self.key
    }

    /// The next progress report, or `None` when the run has ended and all were told. Cancel safe.
    ///
    /// # Errors
    /// When the folder cannot be read; the run itself is not touched by that.
    pub async fn update(&mut self) -> io::Result<Option<Update>> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Ok(Some(update));
            }
            if self.outcome.is_some() {
                return Ok(None);
            }
            self.ticks.tick().await;
            self.look().await?;
        }
    }

    /// Waits for the end of the run; of the progress reports until then only the last is kept.
    /// Cancel safe.
    ///
    /// # Errors
    /// When the folder cannot be read; the run itself is not touched by that.
    pub async fn wait(&mut self) -> io::Result<Outcome> {
        loop {
            if let Some(outcome) = &self.outcome {
                return Ok(outcome.clone());
            }
            self.ticks.tick().await;
            self.look().await?;
            // Nobody asks for them: the latest is enough.
            let surplus = self.updates.len().saturating_sub(1);
            self.updates.drain(..surplus);
        }
    }

    /// Asks for the end of the run, which [`Run::wait`] then tells. The first reason stays.
    ///
    /// # Errors
    /// When the request cannot be written.
    pub async fn cancel(&self, reason: &str) -> io::Result<()> {
        self.cancel_handle().cancel(reason).await
    }

    /// What cancels this run while somebody waits for it.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle(self.folder.clone())
    }

    /// Removes the folder of a run that has ended, after its outcome was recorded elsewhere on
    /// stable storage. From then on the same task and attempt would run again.
    ///
    /// # Errors
    /// When the run has not ended, or the folder cannot be removed.
    pub async fn forget(self) -> io::Result<()> {
        if self.outcome.is_none() {
            let text = format!("{} has not ended: wait for it first", self.key);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        blocking(move || self.folder.remove()).await
    }

    async fn look(&mut self) -> io::Result<()> {
        let (folder, key) = (self.folder.clone(), self.key.clone());
        let (clock, offset) = (self.clock.clone(), self.offset);
        let look = blocking(move || look(&folder, &key, &clock, offset)).await?;
        self.offset = look.offset;
        self.outcome = look.outcome;
        for line in look.lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            // A line that was overwritten while it was read is no report any more.
            if let Ok(update) = serde_json::from_slice(line) {
                self.updates.push_back(update);
            }
        }
        Ok(())
    }
}

impl CancelHandle {
    /// As [`Run::cancel`].
    ///
    /// # Errors
    /// When the request cannot be written.
    pub async fn cancel(&self, reason: &str) -> io::Result<()> {
        let (folder, reason) = (self.0.clone(), reason.to_owned());
        blocking(move || folder.write_cancel(&reason)).await
    }
}

/// Looks for the outcome before the progress, so that no report before the end is missed.
fn look(folder: &Folder, key: &RunKey, clock: &Clock, offset: u64) -> io::Result<Look> {
    let mut outcome = folder.outcome()?;
    if outcome.is_none()
        && let Some(_lock) = folder.take_lock()?
    {
        // It may have ended between the two looks.
        outcome = folder.outcome()?;
        if outcome.is_none() {
            let lost = bury(folder, clock);
            warn!(task_id = key.task_id, attempt = key.attempt, "the supervisor of a run died");
            folder.write_outcome(&lost)?;
            outcome = Some(lost);
        }
    }
    let (lines, next) = folder.progress_from(offset)?;
    // More lines than one read takes: the end is told after them.
    let outcome = outcome.filter(|_| lines.is_empty() || next == offset);
    Ok(Look { lines, offset: next, outcome })
}

/// Ends what a dead supervisor left behind. The lock must be held.
fn bury(folder: &Folder, clock: &Clock) -> Outcome {
    if let Some(group) = folder.read_pid().as_deref().and_then(Group::from_text) {
        group.kill_if_same();
    }
    let ended = process::kill_marked(folder.path());
    let log = folder.tail("log", LOG_BYTES_MAX);
    let mut message = String::from("the supervisor process ended without leaving an outcome");
    message.push_str(match (folder.has_started(), ended) {
        (false, _) => "; the command never ran",
        (true, true) => "; what was left of its command was ended",
        (true, false) => "; processes of its command could not be ended",
    });
    if !log.is_empty() {
        message.push_str(": ");
        message.push_str(&log);
    }
    let now = clock.now();
    Outcome {
        status: Status::Failed,
        result: None,
        error: Some(Failure { code: "supervisor_lost".to_owned(), message }),
        started_at: now,
        finished_at: now,
        duration_seconds: 0.0,
        exit_code: None,
    }
}
