//! The heads of a segment's entries one after the other, for questions that no index answers. It
//! checks each frame and computes no hash of the chain, which is most of the work of reading one.

use super::read_only::next_of;
use super::reader::SegmentView;
use super::{Damage, DamageReason, EntryRef, ReadError};

impl SegmentView {
    /// The start of a writer that began it.
    pub fn epoch(&self) -> u32 {
        self.segment.header.epoch
    }

    /// What is missing between it and the segment before, and what of it is damaged or missing, as
    /// its footer or index records.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn damage(&self) -> Result<Vec<Damage>, ReadError> {
        let mut found: Vec<Damage> = self.gap().into_iter().collect();
        found.extend(self.reader.catalog.damage(&self.segment)?);
        Ok(found)
    }

    /// Frames that no segment has, because a file is gone. Whether those before the oldest segment
    /// were dropped is not for the journal to say.
    fn gap(&self) -> Option<Damage> {
        let begins = self.segment.header.first_sequence;
        let first = next_of(&*self.reader.catalog.holder(begins.checked_sub(1)?)?);
        (first < begins).then(|| Damage {
            segment: self.segment.path.clone(),
            offset: 0,
            len: 0,
            first,
            last: begins - 1,
            reason: DamageReason::Missing,
        })
    }

    /// Shows each entry, the oldest first: its place, its time in milliseconds, and its head. What
    /// could not be read is given back.
    pub fn heads(&self, mut show: impl FnMut(EntryRef, u64, &[u8])) -> Vec<ReadError> {
        let mut frames = self.frames();
        let mut unread = Vec::new();
        while let Some(read) = frames.read_next(|view| {
            let (sequence, time) = (view.header.position.sequence, view.header.time);
            for (index, head) in (0..).zip(view.heads()) {
                show(EntryRef { sequence, index }, time, head);
            }
        }) {
            unread.extend(read.err());
        }
        unread
    }
}
