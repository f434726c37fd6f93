//! What a pump and others see of each other: which records may let it send, and how its attempts
//! end. It records nothing.

use std::sync::Arc;
use std::time::Duration;

use storage::record::{Fact, Kind, MessageHead, Record, Status};

use super::verdict::Outcome;

/// How one attempt ended, for those who count.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The message.
    pub head: &'a MessageHead,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// How long the answer took.
    pub took: Duration,
}

/// Who counts attempts. Called when the end of one is durable.
pub type Observer = Arc<dyn Fn(Attempt<'_>) + Send + Sync>;

/// Whether a record may let a message of this destination leave. An end frees its lane, and what is
/// pending again is due some day; the destination of a change is not in its record.
pub(super) fn concerns(record: &Record, destination: &str, has_pending: bool) -> bool {
    match &record.fact {
        Fact::Accept(head) => head.destination == destination,
        Fact::Change(change) => has_pending || change.status == Status::Pending,
        Fact::Prune(_) => has_pending,
        Fact::Put(write) => write.key.kind == Kind::Circuit,
        Fact::Note | Fact::Forget(_) | Fact::Evict(_) => false,
    }
}
