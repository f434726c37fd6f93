//! The messages with an id, and what an entity is, from the footers of the segments: what this
//! reads does not grow with the number of messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::codec;
use crate::database::index_of;
use crate::journal::{EntryRef, Frame, Reader};
use crate::record::{EntityKey, EntryId, Fact, Record, id_time};
use crate::store::{actor_hash, place};
use crate::trim;
use crate::view::{Overlay, Patch, Row};

/// Every message with this id, the newest first. Whoever accepts a message names its id as what
/// the entry is about, and an id of ours tells when it was made: only segments that accepted ids of
/// that time are asked, and only frames are read that have an entry about the message.
pub fn find(reader: &Reader, message_id: &str) -> Vec<Row> {
    let (mut frames, mut entries) = (BTreeMap::new(), BTreeSet::new());
    let mut prints = BTreeSet::new();
    for segment in reader.accepting(id_time(message_id)) {
        for at in segment.by_resource(actor_hash(message_id)).unwrap_or_default() {
            let identity = reader.identity();
            let keys = entry(reader, &mut frames, at).map(|(head, _)| index_of(head, &identity));
            prints.extend(keys.and_then(|keys| keys.id));
        }
    }
    for print in prints {
        entries.extend(reader.find(print).unwrap_or_default());
    }
    if entries.is_empty() {
        return Vec::new();
    }
    // What was dropped may still be there.
    entries.extend(trim::recorded(reader).ok().flatten().map(|(at, _)| at));
    let mut overlay = Overlay::default();
    for at in entries {
        let Some((head, frame)) = entry(reader, &mut frames, at) else { continue };
        let Ok(record) = codec::decode::<Record>(head) else { continue };
        let body = frame.entries.get(at.index as usize).and_then(|one| one.body);
        let accepted = EntryId { sequence: at.sequence, index: at.index };
        overlay.add(accepted, frame.time, &record, place(body));
    }
    let rows = overlay.pending.into_values().rev().filter_map(|patch| match patch {
        Patch::Row(row) if row.message_id == message_id => Some(*row),
        _ => None,
    });
    rows.collect()
}

/// The value of an entity, as the newest entry has it that is about one of these: whoever asks
/// knows what they name who write it. `None` also when it was removed.
pub fn entity(reader: &Reader, key: &EntityKey, about: &[&str]) -> Option<Arc<[u8]>> {
    let mut frames = BTreeMap::new();
    for segment in reader.segments() {
        let named = about.iter().flat_map(|name| segment.by_resource(actor_hash(name)));
        let entries: BTreeSet<EntryRef> = named.flatten().collect();
        for at in entries.into_iter().rev() {
            let head = entry(reader, &mut frames, at).map(|(head, _)| head);
            let record = head.and_then(|head| codec::decode::<Record>(head).ok());
            match record.map(|record| record.fact) {
                Some(Fact::Put(write)) if write.key == *key => return write.value,
                _ => {}
            }
        }
    }
    None
}

/// The record of an entry, encoded, and its frame, each of which is read once. A frame that cannot
/// be read is left out.
fn entry<'a>(
    reader: &Reader,
    frames: &'a mut BTreeMap<u64, Option<Frame>>,
    at: EntryRef,
) -> Option<(&'a [u8], &'a Frame)> {
    let frame = frames.entry(at.sequence).or_insert_with(|| reader.frame(at.sequence).ok());
    let frame = frame.as_ref()?;
    Some((frame.entries.get(at.index as usize)?.head.as_slice(), frame))
}
