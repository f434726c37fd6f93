//! Everything that was recorded about one message, found by the footers of the segments.

use std::sync::Arc;

use crate::inspect::{AuditEntry, entry_in};
use crate::journal::{ReadError, Reader};
use crate::messages::{Place, fingerprint};
use crate::record::{Fact, MessageHead, MessageKey};
use crate::store::{actor_hash, head_in};
use crate::view::Row;

/// Everything that was recorded about the message of a row, the oldest first.
///
/// # Errors
/// When the journal cannot be read; damaged frames are left out.
pub fn history_of(reader: &Reader, row: &Row) -> Result<Vec<AuditEntry>, ReadError> {
    let key = MessageKey {
        direction: row.direction,
        namespace: &row.namespace,
        peer: &row.peer,
        message_id: &row.message_id,
    };
    history(reader, &key)
}

/// Everything that was recorded about a message, the oldest first: its acceptance, every attempt
/// and every change, with the records as they were written.
///
/// # Errors
/// When the journal cannot be read; damaged frames are left out.
pub fn history(reader: &Reader, key: &MessageKey<'_>) -> Result<Vec<AuditEntry>, ReadError> {
    let id = fingerprint(&reader.identity().key, key);
    let mut entries = Vec::new();
    for at in reader.find(id)? {
        if let Ok(frame) = reader.frame(at.sequence) {
            entries.extend(entry_in(&frame, at.index));
        }
    }
    entries.sort_by_key(|one| one.entry);
    Ok(entries)
}

/// What was known of a message when it was accepted; `None` when its frame cannot be read.
pub fn head_of(reader: &Reader, (entry, at): Place) -> Option<Arc<MessageHead>> {
    let frame = reader.frame(at).ok()?;
    let mut heads = frame.entries.iter().filter_map(|one| head_in(&frame, one));
    heads.find(|(its, _)| *its == entry).map(|(_, head)| head)
}

/// Entries that only speak of a message id, such as a duplicate that arrived. What cannot be read
/// is left out.
pub(super) fn notes(reader: &Reader, message_id: &str) -> Vec<AuditEntry> {
    let mut entries = Vec::new();
    for segment in reader.segments() {
        for at in segment.by_resource(actor_hash(message_id)).unwrap_or_default() {
            let Ok(frame) = reader.frame(at.sequence) else { continue };
            entries.extend(entry_in(&frame, at.index).filter(|one| {
                one.record.fact == Fact::Note && *one.record.resource == *message_id
            }));
        }
    }
    entries
}
