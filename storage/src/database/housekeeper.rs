//! What is done beside the decisions, on a thread of its own: checkpoints, after some bytes of
//! journal and at a clean stop, and letting go of finished message ids. A checkpoint that fails
//! costs time at the next start and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::compaction::{Compaction, Freed};
use super::trimming::Trimming;
use crate::checkpoint::Writer;
use crate::event::Event;
use crate::info::{Info, Tally, info};
use crate::journal::{Compactor, Reader, Space};
use crate::messages::Messages;
use crate::record::{EntryId, Fact, Level, Millis};
use crate::retention::Retention;
use crate::store::{CommitError, Published, Store};
use crate::transaction::Act;
use crate::view::View;

/// A checkpoint is due after this many bytes of journal. With what is written meanwhile the tail
/// that opening replays stays below [`TAIL_BYTES_MAX`].
const DUE_BYTES: usize = 24 << 20;

/// Above this many bytes after the newest checkpoint admission slows down.
const TAIL_BYTES_MAX: usize = 64 << 20;

/// How often ids are let go of at the least.
const INTERVAL: Duration = Duration::from_mins(1);

/// How long ids of finished messages are remembered unless the owner says otherwise: longer than
/// any sender of ours tries again, which is seven days.
const DEDUP_WINDOW: Millis = 8 * 24 * 60 * 60 * 1_000;

/// Ids of finished messages in memory, each of about 150 bytes; the others are found through the
/// footers of the journal.
const RESIDENT_MAX: usize = 1_000_000;

/// What is evicted at once, so that it is not done again with the next message: one part in
const EVICTED_PART: usize = 8;

/// How far behind the window ids that were evicted may be forgotten: one part in
const FORGET_PART: Millis = 100;

/// One round forgets the ids of no more than this time, which is twice as long as a round takes.
const FORGET_MOST: Millis = 2 * 60 * 1_000;

/// Bytes of an entry in the journal besides its body and its long texts.
const ENTRY_BYTES: usize = 320;

enum Job {
    Write,
    /// The disk is full, or has room again.
    Room,
    /// A person wants everything compacted, and waits.
    Compact(SyncSender<Freed>),
    Stop,
}

/// Asks the housekeeper; cheap to clone.
#[derive(Clone)]
pub struct Upkeep {
    jobs: SyncSender<Job>,
    dir: PathBuf,
    store: Store,
    reader: Reader,
    view: View,
    retention: Arc<Mutex<Retention>>,
}

impl Upkeep {
    /// Writes every segment anew that has dead bodies, and waits for that. `None` when the store
    /// has stopped.
    pub fn compact(&self) -> Option<Freed> {
        self.begin()?.recv().ok()
    }

    /// The same, waiting no longer than this; `None` when it goes on, or the store has stopped.
    pub fn compact_within(&self, patience: Duration) -> Option<Freed> {
        self.begin()?.recv_timeout(patience).ok()
    }

    /// What the store takes on the disk. It reads all rows.
    ///
    /// # Errors
    /// When rows or journal cannot be read.
    pub fn info(&self) -> Result<Info, String> {
        self.settle();
        let (now, retention) = (self.store.state(|state| state.time), *self.retention.lock());
        let mut tally = Tally::new(retention, now);
        let counted = self.view.newest_first(&mut |row| tally.count(row));
        counted.map_err(|error| error.to_string())?;
        info(&self.dir, &self.reader, tally).map_err(|error| error.to_string())
    }

    /// Waits until the rows have what is published, unless they are being made again.
    fn settle(&self) {
        if !self.view.lag().catching_up {
            // Rows that cannot be read are told by whoever reads them.
            let _ = self.view.settle();
        }
    }

    fn begin(&self) -> Option<Receiver<Freed>> {
        self.settle();
        let (answer, done) = sync_channel(1);
        self.jobs.send(Job::Compact(answer)).ok()?;
        Some(done)
    }
}

/// The thread that does it.
pub(super) struct Housekeeper {
    jobs: SyncSender<Job>,
    retention: Arc<Mutex<Retention>>,
    /// For how long the audit log is kept.
    kept: Arc<AtomicU64>,
    trimming: Arc<Mutex<Trimming>>,
    tail: Arc<AtomicUsize>,
    window: Arc<AtomicU64>,
    thread: Option<JoinHandle<Work>>,
}

impl Housekeeper {
    pub(super) fn start(
        (writer, checkpoints): (Writer, PathBuf),
        store: &Store,
        (reader, space, compactor): (&Reader, &Arc<Space>, Compactor),
        view: &View,
        replayed_bytes: usize,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(1);
        let tail = Arc::new(AtomicUsize::new(replayed_bytes));
        let (store_here, reader) = (store.clone(), reader.clone());
        let window = Arc::new(AtomicU64::new(DEDUP_WINDOW));
        let (tail_here, window_here) = (Arc::clone(&tail), Arc::clone(&window));
        let retention = Arc::new(Mutex::new(Retention::default()));
        let kept = Arc::new(AtomicU64::new(Millis::MAX));
        let (sides, keeps) = ((store, view), (&retention, &kept));
        let trimming = Trimming::new(&compactor, sides, checkpoints, keeps);
        let trimming = Arc::new(Mutex::new(trimming));
        let compaction = Compaction::new(compactor, store, view, space, &retention);
        let work = Work {
            writer,
            compaction,
            trimming: Arc::clone(&trimming),
            store: store_here,
            reader,
            space: Arc::clone(space),
            is_full: false,
            tail: tail_here,
            window: window_here,
        };
        let changed = jobs.clone();
        // A full queue means that it looks soon.
        space.on_change(Box::new(move || drop(changed.try_send(Job::Room))));
        // It may have been full while the journal was opened.
        let _ = jobs.try_send(Job::Room);
        let thread = std::thread::Builder::new()
            .name("housekeeper".into())
            .spawn(move || work.run(&queue))?;
        let (due, grown) = (jobs.clone(), Arc::clone(&tail));
        store.listen(Box::new(move |published| {
            let bytes = size(published);
            if grown.fetch_add(bytes, Ordering::Relaxed) + bytes >= DUE_BYTES {
                // A full queue means that one is due already.
                let _ = due.try_send(Job::Write);
            }
            true
        }));
        Ok(Self { jobs, retention, kept, trimming, tail, window, thread: Some(thread) })
    }

    /// Whether so much lies after the newest checkpoint that admission is to slow down.
    pub(super) fn is_behind(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let tail = Arc::clone(&self.tail);
        move || tail.load(Ordering::Relaxed) > TAIL_BYTES_MAX
    }

    pub(super) fn set_dedup_window(&self, window: Millis) {
        self.window.store(window, Ordering::Relaxed);
    }

    pub(super) fn set_audit_retention(&self, kept: Millis) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn trimming(&self) -> Arc<Mutex<Trimming>> {
        Arc::clone(&self.trimming)
    }

    pub(super) fn trim(&self) {
        self.trimming.lock().step();
    }

    pub(super) fn set_retention(&self, retention: Retention) {
        *self.retention.lock() = retention;
    }

    pub(super) fn upkeep(&self, dir: &Path, store: &Store, reader: &Reader, view: &View) -> Upkeep {
        Upkeep {
            jobs: self.jobs.clone(),
            dir: dir.to_path_buf(),
            store: store.clone(),
            reader: reader.clone(),
            view: view.clone(),
            retention: Arc::clone(&self.retention),
        }
    }

    pub(super) fn dedup_window(&self) -> Millis {
        self.window.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&mut self) {
        self.end();
    }

    /// The last checkpoint of a clean stop.
    pub(super) fn finish(&mut self) {
        if let Some(mut work) = self.end() {
            work.write();
        }
    }

    fn end(&mut self) -> Option<Work> {
        let _ = self.jobs.send(Job::Stop);
        self.thread.take()?.join().ok()
    }
}

struct Work {
    writer: Writer,
    compaction: Compaction,
    trimming: Arc<Mutex<Trimming>>,
    store: Store,
    reader: Reader,
    space: Arc<Space>,
    /// As the audit log has it.
    is_full: bool,
    /// Bytes of journal after the newest checkpoint.
    tail: Arc<AtomicUsize>,
    window: Arc<AtomicU64>,
}

impl Work {
    fn run(mut self, queue: &Receiver<Job>) -> Self {
        loop {
            // Segments are compacted between two jobs, one at a time.
            let pause = if self.compaction.is_busy() { Duration::ZERO } else { INTERVAL };
            let mut is_time = true;
            match queue.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) if self.compaction.is_busy() => {
                    self.compaction.step();
                    continue;
                }
                Ok(Job::Compact(answer)) => self.compaction.all(answer),
                Ok(Job::Write) => {
                    if self.tail.load(Ordering::Relaxed) >= DUE_BYTES {
                        self.write();
                    }
                }
                // A start has other things to do first.
                Ok(Job::Room) => is_time = self.space.is_short(),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return self,
            }
            self.tell_room();
            if is_time {
                self.compaction.begin();
            }
            // After a checkpoint as well: under load no minute passes without one.
            let window = self.window.load(Ordering::Relaxed);
            if let Err(error) = tidy(&self.store, window, FORGET_MOST, RESIDENT_MAX) {
                tracing::warn!(error.text = %error, "old message ids are not let go of");
            }
            if is_time {
                self.trimming.lock().step_in_time();
            }
        }
    }

    /// Writes into the audit log that admission stopped, or that it goes on.
    fn tell_room(&mut self) {
        let reason = self.space.reason();
        if reason.is_some() == self.is_full {
            return;
        }
        let act = if let Some(reason) = &reason {
            tracing::error!(reason, "the disk is full: new messages are refused");
            let details = format!(r#"{{"reason":{}}}"#, super::opening::quote(reason));
            let act = Act::new(Event::StoreFull, "store", "", "journal").level(Level::Error);
            act.details(details)
        } else {
            tracing::info!("the disk has room: new messages are taken again");
            Act::new(Event::StoreRoom, "store", "", "journal")
        };
        let done = self.store.commit(move |transaction| -> Result<(), std::convert::Infallible> {
            transaction.note(act);
            Ok(())
        });
        if done.wait().is_ok() {
            self.is_full = reason.is_some();
        }
    }

    fn write(&mut self) {
        let covered = self.tail.load(Ordering::Relaxed);
        let reader = &self.reader;
        let hash_of = |sequence| match sequence {
            0 => None,
            _ => reader.frame(sequence).ok().map(|frame| frame.hash),
        };
        let written = self.writer.write(self.store.shared_state(), &hash_of);
        // One that failed is tried again after as many bytes: the disk may have room by then.
        self.tail.fetch_sub(covered, Ordering::Relaxed);
        self.store.relieve();
        if let Err(error) = written {
            tracing::warn!(error.text = %error, "checkpoint not written; the next start is slower");
        }
    }
}

/// Forgets the ids beyond the window, of at most so much time, and evicts the oldest of too many
/// (JOURNAL rule 17). By the time of records: a clock that jumped ahead is followed only once
/// something was recorded then, and only step by step.
pub(super) fn tidy(
    store: &Store,
    window: Millis,
    most: Millis,
    resident_max: usize,
) -> Result<(), CommitError> {
    let past = store.state(|state| state.time).saturating_sub(window);
    let (before, forgets, evicts) = store.messages(|messages| {
        let oldest = messages.finished().next();
        let from = oldest.map(|(_, one)| one.accepted_at.max(messages.forgotten_before()));
        let before = from.map_or(past, |from| past.min(from.saturating_add(most)));
        let resident = oldest.is_some_and(|(_, one)| one.accepted_at < before);
        // Those that were evicted have no date here: from time to time the mark follows.
        let evicted = messages.evicted_through() > EntryId::default()
            && before > messages.forgotten_before() + window / FORGET_PART;
        (before, resident || evicted, surplus(messages, resident_max))
    });
    if !forgets && evicts.is_none() {
        return Ok(());
    }
    let done = store.commit(move |transaction| -> Result<(), std::convert::Infallible> {
        let act = Act::new(Event::StoreForget, "store", "", "ids").level(Level::Debug);
        if forgets {
            let details = format!(r#"{{"accepted_before":{before}}}"#);
            transaction.forget(act.clone().details(details), before);
        }
        if let Some(through) = evicts {
            let details = format!(r#"{{"from_memory_through":"{through}"}}"#);
            transaction.evict(act.details(details), through);
        }
        Ok(())
    });
    done.wait().map(|_| ())
}

/// Through which entry ids leave the memory, if there are too many.
fn surplus(messages: &Messages, resident_max: usize) -> Option<EntryId> {
    let surplus = messages.finished_len().checked_sub(resident_max).filter(|more| *more > 0)?;
    let goes = surplus + resident_max / EVICTED_PART;
    messages.finished().take(goes).last().map(|(_, finished)| finished.entry)
}

fn size(published: &Published) -> usize {
    let entry = |fact: &Fact, body: u32| {
        let value = match fact {
            Fact::Put(write) => write.value.as_ref().map_or(0, |value: &Arc<[u8]>| value.len()),
            _ => 0,
        };
        ENTRY_BYTES + value + body as usize
    };
    published.entries.iter().map(|(_, record, body)| entry(&record.fact, body.length)).sum()
}
