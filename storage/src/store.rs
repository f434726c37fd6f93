//! The store: one committer thread that decides, encodes, writes, syncs, publishes and only then
//! answers. It knows no runtime, no protocol and no key.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::codec;
use crate::commit::{Answer, Commit};
use crate::fold::State;
use crate::journal::{AppendError, BodyRef, Entry, IndexKeys, Log, ReadError, ReadLog};
use crate::ledger::Ledger;
use crate::messages::{BodyPlace, Messages, fingerprint};
use crate::record::{EntryId, Fact, Millis, Record};
use crate::transaction::{Batch, SALT_BYTES, Transaction};

/// Decisions that go into one frame at the most: a later one waits for the next sync.
const BATCH_DECISIONS_MAX: usize = 4_096;

/// Body bytes after which a frame is closed; the journal's frame limit lies above it with room
/// for one more message of the largest size.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A commit did not become durable, or is not known to be.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommitError {
    /// The store stopped, by request or after an error of a sync, which is final.
    #[error("the store has stopped")]
    Stopped,
    /// The journal refused the frame; nothing of it was written.
    #[error("the store refused the write: {0}")]
    Refused(String),
    /// The decision itself panicked; nothing of it was written.
    #[error("a decision failed inside the store")]
    Decision,
}

/// What was published, for those who wait for it.
#[derive(Clone, Debug)]
pub struct Published {
    /// The frame.
    pub sequence: u64,
    /// Its time.
    pub time: Millis,
    /// The chain's hash after it.
    pub hash: [u8; 32],
    /// Its entries.
    pub entries: Arc<[(EntryId, Record, BodyPlace)]>,
}

/// Called by the committer after each durable frame; it must not block. Once it returns `false` it
/// is not called again.
pub type Listener = Box<dyn FnMut(&Published) -> bool + Send>;

/// Called by the committer when it stops for good after an error, with the reason.
pub type Fatal = Box<dyn Fn(&str) + Send + Sync>;

/// The wall clock, in milliseconds since the Unix epoch.
pub type Now = Box<dyn Fn() -> Millis + Send>;

type Run = Box<dyn FnOnce(&mut Transaction<'_>) -> Verdict + Send>;
type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

struct Verdict {
    keep: bool,
    done: Done,
}

enum Job {
    Decide(Run),
    Stop,
}

struct Inner {
    state: RwLock<State>,
    reader: Arc<dyn ReadLog>,
    jobs: Sender<Job>,
    listeners: Mutex<Vec<Listener>>,
    committer: Mutex<Option<JoinHandle<Box<dyn Log>>>>,
}

/// A handle of the store. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl Store {
    /// Starts the committer over a recovered log and the state that was folded from it.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(log: Box<dyn Log>, state: State, now: Now, fatal: Fatal) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let reader = log.reader();
        let inner = Arc::new(Inner {
            state: RwLock::new(state),
            reader,
            jobs,
            listeners: Mutex::default(),
            committer: Mutex::default(),
        });
        let shared = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || Committer { shared, log, queue, now, fatal }.run())?;
        *inner.committer.lock() = Some(thread);
        Ok(Self(inner))
    }

    /// Decides in the committer and makes what was decided durable: all of it, or, when `decide`
    /// returns an error, nothing. The answer comes when all that the decision saw is durable.
    pub fn commit<R, E, F>(&self, decide: F) -> Commit<Result<R, E>>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: Send + 'static,
    {
        let (answer, commit) = crate::commit::channel();
        // A send fails only when the committer is gone; the answer is then dropped, and says so.
        let _ = self.0.jobs.send(Job::Decide(Box::new(move |transaction| {
            let result = decide(transaction);
            let keep = result.is_ok();
            Verdict { keep, done: Box::new(move |outcome| give(answer, result, outcome)) }
        })));
        commit
    }

    /// A snapshot of the entities as published. Costs nothing to take.
    pub fn ledger(&self) -> Ledger {
        self.0.state.read().ledger.clone()
    }

    /// Looks at the published messages. The committer waits meanwhile: be quick.
    pub fn messages<R>(&self, look: impl FnOnce(&Messages) -> R) -> R {
        look(&self.0.state.read().messages)
    }

    /// Works on the queues of the published messages. The committer waits meanwhile: be quick.
    pub fn queues<R>(&self, work: impl FnOnce(&mut crate::queue::Queues) -> R) -> R {
        work(self.0.state.write().messages.queues())
    }

    /// The whole published state.
    pub fn state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.0.state.read())
    }

    /// The body at this place, without its salt.
    ///
    /// # Errors
    /// When it was dropped or cannot be read.
    pub fn body(&self, place: BodyPlace) -> Result<Vec<u8>, ReadError> {
        read_body(&*self.0.reader, place)
    }

    /// The journal's reading side.
    pub fn reader(&self) -> &dyn ReadLog {
        &*self.0.reader
    }

    /// Calls `listener` after each durable frame.
    pub fn listen(&self, listener: Listener) {
        self.0.listeners.lock().push(listener);
    }

    /// Stops the committer after what is queued and gives the log back, so that its owner can
    /// close it. `None` when it was stopped already or failed.
    pub fn stop(&self) -> Option<Box<dyn Log>> {
        let _ = self.0.jobs.send(Job::Stop);
        let thread = self.0.committer.lock().take()?;
        thread.join().ok()
    }
}

/// The body at this place, without its salt.
///
/// # Errors
/// When it was dropped or cannot be read.
pub fn read_body(reader: &dyn ReadLog, place: BodyPlace) -> Result<Vec<u8>, ReadError> {
    let at = BodyRef { sequence: place.sequence, offset: place.offset, len: place.length };
    let mut salted = reader.body(&at)?;
    salted.drain(..SALT_BYTES.min(salted.len()));
    Ok(salted)
}

fn give<R, E>(
    answer: Answer<Result<R, E>>,
    result: Result<R, E>,
    outcome: Result<(), CommitError>,
) {
    answer.give(outcome.map(|()| result));
}

struct Committer {
    shared: Arc<Inner>,
    log: Box<dyn Log>,
    queue: Receiver<Job>,
    now: Now,
    fatal: Fatal,
}

impl Committer {
    fn run(mut self) -> Box<dyn Log> {
        // Every handle that is dropped without a stop leaves this loop at its next wake-up.
        const WAKE_UP: Duration = Duration::from_secs(1);
        loop {
            match self.queue.recv_timeout(WAKE_UP) {
                Ok(Job::Decide(first)) => {
                    let (stop, failed) = self.batch(first);
                    if let Some(reason) = failed {
                        (self.fatal)(&reason);
                        return self.log;
                    }
                    if stop {
                        return self.log;
                    }
                }
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return self.log,
                Err(RecvTimeoutError::Timeout) => {
                    if Arc::strong_count(&self.shared) == 1 {
                        return self.log;
                    }
                }
            }
        }
    }

    /// One frame: whether to stop after it, and why the store cannot go on.
    fn batch(&mut self, first: Run) -> (bool, Option<String>) {
        let mut dones = Vec::new();
        let (staged, time, stop) = {
            let state = self.shared.state.read();
            let time = (self.now)().max(state.time);
            let mut batch = Batch::new(&state);
            let sequence = state.sequence + 1;
            let mut next = Some(first);
            let mut stop = false;
            let mut decisions = 0;
            while let Some(run) = next.take() {
                decide(run, &state, &mut batch, (time, sequence), &mut dones);
                decisions += 1;
                let bytes = batch.body_bytes();
                if decisions >= BATCH_DECISIONS_MAX || bytes >= BATCH_BYTES_MAX {
                    break;
                }
                match self.queue.try_recv() {
                    Ok(Job::Decide(run)) => next = Some(run),
                    Ok(Job::Stop) => stop = true,
                    Err(_) => {}
                }
            }
            (batch.staged, time, stop)
        };
        let outcome = if staged.is_empty() { Ok(()) } else { self.write(staged, time) };
        let (outcome, failed) = match outcome {
            Ok(()) => (Ok(()), None),
            Err((error, failed)) => (Err(error), failed),
        };
        for done in dones {
            done(outcome.clone());
        }
        (stop, failed)
    }

    fn write(
        &mut self,
        staged: Vec<crate::transaction::Staged>,
        time: Millis,
    ) -> Result<(), (CommitError, Option<String>)> {
        let refused = |error: &dyn std::fmt::Display| {
            (CommitError::Refused(error.to_string()), None::<String>)
        };
        let mut heads = Vec::with_capacity(staged.len());
        for one in &staged {
            heads.push(codec::encode(&one.record).map_err(|error| refused(&error))?);
        }
        let key_of_hash = self.shared.reader.identity().key;
        let entries: Vec<Entry<'_>> = staged
            .iter()
            .zip(&heads)
            .map(|(one, head)| Entry {
                head,
                body: one.body.as_deref(),
                index: record_keys(&one.record, |key| fingerprint(&key_of_hash, key)),
            })
            .collect();
        let appended = self.log.append(time, &entries).map_err(|error| failed(&error))?;
        self.log.sync().map_err(|error| {
            // An error of a sync is final: what was written may or may not be there.
            (CommitError::Stopped, Some(error.to_string()))
        })?;
        let sequence = appended.position.sequence;
        let entries: Vec<_> = staged
            .into_iter()
            .zip(appended.bodies)
            .enumerate()
            .map(|(index, (one, body))| {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                (EntryId { sequence, index }, one.record, place(body))
            })
            .collect();
        self.publish(&Published { sequence, time, hash: appended.hash, entries: entries.into() });
        Ok(())
    }

    fn publish(&self, published: &Published) {
        let mut state = self.shared.state.write();
        for (entry, record, body) in published.entries.iter() {
            state.apply(*entry, published.time, record, *body);
        }
        drop(state);
        self.shared.listeners.lock().retain_mut(|listener| listener(published));
    }
}

fn failed(error: &AppendError) -> (CommitError, Option<String>) {
    if error.is_final() {
        (CommitError::Stopped, Some(error.to_string()))
    } else {
        (CommitError::Refused(error.to_string()), None)
    }
}

/// A body reference of the journal as the fold keeps it.
pub(crate) fn place(body: Option<BodyRef>) -> BodyPlace {
    body.map_or_else(BodyPlace::default, |body| BodyPlace {
        sequence: body.sequence,
        offset: body.offset,
        length: body.len,
    })
}

fn decide(
    run: Run,
    state: &State,
    batch: &mut Batch,
    (time, sequence): (Millis, u64),
    dones: &mut Vec<Done>,
) {
    let mut transaction = Transaction::new(state, batch, time, sequence);
    // A decision that panics takes nothing with it: its answer says that it failed.
    match catch_unwind(AssertUnwindSafe(|| run(&mut transaction))) {
        Ok(verdict) => {
            if verdict.keep {
                transaction.keep();
            } else {
                transaction.discard();
            }
            dones.push(verdict.done);
        }
        Err(_) => transaction.discard(),
    }
}

/// By what a footer finds a record.
pub(crate) fn record_keys(
    record: &Record,
    fingerprint: impl Fn(&crate::record::MessageKey<'_>) -> u128,
) -> IndexKeys {
    let id = match &record.fact {
        Fact::Accept(head) => Some(fingerprint(&head.key())),
        Fact::Change(change) => Some(change.fingerprint),
        _ => None,
    };
    IndexKeys { event: record.event.code(), actor: actor_hash(&record.actor), id }
}

/// The hash by which a footer finds an actor: FNV-1a, which needs no key, as a footer that names
/// too many actors is only slower.
pub fn actor_hash(actor: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    actor.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}
