//! `GET /api/audit`: the audit log, which is the journal read by event. It changes nothing.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};
use storage::inspect::{AuditEntry, AuditFilter, AuditPage, audit};
use storage::record::Level;

use super::problem::Failed;
use super::{Shared, limit, query};
use crate::audit::{UnknownEvent, check_event};
use crate::clock::{Millis, parse_rfc3339, rfc3339};
use crate::protocol::{ErrorCode, Refusal};

/// Entries of a page unless the caller asks for another number.
const LIMIT_USUAL: usize = 100;

/// `GET /api/audit`; `event` may stand more than once.
pub async fn list(State(api): Shared, uri: Uri) -> Result<Json<Value>, Failed> {
    let filter = filter(query(&uri)?)?;
    let reader = api.journal.clone();
    // The journal's past is on disk.
    let page = tokio::task::spawn_blocking(move || audit(&reader, &filter)).await;
    let unavailable =
        |error: &dyn std::fmt::Display| Refusal::new(ErrorCode::Unavailable, error.to_string());
    let page = page.map_err(|error| unavailable(&error))?;
    Ok(Json(self::page(&page.map_err(|error| unavailable(&error))?)))
}

/// A page as it is answered.
pub fn page(page: &AuditPage) -> Value {
    let entries: Vec<Value> = page.entries.iter().map(entry).collect();
    let next = page.next.map(|next| next.to_string());
    json!({ "entries": entries, "next": next, "damage": page.damage })
}

/// What a query asks for.
pub fn filter(asked: Vec<(String, String)>) -> Result<AuditFilter, Failed> {
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
            "limit" => {
                let asked = value.parse().map_err(|_| Refusal::invalid("limit", "a number"))?;
                filter.limit = limit(Some(asked), LIMIT_USUAL)?;
            }
            _ => {}
        }
    }
    Ok(filter)
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

fn entry(entry: &AuditEntry) -> Value {
    let record = &entry.record;
    let level = match record.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    json!({
        "seq": entry.entry.to_string(),
        "timestamp": rfc3339(entry.time),
        "event": record.event.to_string(),
        "level": level,
        "actor": &*record.actor,
        "resource": &*record.resource,
        "namespace": &*record.namespace,
        "details": serde_json::from_str::<Value>(&record.details).unwrap_or_default(),
    })
}
