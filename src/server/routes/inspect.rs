//! `/api/openclaw/messages`, `causes`, `retry` and `prune`: what lies in the mailboxes and what
//! came in, asked for and decided about in the words of a bridge. What they mean is in
//! [`crate::inspector`].

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::problem::Failure;
use crate::inspector::answer::Answer;
use crate::inspector::bulk::Place;
use crate::inspector::causes::{self, Causes};
use crate::inspector::changes;
use crate::inspector::explain::{Explanation, Link};
use crate::inspector::history::{Detail, History as _, Page, Stored};
use crate::inspector::look::{self, Way};
use crate::inspector::selection::Asked;
use crate::outbox::again::By;
use crate::outbox::pause::Pauses;
use crate::protocol::{ErrorCode, Refusal, SERVER_AGENT_ID};
use crate::server::core::Core;
use crate::server::mail;
use crate::transport::body::read;

type Answered<T> = Result<Json<Answer<T>>, Failure>;

/// `GET /api/openclaw/messages`.
pub(super) async fn list(State(core): State<Arc<Core>>, uri: Uri) -> Answered<Page> {
    let filter = query::<Asked>(&uri)?.filter()?;
    aside(&core, move |stored| stored.list(&filter).map_err(unavailable)).await
}

/// `GET /api/openclaw/causes`.
pub(super) async fn grouped(State(core): State<Arc<Core>>, uri: Uri) -> Answered<Causes> {
    let (filter, newest) = query::<Asked>(&uri)?.causes()?;
    aside(&core, move |stored| causes::of(stored, &filter, newest).map_err(unavailable)).await
}

/// `GET /api/openclaw/messages/{id}`.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
) -> Answered<Detail> {
    aside(&core, move |stored| look::detail(stored, &id)).await
}

/// `GET /api/openclaw/messages/{id}/explain`.
pub(super) async fn explain(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
) -> Answered<Explanation> {
    let now = core.clock.now();
    aside(&core, move |stored| {
        look::explained(stored, &stored.journal, &id, |row| Way {
            link: Link::Mailbox,
            circuit: None,
            pauses: Pauses::of(&stored.store.ledger(), &row.destination),
            head: stored.store.messages(|messages| messages.lane_head(row.entry)),
            now,
        })
    })
    .await
}

/// `POST /api/openclaw/retry`.
pub(super) async fn retry(
    State(core): State<Arc<Core>>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let by = By {
        actor: SERVER_AGENT_ID.to_owned(),
        clock: core.clock.clone(),
        window: core.rules.dedup_window,
        max_age: core.rules.max_age,
    };
    Ok(Json(changes::retried(&place(&core)?, by, &read(body).await?).await?))
}

/// `POST /api/openclaw/prune`.
pub(super) async fn prune(
    State(core): State<Arc<Core>>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    Ok(Json(changes::pruned(&place(&core)?, &read(body).await?).await?))
}

/// What a query asks for.
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    let read = Query::try_from_uri(uri).map(|Query(asked)| asked);
    read.map_err(|error| Refusal::new(ErrorCode::Malformed, error.body_text()))
}

/// The messages, if this server keeps files.
fn stored(core: &Core) -> Result<Stored, Refusal> {
    let disk = core.disk.as_ref().ok_or_else(|| unavailable("this server keeps no files"))?;
    let (view, journal) = (disk.view().clone(), disk.journal().clone());
    Ok(Stored { store: core.store.clone(), view, journal })
}

fn place(core: &Core) -> Result<Place, Refusal> {
    let stored = stored(core)?;
    let (store, journal) = (stored.store.clone(), stored.journal.clone());
    let given_up = Some(mail::returns(&store, &core.clock));
    Ok(Place { store, history: Arc::new(stored), journal, given_up })
}

/// Looks something up where it holds up nobody. What that finds damaged is in the answer.
async fn aside<T: Send + 'static>(
    core: &Core,
    look: impl FnOnce(&Stored) -> Result<T, Refusal> + Send + 'static,
) -> Answered<T> {
    let stored = stored(core)?;
    let looked =
        spawn_blocking(move || look(&stored).map(|found| Json(Answer::of(found, &stored.journal))));
    Ok(looked.await.map_err(unavailable)??)
}

fn unavailable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, error.to_string())
}
