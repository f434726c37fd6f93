//! The oldest frames, when nobody needs them any more (JOURNAL rule 22): what was written down of
//! them before they were dropped, and whether what is kept begins where that says.

use crate::codec;
use crate::event::Event;
use crate::journal::{Damage, DamageReason, EntryRef, ReadError, Reader, SegmentView};
use crate::record::{Fact, Record, Trim};

/// The newest trim that the journal has, and the frame that recorded it.
///
/// # Errors
/// When the journal cannot be read.
pub(crate) fn recorded(reader: &Reader) -> Result<Option<(EntryRef, Trim)>, ReadError> {
    let mut before = None;
    loop {
        let found = reader.by_event(&[Event::StoreTrim.code()], before, 1)?;
        let Some(at) = found.first().copied() else { return Ok(None) };
        // One whose frame is damaged has an older one before it, perhaps.
        let frame = reader.frame(at.sequence).ok();
        let entry = frame.and_then(|frame| frame.entries.into_iter().nth(at.index as usize));
        let record = entry.and_then(|entry| codec::decode::<Record>(&entry.head).ok());
        if let Some(Record { fact: Fact::Trim(trim), .. }) = record {
            return Ok(Some((at, trim)));
        }
        before = Some(at);
    }
}

/// Where what is kept does not begin as the newest trim says: frames that nobody dropped are
/// missing, or others stand in their place.
///
/// # Errors
/// When the journal cannot be read.
pub(crate) fn damage(reader: &Reader) -> Result<Option<Damage>, ReadError> {
    let Some(oldest) = reader.segments().pop() else { return Ok(None) };
    let (first, _) = oldest.range();
    if first <= 1 {
        return Ok(None);
    }
    let trim = recorded(reader)?.map(|(_, trim)| trim);
    let through = trim.as_ref().map_or(0, |trim| trim.through);
    if first > through.saturating_add(1) {
        return Ok(Some(broken(&oldest, DamageReason::Missing, (through + 1, first - 1))));
    }
    let Some(trim) = trim else { return Ok(None) };
    let hash = if first == through.saturating_add(1) {
        Some(oldest.previous())
    } else {
        reader.frame(through).ok().map(|frame| frame.hash)
    };
    let is_other = hash.is_some_and(|hash| hash != trim.hash);
    Ok(is_other.then(|| broken(&oldest, DamageReason::Chain, (1, 0))))
}

fn broken(oldest: &SegmentView, reason: DamageReason, (first, last): (u64, u64)) -> Damage {
    Damage { segment: oldest.path().to_path_buf(), offset: 0, len: 0, first, last, reason }
}
