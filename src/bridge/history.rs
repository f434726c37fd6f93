//! Messages as people list them. The trait is what the API needs; [`Stored`] serves it from the
//! store's rows and bodies, [`Past`] from a journal on disk. It sends nothing; [`retry`] only
//! makes messages due.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::event::Event;
use storage::inspect::{AuditEntry, Inspect, history_of};
use storage::journal::Reader;
use storage::messages::Live;
use storage::record::{EntryId, Fact, Status};
use storage::store::{Store, read_body};
use storage::transaction::{Act, Change};
use storage::view::{Filter, View, ViewError};

use crate::clock::rfc3339;

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
    /// Its payload.
    pub payload: Value,
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
        Ok(page(&self.view.list(filter)?))
    }

    fn show(&self, message_id: &str) -> Result<Option<Detail>, ViewError> {
        let Some(newest) = self.view.get(message_id)?.into_iter().next() else {
            return Ok(None);
        };
        // A body that was dropped leaves the rest of the message visible.
        let body = self.store.body(newest.body).unwrap_or_default();
        Ok(Some(detail(&newest, &body, &self.journal)))
    }
}

/// The messages of a journal that nobody serves, as it was found.
pub struct Past(pub Inspect);

impl History for Past {
    fn list(&self, filter: &Filter) -> Result<Page, ViewError> {
        Ok(page(&self.0.list(filter)))
    }

    fn show(&self, message_id: &str) -> Result<Option<Detail>, ViewError> {
        let newest = self.0.get(message_id).into_iter().next();
        Ok(newest.map(|newest| {
            let body = read_body(self.0.reader(), newest.body).unwrap_or_default();
            detail(&newest, &body, self.0.reader())
        }))
    }
}

fn page(page: &storage::view::Page) -> Page {
    let next = page.next.map(|entry| entry.to_string());
    Page { messages: page.rows.iter().map(row).collect(), next }
}

fn detail(newest: &storage::view::Row, body: &[u8], journal: &Reader) -> Detail {
    let envelope: Value = serde_json::from_slice(body).unwrap_or_default();
    let payload = envelope.get("payload").cloned().unwrap_or_default();
    // Damage in the journal leaves the rest of the message visible.
    let entries = history_of(journal, newest).unwrap_or_default();
    Detail { row: row(newest), payload, history: entries.iter().map(step).collect() }
}

/// One entry of a message's life.
fn step(entry: &AuditEntry) -> Value {
    let mut step = serde_json::json!({
        "at": rfc3339(entry.time),
        "event": entry.record.event.name(),
        "actor": &*entry.record.actor,
    });
    match &entry.record.fact {
        Fact::Accept(head) => step["status"] = head.status.as_str().into(),
        Fact::Change(change) => {
            let due = (change.next_attempt_at > 0).then(|| rfc3339(change.next_attempt_at));
            step["status"] = change.status.as_str().into();
            step["reason"] = change.reason.as_str().into();
            step["attempts"] = change.attempts.into();
            step["next_attempt_at"] = due.into();
            step["maybe_delivered"] = change.maybe_delivered.into();
            step["error"] = Some(&change.error).filter(|error| !error.is_empty()).cloned().into();
        }
        _ => {}
    }
    step
}

/// The place in a list that a page's `next` names.
pub fn place(text: &str) -> Option<EntryId> {
    let (sequence, index) = text.split_once('.')?;
    Some(EntryId { sequence: sequence.parse().ok()?, index: index.parse().ok()? })
}

/// Makes failed messages that are `wanted` pending and due. Returns how many.
///
/// # Errors
/// When that is not known to be durable.
pub async fn retry(
    store: &Store,
    actor: &str,
    wanted: impl Fn(&Live) -> bool,
) -> Result<usize, storage::store::CommitError> {
    let wanted = |live: &&Live| live.status == Status::Failed && wanted(live);
    let found: Vec<EntryId> =
        store.messages(|messages| messages.iter().filter(wanted).map(|live| live.entry).collect());
    let actor = actor.to_owned();
    let commit = store.commit(move |tx| -> Result<usize, std::convert::Infallible> {
        let mut count = 0;
        for entry in found {
            let Some(live) = tx.live(entry).filter(|live| live.status == Status::Failed) else {
                continue;
            };
            let head = &live.head;
            let act = Act::new(Event::MessageRetry, &actor, &head.namespace, &head.message_id);
            let change = Change {
                status: Status::Pending,
                reason: storage::record::Reason::None,
                next_attempt_at: tx.now(),
                ..Change::of(&live)
            };
            tx.change(act, &live, change);
            count += 1;
        }
        Ok(count)
    });
    commit.await.map(|counted| counted.unwrap_or(0))
}

fn row(row: &storage::view::Row) -> Row {
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
        next_attempt_at: due.map(rfc3339),
        created_at: rfc3339(row.created_at),
        updated_at: rfc3339(row.updated_at),
        size_bytes: row.size_bytes,
        sealed: row.sealed,
    }
}
