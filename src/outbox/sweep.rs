//! Gives up what became too old to be sent, also while no link is up and nothing is tried: a pure
//! decision on each message, and a worker that makes it now and then. It sends nothing.

use std::ops::Bound;
use std::time::Duration;

use storage::messages::Summary;
use storage::record::{Direction, EntryId, Reason, Status};
use storage::store::Store;
use storage::transaction::Change;

use super::{Policy, expire, steps};
use crate::clock::{Clock, Millis};
use crate::shutdown::Shutdown;
use crate::trace;
use storage::event::Event;
use storage::record::Level;

/// Time between two passes: nobody notices that a message is given up this much later.
const INTERVAL: Duration = Duration::from_secs(5);

/// Messages that are looked at in one go: the committer waits meanwhile.
const LOOK_MAX: usize = 5_000;

/// What becomes of a message by age alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aged {
    /// Its `expires_at` has passed.
    Expired,
    /// It is older than the policy's `max_age`.
    TooOld,
}

/// Judges a message by its age. Only one that waits is judged: what is out gets its answer first,
/// and what a person holds or has to look at stays.
pub fn judge(live: &Summary<'_>, policy: &Policy, now: Millis) -> Option<Aged> {
    if live.direction != Direction::Outbound || live.status != Status::Pending {
        return None;
    }
    if live.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Some(Aged::Expired);
    }
    // One that a person sends again, or that could not leave so far, has its first attempt yet.
    let begun = if live.attempts == 0 { live.updated_at } else { 0 };
    let age = now.saturating_sub(live.created_at.max(begun));
    (u128::from(age) > policy.max_age.as_millis()).then_some(Aged::TooOld)
}

/// Gives up what is too old, once. Returns how many messages that were.
pub async fn pass(store: &Store, policy: &Policy, now: Millis) -> usize {
    let (mut after, mut count) = (EntryId::default(), 0);
    loop {
        let (last, aged) = store.messages(|messages| {
            let mut last = None;
            let mut aged = Vec::new();
            for live in messages.live_in((Bound::Excluded(after), Bound::Unbounded)).take(LOOK_MAX)
            {
                last = Some(live.entry);
                aged.extend(judge(&live, policy, now).map(|_| live.entry));
            }
            (last, aged)
        });
        let Some(last) = last else { return count };
        after = last;
        count += aged.len();
        if !aged.is_empty() && give_up(store, policy.clone(), aged).await.is_err() {
            return count;
        }
        tokio::task::yield_now().await;
    }
}

async fn give_up(
    store: &Store,
    policy: Policy,
    entries: Vec<EntryId>,
) -> Result<(), storage::store::CommitError> {
    let bodies = store.clone();
    let commit = store.commit(move |transaction| -> Result<(), std::convert::Infallible> {
        for entry in entries {
            // It may have left, or have been changed, since it was looked at.
            let Some(live) = transaction.live(entry) else { continue };
            match judge(&live.summary(), &policy, transaction.now()) {
                Some(Aged::Expired) => {
                    let trace = trace::of_message(transaction, &bodies, &live);
                    expire(transaction, &live, trace.as_deref());
                }
                Some(Aged::TooOld) => {
                    let trace = trace::of_message(transaction, &bodies, &live);
                    let act = steps::act(Event::MessageFailed, &live, trace.as_deref());
                    let change = Change {
                        status: Status::Failed,
                        reason: Reason::MaxAge,
                        next_attempt_at: 0,
                        ..Change::of(&live)
                    };
                    transaction.change(act.level(Level::Error), &live, change);
                }
                None => {}
            }
        }
        Ok(())
    });
    commit.await.map(|_| ())
}

/// Makes a pass now and then until the program stops.
pub async fn run(store: Store, clock: Clock, policy: Policy, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.stopping() => return,
        }
        pass(&store, &policy, clock.now()).await;
    }
}
