//! Which messages a list, or a change of many, is about: filters as a caller writes them, read and
//! checked. It finds no messages.

use std::collections::HashSet;

use serde::Deserialize;
use storage::record::{Direction, Reason, Status};
use storage::view::Filter;

use super::bulk::Chosen;
use super::history;
use crate::clock::{Millis, parse_rfc3339};
use crate::protocol::{ErrorCode, Refusal, is_identifier};

/// Messages of a page unless the caller asks for another number.
const LIMIT_USUAL: usize = 50;

/// Entries of one answer, section 7 of the protocol.
const LIMIT_MAX: usize = 1_000;

/// Who changes something and gives no name.
const OPERATOR: &str = "operator";

/// The query of a list.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    limit: Option<usize>,
    status: Option<String>,
    reason: Option<String>,
    direction: Option<String>,
    #[serde(rename = "type")]
    message_type: Option<String>,
    #[serde(alias = "to")]
    peer: Option<String>,
    namespace: Option<String>,
    task_id: Option<String>,
    since: Option<String>,
    until: Option<String>,
    after: Option<String>,
    newest: Option<u64>,
}

impl Asked {
    /// What it asks for.
    ///
    /// # Errors
    /// When a word or a time is none, or the limit is too large.
    pub fn filter(self) -> Result<Filter, Refusal> {
        let after = self.after.map(|text| {
            history::place(&text)
                .ok_or_else(|| Refusal::invalid("after", "the next of another page"))
        });
        Ok(Filter {
            limit: limit(self.limit, LIMIT_USUAL)?,
            status: self.status.map(|word| status(&word)).transpose()?.into_iter().collect(),
            reason: self.reason.map(|word| reason(&word)).transpose()?,
            direction: self.direction.map(|word| direction(&word)).transpose()?,
            message_type: self.message_type,
            peer: self.peer,
            namespace: self.namespace,
            task_id: self.task_id,
            since: time("since", self.since)?,
            until: time("until", self.until)?,
            after: after.transpose()?,
        })
    }

    /// The same over all pages, or as many of the newest as are asked for; and of failed messages
    /// unless another status is named.
    ///
    /// # Errors
    /// As [`Asked::filter`].
    pub fn causes(self) -> Result<(Filter, Option<u64>), Refusal> {
        let newest = self.newest;
        if newest == Some(0) {
            return Err(Refusal::invalid("newest", "1 or more"));
        }
        let mut filter = self.filter()?;
        if filter.status.is_empty() {
            filter.status.push(Status::Failed);
        }
        Ok((Filter { after: None, ..filter }, newest))
    }
}

/// The body of a change of many messages. An unknown name is refused: a filter that is not
/// understood would be one that is not applied.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// Ids; none: those of the filter.
    pub message_ids: Vec<String>,
    /// Where they stand.
    pub status: Option<String>,
    reason: Option<String>,
    direction: Option<String>,
    #[serde(rename = "type")]
    message_type: Option<String>,
    #[serde(alias = "to")]
    peer: Option<String>,
    namespace: Option<String>,
    since: Option<String>,
    until: Option<String>,
    /// Their content is to go.
    pub shred: bool,
    /// Who wants it so.
    pub actor: Option<String>,
}

impl Change {
    /// Reads a body; nothing is one that asks for everything.
    ///
    /// # Errors
    /// When it is no object of this kind.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|error| malformed(&error))
    }

    /// Which messages that is, and who wants it so.
    ///
    /// # Errors
    /// When a word or a time is none.
    pub fn chosen(self) -> Result<(Chosen, String), Refusal> {
        let filter = Filter {
            status: self.status.map(|word| status(&word)).transpose()?.into_iter().collect(),
            reason: self.reason.map(|word| reason(&word)).transpose()?,
            direction: self.direction.map(|word| direction(&word)).transpose()?,
            message_type: self.message_type,
            peer: self.peer,
            namespace: self.namespace,
            since: time("since", self.since)?,
            until: time("until", self.until)?,
            ..Filter::default()
        };
        let actor = actor(self.actor)?;
        let mut message_ids = self.message_ids;
        if message_ids.len() > LIMIT_MAX {
            return Err(Refusal::invalid("message_ids", &format!("at most {LIMIT_MAX} ids")));
        }
        let mut named = HashSet::new();
        message_ids.retain(|id| named.insert(id.clone()));
        Ok((Chosen { message_ids, filter }, actor))
    }
}

/// Who wants a change, for the audit log.
///
/// # Errors
/// When that is no name.
pub fn actor(given: Option<String>) -> Result<String, Refusal> {
    match given {
        None => Ok(OPERATOR.to_owned()),
        Some(name) if is_identifier(&name) => Ok(name),
        Some(_) => {
            let wanted = "1 to 128 of A-Z a-z 0-9 . _ : -";
            Err(Refusal::invalid("actor", wanted))
        }
    }
}

/// The refusal of a body that is no object of the wanted kind.
pub fn malformed(error: &serde_json::Error) -> Refusal {
    Refusal::new(ErrorCode::Malformed, format!("send one json object; {error}"))
}

/// The limit of a page.
///
/// # Errors
/// When it is none that one answer may have.
pub fn limit(asked: Option<usize>, usual: usize) -> Result<usize, Refusal> {
    match asked.unwrap_or(usual) {
        0 => Err(Refusal::invalid("limit", "1 or more")),
        limit if limit > LIMIT_MAX => {
            Err(Refusal::invalid("limit", &format!("at most {LIMIT_MAX}")))
        }
        limit => Ok(limit),
    }
}

/// The status of a word.
///
/// # Errors
/// When there is no such status.
pub fn status(word: &str) -> Result<Status, Refusal> {
    let words = Status::ALL.map(Status::as_str);
    Status::parse(word).ok_or_else(|| unknown_word("status", word, &words))
}

/// The reason of a word.
///
/// # Errors
/// When there is no such reason.
pub fn reason(word: &str) -> Result<Reason, Refusal> {
    let words: Vec<&str> = Reason::NAMED.iter().filter_map(|reason| reason.as_str()).collect();
    Reason::parse(word).ok_or_else(|| unknown_word("reason", word, &words))
}

fn direction(word: &str) -> Result<Direction, Refusal> {
    match word {
        "outbound" => Ok(Direction::Outbound),
        "inbound" => Ok(Direction::Inbound),
        _ => Err(unknown_word("direction", word, &["outbound", "inbound"])),
    }
}

/// A time as a caller writes it.
///
/// # Errors
/// When it is none.
pub fn time(field: &str, text: Option<String>) -> Result<Option<Millis>, Refusal> {
    let wanted = || Refusal::invalid(field, "an RFC 3339 time such as 2026-02-15T14:30:00Z");
    text.map(|text| parse_rfc3339(&text).ok_or_else(wanted)).transpose()
}

/// The refusal of a word that is not one of these, with the nearest that is.
pub fn unknown_word(field: &str, given: &str, words: &[&str]) -> Refusal {
    let distance = |word: &str| strsim::damerau_levenshtein(given, word);
    let nearest = words.iter().min_by_key(|word| distance(word));
    // A third of the letters may be wrong: farther is another word.
    let nearest = nearest.filter(|word| distance(word) <= word.len().div_ceil(3));
    let hint = nearest.map_or_else(String::new, |word| format!("; did you mean {word}?"));
    Refusal::invalid(field, &format!("one of {}{hint}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_none_is_told_with_the_nearest() {
        let cases = [
            (reason("max_agee").map(|_| ()), "undeliverable, sealed; did you mean max_age?"),
            (reason("boredom").map(|_| ()), "undeliverable, sealed"),
            (status("faild").map(|_| ()), "; did you mean failed?"),
            (direction("outbond").map(|_| ()), "outbound, inbound; did you mean outbound?"),
        ];
        for (answer, end) in cases {
            let refusal = answer.expect_err("a refusal");
            assert!(refusal.detail.ends_with(end), "{}", refusal.detail);
        }
        assert_eq!(reason("max_age"), Ok(Reason::MaxAge));
    }

    #[test]
    fn causes_are_those_of_failed_messages_unless_a_status_is_named() {
        let asked = |status: Option<&str>| {
            let status = status.map(str::to_owned);
            let asked = Asked { status, after: Some("3.0".into()), ..Asked::default() };
            asked.causes().expect("a filter").0
        };
        assert_eq!((asked(None).status, asked(None).after), (vec![Status::Failed], None));
        assert_eq!(asked(Some("pending")).status, [Status::Pending]);
    }
}
