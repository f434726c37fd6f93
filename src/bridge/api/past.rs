//! The same answers without a bridge: messages and the audit log from a journal on disk. It takes
//! no lock and changes nothing.

use axum::http::Uri;
use serde::Serialize;
use serde_json::Value;
use storage::inspect::{Inspect, told};

use super::problem::Failed;
use super::query;
use crate::audit::query as asked;
use crate::inspector::history::{History as _, Past};
use crate::inspector::selection::Asked;
use crate::inspector::{causes, look};
use crate::protocol::{ErrorCode, Refusal};

/// What a bridge would answer to a `GET` of this path and query, and what is missing from that,
/// also from a refusal. Of the rest it answers nothing. The audit log's answers name what is
/// missing themselves.
///
/// # Errors
/// When the query is wrong, there is no such thing, or the journal cannot be read.
pub fn answer(inspect: Inspect, target: &str) -> (Result<Value, Refusal>, Vec<String>) {
    let past = Past(inspect);
    let answer = found(&past, target).map_err(|Failed(refusal)| refusal);
    let names_it = target.starts_with("/api/audit");
    // Only now it is known what the look for it found damaged.
    let damage = if names_it { Vec::new() } else { told(&past.0.damage()) };
    (answer, damage)
}

fn found(past: &Past, target: &str) -> Result<Value, Failed> {
    let uri: Uri = target.parse().map_err(|_| Failed::missing("this is no path"))?;
    match uri.path() {
        "/api/audit" => {
            let page = past.0.audit(&asked::filter(query(&uri)?)?);
            Ok(asked::page(&page.map_err(|error| unavailable(&error))?))
        }
        "/api/audit/summary" => {
            let counted = past.0.summary(&asked::filter(query(&uri)?)?);
            Ok(asked::summary(&counted.map_err(|error| unavailable(&error))?))
        }
        "/api/openclaw/messages" => {
            let filter = query::<Asked>(&uri)?.filter()?;
            value(past.list(&filter)?)
        }
        "/api/openclaw/causes" => {
            let (filter, newest) = query::<Asked>(&uri)?.causes()?;
            value(causes::of(past, &filter, newest)?)
        }
        path => {
            let id = path.strip_prefix("/api/openclaw/messages/");
            let id = id.ok_or_else(|| Failed::missing("a store does not tell this"))?;
            if let Some(id) = id.strip_suffix("/explain") {
                return value(look::explained_past(past, id)?);
            }
            value(look::detail(past, id)?)
        }
    }
}

fn value(answer: impl Serialize) -> Result<Value, Failed> {
    Ok(serde_json::to_value(answer).map_err(|error| unavailable(&error))?)
}

fn unavailable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, error.to_string())
}
