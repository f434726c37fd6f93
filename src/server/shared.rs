//! The shared state of a namespace: which write wins, by the strategy of its key. Who may write is
//! decided elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage::event::Event;
use storage::record::{EntityKey, Kind, Level};
use storage::transaction::Act;

use super::desk::{Desk, Rules, millis};
use super::model::{Presence, decode, encode};
use crate::clock::{Millis, rfc3339};
use crate::protocol::payload::StateSync;
use crate::protocol::{Envelope, ErrorCode, Fields, MessageType, Refusal};
use crate::trace::traced;

/// How far a writer's clock may be ahead.
const AHEAD_MAX_MILLIS: Millis = 60_000;

/// Bytes of a key.
const KEY_BYTES_MAX: usize = 512;

/// How two writes of one key are brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// A set of objects by `id`.
    Merge,
    /// Only with the current version.
    Reject,
    /// The later one wins.
    LastWrite,
}

/// One element of a merged value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    value: Value,
    stamp: Millis,
    by: String,
    deleted: bool,
}

/// A key's value. A deleted one stays as its tombstone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The key.
    pub key: String,
    /// How often it changed.
    pub version: u64,
    /// When it changed last.
    pub updated_at: Millis,
    /// Who changed it.
    pub updated_by: String,
    /// It is gone.
    pub deleted: bool,
    /// The value, unless it is merged of items.
    value: Value,
    /// Hybrid time of the last write.
    stamp: Millis,
    /// With those that were removed, for as long as the retention is.
    items: BTreeMap<String, Item>,
    is_merged: bool,
}

impl Cell {
    /// The value as others see it.
    pub fn value(&self) -> Value {
        if !self.is_merged {
            return self.value.clone();
        }
        let items = self.items.values().filter(|item| !item.deleted);
        items.map(|item| item.value.clone()).collect()
    }

    /// As the REST interface shows it.
    pub fn view(&self) -> Value {
        json!({
            "key": self.key,
            "value": self.value(),
            "version": self.version,
            "updated_at": rfc3339(self.updated_at),
            "updated_by": self.updated_by,
        })
    }

    fn entry(&self) -> Value {
        if self.deleted {
            return json!({"key": self.key, "deleted": true, "version": self.version});
        }
        json!({"key": self.key, "value": self.value(), "version": self.version})
    }
}

/// A write of one key.
#[derive(Debug, Clone)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The new value; `None` deletes.
    pub value: Option<Value>,
    /// The version that the writer knew.
    pub version: Option<u64>,
    /// Refuse it unless that version is the current one, whatever the strategy.
    pub is_guarded: bool,
    /// Who writes.
    pub by: String,
    /// The writer's time.
    pub at: Millis,
    /// The trace that the write belongs to.
    pub trace: Option<String>,
}

/// The strategy of a key.
pub fn strategy(rules: &Rules, key: &str) -> Strategy {
    let covered = |prefixes: &[String]| prefixes.iter().any(|prefix| covers(prefix, key));
    if covered(&rules.reject_prefixes) {
        Strategy::Reject
    } else if covered(&rules.merge_prefixes) {
        Strategy::Merge
    } else {
        Strategy::LastWrite
    }
}

/// Whether a prefix, in which `*` is one segment, covers a key.
fn covers(prefix: &str, key: &str) -> bool {
    let (prefix, open) = prefix.strip_suffix('/').map_or((prefix, false), |it| (it, true));
    let mut segments = key.split('/');
    let all = prefix
        .split('/')
        .all(|wanted| segments.next().is_some_and(|found| wanted == "*" || wanted == found));
    all && (!open || segments.next().is_some())
}

/// The key of a cell in the ledger.
pub fn cell_key(namespace: &str, key: &str) -> EntityKey {
    EntityKey::new(Kind::State, &[namespace, key])
}

/// Whether `key` may be a key.
///
/// # Errors
/// `invalid_field`.
pub fn check_key(key: &str) -> Result<(), Refusal> {
    let fits = !key.is_empty() && key.len() <= KEY_BYTES_MAX && !key.chars().any(char::is_control);
    let wanted = "1 to 512 bytes without control characters";
    if fits { Ok(()) } else { Err(Refusal::invalid("key", wanted)) }
}

/// Applies a write. `None`: an older write, which changes nothing.
///
/// # Errors
/// `state_conflict` with what is there, or `invalid_field` for a value that cannot be merged.
pub fn write(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    write: &Write,
) -> Result<Option<Cell>, Refusal> {
    let key = cell_key(namespace, &write.key);
    let before: Option<Cell> = desk.tx.get(&key).and_then(|entity| decode(&entity.value));
    let mut cell = before.unwrap_or_else(|| Cell { key: write.key.clone(), ..Cell::default() });
    let strategy = strategy(desk.rules, &write.key);
    let knows = write.version == Some(cell.version) || write.version.is_none() && cell.version == 0;
    if (write.is_guarded || strategy == Strategy::Reject) && !knows {
        let detail = format!("read {} again; its version is {} now", write.key, cell.version);
        let refusal = Refusal::new(ErrorCode::StateConflict, detail).at("version");
        return Err(refusal.with_current(cell.view()));
    }
    let ahead = desk.now().saturating_add(AHEAD_MAX_MILLIS);
    let mut stamp = write.at.min(ahead);
    if knows || write.is_guarded {
        // Who knew the current value writes after it, whatever its clock says.
        stamp = stamp.max(cell.stamp.saturating_add(1));
    }
    let changed = match strategy {
        Strategy::Merge => {
            let changed = merge(&mut cell, write, stamp)?;
            let forgotten = desk.now().saturating_sub(millis(desk.rules.retention));
            cell.items.retain(|_, item| !item.deleted || item.stamp > forgotten);
            changed
        }
        Strategy::Reject | Strategy::LastWrite => replace(&mut cell, write, stamp),
    };
    let act = |event, details: Value| {
        let act = Act::new(event, &write.by, namespace, &write.key);
        traced(act.details(details.to_string()), write.trace.as_deref())
    };
    if !changed {
        let details = json!({"version": cell.version, "kept": cell.updated_by});
        desk.note(act(Event::StateConflict, details).level(Level::Warning));
        return Ok(None);
    }
    cell.version += 1;
    cell.updated_at = desk.now();
    cell.updated_by.clone_from(&write.by);
    let details = json!({"version": cell.version});
    desk.tx.put(act(Event::StateSync, details), key, encode(&cell));
    Ok(Some(cell))
}

fn replace(cell: &mut Cell, write: &Write, stamp: Millis) -> bool {
    let is_later = (stamp, write.by.as_str()) >= (cell.stamp, cell.updated_by.as_str());
    if cell.version > 0 && !is_later {
        return false;
    }
    cell.stamp = stamp;
    cell.deleted = write.value.is_none();
    cell.value = write.value.clone().unwrap_or_default();
    true
}

fn merge(cell: &mut Cell, write: &Write, stamp: Millis) -> Result<bool, Refusal> {
    cell.is_merged = true;
    let elements: Vec<Value> = match &write.value {
        Some(Value::Array(elements)) => elements.clone(),
        Some(one) => vec![one.clone()],
        None => cell.items.keys().map(|id| json!({"id": id, "deleted": true})).collect(),
    };
    let mut changed = cell.version == 0;
    for element in elements {
        let id = match element.get("id") {
            Some(Value::String(id)) => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => return Err(Refusal::invalid("value", "objects that each have an id")),
        };
        let deleted = element.get("deleted") == Some(&Value::Bool(true));
        let item = Item { value: element, stamp, by: write.by.clone(), deleted };
        let is_later = cell
            .items
            .get(&id)
            .is_none_or(|known| (item.stamp, &item.by) >= (known.stamp, &known.by));
        if is_later {
            cell.items.insert(id, item);
            changed = true;
        }
    }
    cell.stamp = cell.stamp.max(stamp);
    cell.deleted = write.value.is_none();
    Ok(changed)
}

/// Applies a `state_sync` message and pushes what it changed to the other agents.
///
/// # Errors
/// As [`write()`]; then nothing of the message is applied.
pub fn sync(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    sender: &str,
    envelope: &Envelope,
) -> Result<(), Refusal> {
    let at = envelope.timestamp().unwrap_or_else(|| desk.now());
    let sealed = envelope.payload_value().get("sealed").cloned();
    let one = |key: String, value: Option<Value>, version| {
        let by = sender.to_owned();
        let trace = envelope.traceparent().map(str::to_owned);
        Write { key, value, version, is_guarded: false, by, at, trace }
    };
    let writes: Vec<Write> = match envelope.payload::<StateSync>()? {
        StateSync::Flat(_) => {
            vec![one(format!("session/{sender}"), Some(envelope.payload_value()), None)]
        }
        StateSync::Entries(entries) => entries
            .into_iter()
            .map(|entry| {
                let value = match entry.value {
                    _ if entry.deleted => None,
                    Some(value) => Some(serde_json::from_str(value.get()).unwrap_or_default()),
                    // Sealed values are kept as what was sealed, which readers open.
                    None => Some(json!({"sealed": sealed})),
                };
                one(entry.key, value, entry.version)
            })
            .collect(),
    };
    let mut changed = Vec::new();
    for wanted in writes {
        changed.extend(write(desk, namespace, &wanted)?);
    }
    push(desk, namespace, (sender, envelope.traceparent()), &changed)
}

/// Tells the other agents of the namespace what changed, by whom, and in which trace.
///
/// # Errors
/// When a message cannot be written.
pub fn push(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    (by, traceparent): (&str, Option<&str>),
    changed: &[Cell],
) -> Result<(), Refusal> {
    if changed.is_empty() {
        return Ok(());
    }
    let payload = json!({"entries": changed.iter().map(Cell::entry).collect::<Vec<_>>()});
    for agent in desk.agents(namespace) {
        if agent.agent_id != by && agent.status != Presence::Offline {
            let ordering_key = Some("state");
            let fields = Fields { ordering_key, traceparent, ..Fields::default() };
            desk.send(&agent.agent_id, namespace, MessageType::StateSync, &payload, &fields)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_whole_segments() {
        let table = [
            ("queue/", "queue/a", true),
            ("queue/", "queue", false),
            ("queue/", "queues/a", false),
            ("agent/*/status", "agent/x/status", true),
            ("agent/*/status", "agent/x/state", false),
            ("agent/*/status", "agent/status", false),
        ];
        for (prefix, key, wanted) in table {
            assert_eq!(covers(prefix, key), wanted, "{prefix} {key}");
        }
    }
}
