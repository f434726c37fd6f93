//! What the server saw of its agents' journals and they of its own, so that a store that went back,
//! a backup that was put back or a folder that was cloned, is noticed on both sides. It stops
//! nothing and gives nothing back.

use serde_json::{Value, json};
use storage::event::Event;
use storage::record::{EntityKey, Kind, Level};
use storage::transaction::Act;

use super::desk::Desk;
use super::life::name;
use super::model::{Agent, encode};
use crate::audit::heads::{self, Place};
use crate::clock::Millis;
use crate::protocol::SERVER_AGENT_ID;
use crate::protocol::payload::{Heads, Heartbeat, Register};

/// What is remembered of an agent's journal.
pub struct Seen {
    /// The end of it that the agent shows, or showed before.
    pub head: Option<String>,
    /// When it was found to have gone back, the last time.
    pub rollback_at: Option<Millis>,
}

fn text(head: Option<&Value>) -> Option<&str> {
    head.and_then(Value::as_str).filter(|head| head.len() <= heads::LENGTH_MAX)
}

/// What to remember of the agent's journal. It went back when it shows an earlier end than before,
/// or when its own store does not remember the end that was seen here.
pub fn seen(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    agent_id: &str,
    before: Option<&Agent>,
    register: &Register,
) -> Seen {
    let known = before.and_then(|agent| agent.journal_head.clone());
    let rollback_at = before.and_then(|agent| agent.rollback_at);
    let Some(now) = text(register.journal_head.as_ref()) else {
        return Seen { head: known, rollback_at };
    };
    let shown = register.journal_shown.as_ref().and_then(Value::as_array);
    let remembers = |known: &str| {
        shown.is_none_or(|shown| shown.iter().any(|head| head.as_str() == Some(known)))
    };
    let went_back = known.as_deref().is_some_and(|known| {
        heads::is_rollback(known, now) || (heads::is_same_journal(known, now) && !remembers(known))
    });
    if !went_back {
        return Seen { head: Some(now.to_owned()), rollback_at };
    }
    let details = json!({"whose": "agent", "before": known, "now": now, "shown": shown});
    let act = Act::new(Event::StoreRollback, agent_id, namespace, agent_id);
    desk.tx.note(act.level(Level::Error).details(details.to_string()));
    tracing::error!(agent_id, namespace, "the journal of an agent went back");
    Seen { head: Some(now.to_owned()), rollback_at: Some(desk.now()) }
}

/// Keeps what a heartbeat shows, the end of the agent's journal and the one of ours that the agent
/// keeps, and gives what the answer says: the end of the agent's that is kept here, and once a
/// minute after traffic the end of ours. It accuses nobody: no store goes back under a program that
/// runs, so what does not fit came late.
pub fn heard(desk: &mut Desk<'_, '_>, agent: &mut Agent, heartbeat: &Heartbeat) -> Heads {
    let before = (agent.journal_head.clone(), agent.peer_head.clone());
    let mut answer = Heads::default();
    // On a full disk the room is for what must be written.
    if !desk.store.is_full() {
        if let Some(now) = text(heartbeat.journal_head.as_ref()) {
            let known = agent.journal_head.as_deref();
            if !known.is_some_and(|known| heads::is_rollback(known, now)) {
                agent.journal_head = Some(now.to_owned());
            }
            answer.peer_head = agent.journal_head.clone().map(Into::into);
        }
        agent.peer_head = kept(desk, agent.peer_head.take(), heartbeat.peer_head.as_ref());
        if before != (agent.journal_head.clone(), agent.peer_head.clone()) {
            let act =
                Act::new(Event::StoreWitness, &agent.agent_id, &agent.namespace, &agent.agent_id);
            desk.tx.put(act.level(Level::Debug), agent.key(), encode(agent));
        }
    }
    let (who, now) = (name(&agent.namespace, &agent.agent_id), desk.clock.monotonic());
    if desk.life.vital(&who).pace.is_due(now, desk.traffic.newest()) {
        let head = heads::head(desk.store.reader());
        desk.life.shown(&who, now, &head);
        answer.journal_head = Some(head.into());
    }
    answer
}

/// The end of our journal that an agent keeps, as it says now, if it is one of ours.
pub fn kept(desk: &Desk<'_, '_>, before: Option<String>, now: Option<&Value>) -> Option<String> {
    let Some(now) = text(now).filter(|now| before.as_deref() != Some(*now)) else { return before };
    match heads::place(desk.store.reader(), now) {
        Place::Here => Some(now.to_owned()),
        _ => before,
    }
}

/// What the answer to a registration says: the end of the agent's journal that was seen before, and
/// whether the journal here has the end that the agent saw.
pub fn answer(
    desk: &Desk<'_, '_>,
    namespace: &str,
    agent_id: &str,
    register: &Register,
) -> (Option<String>, Option<bool>) {
    let known = desk.agent(namespace, agent_id).and_then(|agent| agent.journal_head);
    let ours = text(register.peer_head.as_ref());
    (known, ours.map(|ours| heads::has(desk.store.reader(), ours)))
}

/// Tells of our own journal going back: an agent saw an end of it that it does not have.
pub fn own(desk: &mut Desk<'_, '_>, namespace: &str, agent_id: &str, register: &Register) {
    let Some(seen) = text(register.peer_head.as_ref()) else { return };
    if heads::has(desk.store.reader(), seen) {
        return;
    }
    let now = heads::head(desk.store.reader());
    let details = json!({"whose": "server", "before": seen, "now": now, "told_by": agent_id});
    let act = Act::new(Event::StoreRollback, SERVER_AGENT_ID, namespace, SERVER_AGENT_ID);
    let act = act.level(Level::Error).details(details.to_string());
    desk.tx.put(act, key(), encode(&desk.now()));
    tracing::error!(agent_id, "our own journal went back: an agent saw a later end of it");
}

fn key() -> EntityKey {
    EntityKey::new(Kind::Meta, &["rollback"])
}

/// When our own journal was found to have gone back, the last time.
pub fn own_at(ledger: &storage::ledger::Ledger) -> Option<Millis> {
    ledger.get(&key()).and_then(|entity| super::model::decode(&entity.value))
}
