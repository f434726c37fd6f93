//! How what a pump took ends: it records that, and puts back into the queue what it cannot record,
//! so that nothing stays out for want of room on the disk. It takes nothing.

use storage::commit::Commit;
use storage::messages::Live;
use storage::record::{EntryId, Status};
use storage::store::CommitError;
use storage::transaction::Transaction;

use super::{Pump, RAMP_START, Sent, Traced, millis};
use crate::outbox::circuit::Sign;
use crate::outbox::content::AGAIN_MILLIS;
use crate::outbox::observe::Attempt;
use crate::outbox::steps::{settle_one, tell};
use crate::outbox::verdict::{Outcome, judge};
use crate::trace;
use crate::transport::feed::StoreStopped;

/// Messages whose end is being recorded. What is left of them when this is dropped goes back: the
/// record failed, or nobody waits for it any more. One that is made all the same takes them out.
struct Ending<'a> {
    pump: &'a Pump,
    sent: Vec<Sent>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let left: Vec<EntryId> = {
            let out = self.pump.out.lock();
            // It was made, and some have left again since.
            let is_out = |entry| out.values().any(|sent| sent.entry == entry);
            self.sent.iter().map(|sent| sent.entry).filter(|entry| !is_out(*entry)).collect()
        };
        self.pump.put_back(&left);
    }
}

impl Pump {
    /// Puts messages back that were taken, for a moment: an attempt at once would meet the same
    /// full disk, again and again.
    pub(super) fn put_back(&self, entries: &[EntryId]) {
        if !entries.is_empty() {
            let until = self.clock.now().saturating_add(AGAIN_MILLIS);
            self.store.queues(|queues| queues.postpone(&self.destination, entries, until));
        }
    }

    /// Ends a message that was taken and cannot leave. Nobody waits for that: it is put back, the
    /// record takes it out, and where that fails it is taken again.
    pub(super) fn give_up(
        &self,
        entry: EntryId,
        change: impl Fn(&mut Transaction<'_>, &Live, Option<&str>) + Send + 'static,
    ) {
        self.put_back(&[entry]);
        let store = self.store.clone();
        drop(self.commit(vec![(entry, None)], move |transaction, live, _| {
            if live.status != Status::Failed {
                let trace = trace::of_message(transaction, &store, live);
                change(transaction, live, trace.as_deref());
            }
        }));
    }

    pub(super) fn commit(
        &self,
        entries: Vec<Traced>,
        change: impl Fn(&mut Transaction<'_>, &Live, Option<&str>) + Send + 'static,
    ) -> Commit<Result<(), ()>> {
        self.store.commit(move |transaction| {
            for (entry, trace) in entries {
                if let Some(live) = transaction.live(entry) {
                    change(transaction, &live, trace.as_deref());
                }
            }
            Ok(())
        })
    }

    /// Records how attempts ended, and takes over what that says of the destination.
    pub(super) async fn settle(
        &self,
        sent: Vec<Sent>,
        outcome: Outcome,
    ) -> Result<(), StoreStopped> {
        if let Some(sign) = outcome.sign().filter(|_| !sent.is_empty()) {
            if sign == Sign::Answered {
                let mut ramp = self.ramp.lock();
                *ramp = ramp.saturating_add(sent.len());
            }
            if self.gate.sign(sign, &outcome.reason()) {
                *self.ramp.lock() = RAMP_START;
                self.pull_in();
            }
        }
        self.conclude(sent, &outcome).await
    }

    /// Records how attempts ended.
    pub(super) async fn conclude(
        &self,
        sent: Vec<Sent>,
        outcome: &Outcome,
    ) -> Result<(), StoreStopped> {
        if sent.is_empty() {
            return Ok(());
        }
        let entries = sent.iter().map(Sent::traced).collect();
        let mut ending = Ending { pump: self, sent };
        let (policy, clock, verdict) = (self.policy.clone(), self.clock.clone(), outcome.clone());
        let given_up = self.given_up.clone();
        let commit = self.commit(entries, move |transaction, live, trace| {
            let now = transaction.now();
            // Nothing is drawn for what is not tried again: that takes a call of the system, for
            // which every other decision waits.
            let drawn = match &verdict {
                Outcome::Acknowledged => 0,
                _ => clock.draw(millis(policy.bound(live.attempts))),
            };
            let change = judge(live, &verdict, &policy, now, drawn);
            let failed = (change.status == Status::Failed).then(|| change.error.clone());
            settle_one(transaction, live, change, trace);
            if let Some(why) = failed {
                tell(given_up.as_ref(), transaction, live, &why);
            }
        });
        match commit.await {
            Ok(done) => done.map_err(|()| StoreStopped)?,
            Err(CommitError::Stopped) => return Err(StoreStopped),
            // It could not be written, for want of room perhaps: they go out once more, and
            // whoever has them already says so.
            Err(_) => return Ok(()),
        }
        let sent = std::mem::take(&mut ending.sent);
        if let Some(observer) = &self.observer {
            for one in &sent {
                observer(Attempt { head: &one.head, outcome, took: one.at.elapsed() });
            }
        }
        Ok(())
    }

    /// Takes these out of what is out.
    pub(super) fn answered(&self, message_ids: &[String]) -> Vec<Sent> {
        let mut out = self.out.lock();
        message_ids.iter().filter_map(|id| out.remove(id)).collect()
    }
}
