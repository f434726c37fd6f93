//! A table from keyed hashes to small numbers, in parts that grow one by one, so that nothing waits
//! for a table of a million to be made anew. The keys lie with what the numbers stand for.

use hashbrown::HashTable;

/// Parts of the table.
const SHARDS: usize = 256;

/// The bits of a hash that choose the part; the table takes its own from both ends.
const SHARD_SHIFT: u32 = 40;

/// The numbers by hash. Whoever asks says which number is meant, as hashes may be alike.
#[derive(Clone, Debug)]
pub(crate) struct Table(Vec<HashTable<u32>>);

impl Default for Table {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| HashTable::new()).collect())
    }
}

impl Table {
    pub(crate) fn get(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.0[shard(hash)].find(hash, |number| is_it(*number)).copied()
    }

    /// Puts a number in place of the one that is meant, unless that `stays`, or adds it. `hash_of`
    /// says the hashes of the numbers that are there.
    pub(crate) fn put(
        &mut self,
        (hash, number): (u64, u32),
        is_it: impl Fn(u32) -> bool,
        stays: impl Fn(u32) -> bool,
        hash_of: impl Fn(u32) -> u64,
    ) {
        let shard = &mut self.0[shard(hash)];
        match shard.find_mut(hash, |number| is_it(*number)) {
            Some(known) if stays(*known) => {}
            Some(known) => *known = number,
            None => {
                shard.insert_unique(hash, number, |number| hash_of(*number));
            }
        }
    }

    /// Makes room for so many numbers at once in a table that is empty.
    pub(crate) fn reserve(&mut self, numbers: usize) {
        for shard in self.0.iter_mut().filter(|shard| shard.is_empty()) {
            shard.reserve(numbers / SHARDS, |_| 0);
        }
    }

    /// Takes a number out, if it is there.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let shard = &mut self.0[shard(hash)];
        if let Ok(known) = shard.find_entry(hash, |known| *known == number) {
            known.remove();
        }
        if shard.is_empty() {
            *shard = HashTable::new();
        }
    }
}

fn shard(hash: u64) -> usize {
    usize::from((hash >> SHARD_SHIFT).to_le_bytes()[0])
}
