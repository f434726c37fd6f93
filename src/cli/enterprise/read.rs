//! Reading the audit log page by page, and saying what of it is missing.

use serde_json::Value;

use crate::cli::failure::Failure;
use crate::cli::{output, past};
use crate::config::BridgeConfig;

/// The columns, the most important first.
pub const COLUMNS: [&str; 6] = ["timestamp", "event", "level", "resource", "actor", "details"];

/// The newest entries that a query asks for, `count` at the most, the newest last as in every tail.
/// What is missing is told, unless it was before.
///
/// # Errors
/// When neither the running program nor the store has an answer.
pub async fn newest(
    config: &BridgeConfig,
    query: &[(&str, String)],
    count: usize,
    told: &mut Told,
) -> Result<Vec<Value>, Failure> {
    let (mut entries, mut next) = (Vec::new(), None);
    loop {
        let mut query = query.to_vec();
        query.push(("limit", (count - entries.len()).to_string()));
        query.extend(next.map(|next| ("after", next)));
        let answer = past::get(config, "/api/audit", &query).await?;
        entries.extend(answer["entries"].as_array().into_iter().flatten().cloned());
        told.warn(&answer);
        next = answer["next"].as_str().map(str::to_owned);
        // A page that is not full only says that enough was read for one answer.
        if next.is_none() || entries.len() >= count {
            break;
        }
    }
    entries.reverse();
    Ok(entries)
}

/// What was told to be missing.
#[derive(Debug, Default)]
pub struct Told(Vec<Value>);

impl Told {
    /// Says what an answer names as missing, each once.
    pub fn warn(&mut self, answer: &Value) {
        for one in answer["damage"].as_array().into_iter().flatten() {
            if !self.0.contains(one) {
                output::missing(one.as_str().unwrap_or_default());
                self.0.push(one.clone());
            }
        }
    }
}
