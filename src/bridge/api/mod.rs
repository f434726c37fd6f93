//! The bridge's REST API, section 7 of the protocol: one file a group of routes. It decides
//! nothing: every call is one on the bridge, its history or its store.

mod audit;
mod changes;
mod explain;
mod guard;
mod link;
mod messages;
pub mod past;
mod problem;
pub mod stopped;
mod store;
mod tasks;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use storage::database::Upkeep;
use storage::journal::Reader;
use storage::view::View;
use tokio::net::TcpListener;

use super::overview::Overview;
use super::{Bridge, meter};
use crate::config::Secret;
use crate::dashboard::{self, Dashboard};
use crate::inspector::history::History;
use crate::inspector::rot;
use crate::metrics::Exporter;
use crate::protocol::{ErrorCode, Refusal};
use crate::shutdown::Shutdown;

use problem::Failed;

/// The interface as `OpenAPI` 3.1. A test holds it against the router.
const OPENAPI: &str = include_str!("openapi.json");

/// What the routes work on.
pub struct Api {
    /// The bridge.
    pub bridge: Bridge,
    /// Its messages.
    pub history: Arc<dyn History>,
    /// How far its rows are behind.
    pub view: View,
    /// Its journal, for the audit log.
    pub journal: Reader,
    /// What is done in its store beside the messages.
    pub upkeep: Upkeep,
    /// Its metrics.
    pub exporter: Exporter,
    /// What every call has to carry; none on a loopback address.
    pub token: Option<Secret>,
}

type Shared = State<Arc<Api>>;

/// Answers on `listener` until the shutdown stops.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, api: Api, shutdown: Shutdown) -> io::Result<()> {
    let subject = Overview {
        bridge: api.bridge.clone(),
        view: api.view.clone(),
        journal: api.journal.clone(),
        started_at: api.bridge.clock().now(),
        seen: parking_lot::Mutex::default(),
    };
    let (store, clock) = (api.bridge.store().clone(), api.bridge.clock().clone());
    let watched = rot::watch(store.clone(), api.journal.clone());
    let dashboard = Dashboard::new(store, Box::new(subject));
    let router = router(Arc::new(api), Arc::clone(&dashboard));
    let stopped = shutdown.clone();
    let stopped = async move { stopped.stopping().await };
    let served = axum::serve(listener, router).with_graceful_shutdown(stopped);
    let mut served = std::pin::pin!(served.into_future());
    tokio::select! {
        served = &mut served => return served,
        () = dashboard.run(clock, shutdown.stopping()) => {}
        () = watched => {}
    }
    served.await
}

fn router(api: Arc<Api>, dashboard: Arc<Dashboard>) -> Router {
    Router::new()
        .route("/api/openclaw/status", get(link::status))
        .route("/api/openclaw/health", get(link::health))
        .route("/api/openclaw/capabilities", get(link::capabilities))
        .route("/api/openclaw/disconnect", post(link::disconnect))
        .route("/api/openclaw/reconnect", post(link::reconnect))
        .route("/api/openclaw/tasks", get(tasks::list))
        .route("/api/openclaw/tasks/{id}", get(tasks::show))
        .route("/api/openclaw/stop", post(link::stop))
        .route("/api/openclaw/send", post(messages::send))
        .route("/api/openclaw/messages", get(messages::list))
        .route("/api/openclaw/messages/{id}", get(messages::show))
        .route("/api/openclaw/messages/{id}/explain", get(explain::show))
        .route("/api/openclaw/causes", get(messages::grouped))
        .route("/api/openclaw/retry", post(changes::retry))
        .route("/api/openclaw/prune", post(changes::prune))
        .route("/api/openclaw/store", get(store::info))
        .route("/api/openclaw/compact", post(store::compact))
        .route("/api/openclaw/pause", post(changes::pause))
        .route("/api/openclaw/resume", post(changes::resume))
        .route("/api/audit", get(audit::list))
        .route("/api/audit/summary", get(audit::counts))
        .route("/metrics", get(exported))
        .route("/openapi.json", get(openapi))
        .route(guard::SIGN_IN, post(guard::sign_in))
        .merge(dashboard::router(dashboard))
        .fallback(async || Failed::missing("check the path; there is no such page here"))
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&api), guard::guard))
        .with_state(api)
}

async fn wrong_method(method: Method, uri: Uri) -> Failed {
    let detail = format!("{} does not take {method}", uri.path());
    Failed(Refusal::new(ErrorCode::MethodNotAllowed, detail))
}

/// What a query asks for.
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    let read = Query::try_from_uri(uri).map(|Query(asked)| asked);
    read.map_err(|error| Refusal::new(ErrorCode::Malformed, error.body_text()))
}

async fn exported(State(api): Shared, headers: HeaderMap) -> Response {
    meter::measure(&api.bridge, &api.view, &api.journal);
    api.exporter.answer(&headers)
}

async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_openapi_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("json");
        let paths = document["paths"].as_object().expect("paths");
        let documented: BTreeSet<(&str, &str)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods");
                methods.keys().map(move |method| (path.as_str(), method.as_str()))
            })
            .collect();
        let router = include_str!("mod.rs").split("#[cfg(test)]").next().expect("the router");
        let served: BTreeSet<(&str, &str)> = router
            .split(".route(\"")
            .skip(1)
            .filter_map(|rest| {
                let (path, rest) = rest.split_once("\", ")?;
                Some((path, rest.split_once('(')?.0))
            })
            .collect();
        assert_eq!(documented, served);
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for name in OPENAPI.split("#/components/schemas/").skip(1) {
            let name = name.split('"').next().expect("a name");
            assert!(schemas.contains_key(name), "{name} is named and not there");
        }
    }
}
