//! `/state`: the shared state of a namespace. Which write wins is in [`crate::server::shared`].

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use storage::record::Kind;

use super::Parameters;
use super::problem::Failure;
use crate::inbox;
use crate::protocol::{ErrorCode, Refusal, SERVER_AGENT_ID, is_identifier};
use crate::server::core::Core;
use crate::server::model::decode;
use crate::server::shared::{self, Cell, Write};
use crate::trace;
use crate::transport::body::read;

/// `GET /state/{namespace}`.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Path(namespace): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, Failure> {
    check_namespace(&namespace)?;
    let parameters = Parameters::of(&uri)?;
    let limit = parameters.limit()?;
    let prefix = format!("{namespace}\0");
    let first = format!("{prefix}{}", parameters.get("after").unwrap_or_default());
    let wanted = parameters.get("prefix").unwrap_or_default();
    let ledger = core.store.ledger();
    let mut cells: Vec<Cell> = ledger
        .scan_after(Kind::State, &first)
        .take_while(|(key, _)| key.name.starts_with(&prefix))
        .filter_map(|(_, entity)| decode(&entity.value))
        .filter(|cell: &Cell| !cell.deleted && cell.key.starts_with(wanted))
        .take(limit + 1)
        .collect();
    let more = cells.len() > limit;
    cells.truncate(limit);
    let next = cells.last().filter(|_| more).map(|cell| cell.key.clone());
    let entries: Vec<Value> = cells.iter().map(Cell::view).collect();
    Ok(Json(json!({"namespace": namespace, "entries": entries, "next": next})))
}

/// `GET /state/{namespace}/{key}`.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    Path((namespace, key)): Path<(String, String)>,
) -> Result<Response, Failure> {
    check_namespace(&namespace)?;
    let ledger = core.store.ledger();
    let entity = ledger.get(&shared::cell_key(&namespace, &key));
    let cell: Option<Cell> = entity.and_then(|entity| decode(&entity.value));
    match cell.filter(|cell| !cell.deleted) {
        Some(cell) => Ok(answer(&cell)),
        None => Err(Failure::not_found(format!("check the key; there is no {key}"))),
    }
}

/// `PUT /state/{namespace}/{key}`: the body is the value.
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Path((namespace, key)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, Failure> {
    let body = read(body).await?;
    let value = serde_json::from_slice(&body)
        .map_err(|_| Refusal::new(ErrorCode::Malformed, "send the value as json"))?;
    write(&core, namespace, key, &headers, &uri, Some(value)).await
}

/// `DELETE /state/{namespace}/{key}`.
pub(super) async fn remove(
    State(core): State<Arc<Core>>,
    Path((namespace, key)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    write(&core, namespace, key, &headers, &uri, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn write(
    core: &Arc<Core>,
    namespace: String,
    key: String,
    headers: &HeaderMap,
    uri: &Uri,
    value: Option<Value>,
) -> Result<Response, Failure> {
    check_namespace(&namespace)?;
    shared::check_key(&key)?;
    let parameters = Parameters::of(uri)?;
    let by = parameters.identifier("agent_id")?.unwrap_or(SERVER_AGENT_ID).to_owned();
    let version = if_match(headers)?;
    let trace = trace::of_headers(headers).map(str::to_owned);
    let cell = core
        .decided(move |desk| {
            if value.is_some() {
                inbox::check_room(desk.store)?;
            }
            let at = desk.now();
            let is_guarded = version.is_some();
            let by_whom = by.clone();
            let write = Write { key, value, version, is_guarded, by: by_whom, at, trace };
            let cell = shared::write(desk, &namespace, &write)?;
            let why = (by.as_str(), write.trace.as_deref());
            shared::push(desk, &namespace, why, cell.as_slice())?;
            Ok(cell)
        })
        .await?;
    if let Some(cell) = cell {
        return Ok(answer(&cell));
    }
    let detail = "read the key again; a later write is there already";
    Err(Refusal::new(ErrorCode::StateConflict, detail).into())
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get("if-match") else { return Ok(None) };
    let version = value.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
    let wanted = "the version of the key as its ETag gives it";
    version.map(Some).ok_or_else(|| Refusal::invalid("If-Match", wanted))
}

fn check_namespace(namespace: &str) -> Result<(), Refusal> {
    if is_identifier(namespace) {
        return Ok(());
    }
    Err(Refusal::invalid("namespace", "1 to 128 of the characters A-Z a-z 0-9 . _ : -"))
}

fn answer(cell: &Cell) -> Response {
    let mut response = Json(cell.view()).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", cell.version)) {
        response.headers_mut().insert("etag", tag);
    }
    response
}
