//! `GET /api/openclaw/messages/{id}/explain`: gathers what is known of a message and its way, of a
//! running bridge or from a store on disk. The sentence is made by [`crate::bridge::explain`].

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use storage::inspect::{head_of, history_of};
use storage::journal::Reader;
use storage::messages::Place;
use storage::record::{Direction, Status};
use storage::view::Row;

use super::Shared;
use super::problem::Failed;
use crate::bridge::explain::{Explanation, Facts, Link, explain};
use crate::bridge::history::{History, Past};
use crate::bridge::mail::DESTINATION;
use crate::clock::Millis;
use crate::inspector::answer::Answer;
use crate::outbox::pause::Pauses;

/// The route.
pub async fn show(
    State(api): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Answer<Explanation>>, Failed> {
    let Path(id) = id.map_err(|_| Failed::missing("no message has this id"))?;
    let row = newest(&*api.history, &id)?;
    let store = api.bridge.store();
    let (behind, expires_at) =
        lane(&api.journal, &row, store.messages(|messages| messages.lane_head(row.entry)));
    let (link, circuit) = api.bridge.way();
    let facts = Facts {
        row: &row,
        behind,
        expires_at,
        pauses: Pauses::of(&store.ledger(), DESTINATION),
        link,
        circuit,
        actor: actor(&api.journal, &row),
        now: api.bridge.clock().now(),
    };
    Ok(Json(Answer::of(explain(&facts), &api.journal)))
}

/// The same from a journal that nobody serves.
pub fn of_past(past: &Past, id: &str) -> Result<Explanation, Failed> {
    let row = newest(past, id)?;
    // What became of a message is told without the state of all of them.
    let waits = (row.direction, row.status) == (Direction::Outbound, Status::Pending);
    let state = waits.then(|| past.0.state());
    let head = state.and_then(|state| state.messages.lane_head(row.entry));
    let (behind, expires_at) = lane(past.0.reader(), &row, head);
    let now = state.map_or(row.updated_at, |state| state.time);
    // A server's messages lie in mailboxes, each a destination of its own.
    let is_ours = row.destination.is_empty() || row.destination == DESTINATION;
    let link = if is_ours { Link::Stopped { since: now } } else { Link::Mailbox };
    let destination = if is_ours { DESTINATION } else { row.destination.as_str() };
    let facts = Facts {
        row: &row,
        behind,
        expires_at,
        pauses: state.map(|state| Pauses::of(&state.ledger, destination)).unwrap_or_default(),
        link,
        circuit: None,
        actor: actor(past.0.reader(), &row),
        now,
    };
    Ok(explain(&facts))
}

fn newest(history: &dyn History, id: &str) -> Result<Row, Failed> {
    let found = history.find(id)?.into_iter().next();
    found.ok_or_else(|| Failed::missing(&format!("no message has the id {id}")))
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
