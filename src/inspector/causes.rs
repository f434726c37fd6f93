//! Why messages stand where they do, grouped: "312 messages, one cause". It goes through
//! the messages one by one and keeps none, only a bounded number of causes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use storage::record::{Reason, Status};
use storage::view::{Filter, Row, ViewError};

use super::history::History;
use crate::clock::{Millis, rfc3339};

/// Causes that are told apart; what comes after them is counted together. A person reads no more,
/// and the errors of a peer may have no end of forms.
const CAUSES_MAX: usize = 200;

/// Names of peers and of types that a cause tells.
const NAMES_MAX: usize = 5;

/// Letters of an error that make a cause: rows keep the beginning of an error.
const CAUSE_CHARS_MAX: usize = 120;

/// Digits up to which a number is no id but says something, as an HTTP status does.
const NUMBER_DIGITS_MAX: usize = 3;

/// What is said of a message that has no error.
const NO_ERROR: &str = "no error was recorded";

/// Messages that stand where they do for one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// How many.
    pub messages: u64,
    /// Where they stand.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// What their last errors have in common: `…` stands for ids and numbers.
    pub cause: String,
    /// Whom they are for, or who sent them: the first few.
    pub peers: Vec<String>,
    /// Their types: the first few.
    pub types: Vec<String>,
    /// When the oldest was written.
    pub oldest: String,
    /// When the newest was written.
    pub newest: String,
    /// The id of one of them.
    pub example: String,
}

/// The causes of the messages that a filter asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Causes {
    /// How many messages that are.
    pub messages: u64,
    /// These are all of them, and not only the newest.
    pub complete: bool,
    /// The causes, those of most messages first.
    pub causes: Vec<Cause>,
}

#[derive(Default)]
struct Group {
    messages: u64,
    peers: Vec<String>,
    types: Vec<String>,
    oldest: Millis,
    newest: Millis,
    example: String,
}

type Key = (Option<(Status, Option<&'static str>)>, String);

/// Counts messages by cause, one after the other.
#[derive(Default)]
struct Count {
    messages: u64,
    groups: BTreeMap<Key, Group>,
}

/// The causes of the messages that a filter asks for: of all, or of so many of the newest.
///
/// # Errors
/// When the rows cannot be read.
pub fn of(
    history: &dyn History,
    filter: &Filter,
    newest: Option<u64>,
) -> Result<Causes, ViewError> {
    let mut count = Count::default();
    let Some(most) = newest else {
        history.each(filter, &mut |row| count.add(row))?;
        return Ok(count.told(true));
    };
    let mut filter = Filter { limit: 0, ..filter.clone() };
    loop {
        let page = history.rows(&filter)?;
        for row in page.rows {
            if count.messages == most {
                return Ok(count.told(false));
            }
            count.add(&row);
        }
        filter.after = page.next;
        if filter.after.is_none() {
            return Ok(count.told(true));
        }
    }
}

impl Count {
    fn add(&mut self, row: &Row) {
        self.messages += 1;
        add(&mut self.groups, row);
    }

    fn told(self, complete: bool) -> Causes {
        let mut causes: Vec<Cause> = self.groups.into_iter().map(told).collect();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.messages));
        Causes { messages: self.messages, complete, causes }
    }
}

fn add(groups: &mut BTreeMap<Key, Group>, row: &Row) {
    let mut key: Key = (Some((row.status, row.reason.as_str())), cause(&row.error, row.reason));
    if !groups.contains_key(&key) && groups.len() >= CAUSES_MAX {
        key = (None, "other causes".to_owned());
    }
    let first = Group { oldest: row.created_at, newest: row.created_at, ..Group::default() };
    let group = groups.entry(key).or_insert(first);
    group.messages += 1;
    group.oldest = group.oldest.min(row.created_at);
    group.newest = group.newest.max(row.created_at);
    if group.example.is_empty() {
        group.example.clone_from(&row.message_id);
    }
    for (names, name) in [(&mut group.peers, &row.peer), (&mut group.types, &row.message_type)] {
        if names.len() < NAMES_MAX && !names.contains(name) {
            names.push(name.clone());
        }
    }
}

fn told(((stands, cause), group): (Key, Group)) -> Cause {
    let (status, reason) =
        stands.map_or(("several", None), |(status, reason)| (status.as_str(), reason));
    Cause {
        messages: group.messages,
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        cause,
        peers: group.peers,
        types: group.types,
        oldest: rfc3339(group.oldest),
        newest: rfc3339(group.newest),
        example: group.example,
    }
}

/// What an error has in common with others of its kind: its words, without ids and numbers.
fn cause(error: &str, reason: Reason) -> String {
    if error.is_empty() {
        return match reason {
            Reason::MaxAge => "it was not delivered in time".to_owned(),
            _ => NO_ERROR.to_owned(),
        };
    }
    let words: Vec<String> = error.split_whitespace().map(shape).collect();
    words.join(" ").chars().take(CAUSE_CHARS_MAX).collect()
}

/// A word as it stands in a cause.
fn shape(word: &str) -> String {
    let core = word.trim_end_matches([',', ';', ':', '.', ')']);
    let digits = core.chars().filter(char::is_ascii_digit).count();
    let is_number = digits == core.chars().count() && digits <= NUMBER_DIGITS_MAX;
    if digits == 0 || is_number { word.to_owned() } else { format!("…{}", &word[core.len()..]) }
}

#[cfg(test)]
mod tests {
    use storage::messages::BodyPlace;
    use storage::record::{Direction, EntryId};

    use super::*;

    fn row(number: u64, error: &str) -> Row {
        Row {
            entry: EntryId { sequence: number, index: 0 },
            message_id: format!("m-{number}"),
            direction: Direction::Outbound,
            message_type: "task_update".into(),
            peer: format!("p-{}", number % 7),
            destination: "d".into(),
            namespace: "default".into(),
            status: Status::Failed,
            reason: Reason::Permanent,
            attempts: 1,
            next_attempt_at: 0,
            created_at: number,
            updated_at: number,
            size_bytes: 1,
            sealed: false,
            maybe_delivered: false,
            task_id: None,
            correlation_id: None,
            error: error.into(),
            body: BodyPlace::default(),
            digest: [0; 32],
        }
    }

    fn grouped(errors: &[String]) -> Causes {
        let mut count = Count::default();
        for (number, error) in errors.iter().enumerate().rev() {
            count.add(&row(number as u64, error));
        }
        count.told(true)
    }

    #[test]
    fn ids_and_numbers_do_not_tell_causes_apart() {
        let cases = [
            (
                "unknown_task: the task loki-1-ab12-3 is not one",
                "unknown_task: the task … is not one",
            ),
            ("HTTP 403, ask (id 7f3a91)", "HTTP 403, ask (id …)"),
            ("", NO_ERROR),
            ("port 57374: it is not there", "port …: it is not there"),
        ];
        for (error, expected) in cases {
            assert_eq!(cause(error, Reason::Permanent), expected);
        }
        assert_eq!(cause("", Reason::MaxAge), "it was not delivered in time");
    }

    #[test]
    fn many_messages_with_one_cause_are_one_line() {
        let mut errors: Vec<String> =
            (0..312).map(|number| format!("unknown_task: the task t-{number} is gone")).collect();
        errors.extend((0..3).map(|_| "forbidden: no".to_owned()));
        let causes = grouped(&errors);
        assert_eq!((causes.messages, causes.causes.len()), (315, 2));
        let first = &causes.causes[0];
        assert_eq!(
            (first.messages, first.cause.as_str()),
            (312, "unknown_task: the task … is gone")
        );
        assert_eq!((first.peers.len(), first.types.len()), (NAMES_MAX, 1));
        let ends = (first.oldest.as_str(), first.newest.as_str(), first.example.as_str());
        assert_eq!(ends, ("1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00.311Z", "m-311"));
        assert_eq!(causes.causes[1].messages, 3);
    }

    #[test]
    fn a_peer_that_never_says_the_same_twice_takes_no_more_memory() {
        let letters = |mut number: usize| {
            let mut word = String::new();
            while number > 0 {
                word.push(char::from(b'a' + u8::try_from(number % 26).expect("a letter")));
                number /= 26;
            }
            format!("it says {word}")
        };
        let causes = grouped(&(0..1_000).map(letters).collect::<Vec<_>>());
        assert_eq!((causes.messages, causes.causes.len()), (1_000, CAUSES_MAX + 1));
        let others = &causes.causes[0];
        assert_eq!((others.cause.as_str(), others.messages), ("other causes", 800));
    }
}
