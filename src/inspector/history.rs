//! Messages as people list them. The trait is what the API needs; [`Stored`] serves it from the
//! store's rows and bodies, [`Past`] from a journal on disk. It sends and changes nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::inspect::{self, AuditEntry, Inspect, history_of};
use storage::journal::Reader;
use storage::messages::BodyPlace;
use storage::record::{Direction, EntryId, Fact, Prune, Status};
use storage::store::{Store, read_body};
use storage::view::{Filter, View, ViewError};

use super::receipt::{self, Receipt, Receipts};
use super::tries::{self, Try};
use crate::clock::rfc3339;
use crate::trace;

/// One message of a list: the fields of section 7 of the protocol.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its id.
    pub message_id: String,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// Its type.
    pub message_type: String,
    /// Whom it is for, or who sent it.
    pub peer: String,
    /// Its namespace.
    pub namespace: String,
    /// Where it stands.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// What the other side, or the link, said last; a long text is cut.
    pub error: Option<String>,
    /// When the next one is due.
    pub next_attempt_at: Option<String>,
    /// When it was written.
    pub created_at: String,
    /// When it changed last.
    pub updated_at: String,
    /// Bytes of its body.
    pub size_bytes: u32,
    /// Its content is sealed.
    pub sealed: bool,
    /// Bytes of it left and were not answered.
    pub maybe_delivered: bool,
    /// What the server said later on of a message that it took.
    pub receipt: Option<Receipt>,
}

/// A page of a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// Newest first.
    pub messages: Vec<Row>,
    /// Where the next page begins; `None` when there is none.
    pub next: Option<String>,
}

/// One message with its content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Detail {
    /// As in a list.
    #[serde(flatten)]
    pub row: Row,
    /// The trace that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Its payload; `null` once a person wants it gone.
    pub payload: Value,
    /// A person wants its content gone.
    pub shredded: bool,
    /// Every attempt, oldest first.
    pub tries: Vec<Try>,
    /// Every attempt and change, oldest first.
    pub history: Vec<Value>,
}

/// Finds messages.
pub trait History: Send + Sync {
    /// The messages that pass the filter, newest first.
    ///
    /// # Errors
    /// When the rows cannot be read.
    fn list(&self, filter: &Filter) -> Result<Page, ViewError>;

    /// The same as the store has them.
    ///
    /// # Errors
    /// When the rows cannot be read.
    fn rows(&self, filter: &Filter) -> Result<storage::view::Page, ViewError>;

    /// Shows all that [`History::rows`] would give, page after page.
    ///
    /// # Errors
    /// When the rows cannot be read.
    fn each(
        &self,
        filter: &Filter,
        show: &mut dyn FnMut(&storage::view::Row),
    ) -> Result<(), ViewError>;

    /// Every message of this id, the newest first.
    ///
    /// # Errors
    /// When the rows cannot be read.
    fn find(&self, message_id: &str) -> Result<Vec<storage::view::Row>, ViewError>;

    /// Waits until no row is missing, as some are for a while after the store was opened.
    ///
    /// # Errors
    /// When the rows cannot be read.
    fn complete(&self) -> Result<(), ViewError>;

    /// The newest message of this id.
    ///
    /// # Errors
    /// When the rows cannot be read.
    fn show(&self, message_id: &str) -> Result<Option<Detail>, ViewError>;
}

/// The messages of a store.
pub struct Stored {
    /// Its bodies.
    pub store: Store,
    /// Its rows.
    pub view: View,
    /// Its journal, which has every change.
    pub journal: Reader,
}

impl History for Stored {
    fn list(&self, filter: &Filter) -> Result<Page, ViewError> {
        let receipts = receipt::of_ledger(self.store.ledger());
        Ok(page(&self.rows(filter)?, &receipts))
    }

    fn rows(&self, filter: &Filter) -> Result<storage::view::Page, ViewError> {
        // Without rows, as on a full disk, the journal has them all: that is slower.
        self.view.list(filter).or_else(|_| Ok(inspect::list(&self.journal, filter)))
    }

    fn each(
        &self,
        filter: &Filter,
        show: &mut dyn FnMut(&storage::view::Row),
    ) -> Result<(), ViewError> {
        let mut filter = Filter { limit: 0, ..filter.clone() };
        loop {
            let page = self.rows(&filter)?;
            page.rows.iter().for_each(&mut *show);
            filter.after = page.next;
            if filter.after.is_none() {
                return Ok(());
            }
        }
    }

    fn find(&self, message_id: &str) -> Result<Vec<storage::view::Row>, ViewError> {
        let found = inspect::find(&self.journal, message_id);
        let is_sound = || inspect::missing(&self.journal).is_empty();
        if !found.is_empty() || is_sound() {
            return Ok(found);
        }
        // What the journal has lost may have its row still.
        self.view.get(message_id).or(Ok(found))
    }

    fn complete(&self) -> Result<(), ViewError> {
        if self.view.lag().catching_up { self.view.settle() } else { Ok(()) }
    }

    fn show(&self, message_id: &str) -> Result<Option<Detail>, ViewError> {
        let Some(newest) = self.find(message_id)?.into_iter().next() else {
            return Ok(None);
        };
        let body = content(&self.journal, newest.body);
        let receipts = receipt::of_ledger(self.store.ledger());
        Ok(Some(detail(&newest, &body, &self.journal, &receipts)))
    }
}

/// The messages of a journal that nobody serves, as it was found.
pub struct Past(pub Inspect);

impl Past {
    fn receipts(&self) -> Box<Receipts<'static>> {
        receipt::of_ledger(self.0.state().ledger.clone())
    }
}

impl History for Past {
    fn list(&self, filter: &Filter) -> Result<Page, ViewError> {
        Ok(page(&self.rows(filter)?, &self.receipts()))
    }

    fn rows(&self, filter: &Filter) -> Result<storage::view::Page, ViewError> {
        Ok(self.0.list(filter))
    }

    fn each(
        &self,
        filter: &Filter,
        show: &mut dyn FnMut(&storage::view::Row),
    ) -> Result<(), ViewError> {
        self.0.each(filter, show);
        Ok(())
    }

    fn find(&self, message_id: &str) -> Result<Vec<storage::view::Row>, ViewError> {
        Ok(self.0.get(message_id))
    }

    fn complete(&self) -> Result<(), ViewError> {
        Ok(())
    }

    fn show(&self, message_id: &str) -> Result<Option<Detail>, ViewError> {
        let newest = self.0.get(message_id).into_iter().next();
        Ok(newest.map(|newest| {
            let journal = self.0.reader();
            let body = content(journal, newest.body);
            let receipts = |namespace: &str, id: &str| receipt::of_journal(journal, namespace, id);
            detail(&newest, &body, journal, &receipts)
        }))
    }
}

/// A body, if it can be read: one that was dropped, or has rotted, leaves the rest of the message
/// visible. A body has no checksum of its own, but its frame.
fn content(journal: &Reader, place: BodyPlace) -> Vec<u8> {
    let frame = journal.frame(place.sequence);
    frame.and_then(|_| read_body(journal, place)).unwrap_or_default()
}

fn page(page: &storage::view::Page, receipts: &Receipts<'_>) -> Page {
    let next = page.next.map(|entry| entry.to_string());
    Page { messages: page.rows.iter().map(|one| row(one, receipts)).collect(), next }
}

fn detail(
    newest: &storage::view::Row,
    body: &[u8],
    journal: &Reader,
    receipts: &Receipts<'_>,
) -> Detail {
    // Damage in the journal leaves the rest of the message visible.
    let entries = history_of(journal, newest).unwrap_or_default();
    let shredded =
        entries.iter().any(|entry| matches!(&entry.record.fact, Fact::Prune(prune) if prune.shred));
    // Until its segment is compacted, the content is still there.
    let body = if shredded { &[] } else { body };
    let envelope: Value = serde_json::from_slice(body).unwrap_or_default();
    let payload = envelope.get("payload").cloned().unwrap_or_default();
    let (tries, history) = (tries::of(&entries), entries.iter().map(step).collect());
    let (row, traceparent) = (row(newest, receipts), trace::of_object(body));
    Detail { row, traceparent, payload, shredded, tries, history }
}

/// One entry of a message's life.
fn step(entry: &AuditEntry) -> Value {
    let mut step = serde_json::json!({
        "at": rfc3339(entry.time),
        "event": entry.record.event.name(),
        "actor": &*entry.record.actor,
    });
    let (head, state) = match &entry.record.fact {
        Fact::Accept(head) => {
            step["status"] = head.status.as_str().into();
            (Some(head), None)
        }
        Fact::Change(change) | Fact::Prune(Prune { change, .. }) => (None, Some(change)),
        Fact::Carry(carried) => (Some(&carried.head), Some(&carried.state)),
        _ => (None, None),
    };
    if let Some(earlier) = head.and_then(|head| head.retry_of.as_deref()) {
        step["retry_of"] = earlier.into();
    }
    if let Some(change) = state {
        let due = (change.next_attempt_at > 0).then(|| rfc3339(change.next_attempt_at));
        step["status"] = change.status.as_str().into();
        step["reason"] = change.reason.as_str().into();
        step["attempts"] = change.attempts.into();
        step["next_attempt_at"] = due.into();
        step["maybe_delivered"] = change.maybe_delivered.into();
        step["error"] = Some(&change.error).filter(|error| !error.is_empty()).cloned().into();
    }
    if let Fact::Prune(prune) = &entry.record.fact {
        step["shred"] = prune.shred.into();
    }
    step
}

/// The place in a list that a page's `next` names.
pub fn place(text: &str) -> Option<EntryId> {
    let (sequence, index) = text.split_once('.')?;
    Some(EntryId { sequence: sequence.parse().ok()?, index: index.parse().ok()? })
}

fn row(row: &storage::view::Row, receipts: &Receipts<'_>) -> Row {
    // What waits and was never put off is due since it was written.
    let due = match (row.next_attempt_at, row.status) {
        (0, Status::Pending) => Some(row.created_at),
        (0, _) => None,
        (at, _) => Some(at),
    };
    Row {
        message_id: row.message_id.clone(),
        direction: row.direction.as_str().to_owned(),
        message_type: row.message_type.clone(),
        peer: row.peer.clone(),
        namespace: row.namespace.clone(),
        status: row.status.as_str().to_owned(),
        reason: row.reason.as_str().map(str::to_owned),
        attempts: row.attempts,
        error: Some(&row.error).filter(|error| !error.is_empty()).cloned(),
        next_attempt_at: due.map(rfc3339),
        created_at: rfc3339(row.created_at),
        updated_at: rfc3339(row.updated_at),
        size_bytes: row.size_bytes,
        sealed: row.sealed,
        maybe_delivered: row.maybe_delivered,
        receipt: (row.direction == Direction::Outbound)
            .then(|| receipts(&row.namespace, &row.message_id))
            .flatten(),
    }
}
