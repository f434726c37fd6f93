//! Putting messages back, as a checkpoint recorded them: first the marks, then the messages in any
//! order, then the counts and the queues.

use super::slot::{self, Item};
use super::{Counts, Fingerprint, Finished, Found, Messages, Remembered, Summary};
use crate::digest;
use crate::record::{EntryId, Millis};
use crate::slab::Keyed;

impl Messages {
    /// Puts an unfinished message in, as it was accepted or as a checkpoint recorded it.
    pub(crate) fn restore_live(&mut self, one: &Summary<'_>) {
        let item = Item {
            fingerprint: one.fingerprint,
            entry: one.entry,
            lane_at: one.lane_at,
            body: one.body,
            accepted_at: one.accepted_at,
            created_at: one.created_at,
            updated_at: one.updated_at,
            next_attempt_at: one.next_attempt_at,
            deadline: one.deadline.unwrap_or(slot::NEVER),
            expires_at: one.expires_at.unwrap_or(slot::NEVER),
            attempts: one.attempts,
            destination: self.slots.texts.take(one.destination),
            kind: self.slots.texts.take(one.message_type),
            error: self.slots.texts.take(one.error),
            lane: self.slots.lanes.take(one.lane),
            status: one.status,
            reason: one.reason,
            direction: one.direction,
            priority: one.priority,
            maybe_delivered: one.maybe_delivered,
        };
        self.touched.touch(&one.entry);
        self.checksum.add(self.hash(&item));
        let id = self.slots.insert(&item);
        self.know(item.fingerprint, Found::Live(id));
        if !self.queueless {
            self.queues().enter(id);
        }
    }

    /// Puts a remembered id in, unless it is one that is not kept in memory.
    pub(crate) fn restore_finished(&mut self, fingerprint: Fingerprint, finished: Finished) {
        let evicted = finished.entry <= self.evicted_through;
        if evicted || finished.accepted_at < self.forgotten_before {
            return;
        }
        self.checksum.add(digest::finished(&self.hash_key, fingerprint, &finished));
        let id = self.finished.insert(Remembered { fingerprint, finished });
        self.know(fingerprint, Found::Finished(id));
    }

    /// Puts back what a checkpoint recorded beside the messages; before them. The queues are not
    /// kept until [`Messages::fill_queues`].
    pub(crate) fn restore_marks(&mut self, forgotten_before: Millis, evicted_through: EntryId) {
        self.forgotten_before = forgotten_before;
        self.evicted_through = evicted_through;
        self.queueless = true;
    }

    /// Makes room for so many unfinished messages, which is quicker than to grow into it.
    pub(crate) fn reserve(&mut self, messages: usize) {
        self.slots.slab.reserve(messages);
        self.known.reserve(messages);
    }

    /// Puts the counts back.
    pub(crate) fn restore_counts(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// Makes the queues: every message joins its lane in the order of the lane.
    pub(crate) fn fill_queues(&mut self) {
        self.queueless = false;
        let (mut retried, mut others) = (Vec::new(), Vec::with_capacity(self.live_len()));
        for (id, slot) in self.slots.slab.range(..) {
            let Item { entry, lane_at, .. } = self.slots.unpack(slot);
            if entry == lane_at { others.push(id) } else { retried.push((lane_at, id)) }
        }
        retried.sort_unstable();
        let mut retried = retried.into_iter().peekable();
        for id in others {
            let entry = self.slots.slab.get(id).map_or_else(EntryId::default, Keyed::entry);
            while let Some((_, before)) = retried.next_if(|(lane_at, _)| *lane_at < entry) {
                self.queues().enter(before);
            }
            self.queues().enter(id);
        }
        for (_, id) in retried {
            self.queues().enter(id);
        }
    }
}
