//! `/agents` and `/capabilities`: who is there and who can do what.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde::Serialize;
use serde_json::Value;
use storage::record::{EntityKey, Kind};

use super::pages::{in_turn, page};
use super::problem::Failure;
use super::{LIMIT_MAX, Parameters};
use crate::protocol::payload::{CapabilityQuery, CapabilityResponse, QueryType};
use crate::protocol::{ErrorCode, Refusal, is_identifier};
use crate::server::core::Core;
use crate::server::model::{Agent, Presence, agent_key, decode, slot_prefix};
use crate::server::{registry, view};

/// One page of the agents.
#[derive(Serialize)]
pub(super) struct Page {
    agents: Vec<Value>,
    next: Option<String>,
    damage: Vec<String>,
}

/// `GET /agents`. Without a namespace: those of all.
pub(super) async fn list(State(core): State<Arc<Core>>, uri: Uri) -> Result<Json<Page>, Failure> {
    let parameters = Parameters::of(&uri)?;
    // The protocol knows no pages of them: who asks for none has all that one may have.
    let limit = parameters.limit_or(LIMIT_MAX)?;
    let namespace = parameters.identifier("namespace")?;
    let prefix = namespace.map_or_else(String::new, |namespace| format!("{namespace}\0"));
    let status = parameters.get("status").map(presence).transpose()?;
    let text = parameters.get("text");
    let after = match parameters.get("after") {
        Some(text) => place(text, &prefix)?,
        None => prefix.clone(),
    };
    let ledger = core.store.ledger();
    let names: Box<dyn Iterator<Item = Arc<str>>> = match status {
        None => {
            let behind = ledger.scan_after(Kind::Agent, &after);
            Box::new(behind.map(|(key, _)| Arc::clone(&key.name)))
        }
        Some(status) => {
            let census = core.census.clone();
            Box::new(in_turn(after, move |after| census.with_presence(status, after, limit + 1)))
        }
    };
    let here = names.take_while(|name| name.starts_with(&prefix));
    let (agents, last) = page(here, limit, |name| {
        let key = EntityKey { kind: Kind::Agent, name: Arc::clone(name) };
        let agent = decode::<Agent>(&ledger.get(&key)?.value)?;
        // It may have come or gone since its name was looked up.
        let is_wanted = status.is_none_or(|status| agent.status == status)
            && text.is_none_or(|text| has(&agent, text));
        is_wanted.then(|| view::agent(&agent, &ledger, &core.life))
    });
    let next = last.map(|name| name.replacen('\0', "/", 1));
    Ok(Json(Page { agents, next, damage: core.missing() }))
}

/// Whether a text is in the id, the name or a type of an agent.
fn has(agent: &Agent, text: &str) -> bool {
    let mut texts = [Some(&agent.agent_id), agent.name.as_ref()].into_iter().flatten();
    texts.any(|one| one.contains(text)) || agent.agent_types.iter().any(|one| one.contains(text))
}

fn presence(word: &str) -> Result<Presence, Refusal> {
    let all = [Presence::Online, Presence::Lost, Presence::Offline];
    let known = all.into_iter().find(|presence| presence.as_str() == word);
    known.ok_or_else(|| Refusal::invalid("status", "online, lost or offline"))
}

/// The name of the agent with which a page ended.
fn place(text: &str, prefix: &str) -> Result<String, Refusal> {
    let parts = text.split_once('/');
    let parts = parts.filter(|(namespace, id)| is_identifier(namespace) && is_identifier(id));
    let name = parts.map(|(namespace, id)| agent_key(namespace, id).name.to_string());
    let name = name.filter(|name| name.starts_with(prefix));
    name.ok_or_else(|| Refusal::invalid("after", "the next of another page of this list"))
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
