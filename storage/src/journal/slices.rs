//! The filters of many segments laid over each other, so that one look tells which of them may have
//! an id. For ids that say nothing of their time, and may so be in any segment.
//!
//! A group has the filters of [`GROUP`] segments, bit by bit: its word at a place has that bit of
//! each of them. Filters have a power of two of bits, and a shorter one repeats in a longer one.

use super::bloom::{Bloom, probes};
use std::sync::Arc;

/// Segments of a group: the bits of a word.
pub(super) const GROUP: usize = 64;

/// The filters of a group of segments.
#[derive(Debug)]
pub(super) struct Group {
    /// The number of each.
    numbers: Vec<u64>,
    /// One word for each bit of the longest filter.
    words: Vec<u64>,
    /// Those whose filter has another form and does not fit: they may always have it.
    others: u64,
}

impl Group {
    /// Lays filters over each other, each with the number of its segment: at most
    /// [`GROUP`].
    pub(super) fn new(filters: &[(u64, Bloom)]) -> Self {
        let fits =
            |filter: &Bloom| filter.bytes().is_empty() || filter.bytes().len().is_power_of_two();
        let longest = filters.iter().filter(|(_, filter)| fits(filter));
        let bits = longest.map(|(_, filter)| filter.bytes().len() * 8).max().unwrap_or(0);
        let (mut words, mut others) = (vec![0u64; bits], 0);
        for (place, (_, filter)) in filters.iter().enumerate().take(GROUP) {
            let mine = 1u64 << place;
            if !fits(filter) {
                others |= mine;
                continue;
            }
            let set = |bit: &usize| filter.bytes()[bit / 8] & (1 << (bit % 8)) != 0;
            for bit in (0..filter.bytes().len() * 8).filter(set) {
                for at in (bit..bits).step_by(filter.bytes().len() * 8) {
                    words[at] |= mine;
                }
            }
        }
        Self { numbers: filters.iter().map(|(number, _)| *number).collect(), words, others }
    }

    /// The numbers of the segments that may have an id, oldest first.
    pub(super) fn may_contain(&self, id: u128) -> impl Iterator<Item = u64> + '_ {
        let mut mask = if self.words.is_empty() { 0 } else { u64::MAX };
        for bit in probes(id, self.words.len() / 8) {
            mask &= self.words.get(bit).copied().unwrap_or(0);
            if mask == 0 {
                break;
            }
        }
        let mask = mask | self.others;
        let there = move |place: &usize| mask & (1 << place) != 0;
        (0..self.numbers.len()).filter(there).map(|place| self.numbers[place])
    }

    /// The number of the last of its segments.
    pub(super) fn last(&self) -> u64 {
        self.numbers.last().copied().unwrap_or(0)
    }
}

/// The groups of a journal, oldest first.
pub(super) type Groups = Vec<Arc<Group>>;

#[cfg(test)]
mod tests {
    use super::super::EntryRef;
    use super::super::index::IdRow;
    use super::*;

    fn id(number: u64) -> u128 {
        let digest = super::super::chain::leaf_hash(&number.to_le_bytes());
        u128::from_le_bytes(digest[..16].try_into().unwrap())
    }

    fn rows(numbers: std::ops::Range<u64>) -> Vec<IdRow> {
        let at = EntryRef { sequence: 1, index: 0 };
        let mut rows: Vec<IdRow> = numbers.map(|number| IdRow { id: id(number), at }).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn a_group_says_of_each_segment_what_its_own_filter_says() {
        let ranges = [0..700, 700..710, 710..710, 710..3_000, 3_000..3_001, 3_001..4_000];
        let mut filters: Vec<(u64, Bloom)> = Vec::new();
        for (first, range) in (1..).zip(ranges) {
            filters.push((first * 100, Bloom::new(&rows(range))));
        }
        // One in the form of an older program.
        filters.push((700, Bloom::by_entry(&rows(4_000..4_777))));
        let group = Group::new(&filters);
        assert_eq!(group.last(), 700);
        for number in 0..20_000 {
            let alone = filters.iter().filter(|(_, filter)| filter.bytes().len().is_power_of_two());
            let alone = alone.filter(|(_, filter)| filter.may_contain(id(number)));
            let mut expected: Vec<u64> = alone.map(|(first, _)| *first).collect();
            expected.push(700);
            let found: Vec<u64> = group.may_contain(id(number)).collect();
            assert_eq!(found, expected, "{number}");
        }
        assert_eq!(Group::new(&[]).may_contain(1).count(), 0);
    }
}
