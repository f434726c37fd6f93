//! A Bloom filter over id fingerprints, which are uniform already and need no hashing.

/// Filter bits for each id: about one false answer in a hundred.
const BITS_PER_ID: usize = 10;
/// The best number of probes for that many bits.
const PROBES: u64 = 7;

/// Says of an id "not here" or "perhaps here".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bloom {
    bits: Vec<u8>,
}

impl Bloom {
    pub(super) fn new(ids: impl ExactSizeIterator<Item = u128>) -> Self {
        let mut bits = vec![0u8; (ids.len() * BITS_PER_ID).div_ceil(8)];
        for id in ids {
            for bit in probes(id, bits.len()) {
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

fn probes(id: u128, bytes: usize) -> impl Iterator<Item = usize> {
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
    use super::*;

    fn id(number: u64) -> u128 {
        let digest = super::super::chain::leaf_hash(&number.to_le_bytes());
        u128::from_le_bytes(digest[..16].try_into().unwrap())
    }

    #[test]
    fn nothing_is_missed_and_few_strangers_pass() {
        let ids: Vec<u128> = (0..2000).map(id).collect();
        let bloom = Bloom::new(ids.iter().copied());
        assert!(ids.iter().all(|id| bloom.may_contain(*id)));
        let strangers = (2000..12_000).filter(|n| bloom.may_contain(id(*n))).count();
        assert!(strangers < 200, "{strangers} of 10,000");
        assert!(!Bloom::new([].into_iter()).may_contain(1));
    }
}
