//! Feeds one link with the messages of one destination, and records what became of each. It knows
//! no socket: a transport takes from it and tells it the answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use storage::event::Event;
use storage::messages::Live;
use storage::record::{EntryId, Level, Status};
use storage::store::Store;
use storage::transaction::{Act, Change, Transaction};
use tokio::sync::watch;

use super::verdict::{Outcome, judge};
use crate::clock::Clock;
use crate::protocol::Refusal;
use crate::retry::Policy;
use crate::transport::feed::{Feed, Outgoing, StoreStopped};

/// A link that returns is not given everything at once: what waits becomes due over this time for
/// each thousand messages.
const RAMP_PER_THOUSAND: Duration = Duration::from_millis(250);

/// A waiting pump looks again after this time, so that a clock that jumped delays nothing longer.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// The types that nobody acknowledges.
const RECEIPTS: [&str; 2] = ["ack", "nack"];

/// One destination's feed. Dropping it without [`Pump::broken`] leaves its messages out until the
/// store is opened again.
pub struct Pump {
    store: Store,
    clock: Clock,
    policy: Policy,
    destination: Arc<str>,
    published: watch::Receiver<u64>,
    out: Mutex<HashMap<String, Out>>,
    given_up: Option<GivenUp>,
}

/// What is done, in the same decision, with a message that fails or expires; with the reason.
pub type GivenUp = Arc<dyn Fn(&mut Transaction<'_>, &Live, &str) + Send + Sync>;

/// A message that is out.
struct Out {
    entry: EntryId,
    /// Nobody acknowledges it: it is settled when its bytes have left.
    is_receipt: bool,
}

impl Pump {
    /// A feed for a link that was just established: what waits becomes due, over a ramp.
    pub fn new(store: Store, clock: Clock, policy: Policy, destination: &str) -> Self {
        let (sender, published) = watch::channel(0);
        store.listen(Box::new(move |frame| sender.send(frame.sequence).is_ok()));
        let pump = Self {
            store,
            clock,
            policy,
            destination: destination.into(),
            published,
            out: Mutex::default(),
            given_up: None,
        };
        pump.pull_in();
        pump
    }

    /// The same, with something to do when a message is given up.
    #[must_use]
    pub fn returning(mut self, given_up: GivenUp) -> Self {
        self.given_up = Some(given_up);
        self
    }

    /// Settles the receipts of earlier batches: this one is asked for because those have left.
    fn left(&self) {
        let receipts: Vec<EntryId> = {
            let mut out = self.out.lock();
            out.extract_if(|_, out| out.is_receipt).map(|(_, out)| out.entry).collect()
        };
        if !receipts.is_empty() {
            self.record(receipts, |transaction, live| {
                let change =
                    Change { status: Status::Delivered, next_attempt_at: 0, ..Change::of(live) };
                settle_one(transaction, live, change);
            });
        }
    }

    fn pull_in(&self) {
        let now = self.clock.now();
        self.store.queues(|queues| {
            let waiting = storage::queue::waiting(queues);
            let count = waiting.get(&self.destination).copied().unwrap_or(0) as u64;
            let per_thousand = u64::try_from(RAMP_PER_THOUSAND.as_millis()).unwrap_or(0);
            queues.pull_in(&self.destination, now, count / 1_000 * per_thousand);
        });
    }

    fn take(&self, limit: usize) -> Vec<Outgoing> {
        let now = self.clock.now();
        let taken = self.store.queues(|queues| queues.take(&self.destination, now, limit));
        let lives: Vec<Live> = self.store.messages(|messages| {
            taken.iter().filter_map(|entry| messages.live(*entry).cloned()).collect()
        });
        let mut batch = Vec::new();
        let mut started = Vec::new();
        for live in lives {
            if live.head.expires_at.is_some_and(|expires_at| expires_at <= now) {
                let given_up = self.given_up.clone();
                self.record(vec![live.entry], move |transaction, live| {
                    expire(transaction, live);
                    tell(given_up.as_ref(), transaction, live, "its expires_at passed");
                });
                continue;
            }
            match self.store.body(live.body) {
                Ok(bytes) => {
                    let message_id = live.head.message_id.clone();
                    let is_receipt = RECEIPTS.contains(&live.head.message_type.as_str());
                    let out = Out { entry: live.entry, is_receipt };
                    self.out.lock().insert(message_id.clone(), out);
                    batch.push(Outgoing { message_id, bytes });
                    started.push(live.entry);
                }
                Err(error) => {
                    let reason = format!("its body cannot be read: {error}");
                    let given_up = self.given_up.clone();
                    self.record(vec![live.entry], move |transaction, live| {
                        fail(transaction, live, &reason);
                        tell(given_up.as_ref(), transaction, live, &reason);
                    });
                }
            }
        }
        if !started.is_empty() {
            self.record(started, start);
        }
        batch
    }

    /// Records a change without waiting for it: the commit runs in order before any later one.
    fn record(
        &self,
        entries: Vec<EntryId>,
        change: impl Fn(&mut Transaction<'_>, &Live) + Send + 'static,
    ) {
        drop(self.commit(entries, change));
    }

    fn commit(
        &self,
        entries: Vec<EntryId>,
        change: impl Fn(&mut Transaction<'_>, &Live) + Send + 'static,
    ) -> storage::commit::Commit<Result<(), ()>> {
        self.store.commit(move |transaction| {
            for entry in entries {
                if let Some(live) = transaction.live(entry) {
                    change(transaction, &live);
                }
            }
            Ok(())
        })
    }

    async fn settle(&self, entries: Vec<EntryId>, outcome: Outcome) -> Result<(), StoreStopped> {
        if entries.is_empty() {
            return Ok(());
        }
        let (policy, clock) = (self.policy.clone(), self.clock.clone());
        let given_up = self.given_up.clone();
        let commit = self.commit(entries, move |transaction, live| {
            let bound = u64::try_from(policy.bound(live.attempts).as_millis()).unwrap_or(u64::MAX);
            let now = transaction.now();
            let change = judge(live, &outcome, &policy, now, clock.draw(bound));
            let failed = (change.status == Status::Failed).then(|| change.error.clone());
            settle_one(transaction, live, change);
            if let Some(why) = failed {
                tell(given_up.as_ref(), transaction, live, &why);
            }
        });
        commit.await.map(|_| ()).map_err(|_| StoreStopped)
    }
}

impl Feed for Pump {
    fn in_flight(&self) -> usize {
        self.out.lock().values().filter(|out| !out.is_receipt).count()
    }

    async fn next(&self, limit: usize) -> Vec<Outgoing> {
        self.left();
        let mut published = self.published.clone();
        loop {
            published.mark_unchanged();
            let batch = self.take(limit);
            if !batch.is_empty() {
                return batch;
            }
            let now = self.clock.now();
            let due = self.store.queues(|queues| queues.next_due(&self.destination));
            // Nothing waits longer than this by itself: the clock has jumped back.
            let latest = u64::try_from(self.policy.max_interval.as_millis()).unwrap_or(u64::MAX);
            if due.is_some_and(|due| due > now.saturating_add(latest)) {
                self.pull_in();
                continue;
            }
            let wait = due.map_or(LOOK_AGAIN_MAX, |due| {
                Duration::from_millis(due.saturating_sub(now).max(1)).min(LOOK_AGAIN_MAX)
            });
            tokio::select! {
                changed = published.changed() => if changed.is_err() {
                    tokio::time::sleep(LOOK_AGAIN_MAX).await;
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn delivered(&self, message_ids: &[String]) -> Result<(), StoreStopped> {
        let entries: Vec<EntryId> = {
            let mut out = self.out.lock();
            message_ids.iter().filter_map(|id| out.remove(id)).map(|out| out.entry).collect()
        };
        self.settle(entries, Outcome::Acknowledged).await
    }

    async fn refused(&self, message_id: &str, refusal: Refusal) -> Result<(), StoreStopped> {
        let entry = self.out.lock().remove(message_id).map(|out| out.entry);
        self.settle(entry.into_iter().collect(), Outcome::Refused(refusal)).await
    }

    async fn broken(&self) -> Result<(), StoreStopped> {
        let entries: Vec<EntryId> = self.out.lock().drain().map(|(_, out)| out.entry).collect();
        self.settle(entries, Outcome::Unanswered).await
    }
}

fn tell(given_up: Option<&GivenUp>, transaction: &mut Transaction<'_>, live: &Live, why: &str) {
    if let Some(given_up) = given_up {
        given_up(transaction, live, why);
    }
}

fn act(event: Event, live: &Live) -> Act {
    let head = &live.head;
    Act::new(event, &head.sender, &head.namespace, &head.message_id)
}

fn start(transaction: &mut Transaction<'_>, live: &Live) {
    let attempts = live.attempts + 1;
    let details = serde_json::json!({ "attempt": attempts }).to_string();
    let change =
        Change { status: Status::Sending, attempts, next_attempt_at: 0, ..Change::of(live) };
    transaction.change(act(Event::MessageSent, live).details(details), live, change);
}

fn expire(transaction: &mut Transaction<'_>, live: &Live) {
    let change = Change { status: Status::Expired, next_attempt_at: 0, ..Change::of(live) };
    transaction.change(act(Event::MessageExpired, live).level(Level::Warning), live, change);
}

fn fail(transaction: &mut Transaction<'_>, live: &Live, error: &str) {
    let change = Change {
        status: Status::Failed,
        reason: storage::record::Reason::Permanent,
        next_attempt_at: 0,
        error: error.into(),
        ..Change::of(live)
    };
    transaction.change(act(Event::MessageFailed, live).level(Level::Error), live, change);
}

fn settle_one(transaction: &mut Transaction<'_>, live: &Live, change: Change) {
    let (event, level) = match change.status {
        Status::Delivered => (Event::MessageDelivered, Level::Info),
        Status::Failed => (Event::MessageFailed, Level::Error),
        _ => (Event::MessageRetry, Level::Warning),
    };
    let details = serde_json::json!({
        "attempts": change.attempts,
        "error": change.error,
        "next_attempt_at": change.next_attempt_at,
        "gap": change.status == Status::Failed && !live.head.lane.is_empty(),
    });
    transaction.change(act(event, live).level(level).details(details.to_string()), live, change);
}
