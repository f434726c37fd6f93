//! The rows of all messages from the journal alone, the newest first, one segment in memory at a
//! time: what became of a message is met before the message itself. It reads no sled.

use std::collections::BTreeMap;

use crate::journal::{Reader, SegmentView};
use crate::record::{EntryId, MessageChange, Millis};
use crate::view::{Overlay, Patch, Row};

/// A walk from the newest message to the oldest. Damaged frames are left out.
pub(super) struct Backwards {
    /// The segments to come, the newest last.
    segments: Vec<SegmentView>,
    /// The rows of the last one that was read, the oldest first.
    rows: Vec<Row>,
    /// What became of messages that lie further back, and when.
    later: BTreeMap<EntryId, (Box<MessageChange>, Millis)>,
    /// Messages that lie further back and were carried forward, as they stand.
    carried: BTreeMap<EntryId, Row>,
    /// What nothing but the frames up to this one has is dropped, whether they are there or not.
    trimmed: u64,
}

impl Backwards {
    pub(super) fn new(reader: &Reader) -> Self {
        let mut segments = reader.segments();
        segments.reverse();
        Self {
            segments,
            rows: Vec::new(),
            later: BTreeMap::new(),
            carried: BTreeMap::new(),
            trimmed: 0,
        }
    }

    fn read(&mut self, segment: &SegmentView) {
        let first = EntryId { sequence: segment.range().0, index: 0 };
        let mut overlay = Overlay::default();
        for frame in segment.frames().flatten() {
            for (entry, record, body) in crate::view::records(&frame) {
                overlay.add(entry, frame.time, &record, body);
            }
        }
        self.trimmed = self.trimmed.max(overlay.trimmed);
        let mut rows = BTreeMap::new();
        for (entry, patch) in overlay.pending {
            if self.carried.contains_key(&entry) {
                // It is known as it stands.
                continue;
            }
            match patch {
                Patch::Row(row) if row.kept_by() <= self.trimmed => {}
                Patch::Row(mut row) => {
                    if let Some((change, time)) = self.later.remove(&entry) {
                        row.change(&change, time);
                    }
                    let further = if entry < first { &mut self.carried } else { &mut rows };
                    further.insert(entry, *row);
                }
                // What is finished does not change any more, whatever was recorded later.
                Patch::Change(change, time) if change.status.is_finished() => {
                    self.later.insert(entry, (change, time));
                }
                Patch::Change(change, time) => {
                    self.later.entry(entry).or_insert((change, time));
                }
            }
        }
        rows.extend(self.carried.split_off(&first));
        self.rows = rows.into_values().collect();
    }
}

impl Iterator for Backwards {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        while self.rows.is_empty() {
            match self.segments.pop() {
                Some(segment) => self.read(&segment),
                // Those whose own segments are gone.
                None if self.carried.is_empty() => return None,
                None => self.rows = std::mem::take(&mut self.carried).into_values().collect(),
            }
        }
        self.rows.pop()
    }
}
