//! What follows from an attempt: a pure function of the outcome, the message and the policy.

use storage::messages::Live;
use storage::record::{Reason, Status};
use storage::transaction::Change;

use crate::clock::Millis;
use crate::protocol::Refusal;
use crate::retry::Policy;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The next hop has the message on stable storage.
    Acknowledged,
    /// The next hop refused it.
    Refused(Refusal),
    /// The link went away before an answer: it may have arrived.
    Unanswered,
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
                try_again(&mut change, live, policy, now, drawn.max(asked));
            } else {
                change.status = Status::Failed;
                change.reason = Reason::Permanent;
            }
        }
        Outcome::Unanswered => {
            change.maybe_delivered = true;
            change.error = "the link went away before an answer".into();
            // The link's own backoff spaces the attempts: when it is back, the message is due.
            try_again(&mut change, live, policy, now, 0);
        }
    }
    change
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
    match failed {
        Some(reason) => {
            change.status = Status::Failed;
            change.reason = reason;
        }
        None => {
            change.status = Status::Pending;
            change.next_attempt_at = now.saturating_add(delay);
        }
    }
}
