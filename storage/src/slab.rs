//! Items of one size behind small numbers, found by the entry that they belong to and gone through
//! in its order. It knows nothing of messages.
//!
//! The items lie in one vector whose free places are used again; beside it the numbers lie in
//! pages that are sorted by entry, four bytes an item.

use std::ops::{Bound, RangeBounds};

use crate::record::EntryId;

/// Numbers of a page at the most.
const PAGE_ITEMS_MAX: usize = 512;

/// A page with fewer numbers joins its neighbour if there is room.
const PAGE_ITEMS_FEW: usize = PAGE_ITEMS_MAX / 4;

/// What belongs to an entry.
pub(crate) trait Keyed {
    /// The entry; two items of a slab never have the same.
    fn entry(&self) -> EntryId;
}

/// The items. A number stays with its item until that is removed.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
    pages: Vec<Page>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Page {
    /// Not after its first entry, and after all entries of the page before.
    first: EntryId,
    ids: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new(), pages: Vec::new(), len: 0 }
    }
}

impl<T: Keyed> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.items.get(id as usize)?.as_ref()
    }

    /// Its entry must stay the same.
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.items.get_mut(id as usize)?.as_mut()
    }

    /// The number of the item of an entry.
    pub(crate) fn find(&self, entry: EntryId) -> Option<u32> {
        let page = self.pages.get(self.page_of(entry)?)?;
        let at = page.ids.binary_search_by(|id| self.entry(*id).cmp(&entry)).ok()?;
        page.ids.get(at).copied()
    }

    /// Makes room for so many items at once.
    pub(crate) fn reserve(&mut self, items: usize) {
        self.items.reserve_exact(items);
    }

    /// Puts an item in and says its number. One with the same entry is replaced.
    pub(crate) fn insert(&mut self, item: T) -> u32 {
        let entry = item.entry();
        let is_new = self.last().is_none_or(|last| last < entry);
        if let Some(id) = (!is_new).then(|| self.find(entry)).flatten() {
            self.items[id as usize] = Some(item);
            return id;
        }
        let id = if let Some(id) = self.free.pop() {
            self.items[id as usize] = Some(item);
            id
        } else {
            self.items.push(Some(item));
            // Four thousand million unfinished messages would need a third of a terabyte.
            u32::try_from(self.items.len() - 1).unwrap_or(u32::MAX)
        };
        self.len += 1;
        self.place(entry, id);
        id
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let entry = self.get(id)?.entry();
        self.displace(entry);
        let item = self.items.get_mut(id as usize)?.take();
        self.len -= 1;
        self.free.push(id);
        if self.len == 0 {
            // A backlog that is gone leaves no memory behind.
            *self = Self::default();
        }
        item
    }

    /// The items of a range of entries with their numbers, in order.
    pub(crate) fn range(
        &self,
        range: impl RangeBounds<EntryId>,
    ) -> impl DoubleEndedIterator<Item = (u32, &T)> {
        let (from, end) = (self.lower(range.start_bound()), self.upper(range.end_bound()));
        let pages = from.0..=end.0.max(from.0);
        let ids = pages.flat_map(move |page| {
            let ids = self.pages.get(page).map_or(&[][..], |page| &page.ids);
            let low = if page == from.0 { from.1 } else { 0 };
            let high = if page == end.0 { end.1 } else { ids.len() };
            ids.get(low..high.max(low)).unwrap_or_default().iter()
        });
        ids.filter_map(|id| Some((*id, self.get(*id)?)))
    }

    /// The newest entry.
    fn last(&self) -> Option<EntryId> {
        self.pages.last()?.ids.last().map(|id| self.entry(*id))
    }

    /// The page that has an entry if any has it.
    fn page_of(&self, entry: EntryId) -> Option<usize> {
        self.pages.partition_point(|page| page.first <= entry).checked_sub(1)
    }

    fn entry(&self, id: u32) -> EntryId {
        self.get(id).map_or_else(EntryId::default, Keyed::entry)
    }

    /// Where the first entry lies for which `before` does not hold.
    fn position(&self, entry: EntryId, before: impl Fn(EntryId) -> bool) -> (usize, usize) {
        let page = self.page_of(entry).unwrap_or(0);
        let ids = self.pages.get(page).map_or(&[][..], |page| &page.ids);
        (page, ids.partition_point(|id| before(self.entry(*id))))
    }

    fn lower(&self, bound: Bound<&EntryId>) -> (usize, usize) {
        match bound {
            Bound::Unbounded => (0, 0),
            Bound::Included(from) => self.position(*from, |entry| entry < *from),
            Bound::Excluded(from) => self.position(*from, |entry| entry <= *from),
        }
    }

    fn upper(&self, bound: Bound<&EntryId>) -> (usize, usize) {
        match bound {
            Bound::Unbounded => (self.pages.len(), 0),
            Bound::Included(end) => self.position(*end, |entry| entry <= *end),
            Bound::Excluded(end) => self.position(*end, |entry| entry < *end),
        }
    }

    fn place(&mut self, entry: EntryId, id: u32) {
        let Some(at) = self.page_of(entry) else {
            match self.pages.first_mut() {
                Some(page) if page.ids.len() < PAGE_ITEMS_MAX => {
                    page.first = entry;
                    page.ids.insert(0, id);
                }
                _ => self.pages.insert(0, Page { first: entry, ids: vec![id] }),
            }
            return;
        };
        let (_, position) = self.position(entry, |other| other < entry);
        let is_last = at + 1 == self.pages.len();
        let page = &mut self.pages[at];
        if page.ids.len() < PAGE_ITEMS_MAX {
            page.ids.insert(position, id);
            return;
        }
        if is_last && position == page.ids.len() {
            // The usual case, newest last, leaves full pages behind.
            self.pages.push(Page { first: entry, ids: vec![id] });
            return;
        }
        let rest = page.ids.split_off(PAGE_ITEMS_MAX / 2);
        if let Some(position) = position.checked_sub(PAGE_ITEMS_MAX / 2).filter(|at| *at > 0) {
            let first = rest.first().map_or(entry, |id| self.entry(*id));
            self.pages.insert(at + 1, Page { first, ids: rest });
            self.pages[at + 1].ids.insert(position, id);
        } else {
            page.ids.insert(position, id);
            let first = rest.first().map_or(entry, |id| self.entry(*id));
            self.pages.insert(at + 1, Page { first, ids: rest });
        }
    }

    fn displace(&mut self, entry: EntryId) {
        let Some(at) = self.page_of(entry) else { return };
        let (_, position) = self.position(entry, |other| other < entry);
        let page = &mut self.pages[at];
        if position < page.ids.len() {
            page.ids.remove(position);
        }
        let few = page.ids.len();
        if few == 0 {
            self.pages.remove(at);
        } else if few < PAGE_ITEMS_FEW
            && self.pages.get(at + 1).is_some_and(|next| next.ids.len() + few <= PAGE_ITEMS_MAX / 2)
        {
            let next = self.pages.remove(at + 1);
            self.pages[at].ids.extend(next.ids);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Keyed, Slab};
    use crate::record::EntryId;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct One(u64, u32);

    impl Keyed for One {
        fn entry(&self) -> EntryId {
            EntryId { sequence: self.0, index: 3 }
        }
    }

    fn at(sequence: u64) -> EntryId {
        EntryId { sequence, index: 3 }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None, ..ProptestConfig::with_cases(64)
        })]

        /// Stretches of keys are put in and taken out, ascending and in other orders, so that
        /// pages fill, split, empty and join.
        #[test]
        fn it_is_a_sorted_map(
            steps in prop::collection::vec(
                (0..4_000_u64, 1..900_usize, 1..5_usize, any::<bool>()), 1..24,
            ),
            ends in prop::collection::vec((0..5_000_u64, 0..5_000_u64), 4),
        ) {
            let (mut slab, mut model) = (Slab::default(), BTreeMap::new());
            for (round, (from, count, step, put)) in (0..).zip(steps) {
                for sequence in (from..).step_by(step).take(count) {
                    if put {
                        let id = slab.insert(One(sequence, round));
                        prop_assert_eq!(slab.get(id), Some(&One(sequence, round)));
                        model.insert(sequence, round);
                    } else {
                        let found = slab.find(at(sequence));
                        let gone = found.and_then(|id| slab.remove(id)).map(|one| one.1);
                        prop_assert_eq!(gone, model.remove(&sequence));
                    }
                }
                prop_assert_eq!(slab.len(), model.len());
                let all: Vec<_> = slab.range(..).map(|(_, one)| (one.0, one.1)).collect();
                let wanted: Vec<_> = model.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(all, wanted);
            }
            for (low, high) in ends {
                let (low, high) = (low.min(high), low.max(high));
                let here: Vec<_> = slab.range(at(low)..at(high)).map(|(_, one)| one.0).collect();
                let wanted: Vec<_> = model.range(low..high).map(|(key, _)| *key).collect();
                prop_assert_eq!(here, wanted);
                let back: Vec<_> = slab.range(at(low)..).rev().map(|(_, one)| one.0).collect();
                let wanted: Vec<_> = model.range(low..).rev().map(|(key, _)| *key).collect();
                prop_assert_eq!(back, wanted);
            }
        }
    }
}
