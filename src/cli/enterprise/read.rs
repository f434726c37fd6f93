//! Reading the audit log page by page, and saying what of it is missing.

use serde_json::Value;

use crate::cli::failure::Failure;
use crate::cli::{output, past};
use crate::config::BridgeConfig;

/// The columns, the most important first.
pub const COLUMNS: [&str; 6] = ["timestamp", "event", "level", "resource", "actor", "details"];

/// The newest entries that a query asks for, `count` at the most, the newest last as in every tail.
///
/// # Errors
/// When neither the running program nor the store has an answer.
pub async fn newest(
    config: &BridgeConfig,
    query: &[(&str, String)],
    count: usize,
) -> Result<Vec<Value>, Failure> {
    let (mut entries, mut next, mut damage) = (Vec::new(), None, Vec::new());
    loop {
        let mut query = query.to_vec();
        query.push(("limit", (count - entries.len()).to_string()));
        query.extend(next.map(|next| ("after", next)));
        let answer = past::get(config, "/api/audit", &query).await?;
        entries.extend(answer["entries"].as_array().into_iter().flatten().cloned());
        damage.extend(answer["damage"].as_array().into_iter().flatten().cloned());
        next = answer["next"].as_str().map(str::to_owned);
        // A page that is not full only says that enough was read for one answer.
        if next.is_none() || entries.len() >= count {
            break;
        }
    }
    warn(&damage);
    entries.reverse();
    Ok(entries)
}

/// Says what is missing, each once.
pub fn warn(damage: &[Value]) {
    let mut told: Vec<&Value> = Vec::new();
    for one in damage {
        if !told.contains(&one) {
            let sentence = one.as_str().unwrap_or_default();
            output::say(&format!("warning: a part of the store cannot be read: {sentence}"));
            told.push(one);
        }
    }
}
