//! `/tasks`: submit, look, list, cancel, answer. How a task lives is in [`crate::server::tasks`].

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use storage::event::Event;
use storage::ledger::Ledger;
use storage::record::{EntityKey, Kind, Level};
use storage::transaction::Act;

use super::pages::{in_turn, page};
use super::problem::Failure;
use super::{Parameters, wait_for};
use crate::inbox;
use crate::protocol::payload::read_submission;
use crate::protocol::{ErrorCode, Refusal, SERVER_AGENT_ID, is_identifier};
use crate::server::core::{Core, task_bell};
use crate::server::desk::{Desk, unknown_task};
use crate::server::model::{
    IDEMPOTENCY_MILLIS, Remembered, Task, TaskStatus, decode, encode, task_key,
};
use crate::server::{members, tasks, view};
use crate::trace;
use crate::transport::body::read;

/// Bytes of an idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// `POST /tasks`.
pub(super) async fn create(
    State(core): State<Arc<Core>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let parameters = Parameters::of(&uri)?;
    let body = read(body).await?;
    let offer = read_submission(&body, &core.clock.message_id())?;
    let submitted: Value = serde_json::from_slice(&body).unwrap_or_default();
    let namespace = match submitted.get("namespace").and_then(Value::as_str) {
        Some(given) if !is_identifier(given) => {
            return Err(Refusal::invalid("namespace", "an identifier").into());
        }
        Some(given) => given.to_owned(),
        None => parameters.namespace()?,
    };
    let key = idempotency_key(&headers)?;
    let traceparent = trace::of_headers(&headers).map(str::to_owned);
    let task_id = core
        .decided(move |desk| {
            let mut task = Task::new(&namespace, offer, None, desk.now());
            task.extra = members::of_offer(&body);
            task.traceparent = traceparent;
            submit(desk, task, key.as_deref(), &body)
        })
        .await?;
    let location = format!("/tasks/{task_id}");
    let answer = Json(json!({"task_id": task_id, "status": "pending"}));
    Ok((StatusCode::CREATED, [("location", location)], answer).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key =
        value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX);
    let wanted = "1 to 255 visible characters";
    key.map(|key| Some(key.to_owned())).ok_or_else(|| Refusal::invalid("Idempotency-Key", wanted))
}

/// Creates the task, unless this key did so before.
fn submit(
    desk: &mut Desk<'_, '_>,
    task: Task,
    key: Option<&str>,
    body: &Bytes,
) -> Result<String, Refusal> {
    let Some(key) = key else {
        inbox::check_room(desk.store)?;
        return tasks::create(desk, task).map(|task| task.task_id);
    };
    let digest = Sha256::digest(body).to_vec();
    let entity = EntityKey::new(Kind::Idempotency, &[&task.namespace, key]);
    let known: Option<Remembered> = desk.tx.get(&entity).and_then(|it| decode(&it.value));
    let now = desk.now();
    let known = known.filter(|known| known.at.saturating_add(IDEMPOTENCY_MILLIS) > now);
    if let Some(known) = known {
        if known.digest == digest {
            return Ok(known.task_id);
        }
        let detail = "use another idempotency key; this one stands for another body";
        return Err(Refusal::new(ErrorCode::IdempotencyMismatch, detail).at("Idempotency-Key"));
    }
    inbox::check_room(desk.store)?;
    let act = Act::new(Event::TaskCreate, SERVER_AGENT_ID, &task.namespace, &task.task_id);
    let act = trace::traced(act, task.traceparent.as_deref());
    let task = tasks::create(desk, task)?;
    let remembered = Remembered { digest, task_id: task.task_id.clone(), at: now };
    desk.tx.put(act.level(Level::Debug), entity, encode(&remembered));
    Ok(task.task_id)
}

/// `GET /tasks/{id}`.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    Path(task_id): Path<String>,
    uri: Uri,
) -> Result<Json<Box<RawValue>>, Failure> {
    let parameters = Parameters::of(&uri)?;
    let (namespace, wait) = (parameters.namespace()?, parameters.wait()?);
    find(&core, &namespace, &task_id)?;
    let bell = task_bell(&task_key(&namespace, &task_id).name);
    wait_for(&core, &bell, wait, || {
        find(&core, &namespace, &task_id).ok().filter(|task| task.status.is_terminal())
    })
    .await;
    Ok(Json(view::task(&find(&core, &namespace, &task_id)?)))
}

/// A task of the published state.
pub(super) fn find(core: &Core, namespace: &str, task_id: &str) -> Result<Task, Refusal> {
    let ledger = core.store.ledger();
    let entity = ledger.get(&task_key(namespace, task_id));
    entity.and_then(|entity| decode(&entity.value)).ok_or_else(|| unknown_task(task_id))
}

/// One page of the tasks.
#[derive(Serialize)]
pub(super) struct Page {
    tasks: Vec<Box<RawValue>>,
    next: Option<String>,
    damage: Vec<String>,
}

/// `GET /tasks`.
pub(super) async fn list(State(core): State<Arc<Core>>, uri: Uri) -> Result<Json<Page>, Failure> {
    let parameters = Parameters::of(&uri)?;
    let (namespace, limit) = (parameters.namespace()?, parameters.limit()?);
    let status = match parameters.get("status") {
        None => None,
        Some(word) => {
            let wanted = "a task status such as pending or completed";
            let status = TaskStatus::parse(word);
            Some(status.ok_or_else(|| Refusal::invalid("status", wanted))?)
        }
    };
    let task_type = parameters.get("task_type");
    let after = parameters.identifier("after")?.unwrap_or_default();
    let is_brief = parameters.flag("brief")?;
    let prefix = format!("{namespace}\0");
    let ledger = core.store.ledger();
    let after = format!("{prefix}{after}");
    let names = names(&core, &ledger, status, &after, limit);
    let here = names.take_while(|name| name.starts_with(&prefix));
    let (tasks, last) = page(here, limit, |name| {
        let key = EntityKey { kind: Kind::Task, name: Arc::clone(name) };
        let mut task = decode::<Task>(&ledger.get(&key)?.value)?;
        // It may have moved on since its name was looked up.
        let is_wanted = status.is_none_or(|status| task.status == status)
            && task_type.is_none_or(|task_type| task.task_type == task_type);
        if is_brief {
            task.shorten();
        }
        is_wanted.then(|| view::task(&task))
    });
    let next = last.and_then(|name| name.strip_prefix(&prefix).map(str::to_owned));
    Ok(Json(Page { tasks, next, damage: core.missing() }))
}

/// The names of tasks behind one, of all or of those with a status.
fn names<'a>(
    core: &'a Core,
    ledger: &'a Ledger,
    status: Option<TaskStatus>,
    after: &'a str,
    limit: usize,
) -> Box<dyn Iterator<Item = Arc<str>> + 'a> {
    match status {
        None => {
            let behind = ledger.scan_after(Kind::Task, after);
            Box::new(behind.map(|(key, _)| Arc::clone(&key.name)))
        }
        Some(status) => Box::new(in_turn(after.to_owned(), move |after| {
            core.census.with_status(status, after, limit + 1)
        })),
    }
}

/// `POST /tasks/{id}/cancel`.
pub(super) async fn cancel(
    State(core): State<Arc<Core>>,
    Path(task_id): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Json<Box<RawValue>>, Failure> {
    let namespace = Parameters::of(&uri)?.namespace()?;
    let body = object(&read(body).await?)?;
    let reason = body.get("reason").and_then(Value::as_str).map(str::to_owned);
    let task = core
        .decided(move |desk| tasks::cancel(desk, &namespace, &task_id, None, reason.as_deref()))
        .await?;
    Ok(Json(view::task(&task)))
}

/// `POST /tasks/{id}/input`.
pub(super) async fn input(
    State(core): State<Arc<Core>>,
    Path(task_id): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Json<Box<RawValue>>, Failure> {
    let namespace = Parameters::of(&uri)?.namespace()?;
    let body = object(&read(body).await?)?;
    let message = match body.get("message") {
        Some(Value::String(message)) => message.clone(),
        Some(_) => return Err(Refusal::invalid("message", "a string").into()),
        None => return Err(Refusal::missing("message").into()),
    };
    let task = core.decided(move |desk| tasks::input(desk, &namespace, &task_id, &message)).await?;
    Ok(Json(view::task(&task)))
}

/// A body that is an object, or empty.
fn object(body: &[u8]) -> Result<Value, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(json!({}));
    }
    let value = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
    value.ok_or_else(|| Refusal::new(ErrorCode::Malformed, "send one json object"))
}
