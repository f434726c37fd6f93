//! The bridge's metrics, section 11 of the protocol: what is counted when it happens, and what is
//! measured when somebody asks. It decides nothing.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use storage::commit::Commit;
use storage::journal::Reader;
use storage::record::{Direction, Status};
use storage::store::CommitError;
use storage::view::View;
use tokio::time::Instant;

use super::{Bridge, Shared};
use crate::outbox::Attempt;
use crate::outbox::verdict::Outcome;
use crate::protocol::MessageType;

/// The name of a type as a label: those of others are one, so that nobody can make labels.
pub(super) fn label(message_type: &str) -> &'static str {
    let known = MessageType::KNOWN.iter().find(|known| known.as_str() == message_type);
    match known {
        Some(MessageType::Register) => "register",
        Some(MessageType::Heartbeat) => "heartbeat",
        Some(MessageType::TaskOffer) => "task_offer",
        Some(MessageType::TaskAccept) => "task_accept",
        Some(MessageType::TaskReject) => "task_reject",
        Some(MessageType::TaskUpdate) => "task_update",
        Some(MessageType::TaskComplete) => "task_complete",
        Some(MessageType::TaskCancel) => "task_cancel",
        Some(MessageType::TaskInput) => "task_input",
        Some(MessageType::StateSync) => "state_sync",
        Some(MessageType::CapabilityQuery) => "capability_query",
        Some(MessageType::CapabilityResponse) => "capability_response",
        Some(MessageType::Ack) => "ack",
        Some(MessageType::Nack) => "nack",
        Some(MessageType::Other(_)) | None => "other",
    }
}

/// An attempt ended.
pub(super) fn attempted(shared: &Shared, attempt: Attempt<'_>) {
    let outcome = attempt.outcome.as_str();
    counter!("loki_openclaw_delivery_attempts_total", "outcome" => outcome).increment(1);
    if *attempt.outcome == Outcome::Acknowledged {
        let kind = label(&attempt.head.message_type);
        counter!("loki_openclaw_messages_sent_total", "type" => kind).increment(1);
        shared.answered("deliver", attempt.took);
    }
}

/// A message arrived and is durable.
pub(super) fn received(message_type: &MessageType) {
    let kind = label(message_type.as_str());
    counter!("loki_openclaw_messages_received_total", "type" => kind).increment(1);
}

impl Shared {
    /// The server answered something after this time.
    pub(super) fn answered(&self, operation: &'static str, took: Duration) {
        histogram!("loki_openclaw_latency_seconds", "operation" => operation)
            .record(took.as_secs_f64());
        self.link.write().latency_ms = u64::try_from(took.as_millis()).ok();
    }
}

/// Waits for a commit, and counts how long that took or that it failed.
pub(super) async fn durable<R>(commit: Commit<R>) -> Result<R, CommitError> {
    let begun = Instant::now();
    let outcome = commit.await;
    match &outcome {
        Ok(_) => {
            histogram!("loki_openclaw_journal_commit_seconds")
                .record(begun.elapsed().as_secs_f64());
        }
        Err(_) => counter!("loki_openclaw_store_errors_total").increment(1),
    }
    outcome
}

/// Says what each metric is, and makes those counters that may never count.
pub fn describe() {
    describe_gauge!("loki_openclaw_connected", "1 while a session is open");
    describe_counter!("loki_openclaw_messages_sent_total", "Messages that the server took");
    describe_counter!("loki_openclaw_messages_received_total", "Messages that arrived, once each");
    describe_counter!("loki_openclaw_tasks_completed_total", "Tasks that were completed here");
    describe_histogram!("loki_openclaw_latency_seconds", "How long the server took to answer");
    describe_gauge!("loki_openclaw_messages", "Messages by direction and status");
    describe_counter!("loki_openclaw_delivery_attempts_total", "Attempts by how they ended");
    describe_gauge!("loki_openclaw_oldest_pending_seconds", "Age of the oldest waiting message");
    describe_gauge!("loki_openclaw_circuit_open", "1 while deliveries are stopped");
    describe_histogram!("loki_openclaw_journal_commit_seconds", "Waiting for a durable commit");
    describe_gauge!("loki_openclaw_journal_bytes", "Size of the journal on disk");
    describe_gauge!("loki_openclaw_view_lag_records", "Frames that are not in the rows yet");
    describe_counter!("loki_openclaw_store_errors_total", "Commits that failed");
    counter!("loki_openclaw_store_errors_total").increment(0);
    counter!("loki_openclaw_tasks_completed_total").increment(0);
}

/// Sets what is measured when somebody asks.
pub fn measure(bridge: &Bridge, view: &View, journal: &Reader) {
    let snapshot = bridge.snapshot();
    gauge!("loki_openclaw_connected").set(if snapshot.connected { 1.0 } else { 0.0 });
    let is_open = matches!(snapshot.circuit.as_str(), "open" | "probing");
    gauge!("loki_openclaw_circuit_open").set(if is_open { 1.0 } else { 0.0 });
    gauge!("loki_openclaw_oldest_pending_seconds")
        .set(amount(snapshot.oldest_pending_seconds.unwrap_or(0)));
    for direction in [Direction::Outbound, Direction::Inbound] {
        for status in Status::ALL {
            let count: u64 = bridge.store().messages(|messages| {
                let counts = messages.counts().iter();
                let of = counts.filter(|((_, way, at), _)| *way == direction && *at == status);
                of.map(|(_, count)| count).sum()
            });
            gauge!(
                "loki_openclaw_messages",
                "direction" => direction.as_str(), "status" => status.as_str()
            )
            .set(amount(count));
        }
    }
    let lag = view.lag();
    gauge!("loki_openclaw_view_lag_records").set(amount(lag.published.saturating_sub(lag.applied)));
    let size = |path: &std::path::Path| path.metadata().map_or(0, |file| file.len());
    let bytes = journal.segments().iter().map(|segment| size(segment.path())).sum();
    gauge!("loki_openclaw_journal_bytes").set(amount(bytes));
}

/// Counts of ours lie far below the 53 bits that a metric holds exactly.
#[expect(clippy::cast_precision_loss, reason = "as the line above says")]
fn amount(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_of_others_is_no_label_of_its_own() {
        for known in &MessageType::KNOWN {
            assert_eq!(label(known.as_str()), known.as_str());
        }
        assert_eq!(label("gossip"), "other");
    }
}
