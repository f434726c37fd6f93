//! An unfinished message in 88 bytes: what the fold, the queues and the lists of a program need to
//! know at once. Everything else about it is read from the journal, where its entry lies.
//!
//! What few messages have (an error, a deadline, a retry, a date far from its acceptance) lies in a
//! second place of 80 bytes. Texts are numbers, see [`Texts`](super::texts::Texts).

use super::texts::EMPTY;
use super::{BodyPlace, Fingerprint};
use crate::record::{Direction, EntryId, Millis, Reason, Status};
use crate::slab::Keyed;

/// No number: no second place, no lane, no neighbour.
pub(crate) const NONE: u32 = u32::MAX;

/// A date that never comes.
pub(crate) const NEVER: Millis = Millis::MAX;

/// Says in a slot that there is no next attempt.
const NO_ATTEMPT: i32 = i32::MIN;

const INBOUND: u8 = 1;
const MAYBE_DELIVERED: u8 = 2;
/// The body lies in the frame that accepted the message.
const BODY_HERE: u8 = 4;
const PLACE_SHIFT: u32 = 4;

/// Where a message stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is in none: inbound, or failed.
    Nowhere,
    /// Others of its lane go first.
    Behind,
    /// It may go: in the list of those that came in this order.
    Listed,
    /// It may go: among those that are sorted.
    Sorted,
    /// It is not due yet.
    Waiting,
    /// It was taken and is unanswered.
    Out,
    /// A person holds it.
    Held,
}

impl Place {
    const ALL: [Self; 7] = [
        Self::Nowhere,
        Self::Behind,
        Self::Listed,
        Self::Sorted,
        Self::Waiting,
        Self::Out,
        Self::Held,
    ];
}

/// An unfinished message, packed.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    fingerprint: [u64; 2],
    sequence: u64,
    accepted_at: Millis,
    index: u32,
    /// These three count from the acceptance.
    created: i32,
    updated: i32,
    next_attempt: i32,
    body_offset: u32,
    body_length: u32,
    attempts: u32,
    destination: u32,
    kind: u32,
    lane: u32,
    rare: u32,
    /// Its neighbours in a list: that of its lane, or of those that may go.
    pub(crate) before: u32,
    pub(crate) after: u32,
    status: Status,
    reason: Reason,
    priority: u8,
    flags: u8,
}

/// What few messages have.
#[derive(Clone, Debug, PartialEq)]
struct Rare {
    body: BodyPlace,
    lane_at: EntryId,
    created_at: Millis,
    updated_at: Millis,
    next_attempt_at: Millis,
    deadline: Millis,
    expires_at: Millis,
    error: u32,
}

/// An unfinished message, unpacked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) entry: EntryId,
    pub(crate) lane_at: EntryId,
    pub(crate) body: BodyPlace,
    pub(crate) accepted_at: Millis,
    pub(crate) created_at: Millis,
    pub(crate) updated_at: Millis,
    pub(crate) next_attempt_at: Millis,
    pub(crate) deadline: Millis,
    pub(crate) expires_at: Millis,
    pub(crate) attempts: u32,
    pub(crate) destination: u32,
    pub(crate) kind: u32,
    pub(crate) error: u32,
    pub(crate) lane: u32,
    pub(crate) status: Status,
    pub(crate) reason: Reason,
    pub(crate) direction: Direction,
    pub(crate) priority: u8,
    pub(crate) maybe_delivered: bool,
}

impl Keyed for Slot {
    fn entry(&self) -> EntryId {
        EntryId { sequence: self.sequence, index: self.index }
    }
}

impl Slot {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from(self.fingerprint[0]) | Fingerprint::from(self.fingerprint[1]) << 64
    }

    pub(crate) fn destination(&self) -> u32 {
        self.destination
    }

    pub(crate) fn lane(&self) -> u32 {
        self.lane
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn place(&self) -> Place {
        Place::ALL.get(usize::from(self.flags >> PLACE_SHIFT)).copied().unwrap_or(Place::Nowhere)
    }

    pub(crate) fn set_place(&mut self, place: Place) {
        self.flags = self.flags & ((1 << PLACE_SHIFT) - 1) | (place as u8) << PLACE_SHIFT;
    }
}

/// The second places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rares {
    rares: Vec<Rare>,
    free: Vec<u32>,
}

impl Rares {
    fn put(&mut self, at: u32, rare: Option<Rare>) -> u32 {
        match (rare, at) {
            (Some(rare), NONE) => {
                if let Some(at) = self.free.pop() {
                    self.rares[at as usize] = rare;
                    at
                } else {
                    self.rares.push(rare);
                    u32::try_from(self.rares.len() - 1).unwrap_or(NONE)
                }
            }
            (Some(rare), at) => {
                self.rares[at as usize] = rare;
                at
            }
            (None, NONE) => NONE,
            (None, at) => {
                self.free.push(at);
                if self.free.len() == self.rares.len() {
                    *self = Self::default();
                }
                NONE
            }
        }
    }

    /// Packs a message that is not packed yet.
    pub(crate) fn pack(&mut self, item: &Item) -> Slot {
        let mut slot = Slot {
            fingerprint: halves(item.fingerprint),
            sequence: item.entry.sequence,
            accepted_at: item.accepted_at,
            index: item.entry.index,
            created: 0,
            updated: 0,
            next_attempt: NO_ATTEMPT,
            body_offset: 0,
            body_length: 0,
            attempts: 0,
            destination: item.destination,
            kind: item.kind,
            lane: item.lane,
            rare: NONE,
            before: NONE,
            after: NONE,
            status: item.status,
            reason: item.reason,
            priority: item.priority,
            flags: if item.direction == Direction::Inbound { INBOUND } else { 0 },
        };
        self.update(&mut slot, item);
        slot
    }

    /// Packs what may change in the life of a message.
    pub(crate) fn update(&mut self, slot: &mut Slot, item: &Item) {
        let since = |time: Millis| near(time, item.accepted_at);
        let next =
            if item.next_attempt_at == 0 { Some(NO_ATTEMPT) } else { since(item.next_attempt_at) };
        let near = (|| Some((since(item.created_at)?, since(item.updated_at)?, next?)))();
        (slot.created, slot.updated, slot.next_attempt) = near.unwrap_or((0, 0, NO_ATTEMPT));
        (slot.body_offset, slot.body_length) = (item.body.offset, item.body.length);
        let body_here = item.body.sequence == item.entry.sequence;
        let usual = near.is_some()
            && item.error == EMPTY
            && item.lane_at == item.entry
            && (item.deadline, item.expires_at) == (NEVER, NEVER)
            && (body_here || item.body == BodyPlace::default());
        let rare = (!usual).then_some(Rare {
            body: item.body,
            lane_at: item.lane_at,
            created_at: item.created_at,
            updated_at: item.updated_at,
            next_attempt_at: item.next_attempt_at,
            deadline: item.deadline,
            expires_at: item.expires_at,
            error: item.error,
        });
        slot.rare = self.put(slot.rare, rare);
        slot.attempts = item.attempts;
        (slot.status, slot.reason) = (item.status, item.reason);
        let mut flags = slot.flags & !(MAYBE_DELIVERED | BODY_HERE);
        flags |= if item.maybe_delivered { MAYBE_DELIVERED } else { 0 };
        flags |= if body_here { BODY_HERE } else { 0 };
        slot.flags = flags;
    }

    /// Lets go of what a slot has besides itself.
    pub(crate) fn free(&mut self, slot: &Slot) {
        self.put(slot.rare, None);
    }

    pub(crate) fn unpack(&self, slot: &Slot) -> Item {
        let entry = slot.entry();
        let at = |since: i32| slot.accepted_at.saturating_add_signed(i64::from(since));
        let usual = || Rare {
            body: BodyPlace {
                sequence: if slot.flags & BODY_HERE == 0 { 0 } else { slot.sequence },
                offset: slot.body_offset,
                length: slot.body_length,
            },
            lane_at: entry,
            created_at: at(slot.created),
            updated_at: at(slot.updated),
            next_attempt_at: if slot.next_attempt == NO_ATTEMPT {
                0
            } else {
                at(slot.next_attempt)
            },
            deadline: NEVER,
            expires_at: NEVER,
            error: EMPTY,
        };
        let rare = self.rares.get(slot.rare as usize).cloned().unwrap_or_else(usual);
        let Rare { body, lane_at, created_at, updated_at, .. } = rare;
        let inbound = slot.flags & INBOUND != 0;
        Item {
            fingerprint: slot.fingerprint(),
            entry,
            lane_at,
            body,
            accepted_at: slot.accepted_at,
            created_at,
            updated_at,
            next_attempt_at: rare.next_attempt_at,
            deadline: rare.deadline,
            expires_at: rare.expires_at,
            attempts: slot.attempts,
            destination: slot.destination,
            kind: slot.kind,
            error: rare.error,
            lane: slot.lane,
            status: slot.status,
            reason: slot.reason,
            direction: if inbound { Direction::Inbound } else { Direction::Outbound },
            priority: slot.priority,
            maybe_delivered: slot.flags & MAYBE_DELIVERED != 0,
        }
    }
}

/// How far a time lies from the acceptance, if that is a number of a slot: 24 days.
fn near(time: Millis, accepted_at: Millis) -> Option<i32> {
    let since = i64::try_from(time).ok()?.checked_sub(i64::try_from(accepted_at).ok()?)?;
    i32::try_from(since).ok().filter(|since| *since != NO_ATTEMPT)
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves are meant")]
fn halves(fingerprint: Fingerprint) -> [u64; 2] {
    [fingerprint as u64, (fingerprint >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Item, NEVER, NONE, Place, Rares, Slot};
    use crate::messages::BodyPlace;
    use crate::record::{Direction, EntryId, Millis, Reason, Status};

    /// Times near an acceptance, at the ends of what is near, and at the ends of all times.
    fn time() -> impl Strategy<Value = Millis> {
        prop_oneof![
            Just(0),
            Just(1),
            Just(Millis::MAX),
            1_700_000_000_000..1_700_000_100_000_u64,
            prop_oneof![Just(i64::from(i32::MIN)), Just(i64::from(i32::MAX)), Just(1_i64 << 31)]
                .prop_map(|far| 1_700_000_000_000_u64.saturating_add_signed(far)),
            any::<Millis>(),
        ]
    }

    fn entry() -> impl Strategy<Value = EntryId> {
        (1..9_u64, 0..3_u32).prop_map(|(sequence, index)| EntryId { sequence, index })
    }

    prop_compose! {
        fn item()(
            (entry, lane_at) in prop_oneof![entry().prop_map(|one| (one, one)), (entry(), entry())],
            (own, body) in (any::<bool>(), 0..3_u64),
            [accepted_at, created_at, updated_at, next_attempt_at] in
                [time(), time(), time(), time()],
            [deadline, expires_at] in
                [prop_oneof![Just(NEVER), time()], prop_oneof![Just(NEVER), time()]],
            numbers in any::<[u32; 6]>(),
            (error, status, flags) in (0..3_u32, 0..9_usize, any::<[bool; 2]>()),
            fingerprint in any::<u128>(),
        ) -> Item {
            let [attempts, destination, kind, lane, offset, length] = numbers;
            let sequence = if own { entry.sequence } else { body };
            Item {
                fingerprint, entry, lane_at, body: BodyPlace { sequence, offset, length },
                accepted_at, created_at, updated_at, next_attempt_at, deadline, expires_at,
                attempts, destination, kind, error, lane,
                status: Status::ALL[status], reason: Reason::MaxAge,
                direction: if flags[0] { Direction::Inbound } else { Direction::Outbound },
                priority: 3, maybe_delivered: flags[1],
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None, ..ProptestConfig::with_cases(1_024)
        })]

        #[test]
        fn what_was_packed_is_unpacked(items in prop::collection::vec(item(), 1..6)) {
            let mut rares = Rares::default();
            let mut slots: Vec<Slot> = items.iter().map(|item| rares.pack(item)).collect();
            for (slot, item) in slots.iter().zip(&items) {
                prop_assert_eq!(&rares.unpack(slot), item);
            }
            // Each takes over from the next what may change.
            let others = items.iter().cycle().skip(1);
            let changed: Vec<Item> = items.iter().zip(others).map(|(item, other)| Item {
                status: other.status, attempts: other.attempts, updated_at: other.updated_at,
                next_attempt_at: other.next_attempt_at, lane_at: other.lane_at,
                maybe_delivered: other.maybe_delivered, error: other.error, body: other.body,
                ..item.clone()
            }).collect();
            for (slot, item) in slots.iter_mut().zip(&changed) {
                slot.set_place(Place::Sorted);
                rares.update(slot, item);
                prop_assert_eq!(slot.place(), Place::Sorted);
            }
            for (slot, item) in slots.iter().zip(&changed) {
                prop_assert_eq!(&rares.unpack(slot), item);
                rares.free(slot);
            }
            prop_assert!(rares.rares.is_empty(), "{rares:?}");
        }
    }

    #[test]
    fn a_message_takes_no_more_than_it_should() {
        assert_eq!(size_of::<Option<Slot>>(), 88);
        assert_eq!(NONE, u32::MAX);
    }
}
