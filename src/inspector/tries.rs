//! The attempts of a message, told from its history: when each began and ended, and how. Pure: it
//! reads no journal.

use serde::{Deserialize, Serialize};
use storage::inspect::AuditEntry;
use storage::record::{Fact, MessageChange, Status};

use crate::clock::{Millis, rfc3339};
use crate::outbox::verdict::word_of;

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// Its number, from 1; a person's retry begins again.
    pub attempt: u32,
    /// When its bytes left; `None` when only its end was recorded, as of mail that was fetched.
    pub started_at: Option<String>,
    /// When it ended; `None` while it is out.
    pub ended_at: Option<String>,
    /// How long that took.
    pub duration_ms: Option<u64>,
    /// How it ended: `delivered`, `failed`, `deferred`, `unanswered`, `timed_out`, `not_sent`,
    /// `interrupted`, `expired`, `pruned`, or `sending` while it is out.
    pub outcome: String,
    /// What the other side, or the link, said.
    pub error: Option<String>,
}

/// The attempts in a history, the oldest first.
pub fn of(history: &[AuditEntry]) -> Vec<Try> {
    let mut tries: Vec<Try> = Vec::new();
    let mut begun: Option<Millis> = None;
    let mut attempts = 0;
    for entry in history {
        let change = match &entry.record.fact {
            Fact::Change(change) => change,
            // What was before it may be gone.
            Fact::Carry(carried) => {
                attempts = carried.state.attempts;
                continue;
            }
            Fact::Prune(prune) if prune.change.status == Status::Pruned => &prune.change,
            _ => continue,
        };
        let before = std::mem::replace(&mut attempts, change.attempts);
        if change.status == Status::Sending {
            begun = Some(entry.time);
            tries.push(Try {
                attempt: change.attempts,
                started_at: Some(rfc3339(entry.time)),
                ended_at: None,
                duration_ms: None,
                outcome: Status::Sending.as_str().to_owned(),
                error: None,
            });
            continue;
        }
        let started = begun.take();
        if started.is_none() && change.attempts <= before {
            // No attempt: a person's retry, an age limit, a hold.
            continue;
        }
        let (outcome, error) = ending(entry, change, before);
        let ended = Try {
            attempt: started.map_or(change.attempts, |_| before),
            started_at: started.map(rfc3339),
            ended_at: Some(rfc3339(entry.time)),
            duration_ms: started.map(|at| entry.time.saturating_sub(at)),
            outcome: outcome.to_owned(),
            error,
        };
        match tries.last_mut().filter(|_| started.is_some()) {
            Some(open) => *open = ended,
            None => tries.push(ended),
        }
    }
    tries
}

fn ending(
    entry: &AuditEntry,
    change: &MessageChange,
    before: u32,
) -> (&'static str, Option<String>) {
    let error = Some(change.error.clone()).filter(|error| !error.is_empty());
    if change.status != Status::Pending {
        let error = error.filter(|_| change.status != Status::Delivered);
        return (change.status.as_str(), error);
    }
    let details: serde_json::Value =
        serde_json::from_str(&entry.record.details).unwrap_or_default();
    if let Some(cause) = details["cause"].as_str() {
        return ("interrupted", Some(cause.to_owned()));
    }
    if change.attempts < before {
        return ("not_sent", None);
    }
    (word_of(&change.error), error)
}

#[cfg(test)]
mod tests {
    use storage::event::Event;
    use storage::record::{EntryId, Level, Reason, Record};

    use super::*;

    fn change(
        time: Millis,
        status: Status,
        attempts: u32,
        error: &str,
        details: &str,
    ) -> AuditEntry {
        let fact = Fact::Change(MessageChange {
            message: EntryId::default(),
            fingerprint: 0,
            status,
            reason: Reason::None,
            attempts,
            next_attempt_at: 0,
            maybe_delivered: false,
            error: error.into(),
        });
        let record = Record {
            event: Event::MessageRetry,
            level: Level::Info,
            actor: "a".into(),
            namespace: "".into(),
            resource: "m".into(),
            details: details.into(),
            fact,
        };
        AuditEntry { entry: EntryId::default(), epoch: 1, time, frame_hash: [0; 32], record }
    }

    #[test]
    fn each_attempt_has_its_times_its_outcome_and_its_error() {
        use Status::{Delivered, Failed, Pending, Sending};
        let lost = "the link went away before an answer";
        let cause = r#"{"cause":"the store stopped"}"#;
        let history = [
            change(1_000, Sending, 1, "", ""),
            change(1_250, Pending, 1, "unavailable: busy", ""),
            change(2_000, Sending, 2, "unavailable: busy", ""),
            change(2_010, Pending, 1, "unavailable: busy", ""),
            change(3_000, Sending, 2, "unavailable: busy", ""),
            change(3_500, Pending, 2, lost, ""),
            change(4_000, Sending, 3, lost, ""),
            change(4_900, Pending, 3, lost, cause),
            change(5_000, Sending, 4, lost, ""),
            change(5_001, Failed, 4, "forbidden: no", ""),
            // A person's retry is no attempt.
            change(6_000, Pending, 0, "forbidden: no", ""),
            change(7_000, Sending, 1, "forbidden: no", ""),
            change(7_030, Delivered, 1, "forbidden: no", ""),
        ];
        let told: Vec<_> = of(&history)
            .into_iter()
            .map(|one| (one.attempt, one.outcome, one.duration_ms, one.error))
            .collect();
        let expected = [
            (1, "deferred", 250, Some("unavailable: busy")),
            (2, "not_sent", 10, None),
            (2, "unanswered", 500, Some(lost)),
            (3, "interrupted", 900, Some("the store stopped")),
            (4, "failed", 1, Some("forbidden: no")),
            (1, "delivered", 30, None),
        ];
        let expected = expected.map(|(attempt, outcome, took, error)| {
            (attempt, outcome.to_owned(), Some(took), error.map(str::to_owned))
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn one_that_is_out_has_no_end_and_fetched_mail_no_beginning() {
        let out = of(&[change(1_000, Status::Sending, 1, "", "")]);
        assert_eq!((out.len(), out[0].outcome.as_str(), &out[0].ended_at), (1, "sending", &None));
        let fetched = of(&[change(1_000, Status::Delivered, 1, "", "")]);
        let first = &fetched[0];
        assert_eq!((first.attempt, first.outcome.as_str()), (1, "delivered"));
        assert_eq!((&first.started_at, first.ended_at.is_some()), (&None, true));
        // An age limit is no attempt.
        assert_eq!(of(&[change(1_000, Status::Failed, 0, "", "")]), []);
    }
}
