//! Ends what is kept only for a time: finished tasks, agents that are long gone, tombstones of the
//! shared state, idempotency keys, message ids. Each decision ends a bounded number.

use std::sync::Arc;

use serde_json::json;
use storage::event::Event;
use storage::record::{EntityKey, Kind, Level};
use storage::transaction::Act;

use super::census::retires_at;
use super::core::Core;
use super::desk::{Desk, millis};
use super::life::name;
use super::mail;
use super::mailboxes::Mailboxes;
use super::model;
use crate::clock::Millis;
use crate::protocol::{Refusal, SERVER_AGENT_ID};
use crate::trace::{self, traced};

/// Entities that one decision retires at the most.
const RETIRED_MAX: usize = 128;

/// An agent that still has mail is looked at again after this time.
const POSTPONED_MILLIS: Millis = 60 * 60 * 1_000;

/// Message ids are forgotten at most this often, and of at most twice this time: after a clock that
/// jumped ahead they are still known for as long as anybody may repeat a message.
pub const FORGET_INTERVAL_MILLIS: Millis = 10 * 60 * 1_000;

/// Retires what is due; says whether there may be more.
///
/// # Errors
/// When the store cannot write.
pub async fn step(core: &Arc<Core>) -> Result<bool, Refusal> {
    forget(core).await?;
    let keys = core.census.retiring(core.clock.now(), RETIRED_MAX);
    if keys.is_empty() {
        return Ok(false);
    }
    let more = keys.len() == RETIRED_MAX;
    let mailboxes = core.mailboxes.clone();
    let kept = core.decided(move |desk| Ok(retire(desk, &mailboxes, keys))).await?;
    let later = core.clock.now().saturating_add(POSTPONED_MILLIS);
    for key in kept {
        core.census.postpone(&key, later);
    }
    Ok(more)
}

/// Removes entities; gives back those that are still needed. One that was written anew since it was
/// looked up is left alone: the census has heard of it.
pub fn retire(
    desk: &mut Desk<'_, '_>,
    mailboxes: &Mailboxes,
    keys: Vec<EntityKey>,
) -> Vec<EntityKey> {
    let (now, retention) = (desk.now(), millis(desk.rules.retention));
    let mut kept = Vec::new();
    for key in keys {
        let found = desk.tx.get(&key);
        let due = found.and_then(|entity| retires_at(key.kind, &entity.value, retention));
        if due.is_none_or(|due| due > now) {
            // One that is looked at by the hour is not in the census for what it says itself.
            if key.kind == Kind::Agent {
                kept.push(key);
            }
            continue;
        }
        let trace = found.and_then(|entity| trace_of(key.kind, &entity.value));
        let parts = model::parts(&key.name);
        let [namespace, id, ..] = parts[..] else { continue };
        if key.kind == Kind::Agent {
            let has_mail = !mailboxes.is_empty(&mail::mailbox(namespace, id));
            if has_mail || desk.running(namespace, id) > 0 {
                kept.push(key);
                continue;
            }
            desk.life.forget(&name(namespace, id));
        }
        let details = json!({"kind": format!("{:?}", key.kind).to_lowercase()}).to_string();
        let act = Act::new(Event::StoreForget, SERVER_AGENT_ID, namespace, id);
        let act = traced(act.level(Level::Debug).details(details), trace.as_deref());
        desk.tx.remove(act, key);
    }
    kept
}

/// The trace of a task.
fn trace_of(kind: Kind, value: &[u8]) -> Option<String> {
    if kind == Kind::Task { trace::of_object(value) } else { None }
}

/// Forgets the ids of messages that nobody may repeat any more.
async fn forget(core: &Arc<Core>) -> Result<(), Refusal> {
    let (now, monotonic) = (core.clock.now(), core.clock.monotonic());
    if core.forgets_at.load(std::sync::atomic::Ordering::Relaxed) > monotonic {
        return Ok(());
    }
    let oldest = core
        .store
        .messages(|messages| messages.finished().next().map(|(_, finished)| finished.accepted_at));
    let Some(bound) = oldest.and_then(|oldest| {
        let past = now.checked_sub(millis(core.rules.dedup_window))?;
        (oldest < past).then(|| past.min(oldest.saturating_add(2 * FORGET_INTERVAL_MILLIS)))
    }) else {
        return Ok(());
    };
    core.decided(move |desk| {
        let details = json!({"before": crate::clock::rfc3339(bound)}).to_string();
        let act = Act::new(Event::StoreForget, SERVER_AGENT_ID, "", "message_ids");
        desk.tx.forget(act.level(Level::Debug).details(details), bound);
        Ok(())
    })
    .await?;
    let next = monotonic.saturating_add(FORGET_INTERVAL_MILLIS);
    core.forgets_at.store(next, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}
