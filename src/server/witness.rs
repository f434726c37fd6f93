//! What the server saw of its agents' journals and they of its own, so that a store that went back,
//! a backup that was put back or a folder that was cloned, is noticed on both sides. It stops
//! nothing and gives nothing back.

use serde_json::{Value, json};
use storage::event::Event;
use storage::record::{EntityKey, Kind, Level};
use storage::transaction::Act;

use super::desk::Desk;
use super::model::{Agent, encode};
use crate::audit::heads;
use crate::clock::Millis;
use crate::protocol::SERVER_AGENT_ID;
use crate::protocol::payload::Register;

/// What is remembered of an agent's journal.
pub struct Seen {
    /// The end of it that the agent shows, or showed before.
    pub head: Option<String>,
    /// When it was found to have gone back, the last time.
    pub rollback_at: Option<Millis>,
}

fn text(head: Option<&Value>) -> Option<&str> {
    head.and_then(Value::as_str)
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
