//! The unfinished messages with what their numbers stand for.

use super::slot::{Item, Rares, Slot};
use super::texts::Texts;
use crate::queue::lanes::Lanes;
use crate::record::EntryId;
use crate::slab::Slab;

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    pub(crate) slab: Slab<Slot>,
    pub(crate) texts: Texts,
    pub(crate) lanes: Lanes,
    rares: Rares,
}

impl Slots {
    /// Puts a message in whose numbers were taken for it.
    pub(crate) fn insert(&mut self, item: &Item) -> u32 {
        let slot = self.rares.pack(item);
        self.slab.insert(slot)
    }

    pub(crate) fn find(&self, entry: EntryId) -> Option<u32> {
        self.slab.find(entry)
    }

    pub(crate) fn item(&self, id: u32) -> Option<Item> {
        Some(self.unpack(self.slab.get(id)?))
    }

    pub(crate) fn unpack(&self, slot: &Slot) -> Item {
        self.rares.unpack(slot)
    }

    /// Takes over what may change in the life of a message.
    pub(crate) fn update(&mut self, id: u32, item: &Item) {
        if let Some(slot) = self.slab.get_mut(id) {
            self.rares.update(slot, item);
        }
    }

    /// Takes a message out, and gives back the numbers that it had.
    pub(crate) fn remove(&mut self, id: u32) {
        let Some(slot) = self.slab.remove(id) else { return };
        let item = self.rares.unpack(&slot);
        self.rares.free(&slot);
        for text in [item.destination, item.kind, item.error] {
            self.texts.drop(text);
        }
        self.lanes.drop(item.lane);
    }
}
