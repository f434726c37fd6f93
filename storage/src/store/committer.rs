//! The committer thread: runs decisions one after the other, gathers them into a frame, and writes
//! it. While a frame is being synced the next one is decided and encoded (JOURNAL rule 3); it is
//! written when the disk is free again, so that a batch is as large as the disk is slow.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::publisher::{Publisher, Written};
use super::{CommitError, Decision, Fatal, Inner, Job, Now, Time};
use crate::batch::{Batch, Before, Room};
use crate::journal::{AppendError, Log, Syncing};
use crate::record::Millis;
use crate::transaction::Transaction;

/// Decisions that go into one frame at the most: a later one waits for the next sync.
const BATCH_DECISIONS_MAX: usize = 4_096;

/// Bytes after which a frame is closed; the journal's frame limit lies above it with room for one
/// more message of the largest size.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Every handle that is dropped without a stop leaves the loop at its next wake-up.
const WAKE_UP: Duration = Duration::from_secs(1);

pub(super) struct Committer {
    shared: Arc<Inner>,
    log: Arc<Mutex<Box<dyn Log>>>,
    queue: Receiver<Job>,
    now: Now,
    publisher: Arc<Publisher>,
    /// To the thread that syncs.
    syncer: Option<ToSyncer>,
    outcomes: Receiver<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// What is in the frame that is being synced.
    before: Option<Arc<Before>>,
    time: Millis,
    room: Room,
}

/// The thread that syncs has one frame at a time: it gets its sync first, and what is to be
/// published when that is put together.
struct ToSyncer {
    syncs: SyncSender<Box<dyn Syncing>>,
    frames: SyncSender<Written>,
}

/// A frame that takes decisions.
struct Open {
    batch: Batch,
    time: Time,
    decisions: usize,
    waiting: Vec<Box<dyn Decision>>,
}

impl Open {
    fn is_full(&self) -> bool {
        self.decisions >= BATCH_DECISIONS_MAX || self.batch.bytes() >= BATCH_BYTES_MAX
    }
}

/// Why the loop goes on or ends.
enum Next {
    Decide(Box<dyn Decision>),
    Idle,
    Stop,
    Failed,
}

impl Committer {
    pub(super) fn new(
        shared: Arc<Inner>,
        log: Box<dyn Log>,
        queue: Receiver<Job>,
        now: Now,
        fatal: Fatal,
    ) -> std::io::Result<Self> {
        let log = Arc::new(Mutex::new(log));
        let publisher = Publisher { shared: Arc::clone(&shared), log: Arc::clone(&log), fatal };
        let publisher = Arc::new(publisher);
        let (syncs, begun) = sync_channel::<Box<dyn Syncing>>(1);
        let (frames, written) = sync_channel::<Written>(1);
        let (told, outcomes) = sync_channel(1);
        let (finisher, wake) = (Arc::clone(&publisher), shared.jobs.clone());
        let thread = std::thread::Builder::new().name("syncer".into()).spawn(move || {
            while let Ok(sync) = begun.recv() {
                let done = sync.run();
                // The committer sends it next.
                let Ok(written) = written.recv() else { return };
                let ok = finisher.complete(done, written);
                // The committer may have ended.
                let _ = told.send(ok);
                let _ = wake.send(Job::Synced);
            }
        })?;
        let time = shared.state.read().time;
        let (syncer, thread) = (Some(ToSyncer { syncs, frames }), Some(thread));
        let (before, room) = (None, Room::default());
        Ok(Self {
            shared,
            log,
            queue,
            now,
            publisher,
            syncer,
            outcomes,
            thread,
            before,
            time,
            room,
        })
    }

    pub(super) fn run(mut self) -> Box<dyn Log> {
        let mut open: Option<Open> = None;
        loop {
            let next = match self.next(&mut open) {
                Next::Decide(decision) => {
                    let mut batch = open.take().unwrap_or_else(|| self.open());
                    self.decide(decision, &mut batch);
                    open = Some(batch);
                    continue;
                }
                other => other,
            };
            let ok = match (next, open.take()) {
                (Next::Failed, _) => false,
                (Next::Stop, batch) => {
                    // What is being synced comes first, as it was decided first.
                    let _ = self.wait_synced() && batch.is_none_or(|batch| self.write(batch, true));
                    false
                }
                (_, batch) => batch.is_none_or(|batch| self.write(batch, false)),
            };
            if !ok {
                return self.end();
            }
        }
    }

    /// What to do now. With an open frame it is `Idle` when that is to be written: the disk is
    /// free, and there is nobody left to wait for or no room.
    fn next(&mut self, open: &mut Option<Open>) -> Next {
        loop {
            if open.as_ref().is_some_and(Open::is_full) {
                return if self.wait_synced() { Next::Idle } else { Next::Failed };
            }
            let may_write = open.is_some() && self.before.is_none();
            let job = if may_write {
                self.queue.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            } else {
                self.queue.recv_timeout(WAKE_UP)
            };
            match job {
                Ok(Job::Decide(decision)) => return Next::Decide(decision),
                Ok(Job::Synced) => match self.outcomes.try_recv() {
                    Ok(false) => return Next::Failed,
                    Ok(true) => self.before = None,
                    // The answer was taken already, when the frame was full.
                    Err(_) => {}
                },
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
                Err(RecvTimeoutError::Timeout) if may_write => return Next::Idle,
                Err(RecvTimeoutError::Timeout) => {
                    // This thread and the one that syncs hold one each.
                    if Arc::strong_count(&self.shared) == 2 {
                        return Next::Stop;
                    }
                }
            }
        }
    }

    /// Waits until no frame is being synced; `false` when the store has failed.
    fn wait_synced(&mut self) -> bool {
        if self.before.is_none() {
            return true;
        }
        let ok = self.outcomes.recv().unwrap_or(false);
        self.before = None;
        ok
    }

    fn open(&mut self) -> Open {
        let wall = (self.now)();
        self.time = wall.max(self.time);
        let sequence = self.log.lock().next_sequence();
        let state = self.shared.state.read();
        // `before` may have been published just now; what it adds is then in both.
        let at = (sequence, self.time);
        let batch = Batch::new(at, &state.ledger, self.before.clone(), self.room);
        let time = Time { wall, frame: self.time };
        Open { batch, time, decisions: 0, waiting: Vec::new() }
    }

    fn decide(&self, mut decision: Box<dyn Decision>, open: &mut Open) {
        let state = self.shared.state.read();
        let journal = (&*self.shared.reader, &self.shared.heads);
        let mut transaction = Transaction::new(&state, journal, &mut open.batch, open.time);
        open.decisions += 1;
        if !decision.decide(&mut transaction) {
            transaction.discard();
            open.waiting.push(decision);
            return;
        }
        match transaction.keep() {
            Ok(()) => open.waiting.push(decision),
            Err(reason) => decision.answer(Err(CommitError::Refused(reason))),
        }
    }

    /// Writes a frame and has it synced; `false` when the store cannot go on.
    fn write(&mut self, open: Open, here: bool) -> bool {
        let Open { batch, time, decisions, waiting } = open;
        if batch.staged.is_empty() {
            // It saw nothing that is not durable: a frame that is being synced was waited for.
            for one in waiting {
                one.answer(Ok(()));
            }
            return true;
        }
        // Nobody else is there to be decided meanwhile: a hand-over would only cost time.
        let other = self.syncer.as_ref().filter(|_| !here && decisions > 1);
        let mut mine = None;
        let mut hand_over = |sync| match other {
            Some(other) => drop(other.syncs.send(sync)),
            None => mine = Some(sync),
        };
        let appended = self.log.lock().append_with(time.frame, &batch.entries(), &mut hand_over);
        let appended = match appended {
            Ok(appended) => appended,
            Err(error) => return self.refuse(&error, waiting),
        };
        self.room = batch.room();
        let before = batch.close(appended.bodies);
        let sequence = appended.position.sequence;
        let entries = Arc::clone(&before.entries);
        let published =
            super::Published { sequence, time: time.frame, hash: appended.hash, entries };
        let written = Written { published, waiting };
        if let Some(sync) = mine {
            return self.publisher.complete(sync.run(), written);
        }
        self.before = Some(Arc::new(before));
        other.is_some_and(|other| other.frames.send(written).is_ok())
    }

    fn refuse(&self, error: &AppendError, waiting: Vec<Box<dyn Decision>>) -> bool {
        let (answer, goes_on) = match error {
            error if error.is_final() => (CommitError::Stopped, false),
            AppendError::Full { .. } => (CommitError::Full(error.to_string()), true),
            _ => (CommitError::Refused(error.to_string()), true),
        };
        for one in waiting {
            one.answer(Err(answer.clone()));
        }
        if !goes_on {
            (self.publisher.fatal)(&error.to_string());
        }
        goes_on
    }

    /// Ends the thread that syncs and gives the log back.
    fn end(mut self) -> Box<dyn Log> {
        self.syncer = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        std::mem::replace(&mut *self.log.lock(), Box::new(crate::journal::Ended))
    }
}
