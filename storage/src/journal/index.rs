//! The index of one segment in memory: built while it is written, or from its frames.
//!
//! It is what a footer is made from, and what the active segment is searched by.

use super::codec::narrow;
use super::frame::FrameView;
use super::zone::IdTimes;
use super::{Damage, EntryRef, Hash, Identity, IndexFn, IndexKeys, Position};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Where one frame lies in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameRow {
    pub(super) sequence: u64,
    pub(super) time: u64,
    pub(super) offset: u32,
    /// Table and heads, so that a body is found without reading them.
    pub(super) heads_len: u32,
    /// Whether bodies were dropped, so that the table must be asked where the others lie.
    pub(super) stripped: bool,
}

/// A fingerprint and the entry that is about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdRow {
    pub(super) id: u128,
    pub(super) at: EntryRef,
}

/// What an entry is about, by the 32 bits that a footer keeps of its hash, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ResourceRow {
    pub(super) resource: u32,
    /// The place of the frame in [`SegmentIndex::rows`].
    pub(super) row: u32,
    pub(super) index: u32,
}

/// The bits of a resource's hash that a footer keeps; the rare other resource that has the same
/// ones is told apart by its entry.
pub(super) fn short(resource: u64) -> u32 {
    u32::try_from((resource ^ (resource >> 32)) & u64::from(u32::MAX)).unwrap_or_default()
}

/// Everything known of a segment's frames.
#[derive(Debug, Clone)]
pub(super) struct SegmentIndex {
    pub(super) rows: Vec<FrameRow>,
    pub(super) events: BTreeMap<u16, Vec<EntryRef>>,
    pub(super) ids: Vec<IdRow>,
    pub(super) actors: BTreeMap<u64, Vec<EntryRef>>,
    /// Of the levels that are indexed.
    pub(super) levels: BTreeMap<u16, Vec<EntryRef>>,
    pub(super) resources: Vec<ResourceRow>,
    pub(super) times: Option<(u64, u64)>,
    /// When the ids that are accepted here were made.
    pub(super) id_times: IdTimes,
    /// The chain's hash after the last frame.
    pub(super) hash: Hash,
    /// Of the last frame, or the one before the first.
    pub(super) last: Position,
    /// The sequence that follows; more than one above `last` when frames are lost at the end.
    pub(super) next_sequence: u64,
    /// Where the last frame ends.
    pub(super) end: u64,
    pub(super) damage: Vec<Damage>,
    /// For each id the newest of `ids`, and for each of `ids` the one before it.
    newest: HashMap<u128, u32, KeyedHash>,
    older: Vec<Option<u32>>,
}

impl SegmentIndex {
    /// An index without frames, that of a segment which begins after `before`.
    pub(super) fn new(epoch: u32, first_sequence: u64, previous: Hash) -> Self {
        Self {
            rows: Vec::new(),
            events: BTreeMap::new(),
            ids: Vec::new(),
            actors: BTreeMap::new(),
            levels: BTreeMap::new(),
            resources: Vec::new(),
            times: None,
            id_times: IdTimes::default(),
            hash: previous,
            last: Position { epoch, sequence: first_sequence.saturating_sub(1) },
            next_sequence: first_sequence,
            end: super::segment::FRAMES_START,
            damage: Vec::new(),
            newest: HashMap::default(),
            older: Vec::new(),
        }
    }

    /// Adds a frame that ends at `end`, with the keys of its entries.
    pub(super) fn push(
        &mut self,
        row: FrameRow,
        position: Position,
        hash: Hash,
        end: u64,
        keys: impl IntoIterator<Item = IndexKeys>,
    ) {
        let (low, high) = self.times.unwrap_or((row.time, row.time));
        self.times = Some((low.min(row.time), high.max(row.time)));
        for (index, key) in (0..).zip(keys) {
            self.push_key(EntryRef { sequence: row.sequence, index }, key);
        }
        self.rows.push(row);
        self.last = position;
        self.next_sequence = row.sequence.saturating_add(1);
        self.hash = hash;
        self.end = end;
    }

    fn push_key(&mut self, at: EntryRef, key: IndexKeys) {
        self.events.entry(key.event).or_default().push(at);
        self.actors.entry(key.actor).or_default().push(at);
        if key.level > 0 {
            self.levels.entry(u16::from(key.level)).or_default().push(at);
        }
        let (row, index) = (narrow(self.rows.len()), at.index);
        self.resources.push(ResourceRow { resource: short(key.resource), row, index });
        self.id_times.add(key.made);
        if let Some(id) = key.id {
            let slot = narrow(self.ids.len());
            self.older.push(self.newest.insert(id, slot));
            self.ids.push(IdRow { id, at });
        }
    }

    /// Adds a frame read from disk at `offset`.
    pub(super) fn push_view(
        &mut self,
        view: &FrameView<'_>,
        offset: u32,
        index: IndexFn,
        identity: &Identity,
    ) {
        let position = view.header.position;
        let row = FrameRow {
            sequence: position.sequence,
            time: view.header.time,
            offset,
            heads_len: view.heads_len,
            stripped: view.stripped,
        };
        let keys: Vec<IndexKeys> = view.heads().map(|head| index(head, identity)).collect();
        let end = u64::from(offset) + view.len as u64;
        self.push(row, position, view.hash(), end, keys);
    }

    /// The entries about an id, oldest first.
    pub(super) fn find(&self, id: u128) -> Vec<EntryRef> {
        let mut found = Vec::new();
        let mut slot = self.newest.get(&id).copied();
        while let Some(at) = slot {
            found.extend(self.ids.get(at as usize).map(|row| row.at));
            slot = self.older.get(at as usize).copied().flatten();
        }
        found.reverse();
        found
    }

    /// The entries about a resource, or about one of the same short hash, oldest first.
    pub(super) fn about(&self, resource: u32) -> Vec<EntryRef> {
        let same = self.resources.iter().filter(|row| row.resource == resource);
        same.filter_map(|row| entry_at(&self.rows, row)).collect()
    }

    pub(super) fn row(&self, sequence: u64) -> Option<(FrameRow, u64)> {
        row_of(&self.rows, sequence, self.end)
    }
}

/// The entry that a resource's row names.
pub(super) fn entry_at(rows: &[FrameRow], row: &ResourceRow) -> Option<EntryRef> {
    let frame = rows.get(row.row as usize)?;
    Some(EntryRef { sequence: frame.sequence, index: row.index })
}

/// The row of a sequence, and where its frame ends at the latest.
pub(super) fn row_of(rows: &[FrameRow], sequence: u64, end: u64) -> Option<(FrameRow, u64)> {
    let at = rows.binary_search_by_key(&sequence, |row| row.sequence).ok()?;
    let limit = rows.get(at + 1).map_or(end, |next| u64::from(next.offset));
    Some((rows[at], limit))
}

#[expect(clippy::cast_possible_truncation, reason = "a half of the bits is meant")]
fn half(fingerprint: u128) -> u64 {
    fingerprint as u64
}

/// For maps whose keys are fingerprints.
pub(crate) type KeyedHash = BuildHasherDefault<Fingerprint>;

/// Takes a fingerprint, which is uniform, as its own hash.
#[derive(Debug, Default, Clone)]
pub(crate) struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = half(value);
    }
}
