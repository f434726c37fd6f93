//! Feeds one link with the messages of one destination, and records what became of each. It knows
//! no socket: a transport takes from it and tells it the answers.

mod settle;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use storage::commit::Commit;
use storage::messages::Live;
use storage::record::{EntryId, MessageHead};
use storage::store::{CommitError, Store};
use storage::transaction::Transaction;
use tokio::time::Instant;

use super::circuit::Admission;
use super::content::{self, Content};
use super::gate::Gate;
use super::observe::Observer;
use super::pause::Pauses;
use super::steps::{fail, start, tell};
use super::verdict::Outcome;
use super::wakes::Wakes;
use crate::clock::{Clock, Millis};
use crate::protocol::Refusal;
use crate::retry::Policy;
use crate::trace;
use crate::transport::feed::{Failure, Feed, Outgoing, StoreStopped};

/// A link that returns is not given everything at once: what waits becomes due over this time for
/// each thousand messages.
const RAMP_PER_THOUSAND: Duration = Duration::from_millis(250);

/// Messages that may be out at first on a link that was just established, or after a circuit has
/// closed. Each one that is answered lets one more out, so that thousands that are due do not
/// arrive at once where nothing worked a moment ago: a slow peer that is given all of them misses
/// its pings, loses the link, and gets all of them again. Few enough for the largest messages.
const RAMP_START: usize = 8;

/// A waiting pump looks again after this time, so that a clock that jumped delays nothing longer.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// Windows of paused messages that one look puts aside: it does not wait, and others do.
const HELD_ROUNDS_MAX: usize = 16;

/// A wall clock that goes back by less than this is being adjusted, not set.
const JUMP_MIN: Millis = 1_000;

/// How long an attempt waits for its answer unless the owner says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_mins(2);

/// The types that nobody has to acknowledge.
const RECEIPTS: [&str; 2] = ["ack", "nack"];

/// Receipts that are out and not known to have arrived, beside the window of the messages.
const RECEIPTS_OUT_MAX: usize = 256;

/// What is done, in the same decision, with a message that fails or expires; with the reason.
pub type GivenUp = Arc<dyn Fn(&mut Transaction<'_>, &Live, &str) + Send + Sync>;

/// One destination's feed. Dropping it without [`Pump::broken`] leaves its messages out until the
/// store is opened again.
pub struct Pump {
    store: Store,
    clock: Clock,
    policy: Policy,
    timeout: Duration,
    gate: Gate,
    observer: Option<Observer>,
    given_up: Option<GivenUp>,
    destination: Arc<str>,
    wakes: Wakes,
    out: Mutex<HashMap<String, Sent>>,
    /// Attempts whose start has to be durable before their bytes leave.
    guarded: tokio::sync::Mutex<Option<Guarded>>,
    seen: Mutex<Millis>,
    /// What was paused at the last look.
    paused: Mutex<Pauses>,
    /// Messages that may be out so far.
    ramp: Mutex<usize>,
}

/// A message that is out.
#[derive(Clone)]
struct Sent {
    entry: EntryId,
    head: Arc<MessageHead>,
    /// The trace that it belongs to.
    trace: Option<Arc<str>>,
    at: Instant,
}

/// A message, and the trace that it belongs to.
type Traced = (EntryId, Option<Arc<str>>);

impl Sent {
    fn traced(&self) -> Traced {
        (self.entry, self.trace.clone())
    }

    fn is_receipt(&self) -> bool {
        RECEIPTS.contains(&self.head.message_type.as_str())
    }
}

struct Guarded {
    started: Commit<Result<(), ()>>,
    batch: Vec<(Sent, Outgoing)>,
}

impl Pump {
    /// A feed for a link that was just established: what waits becomes due, over a ramp.
    pub fn new(store: Store, clock: Clock, policy: Policy, destination: &str) -> Self {
        let wakes = Wakes::new(&store, destination);
        let pump = Self {
            gate: Gate::new(clock.clone(), policy.clone()),
            seen: Mutex::new(clock.now()),
            store,
            clock,
            policy,
            timeout: TIMEOUT_DEFAULT,
            observer: None,
            given_up: None,
            destination: destination.into(),
            wakes,
            out: Mutex::default(),
            guarded: tokio::sync::Mutex::default(),
            paused: Mutex::default(),
            ramp: Mutex::new(RAMP_START),
        };
        pump.pull_in();
        pump
    }

    /// With a circuit that outlives this link.
    #[must_use]
    pub fn with_gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// With another time that an attempt waits for its answer.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With somebody who counts attempts.
    #[must_use]
    pub fn observed(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The same, with something to do when a message is given up.
    #[must_use]
    pub fn returning(mut self, given_up: GivenUp) -> Self {
        self.given_up = Some(given_up);
        self
    }

    /// Changes when something may leave.
    #[cfg(test)]
    pub(super) fn wakings(&self) -> tokio::sync::watch::Receiver<u64> {
        let mut wakings = self.wakes.receiver();
        wakings.mark_unchanged();
        wakings
    }

    fn pull_in(&self) {
        let now = self.clock.now();
        self.store.queues(|queues| {
            let count = queues.len(&self.destination) as u64;
            queues.pull_in(&self.destination, now, count / 1_000 * millis(RAMP_PER_THOUSAND));
        });
    }

    /// A wall clock that jumped back would put everything off: due times are bounded by what the
    /// policy ever waits.
    fn follow_clock(&self, now: Millis) {
        let before = std::mem::replace(&mut *self.seen.lock(), now);
        if now + JUMP_MIN < before {
            let furthest = millis(self.policy.max_interval);
            self.store.queues(|queues| queues.pull_in(&self.destination, now, furthest));
        }
    }

    /// Takes out what may leave now. What was in flight at an unclean stop, and so may have
    /// arrived, may also be what brought the program down: it is in the second part, and its start
    /// is to be durable before its bytes leave.
    fn take(&self, limit: usize) -> (Vec<Outgoing>, Option<Guarded>) {
        self.wakes.look();
        let now = self.clock.now();
        self.follow_clock(now);
        let limit = match self.gate.admits(self.in_flight()) {
            Admission::All => limit.min(self.room()),
            Admission::Probe => limit.min(1),
            Admission::Nothing | Admission::NothingUntil(_) => 0,
        };
        let lives = self.due(now, limit);
        self.wakes.looked(&self.store);
        let (mut usual, mut suspect) = (Vec::new(), Vec::new());
        let mut ids: HashSet<String> = self.out.lock().keys().cloned().collect();
        for live in lives {
            if live.head.expires_at.is_some_and(|expires_at| expires_at <= now) {
                let given_up = self.given_up.clone();
                self.give_up(live.entry, move |transaction, live, trace| {
                    super::expire(transaction, live, trace);
                    tell(given_up.as_ref(), transaction, live, "its expires_at passed");
                });
                continue;
            }
            match content::read(&self.store, &live) {
                // An answer names an id only: of two messages of one id, one at a time.
                Content::Bytes(_) if !ids.insert(live.head.message_id.clone()) => {
                    self.put_back(&[live.entry]);
                }
                Content::Bytes(bytes) => {
                    let message_id = live.head.message_id.clone();
                    let at = Instant::now();
                    let to = if live.maybe_delivered { &mut suspect } else { &mut usual };
                    let trace = trace::of_object(&bytes).map(Arc::from);
                    let sent = Sent { entry: live.entry, head: live.head, trace, at };
                    to.push((sent, Outgoing { message_id, bytes }));
                }
                Content::Later => self.put_back(&[live.entry]),
                Content::Never(reason) => {
                    let (given_up, place) = (self.given_up.clone(), live.body);
                    self.give_up(live.entry, move |transaction, live, trace| {
                        // One that was carried forward meanwhile is read there.
                        if live.body == place {
                            fail(transaction, live, &reason, trace);
                            tell(given_up.as_ref(), transaction, live, &reason);
                        }
                    });
                }
            }
        }
        let entries =
            |batch: &[(Sent, Outgoing)]| batch.iter().map(|(sent, _)| sent.traced()).collect();
        if !usual.is_empty() {
            // Nobody waits for it: the commit runs in order before that of any answer.
            drop(self.commit(entries(&usual), start));
        }
        let guarded = (!suspect.is_empty())
            .then(|| Guarded { started: self.commit(entries(&suspect), start), batch: suspect });
        (self.leave(usual), guarded)
    }

    /// How many more may be out.
    fn room(&self) -> usize {
        if self.out.lock().values().filter(|sent| sent.is_receipt()).count() >= RECEIPTS_OUT_MAX {
            return 0;
        }
        self.ramp.lock().saturating_sub(self.in_flight())
    }

    /// Up to `limit` messages that are due and that nobody has paused.
    fn due(&self, now: Millis, limit: usize) -> Vec<Live> {
        let pauses = Pauses::of(&self.store.ledger(), &self.destination);
        let before = std::mem::replace(&mut *self.paused.lock(), pauses.clone());
        if pauses.releases(&before) {
            self.pull_in();
        }
        let mut due = Vec::new();
        if pauses.all.is_some() {
            return due;
        }
        for _ in 0..HELD_ROUNDS_MAX {
            let wanted = limit - due.len();
            let taken = self.store.queues(|queues| queues.take(&self.destination, now, wanted));
            let lives = self.store.lives(&taken);
            let (held, free): (Vec<Live>, Vec<Live>) =
                lives.into_iter().partition(|live| pauses.holds(&live.head.peer).is_some());
            due.extend(free);
            if held.is_empty() {
                break;
            }
            // Until the pause ends, it is as if they were never due.
            let held: Vec<EntryId> = held.iter().map(|live| live.entry).collect();
            let never = Millis::MAX;
            self.store.queues(|queues| queues.postpone(&self.destination, &held, never));
        }
        due
    }

    /// From now on these are out.
    fn leave(&self, batch: Vec<(Sent, Outgoing)>) -> Vec<Outgoing> {
        let mut out = self.out.lock();
        let left = batch.into_iter().map(|(sent, outgoing)| {
            out.insert(outgoing.message_id.clone(), Sent { at: Instant::now(), ..sent });
            outgoing
        });
        left.collect()
    }

    /// Gives what was guarded when its start is durable. A future that is dropped meanwhile leaves
    /// it for the next call.
    async fn release(&self) -> Vec<Outgoing> {
        let mut guarded = self.guarded.lock().await;
        let Some(waiting) = guarded.as_mut() else { return Vec::new() };
        let started = (&mut waiting.started).await;
        let batch = guarded.take().map(|waiting| waiting.batch).unwrap_or_default();
        match started {
            Ok(_) => self.leave(batch),
            // A store that stopped sends nothing more; the link's end tells.
            Err(CommitError::Stopped) => Vec::new(),
            Err(_) => {
                let entries: Vec<EntryId> = batch.iter().map(|(sent, _)| sent.entry).collect();
                self.put_back(&entries);
                Vec::new()
            }
        }
    }

    fn wait(&self) -> Duration {
        let now = self.clock.now();
        let due = self.store.queues(|queues| queues.next_due(&self.destination));
        // What ends a pause, or lets more out, is recorded, and wakes.
        if self.paused.lock().all.is_some() || self.room() == 0 {
            return LOOK_AGAIN_MAX;
        }
        let until = match self.gate.admits(self.in_flight()) {
            Admission::NothingUntil(until) => due.map(|due| due.max(until)),
            Admission::Nothing => None,
            Admission::All | Admission::Probe => due,
        };
        until.map_or(LOOK_AGAIN_MAX, |until| {
            Duration::from_millis(until.saturating_sub(now).max(1)).min(LOOK_AGAIN_MAX)
        })
    }
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Feed for Pump {
    fn in_flight(&self) -> usize {
        self.out.lock().values().filter(|sent| !sent.is_receipt()).count()
    }

    async fn next(&self, limit: usize) -> Vec<Outgoing> {
        let mut published = self.wakes.receiver();
        loop {
            let released = self.release().await;
            if !released.is_empty() {
                return released;
            }
            published.mark_unchanged();
            let mut slot = self.guarded.lock().await;
            let (batch, guarded) = self.take(limit);
            let is_guarded = guarded.is_some();
            *slot = guarded;
            drop(slot);
            if !batch.is_empty() {
                return batch;
            }
            if is_guarded {
                continue;
            }
            tokio::select! {
                changed = published.changed() => if changed.is_err() {
                    tokio::time::sleep(LOOK_AGAIN_MAX).await;
                },
                () = tokio::time::sleep(self.wait()) => {}
            }
        }
    }

    async fn delivered(&self, message_ids: &[String]) -> Result<(), StoreStopped> {
        self.settle(self.answered(message_ids), Outcome::Acknowledged).await
    }

    async fn refused(&self, message_id: &str, refusal: Refusal) -> Result<(), StoreStopped> {
        let sent = self.answered(&[message_id.to_owned()]);
        self.settle(sent, Outcome::of_refusal(refusal)).await
    }

    async fn failed(&self, message_ids: &[String], failure: Failure) -> Result<(), StoreStopped> {
        let outcome = match failure {
            Failure::NotSent => Outcome::NotSent,
            Failure::TimedOut => Outcome::TimedOut,
            Failure::Barred(reason) => Outcome::Barred(reason),
        };
        self.settle(self.answered(message_ids), outcome).await
    }

    async fn arrived(&self, before: Instant) -> Result<(), StoreStopped> {
        let receipts = {
            let mut out = self.out.lock();
            out.extract_if(|_, sent| sent.is_receipt() && sent.at < before)
                .map(|(_, sent)| sent)
                .collect()
        };
        self.conclude(receipts, &Outcome::Acknowledged).await
    }

    async fn overdue(&self) -> Result<(), StoreStopped> {
        let oldest = {
            let out = self.out.lock();
            out.values().filter(|sent| !sent.is_receipt()).map(|sent| sent.at).min()
        };
        let Some(oldest) = oldest else { return std::future::pending().await };
        tokio::time::sleep_until(oldest + self.timeout).await;
        let now = Instant::now();
        let late: Vec<String> = {
            let out = self.out.lock();
            let late = |sent: &Sent| !sent.is_receipt() && sent.at + self.timeout <= now;
            let late = out.iter().filter(|(_, sent)| late(sent));
            late.map(|(id, _)| id.clone()).collect()
        };
        self.settle(self.answered(&late), Outcome::TimedOut).await
    }

    async fn broken(&self) -> Result<(), StoreStopped> {
        let held = self.guarded.lock().await.take().map(|waiting| waiting.batch);
        let held = held.unwrap_or_default().into_iter().map(|(sent, _)| sent).collect();
        self.settle(held, Outcome::NotSent).await?;
        let sent: Vec<Sent> = self.out.lock().drain().map(|(_, sent)| sent).collect();
        self.settle(sent, Outcome::Unanswered).await
    }
}
