//! `loki store compact`: writes every file of the journal anew that has content which nobody keeps,
//! by the running bridge or on a stopped store.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::HumanBytes;
use serde_json::{Value, json};
use storage::database::Database;
use storage::event::Event;
use storage::retention::{Limits, Retention, is_dead};
use storage::shred::Shredded;

use super::open::{check_there, close, is_held, open};
use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::failure::{Code, Failure};
use crate::cli::waiting::Waiting;
use crate::cli::{Done, look, output_of};
use crate::clock::{Clock, rfc3339};
use crate::config::BridgeConfig;
use crate::shutdown::Shutdown;
use crate::upkeep;

/// What a running bridge does.
const BRIDGE: &str = "the bridge writes files anew";

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let config = look(global)?;
    let dir = &config.openclaw.data_dir;
    check_there(dir)?;
    let answer = if is_held(dir) {
        running(&config, &Waiting::new(global, BRIDGE)).await?
    } else {
        let waiting = Waiting::new(global, "opening the store");
        let stopped = tokio::task::spawn_blocking(move || stopped(&config, waiting)).await;
        stopped.map_err(|error| Failure::new(Code::Store, error.to_string()))??
    };
    output_of(global).object(&answer, &["done", "segments", "bodies", "bytes_freed"]);
    Ok(ExitCode::SUCCESS)
}

/// The bridge answers within seconds, also when it goes on: then it is asked again.
async fn running(config: &BridgeConfig, waiting: &Waiting) -> Result<Value, Failure> {
    let bridge = Client::bridge(config).await?;
    let begun = rfc3339(Clock::system().now());
    loop {
        let answer = bridge.post("/api/openclaw/compact", &json!({})).await?;
        if answer["done"] == true {
            return Ok(answer);
        }
        if waiting.is_shown() {
            let (files, freed) = written_since(&bridge, &begun).await?;
            let freed = HumanBytes(freed);
            waiting.step(format!("{BRIDGE}: {files} so far, which gave {freed} back"));
        }
    }
}

/// How many files were written anew since then, and the bytes that the disk got back by that, as
/// the bridge's audit log says.
async fn written_since(bridge: &Client, begun: &str) -> Result<(u64, u64), Failure> {
    let (mut files, mut freed, mut next) = (0, 0, None);
    loop {
        let mut query = vec![("event", Event::StoreCompact.name().to_owned())];
        query.extend([("start", begun.to_owned()), ("limit", "1000".to_owned())]);
        query.extend(next.map(|next| ("after", next)));
        let page = bridge.get("/api/audit", &query).await?;
        for entry in page["entries"].as_array().into_iter().flatten() {
            files += 1;
            freed += freed_by(&entry["details"]);
        }
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            return Ok((files, freed));
        }
    }
}

/// Bytes that the disk got back by one file, of what its entry says.
fn freed_by(details: &Value) -> u64 {
    let bytes = |field: &str| details[field].as_u64().unwrap_or_default();
    bytes("bytes_before").saturating_sub(bytes("bytes_after"))
}

fn stopped(config: &BridgeConfig, waiting: Waiting) -> Result<Value, Failure> {
    let (rules, usual) = (&config.openclaw.store, config.openclaw.retention);
    let database = open(&config.openclaw.data_dir, rules, &Clock::system(), &Shutdown::default())?;
    let retention = upkeep::retention(rules, usual);
    database.set_retention(retention);
    waiting.step("waiting for the rows");
    let settled = database.view().settle();
    let waiting = Arc::new(waiting);
    waiting.step("writing files anew");
    if waiting.is_shown() {
        watch(&database, &waiting, dead_bytes(&database, retention).unwrap_or_default());
    }
    let freed = database.upkeep().compact();
    waiting.step("closing the store");
    close(database)?;
    settled.map_err(|error| Failure::new(Code::Store, error.to_string()))?;
    Ok(upkeep::freed(freed))
}

/// Bytes of content that nobody keeps; `None` when that cannot be read just now. It is what the
/// disk gets back, but for files in which there is too little of it.
fn dead_bytes(database: &Database, retention: Retention) -> Option<u64> {
    let (reader, now) = (database.reader(), database.store().state(|state| state.time));
    let shredded = Shredded::read(reader).ok()?;
    let weights = reader.segments().into_iter().map(|segment| segment.weight());
    let bodies: u64 = weights.flatten().map(|weight| weight.bodies).sum();
    let (mut limits, mut kept) = (Limits::default(), 0);
    let counted = database.view().newest_first(&mut |row| {
        limits.count(row, &retention);
        if !shredded.is_dead(row.entry) && !is_dead(row, &retention, &limits, now) {
            kept += u64::from(row.body.length);
        }
    });
    counted.ok().map(|()| bodies.saturating_sub(kept))
}

/// Tells how far it is after each file, of which the audit log has an entry.
fn watch(database: &Database, waiting: &Arc<Waiting>, all: u64) {
    waiting.at(0, all);
    let freed = AtomicU64::new(0);
    // The store may keep its listeners for longer than there is something to show.
    let waiting = Arc::downgrade(waiting);
    database.store().listen(Box::new(move |published| {
        let Some(waiting) = waiting.upgrade() else { return false };
        let records = published.entries.iter().map(|(_, record, _)| record);
        for record in records.filter(|record| record.event == Event::StoreCompact) {
            let details = serde_json::from_str(&record.details).unwrap_or_default();
            let before = freed.fetch_add(freed_by(&details), Ordering::Relaxed);
            waiting.at(before.saturating_add(freed_by(&details)), all);
        }
        true
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_gave_back_is_read() {
        assert_eq!(freed_by(&json!({"bytes_before": 100, "bytes_after": 60})), 40);
        assert_eq!(freed_by(&Value::Null), 0);
    }
}
