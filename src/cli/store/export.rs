//! `loki store export`: everything of a store as JSON Lines, the oldest first: entities, messages
//! with where they stand, the audit log. It works beside a running program and changes nothing.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use storage::codec;
use storage::inspect::{Inspect, head_of};
use storage::record::Record;
use storage::shred::Shredded;
use storage::store::read_content;
use storage::view::{Filter, Row};

use super::import::ACTOR;
use super::lines::{Audit, Content, Entity, Line, Message, kind_word, level_word};
use super::open::check_there;
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, moment, output};
use crate::clock::{Millis, parse_rfc3339, rfc3339};

/// What.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Only messages that changed, and audit entries, since this time: 2026-02-15T14:30:00Z, or 15m
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    since: Option<String>,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: &Arguments) -> Done {
    let dir = look(global)?.openclaw.data_dir;
    check_there(&dir)?;
    let since = arguments.since.as_deref().and_then(parse_rfc3339).unwrap_or_default();
    let done = tokio::task::spawn_blocking(move || export(&dir, since)).await;
    let failed = |error: &dyn std::fmt::Display| Failure::new(Code::Store, error.to_string());
    done.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok(ExitCode::SUCCESS)
}

fn export(dir: &Path, since: Millis) -> Result<(), String> {
    let look = Inspect::open(dir).map_err(|error| error.to_string())?;
    let shredded = Shredded::read(look.reader()).map_err(|error| error.to_string())?;
    for (key, entity) in look.state().ledger.iter() {
        let Some(kind) = kind_word(key.kind) else { continue };
        let name = key.name.split('\0').map(str::to_owned).collect();
        let value = Content::of(&entity.value);
        if !put(&Line::Entity(Entity { kind: kind.to_owned(), name, value })) {
            return Ok(());
        }
    }
    for row in rows(&look, since).iter().rev() {
        let Some(message) = message(&look, row, &shredded) else {
            output::say(&format!("warning: message {} cannot be read", row.message_id));
            continue;
        };
        if !put(&Line::Message(Box::new(message))) {
            return Ok(());
        }
    }
    for frame in look.reader().frames(1).flatten().filter(|frame| frame.time >= since) {
        for one in &frame.entries {
            let Ok(record) = codec::decode::<Record>(&one.head) else { continue };
            // What an import wrote stands for the entries that it brought.
            if *record.actor == *ACTOR {
                continue;
            }
            let seq = format!("{}.{}", frame.position.sequence, one.index);
            if !put(&Line::Audit(audit(seq, frame.time, &record))) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Writes a line; `false` when nobody reads any more.
fn put(line: &Line) -> bool {
    serde_json::to_string(line).is_ok_and(|text| output::line(&text))
}

/// The messages that changed since a time, the newest first.
fn rows(look: &Inspect, since: Millis) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut filter = Filter { limit: 1_000, ..Filter::default() };
    loop {
        let page = look.list(&filter);
        rows.extend(page.rows.into_iter().filter(|row| row.updated_at >= since));
        filter.after = page.next;
        if filter.after.is_none() {
            return rows;
        }
    }
}

fn message(look: &Inspect, row: &Row, shredded: &Shredded) -> Option<Message> {
    let head = head_of(look.reader(), row.place())?;
    // Until its segment is compacted, what a person wants gone is still there.
    let is_dead = shredded.is_dead(row.entry);
    let read = || read_content(look.reader(), row.body, &head.digest).ok();
    let body = if is_dead { None } else { read() };
    let body = body.as_deref().map(Content::of);
    let due = Some(row.next_attempt_at).filter(|at| *at > 0);
    Some(Message {
        status: row.status.as_str().to_owned(),
        reason: row.reason.as_str().map(str::to_owned),
        attempts: row.attempts,
        next_attempt_at: due.map(rfc3339),
        maybe_delivered: row.maybe_delivered,
        error: Some(row.error.clone()).filter(|error| !error.is_empty()),
        body,
        ..Message::of(&head)
    })
}

/// An entry; of one that was imported, what it was before.
fn audit(seq: String, time: Millis, record: &Record) -> Audit {
    let mut details: serde_json::Value = serde_json::from_str(&record.details).unwrap_or_default();
    let before = details.as_object_mut().and_then(|members| members.remove("imported"));
    let text = |name: &str| before.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let (seq, timestamp) = match (text("seq"), text("timestamp")) {
        (Some(seq), Some(timestamp)) => {
            details = before.as_ref().and_then(|it| it.get("details")).cloned().unwrap_or_default();
            (seq, timestamp)
        }
        _ => (seq, rfc3339(time)),
    };
    Audit {
        seq,
        timestamp,
        event: record.event.to_string(),
        level: level_word(record.level).to_owned(),
        actor: record.actor.to_string(),
        namespace: record.namespace.to_string(),
        resource: record.resource.to_string(),
        details,
    }
}
