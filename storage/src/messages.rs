//! The messages that are not finished, the ids that are remembered, and counts. Part of the fold:
//! a pure function of the records. It reads no body and knows no clock.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher as _;
use std::ops::Bound;
use std::sync::Arc;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

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
    /// When it was accepted.
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
#[derive(Clone, Debug, Default)]
pub struct Messages {
    hash_key: [u8; 16],
    live: HashMap<Fingerprint, Live>,
    by_entry: BTreeMap<EntryId, Fingerprint>,
    finished: HashMap<Fingerprint, Finished>,
    by_age: BTreeMap<(Millis, EntryId), Fingerprint>,
    counts: Counts,
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

    /// What is known of this id: unfinished, or finished and still remembered.
    pub fn find(&self, key: &MessageKey<'_>) -> Option<Known> {
        let fingerprint = self.fingerprint(key);
        if let Some(live) = self.live.get(&fingerprint) {
            return Some(Known { entry: live.entry, body: live.body, status: live.status });
        }
        self.finished.get(&fingerprint).map(|finished| Known {
            entry: finished.entry,
            body: finished.body,
            status: finished.status,
        })
    }

    /// The unfinished message that this entry accepted.
    pub fn live(&self, entry: EntryId) -> Option<&Live> {
        self.by_entry.get(&entry).and_then(|fingerprint| self.live.get(fingerprint))
    }

    /// Every unfinished message, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Live> {
        self.by_entry.values().filter_map(|fingerprint| self.live.get(fingerprint))
    }

    /// The unfinished messages that were accepted after this entry, oldest first.
    pub fn iter_after(&self, after: EntryId) -> impl Iterator<Item = &Live> {
        let later = (Bound::Excluded(after), Bound::Unbounded);
        self.by_entry.range(later).filter_map(|(_, fingerprint)| self.live.get(fingerprint))
    }

    /// Every remembered finished message, oldest first.
    pub fn finished(&self) -> impl Iterator<Item = (Fingerprint, &Finished)> {
        self.by_age.values().filter_map(|key| self.finished.get(key).map(|value| (*key, value)))
    }

    /// The fold's counts.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The queues by destination: derived, rebuilt at open, not part of the fold's digest.
    pub fn queues(&mut self) -> &mut Queues {
        &mut self.queues
    }

    /// A copy for a checkpoint: the queues are derived and left out.
    pub(crate) fn snapshot(&self) -> Self {
        Self {
            hash_key: self.hash_key,
            live: self.live.clone(),
            by_entry: self.by_entry.clone(),
            finished: self.finished.clone(),
            by_age: self.by_age.clone(),
            counts: self.counts.clone(),
            queues: Queues::default(),
        }
    }

    /// Messages that are not finished.
    pub fn live_len(&self) -> usize {
        self.live.len()
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
        if self.live.contains_key(&fingerprint) || self.finished.contains_key(&fingerprint) {
            return false;
        }
        self.count(head, head.status, true);
        let live = Live::accepted(head, entry, body, time);
        if head.status.is_finished() {
            self.finish(fingerprint, &live);
        } else {
            self.queues.insert(&live);
            self.by_entry.insert(entry, fingerprint);
            self.live.insert(fingerprint, live);
        }
        true
    }

    /// A message changed. A change of a message that is finished is left alone: `false`.
    pub fn change(&mut self, change: &MessageChange, time: Millis) -> bool {
        let Some(fingerprint) = self.by_entry.get(&change.message).copied() else {
            return false;
        };
        let Some(mut live) = self.live.remove(&fingerprint) else { return false };
        let head = Arc::clone(&live.head);
        self.count(&head, live.status, false);
        self.count(&head, change.status, true);
        live.status = change.status;
        live.reason = change.reason;
        live.attempts = change.attempts;
        live.next_attempt_at = change.next_attempt_at;
        live.maybe_delivered = change.maybe_delivered;
        live.error = change.error.as_str().into();
        live.updated_at = time;
        self.queues.update(&live);
        if live.status.is_finished() {
            self.by_entry.remove(&live.entry);
            self.finish(fingerprint, &live);
        } else {
            self.live.insert(fingerprint, live);
        }
        true
    }

    /// Forgets finished ids that were accepted before `time`.
    pub fn forget(&mut self, time: Millis) {
        let kept = self.by_age.split_off(&(time, EntryId::default()));
        for fingerprint in self.by_age.values() {
            self.finished.remove(fingerprint);
        }
        self.by_age = kept;
    }

    /// Puts an unfinished message back as a checkpoint recorded it; counts are restored apart.
    pub(crate) fn restore_live(&mut self, live: Live) {
        let fingerprint = self.fingerprint(&live.head.key());
        self.queues.insert(&live);
        self.by_entry.insert(live.entry, fingerprint);
        self.live.insert(fingerprint, live);
    }

    /// Puts a remembered id back as a checkpoint recorded it.
    pub(crate) fn restore_finished(&mut self, fingerprint: Fingerprint, finished: Finished) {
        self.by_age.insert((finished.accepted_at, finished.entry), fingerprint);
        self.finished.insert(fingerprint, finished);
    }

    /// Puts the counts back.
    pub(crate) fn restore_counts(&mut self, counts: Counts) {
        self.counts = counts;
    }

    fn finish(&mut self, fingerprint: Fingerprint, live: &Live) {
        // A message's age runs from its acceptance, which is the frame's time for inbound ones.
        let accepted_at = live.head.due_at.min(live.updated_at);
        let accepted_at = if accepted_at == 0 { live.updated_at } else { accepted_at };
        self.restore_finished(
            fingerprint,
            Finished { entry: live.entry, body: live.body, accepted_at, status: live.status },
        );
    }

    fn count(&mut self, head: &MessageHead, status: Status, up: bool) {
        let key = (head.destination.as_str().into(), head.direction, status);
        let count = self.counts.entry(key).or_default();
        *count = if up { *count + 1 } else { count.saturating_sub(1) };
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
