//! The end of a journal as the two sides of a session show it to each other, so that a store that
//! went back to an older state is noticed by somebody who saw the newer one.

use std::fmt::Write as _;

use storage::journal::ReadLog;

/// Bytes as lower case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `<journal id>:<epoch>:<sequence>:<hash>` of the newest durable frame.
pub fn head(journal: &dyn ReadLog) -> String {
    let (identity, head) = (journal.identity(), journal.head());
    let position = head.position;
    let (id, hash) = (hex(&identity.journal), hex(head.hash.as_ref()));
    format!("{id}:{}:{}:{hash}", position.epoch, position.sequence)
}

/// Whether `now` is an earlier end of the same journal as `before`.
pub fn is_rollback(before: &str, now: &str) -> bool {
    match (parts(before), parts(now)) {
        (Some((journal, before)), Some((same, now))) => journal == same && now < before,
        _ => false,
    }
}

/// The journal and the sequence of a head.
fn parts(head: &str) -> Option<(&str, u64)> {
    let mut parts = head.split(':');
    let journal = parts.next()?;
    let _epoch: u32 = parts.next()?.parse().ok()?;
    Some((journal, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use storage::journal::{Identity, MemoryLog};

    use super::*;

    #[test]
    fn a_head_names_its_journal_and_position() {
        let log = MemoryLog::new(Identity { journal: [0xab; 16], key: [2; 16] });
        let head = head(&log.reader());
        let parts: Vec<&str> = head.split(':').collect();
        assert_eq!((parts[0], parts[1], parts[2]), ("ab".repeat(16).as_str(), "0", "0"));
        assert_eq!((parts.len(), parts[3].len()), (4, 64));
    }

    #[test]
    fn only_a_lower_sequence_of_the_same_journal_is_a_rollback() {
        let table = [
            ("j:1:9:x", "j:2:8:y", true),
            ("j:1:9:x", "j:1:9:x", false),
            ("j:1:9:x", "j:1:10:x", false),
            ("j:1:9:x", "k:1:8:x", false),
            ("j:1:9:x", "8", false),
            ("anything", "j:1:8:x", false),
        ];
        for (before, now, wanted) in table {
            assert_eq!(is_rollback(before, now), wanted, "{before} {now}");
        }
    }
}
