//! The hash chain over frames and the Merkle tree over a frame's entries (JOURNAL rule 24).
//!
//! `H(n) = SHA-256(H(n-1) ‖ chain header ‖ Merkle root of the entry heads)`, with the leaf and
//! node prefixes of RFC 6962. Bodies, checksums and the place on disk are not hashed, so that
//! stripping dead bodies changes no hash. It signs nothing and reads no file.

use super::Position;
use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// Domain of the hash before the first frame.
const GENESIS: &[u8] = b"loki-openclaw journal 1";
const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];
const ENTRY: [u8; 1] = [2];

/// The hash that precedes the first frame of a journal.
pub fn genesis(journal: &[u8; 16]) -> Hash {
    digest(&[GENESIS, journal])
}

/// The hash of one entry's head as a leaf.
pub fn leaf_hash(head: &[u8]) -> Hash {
    digest(&[&LEAF, head])
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    digest(&[&NODE, left, right])
}

/// The Merkle root of the entry heads in order.
pub fn merkle_root<'a>(heads: impl IntoIterator<Item = &'a [u8]>) -> Hash {
    let mut level: Vec<Hash> = heads.into_iter().map(leaf_hash).collect();
    while level.len() > 1 {
        halve(&mut level);
    }
    level.first().copied().unwrap_or_else(|| digest(&[]))
}

/// Replaces a level of the tree by the one above it; an odd last node moves up unchanged.
fn halve(level: &mut Vec<Hash>) {
    let above = level.len().div_ceil(2);
    for slot in 0..above {
        level[slot] = match level.get(2 * slot + 1) {
            Some(right) => node_hash(&level[2 * slot], right),
            None => level[2 * slot],
        };
    }
    level.truncate(above);
}

/// The chain's hash after a frame. Its header is, little-endian: epoch (4 bytes), sequence (8),
/// record time in milliseconds (8), number of entries (4).
pub fn next_hash(previous: &Hash, at: Position, time: u64, count: u32, root: &Hash) -> Hash {
    digest(&[
        previous,
        &at.epoch.to_le_bytes(),
        &at.sequence.to_le_bytes(),
        &time.to_le_bytes(),
        &count.to_le_bytes(),
        root,
    ])
}

/// The `chain_hash` of one entry: a function of its frame's hash and its index.
pub fn entry_chain_hash(frame: &Hash, index: u32) -> Hash {
    digest(&[&ENTRY, frame, &index.to_le_bytes()])
}

/// The sibling hashes that lead from entry `index` to the root; `None` if there is no such entry.
pub fn inclusion_proof<'a>(
    heads: impl IntoIterator<Item = &'a [u8]>,
    index: usize,
) -> Option<Vec<Hash>> {
    let mut level: Vec<Hash> = heads.into_iter().map(leaf_hash).collect();
    if index >= level.len() {
        return None;
    }
    let mut proof = Vec::new();
    let mut at = index;
    while level.len() > 1 {
        if let Some(sibling) = level.get(at ^ 1) {
            proof.push(*sibling);
        }
        halve(&mut level);
        at /= 2;
    }
    Some(proof)
}

/// Whether `proof` shows that `head` is entry `index` of the `count` entries below `root`.
pub fn verify_inclusion(
    root: &Hash,
    head: &[u8],
    index: usize,
    count: usize,
    proof: &[Hash],
) -> bool {
    if index >= count {
        return false;
    }
    let (mut at, mut width, mut hash) = (index, count, leaf_hash(head));
    let mut siblings = proof.iter();
    while width > 1 {
        if at % 2 == 1 || at + 1 < width {
            let Some(sibling) = siblings.next() else { return false };
            hash = if at % 2 == 1 { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) };
        }
        at /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none() && hash == *root
}

fn digest(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 6962, section 2.1, word for word.
    fn reference(heads: &[&[u8]]) -> Hash {
        match heads {
            [] => digest(&[]),
            [one] => leaf_hash(one),
            _ => {
                let mut split = 1;
                while split * 2 < heads.len() {
                    split *= 2;
                }
                node_hash(&reference(&heads[..split]), &reference(&heads[split..]))
            }
        }
    }

    #[test]
    fn roots_follow_the_rfc_and_every_proof_verifies_only_its_own_entry() {
        let owned: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; usize::from(n)]).collect();
        for count in 0..=owned.len() {
            let heads: Vec<&[u8]> = owned[..count].iter().map(Vec::as_slice).collect();
            let root = merkle_root(heads.iter().copied());
            assert_eq!(root, reference(&heads), "{count} entries");
            for index in 0..count {
                let proof = inclusion_proof(heads.iter().copied(), index).unwrap();
                assert!(verify_inclusion(&root, heads[index], index, count, &proof));
                assert!(!verify_inclusion(&root, b"other", index, count, &proof));
                assert!(!verify_inclusion(&root, heads[index], index + 1, count, &proof));
                let mut longer = proof.clone();
                longer.push(root);
                assert!(!verify_inclusion(&root, heads[index], index, count, &longer));
            }
            assert!(inclusion_proof(heads.iter().copied(), count).is_none());
        }
    }

    #[test]
    fn a_known_answer_fixes_the_bytes_that_are_hashed() {
        let root = merkle_root([b"a".as_slice(), b"b".as_slice()]);
        let at = Position { epoch: 1, sequence: 2 };
        let bytes = [
            [7u8; 32].as_slice(),
            &[1, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0],
            &root,
        ]
        .concat();
        let expected: Hash = Sha256::digest(&bytes).into();
        assert_eq!(next_hash(&[7; 32], at, 3, 2, &root), expected);
    }
}
