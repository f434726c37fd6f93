//! The checksum of a state: the sum of the hashes of its items, so that a change costs two hashes
//! and not a walk. It detects a fold that went another way; it is no defence against a forger.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::ledger::Entity;
use crate::messages::{BodyPlace, Fingerprint, Finished, Summary};
use crate::record::{EntityKey, EntryId};

/// A sum of item hashes. Equal sums, equal items, but for one case in 2^128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(pub u128);

impl Checksum {
    /// An item is there.
    pub(crate) fn add(&mut self, item: u128) {
        self.0 = self.0.wrapping_add(item);
    }

    /// An item is there no longer.
    pub(crate) fn remove(&mut self, item: u128) {
        self.0 = self.0.wrapping_sub(item);
    }

    /// The items of both.
    #[must_use]
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// What the first byte of an item says.
const LIVE: u8 = 1;
const FINISHED: u8 = 2;
const ENTITY: u8 = 3;

struct Item(SipHasher24);

impl Item {
    fn new(key: &[u8; 16], kind: u8) -> Self {
        let mut hasher = SipHasher24::new_with_key(key);
        hasher.write_u8(kind);
        Self(hasher)
    }

    fn number(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    fn optional(&mut self, number: Option<u64>) {
        self.0.write_u8(u8::from(number.is_some()));
        self.0.write_u64(number.unwrap_or(0));
    }

    fn text(&mut self, text: &[u8]) {
        self.0.write_u64(text.len() as u64);
        self.0.write(text);
    }

    fn entry(&mut self, entry: EntryId) {
        self.0.write_u64(entry.sequence);
        self.0.write_u32(entry.index);
    }

    fn body(&mut self, body: BodyPlace) {
        self.0.write_u64(body.sequence);
        self.0.write_u32(body.offset);
        self.0.write_u32(body.length);
    }

    fn hash(self) -> u128 {
        self.0.finish128().as_u128()
    }
}

/// The hash of an unfinished message. What its head says besides is fixed by its entry.
pub(crate) fn live(key: &[u8; 16], one: &Summary<'_>) -> u128 {
    let mut item = Item::new(key, LIVE);
    item.0.write_u128(one.fingerprint);
    item.entry(one.entry);
    item.entry(one.lane_at);
    item.body(one.body);
    let flags = [one.direction as u8, one.priority, u8::from(one.maybe_delivered)];
    item.0.write(&flags);
    item.0.write(&[one.status as u8, one.reason as u8]);
    item.number(u64::from(one.attempts));
    for time in [one.next_attempt_at, one.updated_at, one.accepted_at, one.created_at, one.lane] {
        item.number(time);
    }
    item.optional(one.deadline);
    item.optional(one.expires_at);
    for text in [one.destination, one.message_type, one.error] {
        item.text(text.as_bytes());
    }
    item.hash()
}

/// The hash of a remembered id.
pub(crate) fn finished(key: &[u8; 16], fingerprint: Fingerprint, finished: &Finished) -> u128 {
    let mut item = Item::new(key, FINISHED);
    item.0.write_u128(fingerprint);
    item.entry(finished.entry);
    item.body(finished.body);
    item.number(finished.accepted_at);
    item.0.write_u8(finished.status as u8);
    item.hash()
}

/// The hash of an entity.
pub(crate) fn entity(key: &[u8; 16], name: &EntityKey, entity: &Entity) -> u128 {
    let mut item = Item::new(key, ENTITY);
    item.0.write_u8(name.kind as u8);
    item.text(name.name.as_bytes());
    item.number(entity.version);
    item.text(&entity.value);
    item.hash()
}
