//! What the server counts, under `openclaw_`, for `/metrics`: counters from the durable frames,
//! gauges when somebody asks. It decides nothing.

use std::collections::BTreeMap;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use storage::database::Database;
use storage::event::Event;
use storage::journal::Reader;
use storage::record::{Direction, Fact, Kind, Record, Status};
use storage::view::View;
use tokio::time::Instant;

use super::core::{Core, SOCKETS_MAX};
use super::model::{Presence, TaskStatus};

/// The files of the store, where it has some.
#[derive(Clone)]
pub struct Disk {
    journal: Reader,
    view: View,
}

impl Disk {
    /// Those of this database.
    pub fn of(database: &Database) -> Self {
        Self { journal: database.reader().clone(), view: database.view().clone() }
    }

    /// The journal.
    pub fn journal(&self) -> &Reader {
        &self.journal
    }

    /// The rows.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// How large they are and how far the rows are behind, for the dashboard.
    pub fn overview(&self) -> serde_json::Value {
        let lag = self.view.lag();
        serde_json::json!({
            "journal_bytes": self.journal_bytes(),
            "rows_behind": lag.published.saturating_sub(lag.applied),
        })
    }

    fn journal_bytes(&self) -> u64 {
        let segments = self.journal.segments();
        // One that is being removed has no size any more.
        let sizes = segments.iter().filter_map(|it| std::fs::metadata(it.path()).ok());
        sizes.map(|file| file.len()).sum()
    }
}

/// A label for a message type: whoever invents types must not fill the memory with them.
pub fn label(message_type: &str) -> &'static str {
    NAMES.into_iter().find(|name| *name == message_type).unwrap_or("other")
}

/// The names of the types that this version knows.
const NAMES: [&str; 14] = [
    "register",
    "heartbeat",
    "task_offer",
    "task_accept",
    "task_reject",
    "task_update",
    "task_complete",
    "task_cancel",
    "task_input",
    "state_sync",
    "capability_query",
    "capability_response",
    "ack",
    "nack",
];

/// Says what each metric means, and begins those at 0 that may have nothing to count for long.
pub fn describe() {
    describe_gauge!("openclaw_connected", "WebSockets that are open");
    describe_counter!("openclaw_messages_sent_total", "Messages that left for their recipient");
    describe_counter!("openclaw_messages_received_total", "Messages that arrived, stored or not");
    describe_counter!("openclaw_tasks_completed_total", "Tasks that were completed");
    describe_histogram!("openclaw_latency_seconds", "How long the server took to answer");
    describe_gauge!("openclaw_messages", "Messages by direction and status");
    describe_counter!("openclaw_delivery_attempts_total", "Attempts by how they ended");
    describe_gauge!("openclaw_oldest_pending_seconds", "Age of the oldest waiting message");
    describe_gauge!("openclaw_circuit_open", "0: agents connect to the server, and it to nobody");
    describe_histogram!("openclaw_journal_commit_seconds", "Waiting for a durable commit");
    describe_gauge!("openclaw_journal_bytes", "Size of the journal on disk");
    describe_gauge!("openclaw_view_lag_records", "Frames that are not in the rows yet");
    describe_counter!("openclaw_store_errors_total", "Commits that failed");
    describe_gauge!("openclaw_tasks", "Tasks by status");
    describe_gauge!("openclaw_agents", "Agents by presence");
    counter!("openclaw_store_errors_total").increment(0);
    counter!("openclaw_tasks_completed_total").increment(0);
}

/// Counts a message that was taken, whether or not it is stored.
pub fn received(message_type: &str) {
    counter!("openclaw_messages_received_total", "type" => label(message_type)).increment(1);
}

/// Counts what became of a message on its way out. `before` is where it stood.
pub fn delivery(message_type: &str, before: Status, after: Status) {
    // Over HTTP a message is fetched without a record; its acknowledgement says that it left.
    let has_left =
        after == Status::Sending || after == Status::Delivered && before != Status::Sending;
    if has_left {
        counter!("openclaw_messages_sent_total", "type" => label(message_type)).increment(1);
    }
    let outcome = match after {
        Status::Delivered => "delivered",
        Status::Pending => "retry",
        Status::Failed => "failed",
        Status::Expired => "expired",
        _ => return,
    };
    counter!("openclaw_delivery_attempts_total", "outcome" => outcome).increment(1);
}

/// Counts what a durable record says about tasks.
pub fn record(record: &Record) {
    let is_task = matches!(&record.fact, Fact::Put(write) if write.key.kind == Kind::Task);
    if is_task && record.event == Event::TaskComplete {
        counter!("openclaw_tasks_completed_total").increment(1);
    }
}

/// A commit took this long, and may have failed.
pub fn commit(begun: Instant, is_written: bool) {
    histogram!("openclaw_journal_commit_seconds").record(begun.elapsed());
    if !is_written {
        counter!("openclaw_store_errors_total").increment(1);
    }
}

/// An operation took this long.
pub fn operation(name: &'static str, begun: Instant) {
    histogram!("openclaw_latency_seconds", "operation" => name).record(begun.elapsed());
}

/// Sets every gauge to what is so now.
pub fn gauges(core: &Core) {
    let connected = SOCKETS_MAX.saturating_sub(core.sockets.available_permits());
    set("openclaw_connected", connected);
    for status in TaskStatus::ALL {
        let found = core.census.tasks().into_iter().find(|(known, _)| *known == status);
        let count = found.map_or(0, |(_, count)| count);
        gauge!("openclaw_tasks", "status" => status.as_str()).set(number(count));
    }
    for status in [Presence::Online, Presence::Lost, Presence::Offline] {
        let found = core.census.agents().into_iter().find(|(known, _)| *known == status);
        let count = found.map_or(0, |(_, count)| count);
        gauge!("openclaw_agents", "status" => status.as_str()).set(number(count));
    }
    let mut messages: BTreeMap<(Direction, Status), u64> = BTreeMap::new();
    let oldest = core.mailboxes.oldest();
    let oldest = core.store.messages(|all| {
        for ((_, direction, status), count) in all.counts() {
            *messages.entry((*direction, *status)).or_default() += count;
        }
        oldest.and_then(|entry| all.live(entry)).map(|live| live.accepted_at)
    });
    for direction in [Direction::Outbound, Direction::Inbound] {
        for status in Status::ALL {
            let labels = [("direction", direction.as_str()), ("status", status.as_str())];
            let count = messages.get(&(direction, status)).copied().unwrap_or(0);
            gauge!("openclaw_messages", &labels).set(number(usize::try_from(count).unwrap_or(0)));
        }
    }
    let waited = oldest.map_or(0, |at| core.clock.now().saturating_sub(at) / 1_000);
    set("openclaw_oldest_pending_seconds", usize::try_from(waited).unwrap_or(0));
    // The server calls nobody: agents connect to it, so it has no circuit that could open.
    set("openclaw_circuit_open", 0);
    if let Some(disk) = &core.disk {
        set("openclaw_journal_bytes", usize::try_from(disk.journal_bytes()).unwrap_or(0));
        let lag = disk.view.lag();
        let behind = lag.published.saturating_sub(lag.applied);
        set("openclaw_view_lag_records", usize::try_from(behind).unwrap_or(0));
    }
}

fn set(name: &'static str, value: usize) {
    gauge!(name).set(number(value));
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a double, and nobody counts to 2^53")]
fn number(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::MessageType;

    #[test]
    fn every_known_type_is_its_own_label_and_all_others_are_one() {
        for (known, name) in MessageType::KNOWN.iter().zip(NAMES) {
            assert_eq!((known.as_str(), label(known.as_str())), (name, name));
        }
        assert_eq!(label("invented"), "other");
    }
}
