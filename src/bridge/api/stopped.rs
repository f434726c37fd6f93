//! The same changes without a bridge: messages to send, to send again or to end are put into the
//! store of a stopped one, and its next start delivers what is to be delivered. It opens nothing:
//! the store's lock is the caller's affair.

use std::sync::Arc;

use serde_json::Value;
use storage::database::Database;

use super::changes;
use super::messages::{self, Desk};
use super::problem::Failed;
use crate::clock::Clock;
use crate::config::OpenClaw;
use crate::inspector::bulk::Place;
use crate::inspector::changes::pruned;
use crate::inspector::history::Stored;
use crate::outbox::GivenUp;
use crate::outbox::again::DEDUP_WINDOW;
use crate::protocol::Refusal;

/// What a bridge of this id and configuration would answer to a `POST` of this path and body; in a
/// server's store `given_up` tells the senders of what is pruned.
///
/// # Errors
/// When the body is wrong, there is nothing to do this to, or it is not known to be durable.
pub async fn answer(
    database: &Database,
    (agent_id, bridge): (&str, &OpenClaw),
    clock: &Clock,
    (path, body): (&str, &[u8]),
    given_up: Option<GivenUp>,
) -> Result<Value, Refusal> {
    let history = Arc::new(Stored {
        store: database.store().clone(),
        view: database.view().clone(),
        journal: database.reader().clone(),
    });
    let (store, journal) = (database.store().clone(), database.reader().clone());
    let desk = Desk {
        agent_id,
        namespace: &bridge.namespace,
        place: Place { store, history, journal, given_up },
        clock,
        dedup_window: DEDUP_WINDOW,
        max_age: bridge.retry.max_age,
    };
    let answer = match path {
        "/api/openclaw/send" => messages::sent(&desk, body, None).await,
        "/api/openclaw/retry" => changes::retried(&desk, body).await,
        "/api/openclaw/prune" => pruned(&desk.place, body).await.map_err(Failed),
        "/api/openclaw/pause" => changes::paused(&desk, body).await,
        "/api/openclaw/resume" => changes::resumed(&desk, body).await,
        _ => Err(Failed::missing("this needs a running bridge")),
    };
    answer.map_err(|Failed(refusal)| refusal)
}
