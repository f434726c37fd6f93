//! Whose content a person wants gone, as the journal says: prune records, found by their event. It
//! removes nothing: that is done when a segment is compacted.

use std::collections::BTreeSet;

use crate::event::Event;
use crate::inspect::{AuditFilter, audit};
use crate::journal::{ReadError, Reader};
use crate::record::{EntryId, Fact};

/// The messages whose content is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shredded(BTreeSet<EntryId>);

impl Shredded {
    /// All of them. It reads the frames that prune something, which the footers name.
    ///
    /// # Errors
    /// When the index of a segment cannot be read. A damaged frame only keeps a body longer.
    pub fn read(reader: &Reader) -> Result<Self, ReadError> {
        let events = vec![Event::MessagePruned.name().to_owned()];
        let mut filter = AuditFilter { events, ..AuditFilter::default() };
        let mut found = BTreeSet::new();
        loop {
            let page = audit(reader, &filter)?;
            found.extend(page.entries.iter().filter_map(|entry| match &entry.record.fact {
                Fact::Prune(prune) if prune.shred => Some(prune.change.message),
                _ => None,
            }));
            filter.before = page.next;
            if filter.before.is_none() {
                return Ok(Self(found));
            }
        }
    }

    /// Whether the body of the message that this entry accepted is dead: a compaction of its
    /// segment drops it, whatever else is kept of the message. Only finished messages are here.
    pub fn is_dead(&self, message: EntryId) -> bool {
        self.0.contains(&message)
    }

    /// The dead bodies of some frames, such as those of one segment.
    pub fn in_frames(
        &self,
        frames: std::ops::RangeInclusive<u64>,
    ) -> impl Iterator<Item = EntryId> + '_ {
        let first = EntryId { sequence: *frames.start(), index: 0 };
        let last = EntryId { sequence: *frames.end(), index: u32::MAX };
        self.0.range(first..=last).copied()
    }
}
