//! Lanes: messages of one destination, recipient, sender and ordering key, of which only the first
//! may go. A lane is known by a keyed hash of these four; two that had the same would only wait for
//! each other.

use crate::messages::slot::{NONE, Slot};
use crate::slab::Slab;
use crate::table::Table;

/// One lane.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    hash: u64,
    /// Unfinished messages of the lane, also those that are in no queue.
    uses: u32,
    /// The one that may go.
    pub(super) current: u32,
    /// The list of the others.
    pub(super) list: List,
}

/// A list that goes through slots.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) first: u32,
    pub(super) last: u32,
}

/// All lanes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes {
    items: Vec<Lane>,
    free: Vec<u32>,
    table: Table,
}

impl Lanes {
    /// The number of a lane, which has one message more. 0 is no lane.
    pub(crate) fn take(&mut self, hash: u64) -> u32 {
        if hash == 0 {
            return NONE;
        }
        let items = &self.items;
        let known = self.table.get(hash, |number| items[number as usize].hash == hash);
        if let Some(number) = known {
            self.items[number as usize].uses += 1;
            return number;
        }
        let lane = Lane { hash, uses: 1, current: NONE, list: List::default() };
        let number = if let Some(number) = self.free.pop() {
            self.items[number as usize] = lane;
            number
        } else {
            self.items.push(lane);
            u32::try_from(self.items.len() - 1).unwrap_or(NONE)
        };
        let items = &self.items;
        self.table.put((hash, number), |_| false, |_| false, |number| items[number as usize].hash);
        number
    }

    /// It has one message less.
    pub(crate) fn drop(&mut self, number: u32) {
        let Some(lane) = self.items.get_mut(number as usize) else { return };
        lane.uses -= 1;
        if lane.uses == 0 {
            self.table.remove(lane.hash, number);
            self.free.push(number);
        }
        if self.free.len() == self.items.len() {
            *self = Self::default();
        }
    }

    /// The hash of a lane; 0 for no lane.
    pub(crate) fn hash(&self, number: u32) -> u64 {
        self.items.get(number as usize).map_or(0, |lane| lane.hash)
    }

    /// The message of a lane that may go; [`NONE`] without one.
    pub(super) fn current(&self, number: u32) -> u32 {
        self.items.get(number as usize).map_or(NONE, |lane| lane.current)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Lane> {
        self.items.get_mut(number as usize)
    }
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl List {
    /// Puts a slot in behind `before`; [`NONE`]: as the first.
    pub(super) fn insert(&mut self, slots: &mut Slab<Slot>, before: u32, id: u32) {
        let after = slots.get(before).map_or(self.first, |slot| slot.after);
        if let Some(slot) = slots.get_mut(id) {
            (slot.before, slot.after) = (before, after);
        }
        match slots.get_mut(before) {
            Some(slot) => slot.after = id,
            None => self.first = id,
        }
        match slots.get_mut(after) {
            Some(slot) => slot.before = id,
            None => self.last = id,
        }
    }

    /// Takes a slot of this list out of it.
    pub(super) fn remove(&mut self, slots: &mut Slab<Slot>, id: u32) {
        let Some(slot) = slots.get_mut(id) else { return };
        let (before, after) = (slot.before, slot.after);
        (slot.before, slot.after) = (NONE, NONE);
        match slots.get_mut(before) {
            Some(slot) => slot.after = after,
            None => self.first = after,
        }
        match slots.get_mut(after) {
            Some(slot) => slot.before = before,
            None => self.last = before,
        }
    }
}
