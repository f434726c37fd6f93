//! The bytes of a message that is about to leave. It sends nothing.

use storage::journal::ReadError;
use storage::messages::Live;
use storage::store::Store;

use crate::clock::Millis;

/// When a message is looked at again that the system could not read: descriptors that ran out, or a
/// passing error of the disk.
pub(super) const AGAIN_MILLIS: Millis = 1_000;

/// What the journal gives of a message.
pub(super) enum Content {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// Nothing just now.
    Later,
    /// Nothing any more, and why.
    Never(String),
}

/// Reads the bytes of a message.
pub(super) fn read(store: &Store, live: &Live) -> Content {
    if !live.has_head() {
        return match store.head(live.place()) {
            Ok(head) if !head.message_id.is_empty() => Content::Later,
            Err(ReadError::Io { .. }) => Content::Later,
            // It was carried forward without it, or it is damaged.
            _ => Content::Never("its record in the journal cannot be read".into()),
        };
    }
    match store.content(live) {
        // No message is empty: an import made it of one that had lost it.
        Ok(bytes) if bytes.is_empty() => Content::Never("its content was lost".into()),
        Ok(bytes) => Content::Bytes(bytes),
        Err(ReadError::Io { .. }) => Content::Later,
        Err(error) => Content::Never(format!("its body cannot be read: {error}")),
    }
}
