//! `/agents` and `/capabilities`: who is there and who can do what.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde_json::{Value, json};
use storage::record::Kind;

use super::Parameters;
use super::problem::Failure;
use crate::protocol::payload::{CapabilityQuery, CapabilityResponse, QueryType};
use crate::protocol::{ErrorCode, Refusal};
use crate::server::core::Core;
use crate::server::model::{Agent, agent_key, decode, slot_prefix};
use crate::server::{registry, view};

/// `GET /agents`. Without a namespace: those of all.
pub(super) async fn list(State(core): State<Arc<Core>>, uri: Uri) -> Result<Json<Value>, Failure> {
    let parameters = Parameters::of(&uri)?;
    let prefix = match parameters.identifier("namespace")? {
        Some(namespace) => format!("{namespace}\0"),
        None => String::new(),
    };
    let ledger = core.store.ledger();
    let agents: Vec<Value> = ledger
        .scan(Kind::Agent, &prefix)
        .filter_map(|(_, entity)| decode::<Agent>(&entity.value))
        .map(|agent| view::agent(&agent, &ledger, &core.life))
        .collect();
    Ok(Json(json!({"agents": agents})))
}

/// `GET /agents/{id}`.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    Path(agent_id): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, Failure> {
    let namespace = Parameters::of(&uri)?.namespace()?;
    let ledger = core.store.ledger();
    let entity = ledger.get(&agent_key(&namespace, &agent_id));
    let agent: Option<Agent> = entity.and_then(|entity| decode(&entity.value));
    let Some(agent) = agent else {
        let detail = format!("check the agent id; no agent {agent_id} ever registered here");
        return Err(Refusal::new(ErrorCode::UnknownAgent, detail).into());
    };
    Ok(Json(view::agent(&agent, &ledger, &core.life)))
}

/// `GET /capabilities`.
pub(super) async fn capabilities(
    State(core): State<Arc<Core>>,
    uri: Uri,
) -> Result<Json<CapabilityResponse>, Failure> {
    let parameters = Parameters::of(&uri)?;
    let namespace = parameters.namespace()?;
    let given = |name: &str| parameters.get(name).map(str::to_owned);
    let (task_type, skill, model) = (given("task_type"), given("skill"), given("model"));
    let query_type = match (&task_type, &skill, &model) {
        (Some(_), ..) => QueryType::SupportsTaskType,
        (None, Some(_), _) => QueryType::SupportsSkill,
        (None, None, Some(_)) => QueryType::SupportsModel,
        (None, None, None) => QueryType::List,
    };
    let query = CapabilityQuery { query_type, task_type, skill, model };
    let ledger = core.store.ledger();
    let prefix = format!("{namespace}\0");
    let agents: Vec<(Agent, u32)> = ledger
        .scan(Kind::Agent, &prefix)
        .filter_map(|(_, entity)| decode::<Agent>(&entity.value))
        .map(|agent| {
            let slots = slot_prefix(&namespace, &agent.agent_id);
            let running = ledger.scan(Kind::Lease, &slots).count();
            (agent, u32::try_from(running).unwrap_or(u32::MAX))
        })
        .collect();
    Ok(Json(registry::capabilities(&agents, &query)))
}
