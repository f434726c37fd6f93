//! Follows the audit log: asks again and again for what is newer than the last entry, from the
//! running bridge or from the journal of a stopped one, whichever there is.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::read::Told;
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, output, output_of, past};
use crate::clock::{parse_rfc3339, rfc3339};
use crate::config::BridgeConfig;
use crate::inspector::history::place;

/// Between two looks.
pub const PAUSE: Duration = Duration::from_millis(500);

/// Entries of one answer, the most that the interface gives.
const PAGE: usize = 1_000;

/// The columns with their usual widths.
const COLUMNS: [(&str, usize); 6] = [
    ("timestamp", 24),
    ("event", 19),
    ("level", 7),
    ("resource", 20),
    ("actor", 12),
    ("details", 0),
];

/// Where to go on.
pub struct Begin {
    /// The last entry that was seen.
    pub last: Option<Value>,
    /// Without one, the time to begin at, as a part of a query.
    pub since: Option<(&'static str, String)>,
    /// What was told to be missing so far.
    pub told: Told,
}

/// Shows the entries, oldest first, and then those that come, until nobody reads them any more.
pub async fn follow(
    global: &Global,
    config: &BridgeConfig,
    filters: Vec<(&str, String)>,
    (mut entries, mut begin): (Vec<Value>, Begin),
) -> Done {
    let mut trouble = String::new();
    loop {
        begin.last = entries.last().cloned().or(begin.last);
        if !entries.iter().all(|entry| output_of(global).line(entry, &COLUMNS)) {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(PAUSE).await;
        entries = match newer(config, &filters, &mut begin).await {
            Ok(entries) => {
                trouble.clear();
                entries
            }
            // A bridge that starts or ends has no answer for a moment.
            Err(failure) if matches!(failure.code, Code::Unreachable | Code::Store) => {
                if failure.message != trouble {
                    output::say(&format!("waiting: {failure}"));
                }
                trouble = failure.message;
                Vec::new()
            }
            Err(failure) => return Err(failure),
        };
    }
}

/// The entries after the last one that was shown, oldest first.
async fn newer(
    config: &BridgeConfig,
    filters: &[(&str, String)],
    begin: &mut Begin,
) -> Result<Vec<Value>, Failure> {
    let seen = begin.last.as_ref().and_then(number);
    let start = begin.last.as_ref().and_then(time).map(|start| ("start", rfc3339(start)));
    let start = start.or_else(|| begin.since.clone());
    let mut found: Vec<Value> = Vec::new();
    loop {
        let mut query = filters.to_vec();
        query.push(("limit", PAGE.to_string()));
        query.extend(start.clone());
        // Pages are told apart by their times, which do not run backwards in a journal.
        let oldest = found.last().and_then(time).map(|end| end + 1);
        query.extend(oldest.map(|end| ("end", rfc3339(end))));
        let answer = past::get(config, "/api/audit", &query).await?;
        begin.told.warn(&answer);
        let page = answer["entries"].as_array().cloned().unwrap_or_default();
        let full = page.len() == PAGE;
        let before = found.len();
        let known = found.last().and_then(number);
        let is_new = |entry: &Value| {
            number(entry) > seen && known.is_none_or(|known| number(entry) < Some(known))
        };
        found.extend(page.into_iter().filter(is_new));
        if !full || found.len() == before {
            found.reverse();
            return Ok(found);
        }
    }
}

fn number(entry: &Value) -> Option<storage::record::EntryId> {
    entry["seq"].as_str().and_then(place)
}

fn time(entry: &Value) -> Option<u64> {
    entry["timestamp"].as_str().and_then(parse_rfc3339)
}
