//! What the audit log shows of an entry, borrowed from its bytes, and whether somebody asked for
//! it. The fact behind it is not read.

use crate::codec;
use crate::event::Event;
use crate::inspect::{AuditEntry, AuditFilter};
use crate::journal::EntryRef;
use crate::record::{EntryId, Level, Millis, Record};

/// An entry of the audit log without its fact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Glance<'a> {
    /// Its place.
    pub entry: EntryId,
    /// When, by the clock of whoever recorded it.
    pub time: Millis,
    /// The event.
    pub event: Event,
    /// Its level.
    pub level: Level,
    /// Who caused it.
    pub actor: &'a str,
    /// The namespace it belongs to.
    pub namespace: &'a str,
    /// What it is about.
    pub resource: &'a str,
    /// What else is known, as JSON.
    pub details: &'a str,
}

impl<'a> Glance<'a> {
    /// That of a record.
    pub fn of(entry: EntryId, time: Millis, record: &'a Record) -> Self {
        Self {
            entry,
            time,
            event: record.event,
            level: record.level,
            actor: &record.actor,
            namespace: &record.namespace,
            resource: &record.resource,
            details: &record.details,
        }
    }

    /// That of an encoded record; `None` when it is none.
    pub(super) fn read(at: EntryRef, time: Millis, head: &'a [u8]) -> Option<Self> {
        let (event, level, actor, namespace, resource, details) = codec::begin(head).ok()?;
        let entry = EntryId { sequence: at.sequence, index: at.index };
        Some(Self { entry, time, event, level, actor, namespace, resource, details })
    }
}

impl AuditEntry {
    /// It without its fact.
    pub fn glance(&self) -> Glance<'_> {
        Glance::of(self.entry, self.time, &self.record)
    }
}

impl AuditFilter {
    /// Whether an entry is one of those that are asked for, its place apart.
    pub fn shows(&self, one: &Glance<'_>) -> bool {
        let same = |wanted: &Option<String>, is| wanted.as_deref().is_none_or(|it| it == is);
        self.names(one.event)
            && self.level.is_none_or(|level| one.level >= level)
            && self.since.is_none_or(|since| one.time >= since)
            && self.until.is_none_or(|until| one.time < until)
            && same(&self.actor, one.actor)
            && same(&self.resource, one.resource)
            && self.text.as_deref().is_none_or(|text| {
                [one.details, one.resource, one.actor].iter().any(|has| contains(has, text))
            })
    }

    /// Whether an event is one of those that are asked for.
    pub(super) fn names(&self, event: Event) -> bool {
        let named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => event.name().starts_with(prefix),
            None => event.name() == pattern,
        };
        self.events.is_empty() || self.events.iter().any(named)
    }
}

/// Whether a text has another one in it, where the case of ASCII letters does not matter.
fn contains(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
    let Some((first, rest)) = wanted.split_first() else { return true };
    let cases = [first.to_ascii_lowercase(), first.to_ascii_uppercase()];
    let Some(starts) = text.len().checked_sub(rest.len()) else { return false };
    let is_here = |at: usize| text[at + 1..at + wanted.len()].eq_ignore_ascii_case(rest);
    let begins = text[..starts].iter().enumerate().filter(|(_, byte)| cases.contains(byte));
    begins.map(|(at, _)| at).any(is_here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Fact;

    #[test]
    fn an_encoded_record_is_read_without_its_fact() {
        let record = Record {
            event: Event::MessageFailed,
            level: Level::Error,
            actor: "planner".into(),
            namespace: "default".into(),
            resource: "m-1".into(),
            details: r#"{"error":"Refused"}"#.into(),
            fact: Fact::Forget(7),
        };
        let head = codec::encode(&record).unwrap();
        let at = EntryRef { sequence: 3, index: 4 };
        let entry = EntryId { sequence: 3, index: 4 };
        assert_eq!(Glance::read(at, 9, &head), Some(Glance::of(entry, 9, &record)));
        for cut in [0, 1, 5, 30] {
            assert_eq!(Glance::read(at, 9, &head[..cut]), None, "{cut}");
        }
        let with = |text: &str| AuditFilter { text: Some(text.into()), ..AuditFilter::default() };
        for (text, is) in [("refused", true), ("PLAN", true), ("m-1", true), ("default", false)] {
            assert_eq!(with(text).shows(&Glance::of(entry, 9, &record)), is, "{text}");
        }
    }

    #[test]
    fn a_text_is_found_wherever_it_stands() {
        let table = [
            ("abcabd", "abd", true),
            ("abc", "ABC", true),
            ("abc", "c", true),
            ("abc", "abcd", false),
            ("", "", true),
            ("", "a", false),
            ("Größe", "größe", true),
            ("aab", "ab", true),
        ];
        for (text, wanted, is) in table {
            assert_eq!(contains(text, wanted), is, "{text} {wanted}");
        }
    }
}
