//! The store: decisions go to one committer thread, and are answered when what they decided, and
//! all that they saw, is durable. It knows no runtime, no protocol and no key.

mod committer;
mod heads;
mod publisher;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use sha2::{Digest as _, Sha256};

use crate::commit::{Answer, Commit};
use crate::fold::State;
use crate::journal::{BodyRef, IndexKeys, Log, Made, ReadError, ReadLog, Space};
use crate::ledger::Ledger;
use crate::messages::{BodyPlace, Known, Live, Messages, Place, Summary};
use crate::record::{EntryId, Fact, Level, MessageHead, Millis, Prune, Record, id_time};
use crate::transaction::{SALT_BYTES, Transaction};
use committer::Committer;
pub(crate) use heads::{Heads, head_in};

/// A commit did not become durable, or is not known to be.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommitError {
    /// The store stopped, by request or after an error of a sync, which is final.
    #[error("the store has stopped")]
    Stopped,
    /// The journal refused the frame; nothing of it was written.
    #[error("the store refused the write: {0}")]
    Refused(String),
    /// The disk has no room for the frame; nothing of it was written.
    #[error("the store has no room: {0}")]
    Full(String),
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
    pub entries: Entries,
}

/// The entries of a frame, with their bodies.
pub type Entries = Arc<[(EntryId, Record, BodyPlace)]>;

/// Called by the committer after each durable frame; it must not block. Once it returns `false` it
/// is not called again.
pub type Listener = Box<dyn FnMut(&Published) -> bool + Send>;

/// Called by the committer when it stops for good after an error, with the reason.
pub type Fatal = Box<dyn Fn(&str) + Send + Sync>;

/// The wall clock, in milliseconds since the Unix epoch.
pub type Now = Box<dyn Fn() -> Millis + Send>;

/// Says whether admission of new messages is to slow down.
pub type Behind = Box<dyn Fn() -> bool + Send + Sync>;

/// When a frame is decided.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    /// The wall clock.
    pub(crate) wall: Millis,
    /// That of its records: never before the one of an earlier frame.
    pub(crate) frame: Millis,
}

/// A decision with whoever waits for it: one allocation from the commit to the answer.
trait Decision: Send {
    /// Decides; `false` when nothing of it is to be kept.
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> bool;

    /// Answers.
    fn answer(self: Box<Self>, outcome: Result<(), CommitError>);
}

struct Deciding<R, E, F> {
    decide: Option<F>,
    decided: Option<Result<R, E>>,
    answer: Answer<Result<R, E>>,
}

impl<R, E, F> Decision for Deciding<R, E, F>
where
    F: FnOnce(&mut Transaction<'_>) -> Result<R, E> + Send,
    R: Send,
    E: Send,
{
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> bool {
        let Some(decide) = self.decide.take() else { return false };
        // A decision that panics takes nothing with it, and its answer says so.
        self.decided = catch_unwind(AssertUnwindSafe(|| decide(transaction))).ok();
        self.decided.as_ref().is_some_and(Result::is_ok)
    }

    fn answer(self: Box<Self>, outcome: Result<(), CommitError>) {
        let Self { decided, answer, .. } = *self;
        let decided = decided.ok_or(CommitError::Decision);
        answer.give(decided.and_then(|decided| outcome.map(|()| decided)));
    }
}

enum Job {
    Decide(Box<dyn Decision>),
    /// The frame that was being synced is published, or the store failed.
    Synced,
    Stop,
}

struct Inner {
    state: RwLock<State>,
    reader: Arc<dyn ReadLog>,
    heads: Heads,
    jobs: Sender<Job>,
    listeners: Mutex<Vec<Listener>>,
    committer: Mutex<Option<JoinHandle<Box<dyn Log>>>>,
    behind: Mutex<Vec<Behind>>,
    waiting: Mutex<Vec<Answer<()>>>,
    /// The room of the journal's disk, where it has one.
    space: OnceLock<Arc<Space>>,
    /// A frame was applied in part only, because that panicked.
    broken: AtomicBool,
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
            heads: Heads::new(Arc::clone(&reader)),
            reader,
            jobs,
            listeners: Mutex::default(),
            committer: Mutex::default(),
            behind: Mutex::default(),
            waiting: Mutex::default(),
            space: OnceLock::new(),
            broken: AtomicBool::new(false),
        });
        let committer = Committer::new(Arc::clone(&inner), log, queue, now, fatal)?;
        let thread =
            std::thread::Builder::new().name("committer".into()).spawn(move || committer.run())?;
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
        let deciding = Deciding { decide: Some(decide), decided: None, answer };
        // A send fails only when the committer is gone; the answer is then dropped, and says so.
        let _ = self.0.jobs.send(Job::Decide(Box::new(deciding)));
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

    /// An unfinished message with its head, as published.
    pub fn live(&self, entry: EntryId) -> Option<Live> {
        self.lives(&[entry]).pop()
    }

    /// The head of a message, from where it is read.
    ///
    /// # Errors
    /// When the journal does not give it: for good, unless it is [`ReadError::Io`].
    pub fn head(&self, place: Place) -> Result<Arc<MessageHead>, ReadError> {
        self.0.heads.get(place)
    }

    /// The unfinished messages among these, with their heads. One whose head cannot be read has
    /// what memory knows of it, and no id; its body cannot be read either.
    pub fn lives(&self, entries: &[EntryId]) -> Vec<Live> {
        // The journal is read before anybody has to wait for this.
        let places: Vec<Place> = self.messages(|messages| {
            let found = entries.iter().filter_map(|entry| messages.live(*entry));
            found.map(|summary| summary.place()).collect()
        });
        let heads: Vec<_> = places.iter().map(|place| self.0.heads.get(*place).ok()).collect();
        let state = self.0.state.read();
        let found = places.iter().zip(heads).filter_map(|((entry, _), head)| {
            let summary = state.messages.live(*entry)?;
            Some(summary.with(head.unwrap_or_else(|| Arc::new(summary.remains()))))
        });
        found.collect()
    }

    /// The unfinished messages that are `wanted`, with their heads, oldest first. It goes through
    /// all of them, and reads from the journal what it gives.
    pub fn select(&self, wanted: impl Fn(&Summary<'_>) -> bool) -> Vec<Live> {
        let wanted = |summary: &Summary<'_>| wanted(summary);
        let entries: Vec<EntryId> = self.messages(|messages| {
            messages.iter().filter(wanted).map(|summary| summary.entry).collect()
        });
        self.lives(&entries)
    }

    /// Works on the queues of the published messages. The committer waits meanwhile: be quick.
    pub fn queues<R>(&self, work: impl FnOnce(&mut crate::queue::Queues<'_>) -> R) -> R {
        work(&mut self.0.state.write().messages.queues())
    }

    /// The whole published state.
    pub fn state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.0.state.read())
    }

    /// Every frame that is published was applied as a whole.
    pub(crate) fn is_whole(&self) -> bool {
        !self.0.broken.load(Ordering::SeqCst)
    }

    /// The published state itself, for whoever copies it bit by bit.
    pub(crate) fn shared_state(&self) -> &RwLock<State> {
        &self.0.state
    }

    /// The body at this place, without its salt.
    ///
    /// # Errors
    /// When it was dropped or cannot be read.
    pub fn body(&self, place: BodyPlace) -> Result<Vec<u8>, ReadError> {
        read_body(&*self.0.reader, place)
    }

    /// The content of a message, which is what was accepted: see [`read_content`].
    ///
    /// # Errors
    /// When it was dropped, cannot be read or has rotted.
    pub fn content(&self, live: &Live) -> Result<Vec<u8>, ReadError> {
        read_content(&*self.0.reader, live.body, &live.head.digest)
    }

    /// Whether the body of a message reads back as something else than was accepted, or nobody
    /// can tell any more, because its frame does not read back.
    pub fn is_rotten(&self, known: &Known) -> bool {
        match self.head(crate::messages::place(known.entry, known.body)) {
            Ok(head) => {
                let salted = salted(&*self.0.reader, known.body);
                salted.is_ok_and(|bytes| Sha256::digest(&bytes).as_slice() != head.digest)
            }
            Err(error) => matches!(error, ReadError::Damaged { .. }),
        }
    }

    /// The journal's reading side.
    pub fn reader(&self) -> &dyn ReadLog {
        &*self.0.reader
    }

    /// Calls `listener` after each durable frame.
    pub fn listen(&self, listener: Listener) {
        self.0.listeners.lock().push(listener);
    }

    /// Slows admission down while `behind` says so; whoever makes it say otherwise calls
    /// [`Store::relieve`].
    pub fn throttle(&self, behind: Behind) {
        self.0.behind.lock().push(behind);
    }

    /// To be asked before a new message is accepted (JOURNAL rule 14): `None` when there is room,
    /// or what to wait for. Acknowledgements and deliveries do not ask.
    pub fn room(&self) -> Option<Commit<()>> {
        if !self.is_behind() {
            return None;
        }
        let (answer, commit) = crate::commit::channel();
        self.0.waiting.lock().push(answer);
        // It may have been relieved just before somebody waited.
        self.relieve();
        Some(commit)
    }

    /// Why the disk has no room for new messages; `None` when it has (JOURNAL rule 23). To be asked
    /// where a message that is not known is admitted. Acknowledgements, deliveries and whatever a
    /// person does do not ask: room is kept for them.
    pub fn full(&self) -> Option<CommitError> {
        self.0.space.get()?.reason().map(CommitError::Full)
    }

    /// Whether the disk has no room for new messages; cheaper than the reason.
    pub fn is_full(&self) -> bool {
        self.0.space.get().is_some_and(|space| space.is_short())
    }

    /// Follows the room of a disk, and tells it what unfinished messages may still write.
    pub(crate) fn watch(&self, space: Arc<Space>) {
        space.owe(self.owed());
        let store = Arc::downgrade(&self.0);
        space.on_change(Box::new(move || {
            if let Some(inner) = store.upgrade() {
                Self(inner).relieve();
            }
        }));
        let _ = self.0.space.set(space);
    }

    fn owed(&self) -> u64 {
        u64::try_from(self.messages(Messages::live_len)).unwrap_or(u64::MAX)
    }

    /// Lets those go on who wait for room, if there is some.
    pub fn relieve(&self) {
        if self.is_behind() {
            return;
        }
        for answer in std::mem::take(&mut *self.0.waiting.lock()) {
            answer.give(Ok(()));
        }
    }

    fn is_behind(&self) -> bool {
        // On a full disk nobody waits for what may not come: what is new is refused.
        !self.is_full() && self.0.behind.lock().iter().any(|behind| behind())
    }

    /// Stops the committer after what is queued and gives the log back, so that its owner can
    /// close it. `None` when it was stopped already or failed.
    pub fn stop(&self) -> Option<Box<dyn Log>> {
        let _ = self.0.jobs.send(Job::Stop);
        let thread = self.0.committer.lock().take()?;
        let log = thread.join().ok();
        // Nobody is told or let in any more; what these hold may hold this store in turn.
        self.0.listeners.lock().clear();
        self.0.behind.lock().clear();
        self.0.waiting.lock().clear();
        log
    }
}

/// The body at this place, without its salt.
///
/// # Errors
/// When it was dropped or cannot be read.
pub fn read_body(reader: &dyn ReadLog, place: BodyPlace) -> Result<Vec<u8>, ReadError> {
    salted(reader, place).map(unsalted)
}

/// The body at this place, without its salt, if it is what the head of its message says: a journal
/// does not check bodies, and what has rotted must not leave as if it had been accepted.
///
/// # Errors
/// When it was dropped, cannot be read or has another digest.
pub fn read_content(
    reader: &dyn ReadLog,
    place: BodyPlace,
    digest: &[u8; 32],
) -> Result<Vec<u8>, ReadError> {
    let salted = salted(reader, place)?;
    if Sha256::digest(&salted).as_slice() == digest {
        return Ok(unsalted(salted));
    }
    // Its frame says what is wrong with it, and is known to be damaged from then on.
    reader.frame(place.sequence)?;
    let again = self::salted(reader, place)?;
    if Sha256::digest(&again).as_slice() == digest {
        Ok(unsalted(again))
    } else {
        Err(no_body(place))
    }
}

fn salted(reader: &dyn ReadLog, place: BodyPlace) -> Result<Vec<u8>, ReadError> {
    let BodyPlace { sequence, offset, length: len } = place;
    if place.is_empty() {
        Err(no_body(place))
    } else {
        reader.body(&BodyRef { sequence, offset, len })
    }
}

fn no_body(place: BodyPlace) -> ReadError {
    let BodyPlace { sequence, offset, length: len } = place;
    ReadError::NoBody { sequence, offset, len }
}

fn unsalted(mut salted: Vec<u8>) -> Vec<u8> {
    salted.drain(..SALT_BYTES.min(salted.len()));
    salted
}

/// A body reference of the journal as the fold keeps it.
pub(crate) fn place(body: Option<BodyRef>) -> BodyPlace {
    body.map_or_else(BodyPlace::default, |body| BodyPlace {
        sequence: body.sequence,
        offset: body.offset,
        length: body.len,
    })
}

/// By what a footer finds a record.
pub(crate) fn record_keys(
    record: &Record,
    fingerprint: impl Fn(&crate::record::MessageKey<'_>) -> u128,
) -> IndexKeys {
    let (id, made) = match &record.fact {
        Fact::Accept(head) => {
            let made = id_time(&head.message_id).map_or(Made::Unknown, Made::At);
            (Some(fingerprint(&head.key())), made)
        }
        // The entry that accepted it may be gone.
        Fact::Carry(carried) => {
            let made = id_time(&carried.head.message_id).map_or(Made::Unknown, Made::At);
            (Some(carried.state.fingerprint), made)
        }
        Fact::Change(change) | Fact::Prune(Prune { change, .. }) => {
            (Some(change.fingerprint), Made::Elsewhere)
        }
        _ => (None, Made::Elsewhere),
    };
    IndexKeys {
        event: record.event.code(),
        level: level_key(record.level),
        actor: actor_hash(&record.actor),
        resource: actor_hash(&record.resource),
        id,
        made,
    }
}

/// The number by which a footer finds a level: 0, which is not indexed, for what is ordinary.
pub(crate) fn level_key(level: Level) -> u8 {
    match level {
        Level::Debug | Level::Info => 0,
        Level::Warning => 1,
        Level::Error => 2,
    }
}

/// The hash by which a footer finds an actor or a resource: FNV-1a, which needs no key, as a footer
/// that names too many entries is only slower.
pub fn actor_hash(actor: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    actor.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}
