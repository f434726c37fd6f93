//! Which bodies nobody needs any more. Pure: it reads nothing and drops nothing. Heads stay, and so
//! the audit log, the history of a message and the memory of its id.
//!
//! Only finished messages are judged; those that are pending, being sent, held, failed, or received
//! and not applied (sealed ones among them) are a person's affair.

use std::collections::HashMap;

use crate::record::{EntryId, Millis, Status};
use crate::view::Row;

/// What is kept of the bodies of one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// For how long after its last change a body is kept.
    pub age: Millis,
    /// How many bytes of bodies are kept; beyond it those that were accepted first go.
    pub bytes: u64,
}

/// Thirty days, without a limit by size.
impl Default for Keep {
    fn default() -> Self {
        Self { age: 30 * 24 * 60 * 60 * 1_000, bytes: u64::MAX }
    }
}

/// What is kept of the bodies of finished messages, by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Outbound, and the next hop has it.
    pub delivered: Keep,
    /// Outbound, and given up because its time had passed; or ended by a person, any way.
    pub expired: Keep,
    /// Inbound, and applied.
    pub processed: Keep,
    /// Inbound, and not applicable.
    pub rejected: Keep,
}

impl Retention {
    /// The same for every status.
    pub fn uniform(keep: Keep) -> Self {
        Self { delivered: keep, expired: keep, processed: keep, rejected: keep }
    }

    /// What is kept of a status; `None` when only a person ends it.
    pub fn of(&self, status: Status) -> Option<Keep> {
        match status {
            Status::Delivered => Some(self.delivered),
            Status::Expired | Status::Pruned => Some(self.expired),
            Status::Processed => Some(self.processed),
            Status::Rejected => Some(self.rejected),
            Status::Pending
            | Status::Sending
            | Status::Failed
            | Status::Held
            | Status::Received => None,
        }
    }

    /// Whether any status has a limit by size, so that bodies have to be counted.
    pub fn counts_bytes(&self) -> bool {
        let all = [self.delivered, self.expired, self.processed, self.rejected];
        all.iter().any(|keep| keep.bytes < u64::MAX)
    }
}

/// Up to which message the limits by size were exceeded, by status. Rows are counted newest first.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    counted: HashMap<Status, u64>,
    through: HashMap<Status, EntryId>,
}

impl Limits {
    /// Counts a row, which is older than those before it.
    pub fn count(&mut self, row: &Row, retention: &Retention) {
        let Some(keep) = retention.of(row.status) else { return };
        let counted = self.counted.entry(row.status).or_default();
        *counted = counted.saturating_add(u64::from(row.size_bytes));
        if *counted > keep.bytes {
            self.through.entry(row.status).or_insert(row.entry);
        }
    }
}

/// Whether nobody needs the body of a message any more.
pub fn is_dead(row: &Row, retention: &Retention, limits: &Limits, now: Millis) -> bool {
    let Some(keep) = retention.of(row.status) else { return false };
    row.updated_at.saturating_add(keep.age) <= now
        || limits.through.get(&row.status).is_some_and(|through| row.entry <= *through)
}
