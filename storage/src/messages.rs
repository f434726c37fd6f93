//! The messages that are not finished, the ids that are remembered, and counts. Part of the fold:
//! a pure function of the records. It reads no head and no body, and knows no clock.
//!
//! An unfinished message is a slot of 88 bytes; what is not in it stays in the journal, at the
//! entry that accepted it. With its place in the order of entries and in the table of ids it takes
//! about 100 bytes of memory.

mod restore;
pub(crate) mod slot;
pub(crate) mod slots;
mod summary;
pub(crate) mod texts;

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::ops::RangeBounds;
use std::sync::Arc;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::checkpoint::Ranges;
use crate::digest::{self, Checksum};
use crate::queue::{Core, Queues};
use crate::record::{
    Direction, EntryId, MessageChange, MessageHead, MessageKey, Millis, Status, Trim,
};
use crate::slab::{Keyed, Slab};
use crate::table::Table;
use slot::{Item, Slot};
use slots::Slots;
pub(crate) use summary::place;
pub use summary::{Live, Place, Summary};

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

impl BodyPlace {
    /// There is no body: its message was carried forward when its content was lost or gone. A body
    /// that was accepted has a salt at least.
    pub fn is_empty(self) -> bool {
        self.length == 0
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
    slots: Slots,
    finished: Slab<Remembered>,
    /// The newest message of an id, in one of the two; see [`Found`].
    known: Table,
    forgotten_before: Millis,
    evicted_through: EntryId,
    counts: Counts,
    checksum: Checksum,
    touched: Ranges<EntryId>,
    queues: Core,
    /// The queues are not kept while a checkpoint is read: they are filled at its end.
    queueless: bool,
}

/// A finished message with the fingerprint of its key.
#[derive(Clone, Debug)]
struct Remembered {
    fingerprint: Fingerprint,
    finished: Finished,
}

impl Keyed for Remembered {
    fn entry(&self) -> EntryId {
        self.finished.entry
    }
}

/// What a number in the table of ids leads to: a slot, or with the highest bit a remembered id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Live(u32),
    Finished(u32),
}

const FINISHED_BIT: u32 = 1 << 31;

impl Found {
    fn of(number: u32) -> Self {
        let id = number & !FINISHED_BIT;
        if id == number { Self::Live(id) } else { Self::Finished(id) }
    }

    fn number(self) -> u32 {
        match self {
            Self::Live(id) => id,
            Self::Finished(id) => id | FINISHED_BIT,
        }
    }
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
        match self.known(self.fingerprint(key))? {
            Found::Live(id) => {
                let Item { entry, body, status, .. } = self.slots.item(id)?;
                Some(Known { entry, body, status })
            }
            Found::Finished(id) => {
                let Finished { entry, body, status, .. } = self.finished.get(id)?.finished;
                Some(Known { entry, body, status })
            }
        }
    }

    /// The unfinished message that this entry accepted.
    pub fn live(&self, entry: EntryId) -> Option<Summary<'_>> {
        Some(self.summary(self.slots.slab.get(self.slots.find(entry)?)?))
    }

    /// Every unfinished message, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Summary<'_>> {
        self.live_in(..)
    }

    /// The unfinished messages that a range of entries accepted, oldest first.
    pub fn live_in(
        &self,
        range: impl RangeBounds<EntryId>,
    ) -> impl DoubleEndedIterator<Item = Summary<'_>> {
        self.slots.slab.range(range).map(|(_, slot)| self.summary(slot))
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
        self.finished.range(range).map(|(_, one)| (one.fingerprint, &one.finished))
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
    pub fn queues(&mut self) -> Queues<'_> {
        Queues::new(&mut self.queues, &mut self.slots)
    }

    /// The first message of the lane that an unfinished one is in, perhaps itself, and where its
    /// head is read.
    pub fn lane_head(&self, entry: EntryId) -> Option<Place> {
        let head = crate::queue::lane_head(&self.slots, entry)?;
        self.live(head).map(|head| head.place())
    }

    /// Which ranges of entries changed since the last checkpoint: derived, as the queues.
    pub(crate) fn touched(&mut self) -> &mut Ranges<EntryId> {
        &mut self.touched
    }

    /// Messages that are not finished.
    pub fn live_len(&self) -> usize {
        self.slots.slab.len()
    }

    /// Finished messages whose id is in memory.
    pub fn finished_len(&self) -> usize {
        self.finished.len()
    }

    /// A message was accepted. A key that is known already is left alone: `false`.
    pub fn accept(
        &mut self,
        head: &MessageHead,
        entry: EntryId,
        body: BodyPlace,
        time: Millis,
    ) -> bool {
        let fingerprint = self.fingerprint(&head.key());
        if self.known(fingerprint).is_some() {
            return false;
        }
        let lane = self.lane_hash(head);
        let one = Summary::accepted(head, (fingerprint, lane), (entry, body), time);
        self.count(one.destination.into(), head.direction, head.status, true);
        if head.status.is_finished() {
            self.touched.touch(&entry);
            let finished = Finished { entry, body, accepted_at: time, status: head.status };
            self.restore_finished(fingerprint, finished);
        } else {
            self.restore_live(&one);
        }
        true
    }

    /// The entry `at` changed a message. A change of one that is finished is left alone: `false`.
    pub fn change(&mut self, at: EntryId, change: &MessageChange, time: Millis) -> bool {
        let Some(id) = self.slots.find(change.message) else { return false };
        let Some(before) = self.slots.item(id) else { return false };
        self.touched.touch(&before.entry);
        self.checksum.remove(self.hash(&before));
        let destination = Arc::clone(self.slots.texts.get(before.destination));
        self.count(Arc::clone(&destination), before.direction, before.status, false);
        self.count(destination, before.direction, change.status, true);
        if change.status.is_finished() {
            self.finish(id, &before, change.status);
            return true;
        }
        let place = self.queues().before_change(id, change.status);
        let mut item = before;
        if item.status == Status::Failed && change.status == Status::Pending {
            // Its lane went on without it: it joins at the end.
            item.lane_at = at;
        }
        item.status = change.status;
        item.reason = change.reason;
        item.attempts = change.attempts;
        item.next_attempt_at = change.next_attempt_at;
        item.maybe_delivered = change.maybe_delivered;
        item.updated_at = time;
        let error = self.slots.texts.take(&change.error);
        self.slots.texts.drop(std::mem::replace(&mut item.error, error));
        self.slots.update(id, &item);
        self.checksum.add(self.hash(&item));
        if change.status == Status::Failed {
            self.queues().leave(id);
        } else if !self.queueless {
            self.queues().after_change(id, place);
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

    /// The head and the body of an unfinished message are somewhere else from now on.
    pub fn carry(&mut self, message: EntryId, body: BodyPlace) {
        let Some(id) = self.slots.find(message) else { return };
        let Some(mut item) = self.slots.item(id) else { return };
        self.touched.touch(&item.entry);
        self.checksum.remove(self.hash(&item));
        item.body = body;
        self.slots.update(id, &item);
        self.checksum.add(self.hash(&item));
    }

    /// Finished messages whose acceptance was dropped are not counted any more.
    pub fn trim(&mut self, trim: &Trim) {
        for (destination, direction, status, dropped) in &trim.finished {
            let key = (Arc::clone(destination), *direction, *status);
            if let Some(count) = self.counts.get_mut(&key) {
                *count = count.saturating_sub(*dropped);
                if *count == 0 {
                    self.counts.remove(&key);
                }
            }
        }
    }

    fn drop_oldest(&mut self, goes: impl Fn(&Finished, &Self) -> bool) {
        let first = |all: &Self| all.finished.range(..).next().map(|(id, one)| (id, one.clone()));
        while let Some((id, oldest)) = first(self) {
            let Remembered { fingerprint, finished } = oldest;
            if !goes(&finished, self) {
                break;
            }
            self.checksum.remove(digest::finished(&self.hash_key, fingerprint, &finished));
            self.touched.touch(&finished.entry);
            self.unknow(fingerprint, Found::Finished(id));
            self.finished.remove(id);
        }
    }

    fn summary(&self, slot: &Slot) -> Summary<'_> {
        let item = self.slots.unpack(slot);
        Summary::of(&item, &self.slots.texts, self.slots.lanes.hash(item.lane))
    }

    fn hash(&self, item: &Item) -> u128 {
        let lane = self.slots.lanes.hash(item.lane);
        digest::live(&self.hash_key, &Summary::of(item, &self.slots.texts, lane))
    }

    /// The hash of the lane of a message; 0 without one.
    fn lane_hash(&self, head: &MessageHead) -> u64 {
        if head.lane.is_empty() || head.destination.is_empty() {
            return 0;
        }
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        for part in [&head.destination, &head.peer, &head.sender, &head.lane] {
            hasher.write_u64(part.len() as u64);
            hasher.write(part.as_bytes());
        }
        hasher.finish().max(1)
    }

    /// An unfinished message ends: its id is remembered, the rest goes.
    fn finish(&mut self, id: u32, item: &Item, status: Status) {
        self.queues().leave(id);
        self.unknow(item.fingerprint, Found::Live(id));
        self.slots.remove(id);
        let Item { entry, body, accepted_at, .. } = *item;
        self.restore_finished(item.fingerprint, Finished { entry, body, accepted_at, status });
    }

    fn known(&self, fingerprint: Fingerprint) -> Option<Found> {
        let key = Keys(&self.slots.slab, &self.finished);
        let is_it = |number| key.fingerprint(number) == fingerprint;
        self.known.get(half(fingerprint), is_it).map(Found::of)
    }

    /// The newest message of an id counts: a checkpoint may have it beside an older one, whose end
    /// is replayed after it.
    fn know(&mut self, fingerprint: Fingerprint, found: Found) {
        let key = Keys(&self.slots.slab, &self.finished);
        let is_it = |number| key.fingerprint(number) == fingerprint;
        let hash_of = |number| half(key.fingerprint(number));
        let is_newer = |known| key.entry(known) > key.entry(found.number());
        self.known.put((half(fingerprint), found.number()), is_it, is_newer, hash_of);
    }

    fn unknow(&mut self, fingerprint: Fingerprint, found: Found) {
        self.known.remove(half(fingerprint), found.number());
    }

    fn count(&mut self, destination: Arc<str>, direction: Direction, status: Status, up: bool) {
        let key = (destination, direction, status);
        if up {
            *self.counts.entry(key).or_default() += 1;
        } else if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }
}

/// What the numbers of the table of ids lead to.
#[derive(Clone, Copy)]
struct Keys<'a>(&'a Slab<Slot>, &'a Slab<Remembered>);

impl Keys<'_> {
    fn fingerprint(self, number: u32) -> Fingerprint {
        match Found::of(number) {
            Found::Live(id) => self.0.get(id).map_or(0, Slot::fingerprint),
            Found::Finished(id) => self.1.get(id).map_or(0, |one| one.fingerprint),
        }
    }

    fn entry(self, number: u32) -> EntryId {
        match Found::of(number) {
            Found::Live(id) => self.0.get(id).map(Keyed::entry),
            Found::Finished(id) => self.1.get(id).map(Keyed::entry),
        }
        .unwrap_or_default()
    }
}

/// A fingerprint is a keyed hash already: a half of it is the hash of the table.
#[expect(clippy::cast_possible_truncation, reason = "a half of the bits is meant")]
fn half(fingerprint: Fingerprint) -> u64 {
    fingerprint as u64
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
