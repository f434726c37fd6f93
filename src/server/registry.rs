//! Agents and their sessions: who registered, who is there, who can do what. It offers nothing and
//! closes no connection itself.

use serde::{Deserialize, Serialize};
use serde_json::json;
use storage::event::Event;
use storage::record::{Level, Record, id_time};
use storage::transaction::Act;

use super::desk::Desk;
use super::life::{Ending, Life, name};
use super::model::{Agent, Presence, Session, TaskStatus, encode};
use super::{matching, tasks, view, witness};
use crate::protocol::payload::{
    AgentStatus, CapabilityQuery, CapabilityResponse, Heads, Heartbeat, QueryType, Register,
    RunningTask,
};
use crate::protocol::{ErrorCode, Refusal, SERVER_AGENT_ID};

/// What a refusal names as at fault when the session of a call is not known here.
pub const SESSION_FIELD: &str = "session_id";

/// Whoever made a `register` that looks late may come again after this time.
const LATE_AGAIN_SECONDS: u64 = 1;

/// The session that this very `register` opened before: said again it opens no other one.
///
/// # Errors
/// `unavailable`, once, for one that was made before the `register` of the current session and came
/// late: a copy of it must end nobody's session. Whoever made it and still lives comes again with a
/// new one, and is let in whatever its clock says.
pub fn again(
    desk: &Desk<'_, '_>,
    namespace: &str,
    agent_id: &str,
    register: &Register,
    register_id: Option<&str>,
) -> Result<Option<Session>, Refusal> {
    let agent = desk.agent(namespace, agent_id);
    let Some(session) = agent.and_then(|agent| agent.session) else { return Ok(None) };
    let (Some(known), Some(given)) = (&session.register_id, register_id) else { return Ok(None) };
    if known == given && session.instance_id == register.instance_id {
        return Ok(Some(session));
    }
    let is_late = id_time(given).zip(id_time(known)).is_some_and(|(given, known)| given < known);
    if !is_late || desk.life.insists(&name(namespace, agent_id), &register.instance_id, given) {
        return Ok(None);
    }
    let detail = "register again under a new message id; a later register has overtaken this one";
    Err(Refusal::new(ErrorCode::Unavailable, detail).retry_after(LATE_AGAIN_SECONDS))
}

/// Opens a session. The same instance replaces its session silently; another one wins, and the
/// loser's connection is told.
///
/// # Errors
/// When a message cannot be written.
pub fn register(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    agent_id: &str,
    register: Register,
    register_id: Option<&str>,
) -> Result<Session, Refusal> {
    let now = desk.now();
    let before = desk.agent(namespace, agent_id);
    let old = before.as_ref().and_then(|agent| agent.session.as_ref());
    let is_same = old.is_none_or(|old| old.instance_id == register.instance_id);
    let seen = witness::seen(desk, namespace, agent_id, before.as_ref(), &register);
    witness::own(desk, namespace, agent_id, &register);
    let peer_head = before.as_ref().and_then(|agent| agent.peer_head.clone());
    let session = Session {
        session_id: desk.clock.message_id(),
        instance_id: register.instance_id.clone(),
        register_id: register_id.map(str::to_owned),
        opened_at: now,
        is_leaving: false,
    };
    let agent = Agent {
        agent_id: agent_id.to_owned(),
        namespace: namespace.to_owned(),
        max_concurrent_tasks: register.slots(),
        name: register.name,
        version: register.version,
        provider: register.provider,
        capabilities: register.capabilities,
        agent_types: register.agent_types,
        supported_models: register.supported_models,
        status: Presence::Online,
        registered_at: now,
        updated_at: now,
        journal_head: seen.head,
        peer_head: witness::kept(desk, peer_head, register.peer_head.as_ref()),
        rollback_at: seen.rollback_at,
        session: Some(session.clone()),
    };
    let details = Opened { session_id: session.session_id.clone(), replaces_another: !is_same };
    let details = serde_json::to_string(&details).unwrap_or_default();
    let act = Act::new(Event::Register, agent_id, namespace, agent_id);
    desk.tx.put(act.details(details), agent.key(), encode(&agent));
    let who = name(namespace, agent_id);
    desk.life.seen(&who, desk.clock.monotonic(), now);
    desk.life.renew(&who);
    match register.running {
        Some(running) => reconcile(desk, namespace, agent_id, &running)?,
        None if is_same => {}
        None => reconcile(desk, namespace, agent_id, &[])?,
    }
    Ok(session)
}

/// What the audit log says of a session that was opened.
#[derive(Serialize, Deserialize)]
struct Opened {
    session_id: String,
    replaces_another: bool,
}

/// A registration is durable: connections of earlier sessions are told that they are over.
pub fn registered(life: &Life, record: &Record) {
    let Ok(opened) = serde_json::from_str::<Opened>(&record.details) else { return };
    let who = name(&record.namespace, &record.resource);
    let ending = if opened.replaces_another { Ending::Replaced } else { Ending::Superseded };
    life.fence(&who, &opened.session_id, ending);
}

/// Takes back what the agent took and no longer runs. Its unanswered offers stay.
fn reconcile(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    agent_id: &str,
    running: &[RunningTask],
) -> Result<(), Refusal> {
    for mut task in desk.slots(namespace, agent_id) {
        let is_running = running.iter().any(|one| {
            one.task_id == task.task_id && one.attempt.is_none_or(|it| it == task.attempt)
        });
        if task.status != TaskStatus::Offered && !is_running {
            let why = "the agent came back without the task";
            tasks::take_back(desk, &mut task, SERVER_AGENT_ID, why)?;
        }
    }
    Ok(())
}

/// A heartbeat: a sign of life that is not stored, only audited when the status changes, and now
/// and then. Gives what its answer says of the two journals, which are what is kept of it.
///
/// # Errors
/// `unknown_agent` before the agent registered.
pub fn heartbeat(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    agent_id: &str,
    heartbeat: &Heartbeat,
) -> Result<Heads, Refusal> {
    let Some(mut agent) = desk.agent(namespace, agent_id) else {
        let detail = "register before the first heartbeat";
        return Err(Refusal::new(ErrorCode::UnknownAgent, detail));
    };
    let who = name(namespace, agent_id);
    if desk.life.beat(&who, heartbeat.status) {
        let details = json!({
            "status": heartbeat.status,
            "cpu_percent": heartbeat.cpu_percent,
            "memory_mb": heartbeat.memory_mb,
            "tokens": heartbeat.tokens,
        });
        let act = Act::new(Event::Heartbeat, agent_id, namespace, agent_id);
        desk.note(act.level(Level::Debug).details(details.to_string()));
    }
    let heads = witness::heard(desk, &mut agent, heartbeat);
    presence(desk, agent, Presence::Online);
    Ok(heads)
}

/// An agent gave a sign of life by whatever it sent.
///
/// Whoever never registered is not waited for.
pub fn alive(desk: &mut Desk<'_, '_>, agent: Option<Agent>) {
    let Some(agent) = agent else { return };
    let who = name(&agent.namespace, &agent.agent_id);
    desk.life.seen(&who, desk.clock.monotonic(), desk.clock.now());
    presence(desk, agent, Presence::Online);
}

/// Writes whether an agent is there, when that changed.
pub fn presence(desk: &mut Desk<'_, '_>, mut agent: Agent, status: Presence) {
    if agent.status == status {
        return;
    }
    agent.status = status;
    agent.updated_at = desk.now();
    let (event, level) = match status {
        Presence::Online => (Event::Connect, Level::Info),
        Presence::Lost => (Event::Disconnect, Level::Warning),
        Presence::Offline => (Event::Disconnect, Level::Info),
    };
    let details = json!({"status": status.as_str()});
    let act = Act::new(event, &agent.agent_id, &agent.namespace, &agent.agent_id);
    desk.tx.put(act.level(level).details(details.to_string()), agent.key(), encode(&agent));
}

/// An agent gave no sign of life for three heartbeat intervals: its tasks go back. One that had
/// said that it drains is offline, any other is lost. Says whether it has more than one decision
/// takes back.
///
/// # Errors
/// When a message cannot be written.
pub fn silent(desk: &mut Desk<'_, '_>, namespace: &str, agent_id: &str) -> Result<bool, Refusal> {
    let Some(agent) = desk.agent(namespace, agent_id) else { return Ok(false) };
    let vital = desk.life.vital(&name(namespace, agent_id));
    if vital.seen.saturating_add(desk.rules.patience()) > desk.clock.monotonic() {
        return Ok(false);
    }
    if agent.status == Presence::Online {
        let is_drained = vital.status == Some(AgentStatus::Draining) || agent.is_leaving();
        presence(desk, agent, if is_drained { Presence::Offline } else { Presence::Lost });
    }
    for mut task in desk.slots(namespace, agent_id) {
        if desk.is_laden() {
            return Ok(true);
        }
        tasks::take_back(desk, &mut task, SERVER_AGENT_ID, "its agent was lost")?;
    }
    Ok(false)
}

/// An agent closed the connection of its session in order: it is offline, and the offers that it
/// did not answer go back. What it accepted stays with it for three heartbeat intervals, in which
/// it may come back.
///
/// # Errors
/// When a message cannot be written.
pub fn goodbye(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    agent_id: &str,
    session_id: &str,
) -> Result<(), Refusal> {
    let agent = desk.agent(namespace, agent_id);
    let Some(agent) = agent.filter(|agent| agent.session_id() == Some(session_id)) else {
        return Ok(());
    };
    presence(desk, agent, Presence::Offline);
    for mut task in desk.slots(namespace, agent_id) {
        if task.status == TaskStatus::Offered {
            tasks::take_back(desk, &mut task, SERVER_AGENT_ID, "its agent went offline")?;
        }
    }
    Ok(())
}

/// An agent said that it shuts down: it gets no more offers in its session.
pub fn leaving(desk: &mut Desk<'_, '_>, namespace: &str, agent_id: &str) {
    let Some(mut agent) = desk.agent(namespace, agent_id) else { return };
    let Some(session) = agent.session.as_mut().filter(|session| !session.is_leaving) else {
        return;
    };
    session.is_leaving = true;
    let details = json!({"session_id": session.session_id, "status": "shutting_down"});
    let act = Act::new(Event::Heartbeat, agent_id, namespace, agent_id);
    desk.tx.put(act.details(details.to_string()), agent.key(), encode(&agent));
}

/// Refuses what comes from a session that is not the current one.
///
/// # Errors
/// `session_replaced` when another one came after it. `unavailable` when none did, as after a
/// backup of the store was put back: nobody took over, and the agent only has to register again.
pub fn check_session(agent: Option<&Agent>, session_id: Option<&str>) -> Result<(), Refusal> {
    let Some(given) = session_id else { return Ok(()) };
    if agent.and_then(Agent::session_id) == Some(given) {
        return Ok(());
    }
    let current = agent.and_then(Agent::session_id);
    // Ids of sessions grow with time.
    let is_later = current.is_some_and(|current| {
        id_time(current).zip(id_time(given)).is_none_or(|(current, given)| current >= given)
    });
    if !is_later {
        let detail = "register again; this session is not known here";
        return Err(Refusal::new(ErrorCode::Unavailable, detail).at(SESSION_FIELD));
    }
    let detail = "register again; another session of this agent replaced this one";
    Err(Refusal::new(ErrorCode::SessionReplaced, detail))
}

/// Answers a question about the agents of a namespace.
pub fn capabilities(agents: &[(Agent, u32)], query: &CapabilityQuery) -> CapabilityResponse {
    let can = |agent: &Agent| match query.query_type {
        QueryType::List => true,
        QueryType::SupportsTaskType => {
            query.task_type.as_deref().is_some_and(|it| matching::declares(it, agent))
        }
        QueryType::SupportsSkill => query.skill.as_ref().is_some_and(|skill| {
            agent.capabilities.contains(skill) || agent.agent_types.contains(skill)
        }),
        QueryType::SupportsModel => {
            query.model.as_ref().is_some_and(|model| agent.supported_models.contains(model))
        }
    };
    let able: Vec<&(Agent, u32)> = agents.iter().filter(|(agent, _)| can(agent)).collect();
    let mut agent_types: Vec<String> = able
        .iter()
        .flat_map(|(agent, _)| {
            let serving = match (query.query_type, query.task_type.as_deref()) {
                (QueryType::SupportsTaskType, Some(task_type)) => {
                    crate::protocol::agents::agent_types_for(task_type, &agent.agent_types)
                }
                _ => agent.agent_types.iter().map(String::as_str).collect(),
            };
            serving.into_iter().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    agent_types.sort_unstable();
    agent_types.dedup();
    let is_online = able.iter().any(|(agent, _)| agent.status == Presence::Online);
    // Whoever is away may still come back: half as sure.
    let confidence = match (able.is_empty(), is_online) {
        (true, _) => 0.0,
        (false, true) => 1.0,
        (false, false) => 0.5,
    };
    CapabilityResponse {
        supported: !able.is_empty(),
        agent_types,
        confidence: Some(confidence),
        estimated_cost: None,
        agents: Some(able.iter().map(|(agent, running)| view::able(agent, *running)).collect()),
    }
}

/// The agents of a namespace with the number of their taken slots.
pub fn staffed(desk: &Desk<'_, '_>, namespace: &str) -> Vec<(Agent, u32)> {
    let agents = desk.agents(namespace);
    agents
        .into_iter()
        .map(|agent| {
            let running = desk.running(namespace, &agent.agent_id);
            (agent, running)
        })
        .collect()
}

/// Whether messages for this agent have a mailbox.
///
/// # Errors
/// `unknown_agent`, retryable, before it registered for the first time.
pub fn check_known(desk: &Desk<'_, '_>, namespace: &str, agent_id: &str) -> Result<(), Refusal> {
    if agent_id == SERVER_AGENT_ID || desk.is_known(namespace, agent_id) {
        return Ok(());
    }
    let detail = format!("try again later; no agent {agent_id} ever registered here");
    Err(Refusal::new(ErrorCode::UnknownAgent, detail).at("to"))
}
