//! The same answers without a bridge: messages and the audit log from a journal on disk. It takes
//! no lock and changes nothing.

use axum::http::Uri;
use serde::Serialize;
use serde_json::Value;
use storage::inspect::Inspect;

use super::problem::Failed;
use super::selection::Asked;
use super::{explain, messages, query};
use crate::audit::query as asked;
use crate::bridge::causes;
use crate::bridge::history::{History as _, Past};
use crate::protocol::{ErrorCode, Refusal};

/// What a bridge would answer to a `GET` of this path and query. Of the rest it answers nothing.
///
/// # Errors
/// When the query is wrong, there is no such thing, or the journal cannot be read.
pub fn answer(inspect: Inspect, target: &str) -> Result<Value, Refusal> {
    found(inspect, target).map_err(|Failed(refusal)| refusal)
}

fn found(inspect: Inspect, target: &str) -> Result<Value, Failed> {
    let uri: Uri = target.parse().map_err(|_| Failed::missing("this is no path"))?;
    match uri.path() {
        "/api/audit" => {
            let page = inspect.audit(&asked::filter(query(&uri)?)?);
            Ok(asked::page(&page.map_err(|error| unavailable(&error))?))
        }
        "/api/audit/summary" => {
            let counted = inspect.summary(&asked::filter(query(&uri)?)?);
            Ok(asked::summary(&counted.map_err(|error| unavailable(&error))?))
        }
        "/api/openclaw/messages" => {
            let filter = query::<Asked>(&uri)?.filter()?;
            value(Past(inspect).list(&filter)?)
        }
        "/api/openclaw/causes" => {
            let (filter, newest) = query::<Asked>(&uri)?.causes()?;
            value(causes::of(&Past(inspect), &filter, newest)?)
        }
        path => {
            let id = path.strip_prefix("/api/openclaw/messages/");
            let id = id.ok_or_else(|| Failed::missing("a store does not tell this"))?;
            if let Some(id) = id.strip_suffix("/explain") {
                return value(explain::of_past(&Past(inspect), id)?);
            }
            value(messages::detail(&Past(inspect), id)?)
        }
    }
}

fn value(answer: impl Serialize) -> Result<Value, Failed> {
    Ok(serde_json::to_value(answer).map_err(|error| unavailable(&error))?)
}

fn unavailable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, error.to_string())
}
