//! The routes about the tasks of the bridge: a page of them, and one. They change nothing.

use std::str::FromStr as _;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde::{Deserialize, Serialize};

use super::problem::Failed;
use super::{Shared, query};
use crate::bridge::board::{Order, Place};
use crate::bridge::task::{self, LocalTask, TaskStatus};
use crate::inspector::answer::Answer;
use crate::inspector::selection::{self, limit};
use crate::protocol::{ErrorCode, Refusal};

/// Tasks of a page unless the caller asks for another number: as many as one may ask for.
const LIMIT_USUAL: usize = 1_000;

/// The query of a list.
#[derive(Debug, Deserialize)]
struct Asked {
    limit: Option<usize>,
    status: Option<String>,
    order: Option<String>,
    brief: Option<String>,
    after: Option<String>,
}

/// A page of the tasks.
#[derive(Serialize)]
pub struct Page {
    tasks: Vec<LocalTask>,
    next: Option<String>,
}

/// `GET /api/openclaw/tasks`
pub async fn list(State(api): Shared, uri: Uri) -> Result<Json<Answer<Page>>, Failed> {
    let asked: Asked = query(&uri)?;
    let limit = limit(asked.limit, LIMIT_USUAL)?;
    let status = asked.status.map(|word| status(&word)).transpose()?;
    let order = asked.order.map_or(Ok(Order::default()), |word| order(&word))?;
    let is_brief = asked.brief.map_or(Ok(false), |word| {
        bool::from_str(&word).map_err(|_| Refusal::invalid("brief", "true or false"))
    })?;
    let after = asked.after.map(|text| {
        Place::parse(&text).ok_or_else(|| Refusal::invalid("after", "the next of another page"))
    });
    let bridge = &api.bridge;
    let (places, more) = bridge.board().page(order, status, after.transpose()?, limit);
    let (ledger, namespace) = (bridge.store().ledger(), &bridge.settings().namespace);
    let found = places.iter().filter_map(|place| task::get(&ledger, namespace, place.task_id()));
    // It may have moved on since the place was looked up.
    let found = found.filter(|task| status.is_none_or(|status| task.status == status));
    let tasks = found.map(|task| if is_brief { task.brief() } else { task }).collect();
    let next = places.last().filter(|_| more).map(Place::to_string);
    Ok(Json(Answer::of(Page { tasks, next }, &api.journal)))
}

/// `GET /api/openclaw/tasks/{id}`
pub async fn show(
    State(api): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Answer<LocalTask>>, Failed> {
    let unknown = |detail: String| Failed(Refusal::new(ErrorCode::UnknownTask, detail));
    let Path(id) = id.map_err(|_| unknown("no task has this id".to_owned()))?;
    let namespace = &api.bridge.settings().namespace;
    let found = task::get(&api.bridge.store().ledger(), namespace, &id);
    let task = found.ok_or_else(|| unknown(format!("no task has the id {id}")))?;
    Ok(Json(Answer::of(task, &api.journal)))
}

fn status(word: &str) -> Result<TaskStatus, Refusal> {
    let words = TaskStatus::ALL.map(TaskStatus::as_str);
    let known = TaskStatus::ALL.into_iter().find(|status| status.as_str() == word);
    known.ok_or_else(|| selection::unknown_word("status", word, &words))
}

fn order(word: &str) -> Result<Order, Refusal> {
    match word {
        "written" => Ok(Order::Written),
        "recent" => Ok(Order::Recent),
        _ => Err(selection::unknown_word("order", word, &["written", "recent"])),
    }
}
