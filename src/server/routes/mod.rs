//! The HTTP interface: one file a resource. Each handler reads its request, runs one decision or
//! looks at a snapshot, and writes the answer; the rules are elsewhere.

mod about;
mod agents;
mod audit;
mod health;
mod holds;
mod inspect;
mod messages;
mod pages;
mod problem;
mod socket;
mod state;
mod task_events;
mod tasks;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request};
use axum::http::header::HOST;
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::core::Core;
use crate::dashboard::{self, Dashboard, browser};
use crate::protocol::{DEFAULT_NAMESPACE, ErrorCode, Refusal, is_identifier};
use problem::Failure;

/// Elements of a list when the caller does not say how many.
const LIMIT_DEFAULT: usize = 100;

/// Elements of a list at the most.
const LIMIT_MAX: usize = 1_000;

/// How long a request may wait for something to happen.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// Every route of the server. On a loopback address, `is_local`, it answers to no foreign name.
pub fn router(core: Arc<Core>, page: Arc<Dashboard>, is_local: bool) -> Router {
    let hosts: Arc<[String]> = core.rules.hosts.as_slice().into();
    Router::new()
        .route("/tasks", post(tasks::create).get(tasks::list))
        .route("/tasks/{id}", get(tasks::show))
        .route("/tasks/{id}/cancel", post(tasks::cancel))
        .route("/tasks/{id}/input", post(tasks::input))
        .route("/tasks/{id}/events", get(task_events::stream))
        .route("/agents", get(agents::list))
        .route("/agents/{id}", get(agents::show))
        .route("/agents/{id}/pause", post(holds::pause))
        .route("/agents/{id}/resume", post(holds::resume))
        .route("/capabilities", get(agents::capabilities))
        .route("/state/{namespace}", get(state::list))
        .route("/state/{namespace}/{*key}", get(state::show).put(state::put).delete(state::remove))
        .route("/messages", post(messages::send).get(messages::fetch))
        .route("/messages/ack", post(messages::acknowledge))
        .route("/api/openclaw/messages", get(inspect::list))
        .route("/api/openclaw/messages/{id}", get(inspect::show))
        .route("/api/openclaw/messages/{id}/explain", get(inspect::explain))
        .route("/api/openclaw/causes", get(inspect::grouped))
        .route("/api/openclaw/retry", post(inspect::retry))
        .route("/api/openclaw/prune", post(inspect::prune))
        .route("/api/audit", get(audit::list))
        .route("/api/audit/summary", get(audit::counts))
        .route("/health", get(health::show))
        .route("/metrics", get(about::metrics))
        .route("/openapi.json", get(about::openapi))
        .route("/ws", get(socket::upgrade))
        .merge(dashboard::router(page))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(move |request, next| guard(Arc::clone(&hosts), is_local, request, next)))
        .with_state(core)
}

/// A page of another address changes nothing, whatever the browser that shows it can reach, nor
/// does one whose name somebody made this address. On a loopback address it reads nothing either.
async fn guard(hosts: Arc<[String]>, is_local: bool, request: Request, next: Next) -> Response {
    let (method, headers) = (request.method(), request.headers());
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    let is_strange =
        host.is_some_and(|host| !browser::is_loopback(host) && !browser::is_one_of(host, &hosts));
    let detail = if browser::is_foreign(method, headers) {
        "only the page of this address may change something from a browser"
    } else if is_local && is_strange || browser::is_rebound(method, headers, &hosts) {
        "call the server by its address, or add the name of it to the setting `hosts`"
    } else {
        return next.run(request).await;
    };
    Failure::from(Refusal::new(ErrorCode::Forbidden, detail)).into_response()
}

async fn unknown_route(uri: Uri) -> Failure {
    Failure::not_found(format!("check the path; there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    Failure::other(405, "method_not_allowed", format!("{} does not take {method}", uri.path()))
}

/// The parameters of a query.
struct Parameters(HashMap<String, String>);

impl Parameters {
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        Query::try_from_uri(uri)
            .map(|Query(parameters)| Self(parameters))
            .map_err(|_| Refusal::new(ErrorCode::Malformed, "send a query that can be decoded"))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn identifier(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let found = self.get(name);
        if found.is_some_and(|text| !is_identifier(text)) {
            return Err(Refusal::invalid(name, "1 to 128 of the characters A-Z a-z 0-9 . _ : -"));
        }
        Ok(found)
    }

    fn namespace(&self) -> Result<String, Refusal> {
        Ok(self.identifier("namespace")?.unwrap_or(DEFAULT_NAMESPACE).to_owned())
    }

    fn limit(&self) -> Result<usize, Refusal> {
        self.limit_or(LIMIT_DEFAULT)
    }

    fn limit_or(&self, usual: usize) -> Result<usize, Refusal> {
        let Some(text) = self.get("limit") else { return Ok(usual) };
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| Refusal::invalid("limit", "a whole number from 1 to 1000"))
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        let Some(text) = self.get(name) else { return Ok(false) };
        text.parse().map_err(|_| Refusal::invalid(name, "true or false"))
    }

    fn wait(&self) -> Result<Duration, Refusal> {
        let Some(text) = self.get("wait") else { return Ok(Duration::ZERO) };
        let seconds = text.parse().ok().filter(|seconds: &f64| *seconds >= 0.0);
        let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let wait = wait.ok_or_else(|| Refusal::invalid("wait", "a number of seconds"))?;
        Ok(wait.min(WAIT_MAX))
    }
}

/// Looks until there is something or the time is over, woken by a bell; the last look decides.
async fn wait_for<T>(
    core: &Core,
    bell: &str,
    wait: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let bell = core.bells.bell(bell);
    let mut stopping = core.stopping.clone();
    let deadline = tokio::time::sleep(wait);
    tokio::pin!(deadline);
    loop {
        let rung = bell.notified();
        if let Some(found) = look() {
            return Some(found);
        }
        tokio::select! {
            () = rung => {}
            () = &mut deadline => return look(),
            _ = stopping.wait_for(|stop| *stop) => return look(),
        }
    }
}
