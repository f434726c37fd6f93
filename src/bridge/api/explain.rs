//! `GET /api/openclaw/messages/{id}/explain`: what a running bridge knows of the way of a message.
//! The sentence is made by [`crate::inspector::explain`].

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::Shared;
use super::messages::aside;
use super::problem::Failed;
use crate::bridge::mail::DESTINATION;
use crate::inspector::answer::Answer;
use crate::inspector::explain::Explanation;
use crate::inspector::look::{self, Way};
use crate::outbox::pause::Pauses;

/// The route.
pub async fn show(
    State(api): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Answer<Explanation>>, Failed> {
    let Path(id) = id.map_err(|_| Failed::missing("no message has this id"))?;
    let asked = Arc::clone(&api);
    aside(&api, move |history| {
        look::explained(history, &asked.journal, &id, |row| {
            let (link, circuit) = asked.bridge.way();
            let store = asked.bridge.store();
            Way {
                link,
                circuit,
                pauses: Pauses::of(&store.ledger(), DESTINATION),
                head: store.messages(|messages| messages.lane_head(row.entry)),
                now: asked.bridge.clock().now(),
            }
        })
    })
    .await
}
