//! Which rows a list shows, and a page of them. Pure: it reads nothing.

use crate::record::{Direction, EntryId, Millis, Reason, Status};
use crate::view::Row;

/// Rows of a page at the most.
pub const PAGE_ROWS_MAX: usize = 1_000;

/// Which messages to list; `None` does not restrict.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only these statuses; empty: all but pruned.
    pub status: Vec<Status>,
    /// Only those that have their status for this reason.
    pub reason: Option<Reason>,
    /// Only this way.
    pub direction: Option<Direction>,
    /// Only this type.
    pub message_type: Option<String>,
    /// Only from or to this peer.
    pub peer: Option<String>,
    /// Only in this namespace.
    pub namespace: Option<String>,
    /// Only about this task.
    pub task_id: Option<String>,
    /// Only written at this time or later.
    pub since: Option<Millis>,
    /// Only written before this time.
    pub until: Option<Millis>,
    /// Only older than this: [`Page::next`] of the page before.
    pub after: Option<EntryId>,
    /// Rows at the most, up to [`PAGE_ROWS_MAX`]; 0 means that.
    pub limit: usize,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows, the newest first.
    pub rows: Vec<Row>,
    /// Where to go on; `None`: this was the last page. A page may have fewer rows than asked for
    /// and still go on: a search looks at a bounded number of rows.
    pub next: Option<EntryId>,
}

impl Filter {
    /// Whether a row is to be shown, the cursor and the limit apart.
    pub fn matches(&self, row: &Row) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let is_shown = row.status != Status::Pruned;
        (self.status.is_empty() && is_shown || self.status.contains(&row.status))
            && self.reason.is_none_or(|reason| reason == row.reason)
            && self.direction.is_none_or(|direction| direction == row.direction)
            && same(&self.message_type, &row.message_type)
            && same(&self.peer, &row.peer)
            && same(&self.namespace, &row.namespace)
            && (self.task_id.is_none() || self.task_id == row.task_id)
            && self.since.is_none_or(|since| row.created_at >= since)
            && self.until.is_none_or(|until| row.created_at < until)
    }

    /// How many rows a page takes.
    pub fn rows_max(&self) -> usize {
        if self.limit == 0 { PAGE_ROWS_MAX } else { self.limit.min(PAGE_ROWS_MAX) }
    }
}
