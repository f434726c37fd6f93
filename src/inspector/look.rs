//! One message, as both programs show it: with its content, or in a sentence. Whoever asks brings
//! what is known of its way.

use storage::inspect::{head_of, history_of};
use storage::journal::Reader;
use storage::messages::Place;
use storage::record::{Direction, Status};
use storage::view::Row;

use super::explain::{Explanation, Facts, Link, explain};
use super::history::{Detail, History, Past};
use super::unavailable;
use crate::clock::Millis;
use crate::outbox::pause::Pauses;
use crate::protocol::{ErrorCode, Refusal, SERVER_AGENT_ID};

/// What is known of the way of a message.
pub struct Way {
    /// Its link.
    pub link: Link,
    /// Until when the circuit is open, and why.
    pub circuit: Option<(Millis, String)>,
    /// What is paused.
    pub pauses: Pauses,
    /// What is at the head of its lane.
    pub head: Option<Place>,
    /// Now.
    pub now: Millis,
}

/// The newest message of this id with its content.
///
/// # Errors
/// When there is none, or the rows cannot be read.
pub fn detail(history: &dyn History, id: &str) -> Result<Detail, Refusal> {
    let found = history.show(id).map_err(|error| unavailable(&error))?;
    found.ok_or_else(|| unknown(id))
}

/// One sentence on the newest message of this id.
///
/// # Errors
/// As [`detail`].
pub fn explained(
    history: &dyn History,
    journal: &Reader,
    id: &str,
    way: impl FnOnce(&Row) -> Way,
) -> Result<Explanation, Refusal> {
    let found = history.find(id).map_err(|error| unavailable(&error))?;
    let row = found.into_iter().next().ok_or_else(|| unknown(id))?;
    let Way { link, circuit, pauses, head, now } = way(&row);
    let (behind, expires_at) = lane(journal, &row, head);
    let actor = actor(journal, &row);
    Ok(explain(&Facts { row: &row, behind, expires_at, pauses, link, circuit, actor, now }))
}

/// The same from a journal that nobody serves.
///
/// # Errors
/// As [`detail`].
pub fn explained_past(past: &Past, id: &str) -> Result<Explanation, Refusal> {
    explained(past, past.0.reader(), id, |row| {
        // What became of a message is told without the state of all of them.
        let waits = (row.direction, row.status) == (Direction::Outbound, Status::Pending);
        let state = waits.then(|| past.0.state());
        let now = state.map_or(row.updated_at, |state| state.time);
        // A server's messages lie in mailboxes, each a destination of its own.
        let is_bridge = row.destination.is_empty() || row.destination == SERVER_AGENT_ID;
        let link = if is_bridge { Link::Stopped { since: now } } else { Link::Mailbox };
        let destination = if is_bridge { SERVER_AGENT_ID } else { row.destination.as_str() };
        Way {
            link,
            circuit: None,
            pauses: state.map(|it| Pauses::of(&it.ledger, destination)).unwrap_or_default(),
            head: state.and_then(|state| state.messages.lane_head(row.entry)),
            now,
        }
    })
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("no message has the id {id}"))
}

/// The ordering key of a message and the id of the one at the head of its lane, `head`, if that is
/// another, and its time limit.
fn lane(
    journal: &Reader,
    row: &Row,
    head: Option<Place>,
) -> (Option<(String, String)>, Option<Millis>) {
    let Some(own) = head_of(journal, row.place()) else { return (None, None) };
    let head = head.filter(|(head, _)| *head != row.entry).and_then(|head| head_of(journal, head));
    (head.map(|head| (own.lane.clone(), head.message_id.clone())), own.expires_at)
}

/// Who made the last change.
fn actor(journal: &Reader, row: &Row) -> Option<String> {
    let history = history_of(journal, row).ok()?;
    history.last().map(|entry| entry.record.actor.to_string())
}
