//! The audit log as the REST interfaces ask for it and show it. It reads no journal.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use storage::inspect::{AuditEntry, AuditFilter, AuditPage, AuditSummary, Glance};
use storage::journal::entry_chain_hash;
use storage::record::{EntryId, Level, Record};

use super::heads::hex;
use super::{UnknownEvent, check_event};
use crate::clock::{Millis, parse_rfc3339, rfc3339};
use crate::protocol::{ErrorCode, Refusal};

/// Entries of a page unless the caller asks for another number.
const LIMIT_USUAL: usize = 100;

/// Entries of a page at the most.
pub const LIMIT_MAX: usize = 1_000;

/// Entries that may be left out first: they are read for nothing, and `after` costs nothing.
const OFFSET_MAX: usize = 100_000;

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
            // Texts without a letter are in everything.
            "text" => filter.text = Some(value).filter(|text| !text.is_empty()),
            "offset" => filter.skip = number("offset", &value, (0, OFFSET_MAX))?,
            "after" => filter.before = Some(position("after", &value)?),
            "limit" => filter.limit = number("limit", &value, (1, LIMIT_MAX))?,
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

fn number(field: &str, text: &str, (least, most): (usize, usize)) -> Result<usize, Refusal> {
    match text.parse().map_err(|_| Refusal::invalid(field, "a number"))? {
        few if few < least => Err(Refusal::invalid(field, &format!("{least} or more"))),
        many if many > most => Err(Refusal::invalid(field, &format!("at most {most}"))),
        number => Ok(number),
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
    filter.shows(&Glance::of(EntryId::default(), time, record))
}

/// A page as it is answered.
pub fn page(page: &AuditPage) -> Value {
    let told = |(epoch, start): (&u32, &String)| {
        (*epoch, serde_json::from_str::<Value>(start).unwrap_or_default())
    };
    let starts: BTreeMap<u32, Value> = page.starts.iter().map(told).collect();
    let start = |epoch| starts.get(epoch).unwrap_or(&Value::Null);
    let shown = page.entries.iter().map(|one| whole(one, start(&one.epoch)));
    let entries: Vec<Value> = shown.collect();
    let next = page.next.map(|next| next.to_string());
    json!({ "entries": entries, "next": next, "damage": page.damage })
}

/// A summary as it is answered.
pub fn summary(summary: &AuditSummary) -> Value {
    let named = |pairs: Vec<(&str, u64)>| {
        let pairs = pairs.into_iter().map(|(name, count)| (name.to_owned(), count.into()));
        Value::Object(pairs.collect())
    };
    let counts = |what: &[(String, u64)]| -> Vec<Value> {
        what.iter().map(|(name, count)| json!({"name": name, "count": count})).collect()
    };
    let events: Vec<_> =
        summary.events.iter().map(|(event, count)| (event.to_string(), *count)).collect();
    let levels = summary.levels.iter().map(|(level, count)| (word(*level), *count));
    json!({
        "entries": summary.entries,
        "first": summary.times.map(|(first, _)| rfc3339(first)),
        "last": summary.times.map(|(_, last)| rfc3339(last)),
        "levels": named(levels.collect()),
        "events": counts(&events),
        "actors": counts(&summary.actors),
        "other_actors": summary.other_actors,
        "damage": summary.damage,
    })
}

/// An entry with what proves its place, and what the program that made it told of itself when it
/// started.
pub fn whole(one: &AuditEntry, start: &Value) -> Value {
    let mut shown = entry(one.entry, one.time, &one.record);
    let mut metadata = json!({"epoch": one.epoch});
    for name in ["host", "pid", "version"] {
        if let Some(value) = start.get(name) {
            metadata[name] = value.clone();
        }
    }
    shown["metadata"] = metadata;
    let chain = entry_chain_hash(&one.frame_hash, one.entry.index);
    shown["chain_hash"] = hex(chain.as_ref()).into();
    shown
}

/// The word of a level.
pub fn word(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

/// An entry as it is shown.
pub fn entry(at: EntryId, time: Millis, record: &Record) -> Value {
    json!({
        "seq": at.to_string(),
        "timestamp": rfc3339(time),
        "event": record.event.to_string(),
        "level": word(record.level),
        "actor": &*record.actor,
        "resource": &*record.resource,
        "namespace": &*record.namespace,
        "details": serde_json::from_str::<Value>(&record.details).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use storage::event::Event;
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
            ("limit", "1000000"),
            ("offset", "100001"),
            ("offset", "-1"),
        ];
        for (name, value) in bad {
            assert_eq!(asked(&[(name, value)]), Err(name.to_owned()), "{value}");
        }
        let place = EntryId { sequence: 12, index: 3 };
        assert_eq!(asked(&[("after", "12.3")]).expect("a filter").before, Some(place));
    }
}
