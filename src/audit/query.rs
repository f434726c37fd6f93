//! The audit log as the REST interfaces ask for it and show it. It reads no journal.

use serde_json::{Value, json};
use storage::event::Event;
use storage::inspect::{AuditFilter, AuditPage};
use storage::record::{EntryId, Level, Record};

use super::{UnknownEvent, check_event};
use crate::clock::{Millis, parse_rfc3339, rfc3339};
use crate::protocol::{ErrorCode, Refusal};

/// Entries of a page unless the caller asks for another number.
const LIMIT_USUAL: usize = 100;

/// Entries of a page at the most.
const LIMIT_MAX: usize = 1_000;

/// What a query asks for; `event` may stand more than once.
///
/// # Errors
/// When a value is none of its kind. Names that are not known here are left to the caller.
pub fn filter(asked: Vec<(String, String)>) -> Result<AuditFilter, Refusal> {
    let mut filter = AuditFilter { limit: LIMIT_USUAL, ..AuditFilter::default() };
    for (name, value) in asked {
        match name.as_str() {
            "event" => {
                let unknown = |error: UnknownEvent| {
                    Refusal::new(ErrorCode::InvalidField, error.to_string()).at("event")
                };
                check_event(&value).map_err(unknown)?;
                filter.events.push(value);
            }
            "level" => filter.level = Some(level(&value)?),
            "actor" => filter.actor = Some(value),
            "resource" => filter.resource = Some(value),
            "start" => filter.since = Some(time("start", &value)?),
            "end" => filter.until = Some(time("end", &value)?),
            "after" => filter.before = Some(position("after", &value)?),
            "limit" => filter.limit = limit(&value)?,
            _ => {}
        }
    }
    Ok(filter)
}

/// An entry's place, as `seq` and `next` show it.
///
/// # Errors
/// When it is none.
pub fn position(field: &str, text: &str) -> Result<EntryId, Refusal> {
    let parts = text.split_once('.');
    let entry = parts.and_then(|(sequence, index)| {
        Some(EntryId { sequence: sequence.parse().ok()?, index: index.parse().ok()? })
    });
    entry.ok_or_else(|| Refusal::invalid(field, "the seq or the next of an earlier answer"))
}

fn limit(text: &str) -> Result<usize, Refusal> {
    match text.parse().map_err(|_| Refusal::invalid("limit", "a number"))? {
        0 => Err(Refusal::invalid("limit", "1 or more")),
        limit if limit > LIMIT_MAX => {
            Err(Refusal::invalid("limit", &format!("at most {LIMIT_MAX}")))
        }
        limit => Ok(limit),
    }
}

fn level(word: &str) -> Result<Level, Refusal> {
    match word {
        "debug" => Ok(Level::Debug),
        "info" => Ok(Level::Info),
        "warning" => Ok(Level::Warning),
        "error" => Ok(Level::Error),
        _ => Err(Refusal::invalid("level", "debug, info, warning or error")),
    }
}

fn time(field: &str, text: &str) -> Result<Millis, Refusal> {
    parse_rfc3339(text).ok_or_else(|| Refusal::invalid(field, "an RFC 3339 time"))
}

/// Whether an entry is one of those that a filter asks for, its place apart.
pub fn shows(filter: &AuditFilter, time: Millis, record: &Record) -> bool {
    let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|it| it == is);
    let named = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => record.event.name().starts_with(prefix),
        None => record.event == Event::parse(pattern).unwrap_or(record.event),
    };
    (filter.events.is_empty() || filter.events.iter().any(named))
        && filter.level.is_none_or(|level| record.level >= level)
        && same(&filter.actor, &record.actor)
        && same(&filter.resource, &record.resource)
        && filter.since.is_none_or(|since| time >= since)
        && filter.until.is_none_or(|until| time < until)
}

/// A page as it is answered.
pub fn page(page: &AuditPage) -> Value {
    let shown = page.entries.iter().map(|one| entry(one.entry, one.time, &one.record));
    let entries: Vec<Value> = shown.collect();
    let next = page.next.map(|next| next.to_string());
    json!({ "entries": entries, "next": next, "damage": page.damage })
}

/// An entry as it is shown.
pub fn entry(at: EntryId, time: Millis, record: &Record) -> Value {
    let level = match record.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    json!({
        "seq": at.to_string(),
        "timestamp": rfc3339(time),
        "event": record.event.to_string(),
        "level": level,
        "actor": &*record.actor,
        "resource": &*record.resource,
        "namespace": &*record.namespace,
        "details": serde_json::from_str::<Value>(&record.details).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use storage::record::Fact;

    use super::*;

    fn record(event: Event, level: Level) -> Record {
        Record {
            event,
            level,
            actor: "planner".into(),
            namespace: "default".into(),
            resource: "m-1".into(),
            details: String::new(),
            fact: Fact::Note,
        }
    }

    fn asked(pairs: &[(&str, &str)]) -> Result<AuditFilter, String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        filter(pairs.collect()).map_err(|refusal| refusal.field.unwrap_or_default())
    }

    #[test]
    fn an_entry_is_shown_when_it_is_all_that_was_asked_for() {
        let failed = record(Event::MessageFailed, Level::Error);
        let cases: [(&[(&str, &str)], bool); 9] = [
            (&[], true),
            (&[("event", "message.*")], true),
            (&[("event", "task.*"), ("event", "message.failed")], true),
            (&[("event", "message.queued")], false),
            (&[("level", "warning")], true),
            (&[("actor", "planner"), ("resource", "m-1")], true),
            (&[("resource", "m-2")], false),
            (&[("start", "1970-01-01T00:00:05Z")], true),
            (&[("end", "1970-01-01T00:00:05Z")], false),
        ];
        for (pairs, expected) in cases {
            let filter = asked(pairs).expect("a filter");
            assert_eq!(shows(&filter, 5_000, &failed), expected, "{pairs:?}");
        }
        let quiet = record(Event::MessageFailed, Level::Info);
        assert!(!shows(&asked(&[("level", "warning")]).expect("a filter"), 5_000, &quiet));
    }

    #[test]
    fn a_value_that_is_none_names_its_field() {
        let bad = [
            ("event", "message.gone"),
            ("level", "loud"),
            ("start", "yesterday"),
            ("after", "12"),
            ("after", "a.b"),
            ("limit", "0"),
            ("limit", "1001"),
        ];
        for (name, value) in bad {
            assert_eq!(asked(&[(name, value)]), Err(name.to_owned()), "{value}");
        }
        let place = EntryId { sequence: 12, index: 3 };
        assert_eq!(asked(&[("after", "12.3")]).expect("a filter").before, Some(place));
    }
}
