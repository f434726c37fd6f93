//! What follows from an attempt: a pure function of the outcome, the message and the policy.

use std::time::Duration;

use storage::event::Event;
use storage::messages::Live;
use storage::record::{Level, Reason, Status};
use storage::transaction::{Act, Change};

use super::circuit::Sign;
use crate::clock::Millis;
use crate::protocol::{ErrorCode, Refusal};
use crate::retry::Policy;

const UNANSWERED: &str = "the link went away before an answer";
const TIMED_OUT: &str = "no answer came in time";

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The next hop has the message on stable storage.
    Acknowledged,
    /// The next hop refused it.
    Refused(Refusal),
    /// The link went away before an answer: it may have arrived.
    Unanswered,
    /// No answer came in time, on a link that is still there: it may have arrived.
    TimedOut,
    /// Its bytes never left, so that this was no attempt.
    NotSent,
    /// Nothing of ours is let in, for a reason that is not the message's.
    Barred(String),
}

impl Outcome {
    /// What a refusal of a message means: one for want of credentials is not about the message.
    pub fn of_refusal(refusal: Refusal) -> Self {
        if refusal.code == ErrorCode::Unauthorized && !refusal.retryable {
            return Self::Barred(refusal.to_string());
        }
        Self::Refused(refusal)
    }

    /// What it says of the destination; `None`: nothing.
    pub fn sign(&self) -> Option<Sign> {
        match self {
            Self::Acknowledged => Some(Sign::Answered),
            Self::Refused(refusal) if !refusal.retryable => Some(Sign::Answered),
            Self::Refused(refusal) => match refusal.code {
                // A limit of rate or order, which the destination keeps while it works.
                ErrorCode::RateLimited | ErrorCode::WindowExceeded | ErrorCode::LaneBlocked => None,
                code if code.http_status() >= 500 => Some(Sign::Failed),
                _ => Some(Sign::Answered),
            },
            Self::Unanswered | Self::TimedOut => Some(Sign::Failed),
            Self::NotSent => None,
            Self::Barred(_) => Some(Sign::Barred),
        }
    }

    /// A sentence for people.
    pub fn reason(&self) -> String {
        match self {
            Self::Acknowledged => "delivered".to_owned(),
            Self::Refused(refusal) => refusal.to_string(),
            Self::Unanswered => UNANSWERED.to_owned(),
            Self::TimedOut => TIMED_OUT.to_owned(),
            Self::NotSent => "its bytes never left".to_owned(),
            Self::Barred(reason) => reason.clone(),
        }
    }

    /// The word of the metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Acknowledged => "delivered",
            Self::Refused(refusal) if refusal.retryable => "deferred",
            Self::Refused(_) => "refused",
            Self::Unanswered => "unanswered",
            Self::TimedOut => "timed_out",
            Self::NotSent => "not_sent",
            Self::Barred(_) => "barred",
        }
    }
}

/// The word of the metrics for an attempt after which the message waits again with this error.
pub fn word_of(error: &str) -> &'static str {
    match error {
        UNANSWERED => Outcome::Unanswered.as_str(),
        TIMED_OUT => Outcome::TimedOut.as_str(),
        _ => "deferred",
    }
}

/// The change that an attempt's outcome makes. `drawn` is the jitter, drawn from zero to
/// `policy.bound(live.attempts)` in milliseconds.
pub fn judge(
    live: &Live,
    outcome: &Outcome,
    policy: &Policy,
    now: Millis,
    drawn: Millis,
) -> Change {
    let mut change = Change::of(live);
    change.next_attempt_at = 0;
    match outcome {
        Outcome::Acknowledged => {
            change.status = Status::Delivered;
            change.maybe_delivered = false;
        }
        Outcome::Refused(refusal) => {
            change.error = refusal.to_string();
            if refusal.retryable {
                let asked = refusal.retry_after_seconds.unwrap_or(0).saturating_mul(1_000);
                let asked = asked.min(millis(policy.max_interval));
                try_again(&mut change, live, policy, now, drawn.max(asked));
            } else {
                change.status = Status::Failed;
                change.reason = match refusal.code {
                    ErrorCode::Undeliverable => Reason::Undeliverable,
                    _ => Reason::Permanent,
                };
            }
        }
        Outcome::Unanswered => {
            change.maybe_delivered = true;
            change.error = UNANSWERED.into();
            // The link's own backoff spaces the attempts: when it is back, the message is due.
            try_again(&mut change, live, policy, now, 0);
        }
        Outcome::TimedOut => {
            change.maybe_delivered = true;
            change.error = TIMED_OUT.into();
            try_again(&mut change, live, policy, now, drawn);
        }
        Outcome::NotSent => {
            change.attempts = live.attempts.saturating_sub(1);
            (change.status, change.next_attempt_at) = (Status::Pending, now);
        }
        // The circuit spaces the attempts; the message is not at fault.
        Outcome::Barred(reason) => {
            change.error.clone_from(reason);
            (change.status, change.next_attempt_at) = (Status::Pending, now);
        }
    }
    change
}

/// The audit side of the change that an attempt's outcome made.
pub fn act_of(live: &Live, change: &Change) -> Act {
    let (event, level) = match change.status {
        Status::Delivered => (Event::MessageDelivered, Level::Info),
        Status::Failed => (Event::MessageFailed, Level::Error),
        _ => (Event::MessageRetry, Level::Warning),
    };
    let details = serde_json::json!({
        "attempts": change.attempts,
        "error": change.error,
        "next_attempt_at": change.next_attempt_at,
        // The lane goes on without it.
        "gap": change.status == Status::Failed && !live.head.lane.is_empty(),
    });
    let head = &live.head;
    let act = Act::new(event, &head.sender, &head.namespace, &head.message_id);
    act.level(level).details(details.to_string())
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn try_again(change: &mut Change, live: &Live, policy: &Policy, now: Millis, delay: Millis) {
    let age = now.saturating_sub(live.head.created_at);
    let failed = if u128::from(age) > policy.max_age.as_millis() {
        Some(Reason::MaxAge)
    } else if policy.max_attempts > 0 && live.attempts >= policy.max_attempts {
        Some(Reason::MaxAttempts)
    } else {
        None
    };
    if let Some(reason) = failed {
        change.status = Status::Failed;
        change.reason = reason;
    } else {
        change.status = Status::Pending;
        change.next_attempt_at = now.saturating_add(delay);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use storage::messages::BodyPlace;
    use storage::record::EntryId;

    use super::*;
    use crate::outbox::head;
    use crate::protocol::parse_one;

    fn live(attempts: u32) -> Live {
        let text = br#"{"message_type":"task_update","message_id":"m","agent_id":"a",
            "payload":{"task_id":"t"}}"#;
        let envelope = parse_one(text.to_vec()).unwrap();
        Live {
            head: Arc::new(head(&envelope, "d", "p", 1_000)),
            entry: EntryId::default(),
            body: BodyPlace::default(),
            status: Status::Sending,
            reason: Reason::None,
            attempts,
            next_attempt_at: 0,
            maybe_delivered: false,
            error: "".into(),
            updated_at: 1_000,
            accepted_at: 1_000,
            lane_at: EntryId::default(),
        }
    }

    #[test]
    fn each_outcome_has_its_verdict() {
        let busy = Refusal::new(ErrorCode::Unavailable, "wait");
        let cases = [
            (Outcome::Acknowledged, Status::Delivered, Reason::None, 0),
            (Outcome::Refused(busy.clone()), Status::Pending, Reason::None, 2_100),
            (Outcome::Refused(busy.clone().retry_after(7)), Status::Pending, Reason::None, 9_000),
            (Outcome::Refused(busy.retry_after(3_600)), Status::Pending, Reason::None, 302_000),
            (
                Outcome::Refused(Refusal::new(ErrorCode::Forbidden, "no")),
                Status::Failed,
                Reason::Permanent,
                0,
            ),
            (
                Outcome::Refused(Refusal::new(ErrorCode::Undeliverable, "gone")),
                Status::Failed,
                Reason::Undeliverable,
                0,
            ),
            (Outcome::Unanswered, Status::Pending, Reason::None, 2_000),
            (Outcome::TimedOut, Status::Pending, Reason::None, 2_100),
            (Outcome::NotSent, Status::Pending, Reason::None, 2_000),
            (Outcome::Barred("no token".into()), Status::Pending, Reason::None, 2_000),
        ];
        for (outcome, status, reason, due) in cases {
            let change = judge(&live(1), &outcome, &Policy::default(), 2_000, 100);
            let got = (change.status, change.reason, change.next_attempt_at);
            assert_eq!(got, (status, reason, due), "{outcome:?}");
            let maybe = matches!(outcome, Outcome::Unanswered | Outcome::TimedOut);
            assert_eq!(change.maybe_delivered, maybe, "{outcome:?}");
            assert_eq!(change.attempts, u32::from(outcome != Outcome::NotSent), "{outcome:?}");
        }
    }

    #[test]
    fn each_outcome_says_something_of_the_destination_or_nothing() {
        let refused = |code| Outcome::of_refusal(Refusal::new(code, "no"));
        let cases = [
            (Outcome::Acknowledged, Some(Sign::Answered)),
            (refused(ErrorCode::InvalidField), Some(Sign::Answered)),
            (refused(ErrorCode::UnknownAgent), Some(Sign::Answered)),
            (refused(ErrorCode::Unavailable), Some(Sign::Failed)),
            (refused(ErrorCode::StorageFull), Some(Sign::Failed)),
            (refused(ErrorCode::RateLimited), None),
            (refused(ErrorCode::LaneBlocked), None),
            (refused(ErrorCode::Unauthorized), Some(Sign::Barred)),
            (Outcome::Unanswered, Some(Sign::Failed)),
            (Outcome::TimedOut, Some(Sign::Failed)),
            (Outcome::NotSent, None),
        ];
        for (outcome, expected) in cases {
            assert_eq!(outcome.sign(), expected, "{outcome:?}");
        }
    }

    #[test]
    fn too_old_and_too_often_fail_with_their_reason() {
        let policy =
            Policy { max_attempts: 3, max_age: Duration::from_secs(10), ..Policy::default() };
        let judged = |attempts, now| judge(&live(attempts), &Outcome::Unanswered, &policy, now, 0);
        assert_eq!(judged(2, 2_000).status, Status::Pending);
        assert_eq!(judged(3, 2_000).reason, Reason::MaxAttempts);
        assert_eq!(judged(1, 11_001).reason, Reason::MaxAge);
    }
}
