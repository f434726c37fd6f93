//! The end of a journal as the two sides of a session show it to each other, so that a store that
//! went back to an older state is noticed by somebody who saw the newer one.

use std::fmt::Write as _;

use storage::journal::{Frame, Identity, Position, ReadLog};

/// Characters of a head: a longer text is none, and is not kept for anybody.
pub const LENGTH_MAX: usize = 32 + 1 + 10 + 1 + 20 + 1 + 64;

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
    let head = journal.head();
    shown(journal.identity(), head.position, &head.hash)
}

/// The same of a journal that ends with this frame.
pub fn of_frame(identity: Identity, frame: &Frame) -> String {
    shown(identity, frame.position, &frame.hash)
}

fn shown(identity: Identity, position: Position, hash: &[u8]) -> String {
    let (id, hash) = (hex(&identity.journal), hex(hash));
    format!("{id}:{}:{}:{hash}", position.epoch, position.sequence)
}

/// The sequence that a head names.
pub fn sequence(head: &str) -> Option<u64> {
    parts(head).map(|(_, sequence)| sequence)
}

/// Whether `now` is an earlier end of the same journal as `before`, or the same number with another
/// history.
pub fn is_rollback(before: &str, now: &str) -> bool {
    match (parts(before), parts(now)) {
        (Some((journal, earlier)), Some((same, later))) => {
            journal == same && (later < earlier || (later == earlier && before != now))
        }
        _ => false,
    }
}

/// Whether two ends are of one journal.
pub fn is_same_journal(one: &str, other: &str) -> bool {
    let id = |head| parts(head).map(|(journal, _)| journal);
    id(one).is_some() && id(one) == id(other)
}

/// What a journal says of an end of it that somebody saw once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It has this frame.
    Here,
    /// It ends before this frame.
    Beyond(u64),
    /// It has another frame of this number.
    Other(u64),
    /// Its frame was dropped or is damaged, which is for others to tell.
    Unreadable,
    /// It is no end of this journal.
    Foreign,
}

/// Where a journal has this end.
pub fn place(journal: &dyn ReadLog, head: &str) -> Place {
    let Some((id, sequence)) = parts(head) else { return Place::Foreign };
    if id != hex(&journal.identity().journal) || sequence == 0 {
        return Place::Foreign;
    }
    if sequence > journal.head().position.sequence {
        return Place::Beyond(sequence);
    }
    let hash = head.rsplit(':').next().unwrap_or_default();
    match journal.frame(sequence) {
        Ok(frame) if hex(&frame.hash) == hash => Place::Here,
        Ok(_) => Place::Other(sequence),
        Err(_) => Place::Unreadable,
    }
}

/// Whether a journal may have this end of it, which somebody saw once. What was dropped or damaged
/// since, and what is of another journal, counts as known: that is for others to tell.
pub fn has(journal: &dyn ReadLog, head: &str) -> bool {
    !matches!(place(journal, head), Place::Beyond(_) | Place::Other(_))
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
    use storage::journal::{Entry, IndexKeys, Log as _, MemoryLog};

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
    fn a_journal_knows_the_ends_that_it_had_and_no_others() {
        let mut log = MemoryLog::new(Identity { journal: [0xab; 16], key: [2; 16] });
        let mut shown = Vec::new();
        for _ in 0..3 {
            let entry = Entry { head: b"x", body: None, index: IndexKeys::default() };
            log.append(1, &[entry]).unwrap();
            log.sync().unwrap();
            shown.push(head(&log.reader()));
        }
        let journal = log.reader();
        assert!(shown.iter().all(|head| has(&journal, head)));
        let id = "ab".repeat(16);
        for (known, other) in [
            (false, format!("{id}:1:2:{}", "00".repeat(32))),
            (false, format!("{id}:1:4:{}", "00".repeat(32))),
            (true, format!("{}:1:4:{}", "cd".repeat(16), "00".repeat(32))),
            (true, "anything".to_owned()),
        ] {
            assert_eq!(has(&journal, &other), known, "{other}");
        }
    }

    #[test]
    fn only_a_lower_sequence_or_another_history_of_the_same_journal_is_a_rollback() {
        let table = [
            ("j:1:9:x", "j:2:8:y", true),
            ("j:1:9:x", "j:1:9:x", false),
            ("j:1:9:x", "j:1:9:y", true),
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
