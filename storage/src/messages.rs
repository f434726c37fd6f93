//! The messages that are not finished, the ids that are remembered, and counts. Part of the fold:
//! a pure function of the records. It reads no body and knows no clock.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher as _;
use std::ops::RangeBounds;
use std::sync::Arc;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::checkpoint::Ranges;
use crate::digest::{self, Checksum};
use crate::queue::Queues;
use crate::record::{
    Direction, EntryId, MessageChange, MessageHead, MessageKey, Millis, Reason, Status,
};

/// 128 bits that stand for a message key; keyed, so that nobody outside can make two alike.
pub type Fingerprint = u128;

/// Where a body lies: in the body area of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct BodyPlace {
    /// The frame.
    pub sequence: u64,
    /// Bytes from the beginning of the frame's body area.
    pub offset: u32,
    /// Bytes, salt included.
    pub length: u32,
}

/// A message that is not finished.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// What was known when it was accepted.
    pub head: Arc<MessageHead>,
    /// The entry that accepted it.
    pub entry: EntryId,
    /// Its body.
    pub body: BodyPlace,
    /// Where it stands.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// Attempts made.
    pub attempts: u32,
    /// The next attempt is due at this time; 0 when there is none.
    pub next_attempt_at: Millis,
    /// Bytes left and were not answered.
    pub maybe_delivered: bool,
    /// The error of the last attempt, or empty.
    pub error: Arc<str>,
    /// The time of the last change.
    pub updated_at: Millis,
    /// The record time of its acceptance.
    pub accepted_at: Millis,
    /// Its place in its lane: where it was accepted, or where it was last retried.
    pub lane_at: EntryId,
}

impl Live {
    /// A message as it is when it was just accepted.
    pub(crate) fn accepted(
        head: &Arc<MessageHead>,
        entry: EntryId,
        body: BodyPlace,
        time: Millis,
    ) -> Self {
        Self {
            head: Arc::clone(head),
            entry,
            body,
            status: head.status,
            reason: head.reason,
            attempts: 0,
            next_attempt_at: head.due_at,
            maybe_delivered: false,
            error: "".into(),
            updated_at: time,
            accepted_at: time,
            lane_at: entry,
        }
    }
}

/// A finished message: its id is remembered so that a duplicate is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The entry that accepted it.
    pub entry: EntryId,
    /// Where its body lies, if it was not dropped.
    pub body: BodyPlace,
    /// The record time of its acceptance.
    pub accepted_at: Millis,
    /// How it ended.
    pub status: Status,
}

/// What is known of a message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The entry that accepted it.
    pub entry: EntryId,
    /// Where its body lies.
    pub body: BodyPlace,
    /// Where it stands.
    pub status: Status,
}

/// How many messages of a destination stand where. Inbound messages have an empty destination.
pub type Counts = BTreeMap<(Arc<str>, Direction, Status), u64>;

/// All messages that the fold holds.
///
/// Remembered ids leave in the order of acceptance: those before a time are forgotten for good,
/// and those up to an entry are evicted from memory, to be found in the journal's footers.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    hash_key: [u8; 16],
    live: BTreeMap<EntryId, Live>,
    finished: BTreeMap<EntryId, (Fingerprint, Finished)>,
    /// The newest message of an id, in one of the two.
    known: HashMap<Fingerprint, EntryId>,
    forgotten_before: Millis,
    evicted_through: EntryId,
    counts: Counts,
    checksum: Checksum,
    touched: Ranges<EntryId>,
    queues: Queues,
}

impl Messages {
    /// No messages; `hash_key` is the journal's own.
    pub fn new(hash_key: [u8; 16]) -> Self {
        Self { hash_key, ..Self::default() }
    }

    /// The fingerprint of a message key.
    pub fn fingerprint(&self, key: &MessageKey<'_>) -> Fingerprint {
        fingerprint(&self.hash_key, key)
    }

    /// What memory has of this id: unfinished, or finished and still remembered.
    pub fn find(&self, key: &MessageKey<'_>) -> Option<Known> {
        let entry = self.known.get(&self.fingerprint(key))?;
        if let Some(live) = self.live.get(entry) {
            return Some(Known { entry: live.entry, body: live.body, status: live.status });
        }
        self.finished.get(entry).map(|(_, finished)| Known {
            entry: finished.entry,
            body: finished.body,
            status: finished.status,
        })
    }

    /// The unfinished message that this entry accepted.
    pub fn live(&self, entry: EntryId) -> Option<&Live> {
        self.live.get(&entry)
    }

    /// Every unfinished message, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Live> {
        self.live.values()
    }

    /// The unfinished messages that a range of entries accepted, oldest first.
    pub fn live_in(
        &self,
        range: impl RangeBounds<EntryId>,
    ) -> impl DoubleEndedIterator<Item = &Live> {
        self.live.range(range).map(|(_, live)| live)
    }

    /// Every remembered finished message, oldest first.
    pub fn finished(&self) -> impl Iterator<Item = (Fingerprint, &Finished)> {
        self.finished_in(..)
    }

    /// The remembered finished messages that a range of entries accepted, oldest first.
    pub fn finished_in(
        &self,
        range: impl RangeBounds<EntryId>,
    ) -> impl Iterator<Item = (Fingerprint, &Finished)> {
        self.finished.range(range).map(|(_, (fingerprint, finished))| (*fingerprint, finished))
    }

    /// The fold's counts.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Ids that were accepted before this time are not remembered.
    pub fn forgotten_before(&self) -> Millis {
        self.forgotten_before
    }

    /// Finished messages that were accepted up to this entry are not in memory.
    pub fn evicted_through(&self) -> EntryId {
        self.evicted_through
    }

    /// The checksum of all messages and remembered ids.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// The queues by destination: derived, rebuilt at open, not part of the fold's digest.
    pub fn queues(&mut self) -> &mut Queues {
        &mut self.queues
    }

    /// Which ranges of entries changed since the last checkpoint: derived, as the queues.
    pub(crate) fn touched(&mut self) -> &mut Ranges<EntryId> {
        &mut self.touched
    }

    /// Messages that are not finished.
    pub fn live_len(&self) -> usize {
        self.live.len()
    }

    /// Finished messages whose id is in memory.
    pub fn finished_len(&self) -> usize {
        self.finished.len()
    }

    /// A message was accepted. A key that is known already is left alone: `false`.
    pub fn accept(
        &mut self,
        head: &Arc<MessageHead>,
        entry: EntryId,
        body: BodyPlace,
        time: Millis,
    ) -> bool {
        let fingerprint = self.fingerprint(&head.key());
        if self.known.contains_key(&fingerprint) {
            return false;
        }
        self.count(head, head.status, true);
        let live = Live::accepted(head, entry, body, time);
        if head.status.is_finished() {
            self.finish(fingerprint, &live);
        } else {
            self.restore_live(live);
        }
        true
    }

    /// The entry `at` changed a message. A change of one that is finished is left alone: `false`.
    pub fn change(&mut self, at: EntryId, change: &MessageChange, time: Millis) -> bool {
        let Some(mut live) = self.live.remove(&change.message) else { return false };
        let fingerprint = self.fingerprint(&live.head.key());
        self.touched.touch(&live.entry);
        self.checksum.remove(digest::live(&self.hash_key, fingerprint, &live));
        let head = Arc::clone(&live.head);
        self.count(&head, live.status, false);
        self.count(&head, change.status, true);
        if live.status == Status::Failed && change.status == Status::Pending {
            // Its lane went on without it: it joins at the end.
            live.lane_at = at;
        }
        live.status = change.status;
        live.reason = change.reason;
        live.attempts = change.attempts;
        live.next_attempt_at = change.next_attempt_at;
        live.maybe_delivered = change.maybe_delivered;
        live.error = change.error.as_str().into();
        live.updated_at = time;
        self.queues.update(&live);
        if live.status.is_finished() {
            self.finish(fingerprint, &live);
        } else {
            self.checksum.add(digest::live(&self.hash_key, fingerprint, &live));
            self.live.insert(live.entry, live);
        }
        true
    }

    /// Forgets the ids of finished messages that were accepted before a time, now and whenever one
    /// of that age finishes later.
    pub fn forget(&mut self, before: Millis) {
        self.forgotten_before = self.forgotten_before.max(before);
        self.drop_oldest(|one, known| one.accepted_at < known.forgotten_before);
    }

    /// Drops the ids of finished messages up to an entry from memory, now and whenever one of
    /// them finishes later. They are found in the journal.
    pub fn evict(&mut self, through: EntryId) {
        self.evicted_through = self.evicted_through.max(through);
        self.drop_oldest(|one, known| one.entry <= known.evicted_through);
    }

    fn drop_oldest(&mut self, goes: impl Fn(&Finished, &Self) -> bool) {
        while let Some((entry, (fingerprint, oldest))) = self.finished.first_key_value() {
            if !goes(oldest, self) {
                break;
            }
            let (entry, fingerprint) = (*entry, *fingerprint);
            self.checksum.remove(digest::finished(&self.hash_key, fingerprint, oldest));
            self.finished.pop_first();
            self.touched.touch(&entry);
            self.forget_id(fingerprint, entry);
        }
    }

    /// The newest message of an id counts: a checkpoint may have it beside an older one, whose end
    /// is replayed after it.
    fn know(&mut self, fingerprint: Fingerprint, entry: EntryId) {
        let known = self.known.entry(fingerprint).or_insert(entry);
        *known = (*known).max(entry);
    }

    fn forget_id(&mut self, fingerprint: Fingerprint, entry: EntryId) {
        if self.known.get(&fingerprint) == Some(&entry) {
            self.known.remove(&fingerprint);
        }
    }

    /// Puts an unfinished message in, as it was accepted or as a checkpoint recorded it.
    pub(crate) fn restore_live(&mut self, live: Live) {
        let fingerprint = self.fingerprint(&live.head.key());
        self.touched.touch(&live.entry);
        self.checksum.add(digest::live(&self.hash_key, fingerprint, &live));
        self.queues.insert(&live);
        self.know(fingerprint, live.entry);
        self.live.insert(live.entry, live);
    }

    /// Puts a remembered id in, unless it is one that is not kept in memory.
    pub(crate) fn restore_finished(&mut self, fingerprint: Fingerprint, finished: Finished) {
        let evicted = finished.entry <= self.evicted_through;
        if evicted || finished.accepted_at < self.forgotten_before {
            self.forget_id(fingerprint, finished.entry);
            return;
        }
        self.checksum.add(digest::finished(&self.hash_key, fingerprint, &finished));
        self.know(fingerprint, finished.entry);
        self.finished.insert(finished.entry, (fingerprint, finished));
    }

    /// Puts back what a checkpoint recorded beside the messages; before them.
    pub(crate) fn restore_marks(&mut self, forgotten_before: Millis, evicted_through: EntryId) {
        self.forgotten_before = forgotten_before;
        self.evicted_through = evicted_through;
    }

    /// Puts the counts back.
    pub(crate) fn restore_counts(&mut self, counts: Counts) {
        self.counts = counts;
    }

    fn finish(&mut self, fingerprint: Fingerprint, live: &Live) {
        self.touched.touch(&live.entry);
        self.restore_finished(
            fingerprint,
            Finished {
                entry: live.entry,
                body: live.body,
                accepted_at: live.accepted_at,
                status: live.status,
            },
        );
    }

    fn count(&mut self, head: &MessageHead, status: Status, up: bool) {
        let key = (head.destination.as_str().into(), head.direction, status);
        let count = self.counts.entry(key.clone()).or_default();
        *count = if up { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.counts.remove(&key);
        }
    }
}

/// The fingerprint of a message key under a journal's key: SipHash-2-4 with 128 bits.
pub fn fingerprint(hash_key: &[u8; 16], key: &MessageKey<'_>) -> Fingerprint {
    let mut hasher = SipHasher24::new_with_key(hash_key);
    hasher.write_u8(key.direction as u8);
    for part in [key.namespace, key.peer, key.message_id] {
        hasher.write_usize(part.len());
        hasher.write(part.as_bytes());
    }
    hasher.finish128().as_u128()
}
