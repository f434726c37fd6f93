//! A Bloom filter over id fingerprints, which are uniform already and need no hashing.

use super::index::IdRow;

/// Filter bits for each id at the least, and at most twice as many: one false answer in 1,400 or
/// fewer, as a look-up may ask a thousand segments.
const BITS_PER_ID: usize = 16;
/// Filter bits for each entry that is about an id, before the bits were counted by id.
const BITS_PER_ENTRY: usize = 10;
const PROBES: u64 = 7;

/// Says of an id "not here" or "perhaps here".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bloom {
    bits: Vec<u8>,
}

impl Bloom {
    /// That of sorted ids, some of them several times. Its bits are a power of two, so that those
    /// of several segments can be laid over each other.
    pub(super) fn new(ids: &[IdRow]) -> Self {
        let distinct = ids.chunk_by(|one, next| one.id == next.id).count();
        let bits = (distinct * BITS_PER_ID).next_power_of_two().max(8);
        Self::filled(ids, if distinct == 0 { 0 } else { bits / 8 })
    }

    /// The form before, by which an older footer is checked.
    pub(super) fn by_entry(ids: &[IdRow]) -> Self {
        Self::filled(ids, (ids.len() * BITS_PER_ENTRY).div_ceil(8))
    }

    fn filled(ids: &[IdRow], bytes: usize) -> Self {
        let mut bits = vec![0u8; bytes];
        for row in ids {
            for bit in probes(row.id, bytes) {
                bits[bit / 8] |= 1 << (bit % 8);
            }
        }
        Self { bits }
    }

    pub(super) fn from_bytes(bits: Vec<u8>) -> Self {
        Self { bits }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bits
    }

    pub(super) fn may_contain(&self, id: u128) -> bool {
        !self.bits.is_empty()
            && probes(id, self.bits.len()).all(|bit| self.bits[bit / 8] & (1 << (bit % 8)) != 0)
    }
}

pub(super) fn probes(id: u128, bytes: usize) -> impl Iterator<Item = usize> {
    let halves = id.to_le_bytes();
    let half = |range: std::ops::Range<usize>| {
        halves[range].iter().rev().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte))
    };
    let (first, step) = (half(0..8), half(8..16) | 1);
    let bits = (bytes as u64 * 8).max(1);
    (0..PROBES)
        .map(move |probe| super::codec::index(first.wrapping_add(probe.wrapping_mul(step)) % bits))
}

#[cfg(test)]
mod tests {
    use super::super::EntryRef;
    use super::*;

    fn id(number: u64) -> u128 {
        let digest = super::super::chain::leaf_hash(&number.to_le_bytes());
        u128::from_le_bytes(digest[..16].try_into().unwrap())
    }

    fn rows(numbers: std::ops::Range<u64>, times: usize) -> Vec<IdRow> {
        let at = EntryRef { sequence: 1, index: 0 };
        let mut rows: Vec<IdRow> = numbers.map(|number| IdRow { id: id(number), at }).collect();
        rows = rows.repeat(times);
        rows.sort_unstable();
        rows
    }

    #[test]
    fn nothing_is_missed_and_few_strangers_pass() {
        for (bloom, most) in
            [(Bloom::new(&rows(0..2_000, 3)), 40), (Bloom::by_entry(&rows(0..2_000, 1)), 900)]
        {
            assert!((0..2_000).all(|number| bloom.may_contain(id(number))));
            let strangers = (2_000..52_000).filter(|n| bloom.may_contain(id(*n))).count();
            assert!(strangers < most, "{strangers} of 50,000");
        }
        assert!(!Bloom::new(&[]).may_contain(1));
    }

    #[test]
    fn an_id_costs_the_same_however_often_it_stands_there() {
        let bloom = |times| Bloom::new(&rows(0..2_000, times)).bytes().len();
        assert_eq!(bloom(1), bloom(4));
        assert!(bloom(1).is_power_of_two());
    }
}
