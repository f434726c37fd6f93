//! The same changes without a bridge: messages to send, and to send again, are put into the store
//! of a stopped one, which its next start delivers. It opens nothing: the store's lock is the
//! caller's affair.

use serde_json::Value;
use storage::database::Database;

use super::messages::{self, Desk};
use super::problem::Failed;
use crate::bridge::history::Stored;
use crate::clock::Clock;
use crate::outbox::again::DEDUP_WINDOW;
use crate::protocol::Refusal;

/// What a bridge of this id and namespace would answer to a `POST` of this path and body.
///
/// # Errors
/// When the body is wrong, there is nothing to do this to, or it is not known to be durable.
pub async fn answer(
    database: &Database,
    (agent_id, namespace): (&str, &str),
    clock: &Clock,
    (path, body): (&str, &[u8]),
) -> Result<Value, Refusal> {
    let history = Stored {
        store: database.store().clone(),
        view: database.view().clone(),
        journal: database.reader().clone(),
    };
    let store = database.store();
    let dedup_window = DEDUP_WINDOW;
    let desk = Desk { agent_id, namespace, store, history: &history, clock, dedup_window };
    let answer = match path {
        "/api/openclaw/send" => messages::sent(&desk, body).await,
        "/api/openclaw/retry" => messages::retried(&desk, body).await,
        _ => Err(Failed::missing("this needs a running bridge")),
    };
    answer.map_err(|Failed(refusal)| refusal)
}
