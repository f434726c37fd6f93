//! Messages as people list them. The trait is what the API needs; [`Unfinished`] serves it from
//! the store's memory, where a finished message is no more than an id.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::event::Event;
use storage::messages::Live;
use storage::record::{Direction, EntryId, Status};
use storage::store::Store;
use storage::transaction::{Act, Change};

use crate::clock::{Millis, rfc3339};

/// Which messages to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// At most so many.
    pub limit: usize,
    /// Of this status.
    pub status: Option<Status>,
    /// Of this direction.
    pub direction: Option<Direction>,
    /// Of this type.
    pub message_type: Option<String>,
    /// To or from this agent.
    pub peer: Option<String>,
    /// About this task.
    pub task_id: Option<String>,
    /// Written at this time or later.
    pub since: Option<Millis>,
    /// Written before this time.
    pub until: Option<Millis>,
    /// After the place where another page ended.
    pub after: Option<String>,
}

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
    fn list(&self, filter: &Filter) -> Page;

    /// The message of this id.
    fn show(&self, message_id: &str) -> Option<Detail>;
}

/// The messages that are not finished.
pub struct Unfinished(pub Store);

impl History for Unfinished {
    fn list(&self, filter: &Filter) -> Page {
        let after = filter.after.as_deref().and_then(place);
        self.0.messages(|messages| {
            let mut found = messages
                .iter()
                .rev()
                .filter(|live| after.is_none_or(|after| live.entry < after))
                .filter(|live| passes(filter, live));
            let page: Vec<&Live> = found.by_ref().take(filter.limit).collect();
            let next = found.next().and(page.last()).map(|live| live.entry.to_string());
            Page { messages: page.into_iter().map(row).collect(), next }
        })
    }

    fn show(&self, message_id: &str) -> Option<Detail> {
        let live = self.0.messages(|messages| {
            messages.iter().find(|live| live.head.message_id == message_id).cloned()
        })?;
        let body = self.0.body(live.body).ok()?;
        let envelope: Value = serde_json::from_slice(&body).unwrap_or_default();
        let payload = envelope.get("payload").cloned().unwrap_or_default();
        let history = vec![serde_json::json!({
            "at": rfc3339(live.updated_at),
            "status": live.status.as_str(),
            "attempts": live.attempts,
            "error": &*live.error,
            "maybe_delivered": live.maybe_delivered,
        })];
        Some(Detail { row: row(&live), payload, history })
    }
}

/// Makes failed messages pending and due: those with these ids, or all. Returns how many.
///
/// # Errors
/// When that is not known to be durable.
pub async fn retry(
    store: &Store,
    actor: &str,
    ids: Vec<String>,
) -> Result<usize, storage::store::CommitError> {
    let wanted = move |live: &&Live| {
        live.status == Status::Failed && (ids.is_empty() || ids.contains(&live.head.message_id))
    };
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

fn place(text: &str) -> Option<EntryId> {
    let (sequence, index) = text.split_once('.')?;
    Some(EntryId { sequence: sequence.parse().ok()?, index: index.parse().ok()? })
}

fn passes(filter: &Filter, live: &Live) -> bool {
    let head = &live.head;
    filter.status.is_none_or(|status| live.status == status)
        && filter.direction.is_none_or(|direction| head.direction == direction)
        && filter.message_type.as_ref().is_none_or(|wanted| head.message_type == *wanted)
        && filter.peer.as_ref().is_none_or(|peer| head.peer == *peer)
        && filter.task_id.as_ref().is_none_or(|id| head.task_id.as_ref() == Some(id))
        && filter.since.is_none_or(|since| head.created_at >= since)
        && filter.until.is_none_or(|until| head.created_at < until)
}

fn row(live: &Live) -> Row {
    let head = &live.head;
    Row {
        message_id: head.message_id.clone(),
        direction: head.direction.as_str().to_owned(),
        message_type: head.message_type.clone(),
        peer: head.peer.clone(),
        namespace: head.namespace.clone(),
        status: live.status.as_str().to_owned(),
        reason: live.reason.as_str().map(str::to_owned),
        attempts: live.attempts,
        next_attempt_at: (live.next_attempt_at > 0).then(|| rfc3339(live.next_attempt_at)),
        created_at: rfc3339(head.created_at),
        updated_at: rfc3339(live.updated_at),
        size_bytes: head.size,
        sealed: head.sealed,
    }
}
