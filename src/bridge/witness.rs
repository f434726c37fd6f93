//! What this bridge and its server saw of each other's journals, so that a store that went back, a
//! backup that was put back or a folder that was cloned, is noticed on both sides. It stops
//! nothing.

use serde_json::{Value, json};
use storage::event::Event;
use storage::ledger::Ledger;
use storage::record::{EntityKey, Kind, Level};
use storage::store::CommitError;

use super::Shared;
use super::mail::DESTINATION;
use super::settings::Settings;
use crate::audit::heads;
use crate::audit::witness::{NAME, Rollback, Witness};
use crate::clock::rfc3339;
use crate::protocol::payload::{Heads, RegisterAck};

/// Each server is a witness of its own.
fn key(settings: &Settings) -> EntityKey {
    let server = settings.server.as_deref().unwrap_or_default();
    EntityKey::new(Kind::Meta, &[NAME, &settings.namespace, server])
}

fn remembered(ledger: &Ledger, key: &EntityKey) -> Witness {
    ledger.get(key).map(|entity| Witness::read(&entity.value)).unwrap_or_default()
}

fn text(head: Option<&Value>) -> Option<String> {
    let head = head.and_then(Value::as_str).filter(|head| head.len() <= heads::LENGTH_MAX);
    head.map(str::to_owned)
}

/// The last rollback as the status shows it.
pub fn told(ledger: &Ledger, namespace: &str) -> Option<String> {
    let prefix = format!("{NAME}\0{namespace}\0");
    let found = ledger.scan(Kind::Meta, &prefix);
    let found = found.filter_map(|(_, entity)| Witness::read(&entity.value).rollback);
    let Rollback { whose, at } = found.max_by_key(|rollback| rollback.at)?;
    Some(format!("the store of the {whose} went back, found at {}", rfc3339(at)))
}

/// Remembers the end of our journal before it is shown, so that the server never saw one that is
/// not remembered. One that nobody has acknowledged yet is shown again: so there are two at most
/// that the server can have seen last.
pub(super) async fn show(shared: &Shared) -> Result<Witness, CommitError> {
    let reader = shared.store.reader();
    let before = remembered(&shared.store.ledger(), &key(&shared.settings));
    let open = before.shown.clone().filter(|shown| before.acked.as_ref() != Some(shown));
    let shown =
        open.filter(|shown| heads::has(reader, shown)).or_else(|| Some(heads::head(reader)));
    let witness = Witness { shown, ..before };
    remember(shared, witness.clone(), None).await?;
    Ok(witness)
}

/// Compares what the server says in its answer with what is remembered, and remembers it.
pub(super) async fn judge(shared: &Shared, ack: &RegisterAck) -> Result<(), CommitError> {
    let before = remembered(&shared.store.ledger(), &key(&shared.settings));
    let (now, ours) = (text(ack.journal_head.as_ref()), text(ack.peer_head.as_ref()));
    let mut found = Vec::new();
    let went_back = before.seen.as_deref().zip(now.as_deref());
    if went_back.is_some_and(|(seen, now)| heads::is_rollback(seen, now))
        || ack.peer_head_known == Some(false)
    {
        found.push(("server", before.seen.clone(), now.clone()));
    }
    if let Some(ours) = ours.filter(|ours| !heads::has(shared.store.reader(), ours)) {
        found.push(("bridge", Some(ours), before.shown.clone()));
    }
    for (whose, before, now) in &found {
        tracing::error!(whose, "a store went back: see store.rollback in the audit log");
        let details = json!({ "whose": whose, "before": before, "now": now }).to_string();
        let act = shared.act(Event::StoreRollback, DESTINATION).level(Level::Error);
        let act = act.details(details);
        let written = shared.store.commit(move |tx| -> Result<(), std::convert::Infallible> {
            tx.note(act);
            Ok(())
        });
        written.await.map(|_| ())?;
    }
    let at = shared.clock.now();
    let rollback = found.last().map(|(whose, ..)| Rollback { whose: (*whose).to_owned(), at });
    let seen = now.or(before.seen);
    let (acked, shown) = (before.shown.clone(), before.shown);
    remember(shared, Witness { acked, shown, seen, rollback: None }, rollback).await
}

/// What a heartbeat says of the two journals: the end of ours, once a minute after traffic, and
/// that of the server's which is kept here, if `told` is another one.
pub(super) async fn beat(shared: &Shared, told: Option<&String>) -> Heads {
    // On a full disk the room is for what must be written.
    let is_due = !shared.store.is_full()
        && shared.pace.lock().is_due(shared.clock.monotonic(), shared.traffic.newest());
    let shown = if is_due { show(shared).await.ok() } else { None };
    let kept = remembered(&shared.store.ledger(), &key(&shared.settings)).seen;
    Heads {
        journal_head: shown.and_then(|witness| witness.shown).map(Into::into),
        peer_head: kept.filter(|kept| told != Some(kept)).map(Into::into),
    }
}

/// Remembers what the answer to a heartbeat says. Nobody waits for it, and it accuses nobody: no
/// store goes back under a program that runs, so what does not fit came late.
pub(super) fn confirmed(shared: &Shared, heads: &Heads) {
    if shared.store.is_full() {
        return;
    }
    let (now, ours) = (text(heads.journal_head.as_ref()), text(heads.peer_head.as_ref()));
    let key = key(&shared.settings);
    let act = shared.act(Event::StoreWitness, DESTINATION).level(Level::Debug);
    drop(shared.store.commit(move |tx| -> Result<(), std::convert::Infallible> {
        let before = remembered(tx.ledger(), &key);
        let mut witness = before.clone();
        if ours.is_some() && ours == witness.shown {
            witness.acked = ours;
        }
        let is_late =
            |now: &String| before.seen.as_ref().is_some_and(|seen| heads::is_rollback(seen, now));
        if let Some(now) = now.filter(|now| !is_late(now)) {
            witness.seen = Some(now);
        }
        if witness != before {
            tx.put(act, key, serde_json::to_vec(&witness).unwrap_or_default());
        }
        Ok(())
    }));
}

/// Writes what is remembered; a rollback that was found before stays until there is another one.
async fn remember(
    shared: &Shared,
    witness: Witness,
    rollback: Option<Rollback>,
) -> Result<(), CommitError> {
    let key = key(&shared.settings);
    let act = shared.act(Event::StoreWitness, DESTINATION).level(Level::Debug);
    let written = shared.store.commit(move |tx| -> Result<(), std::convert::Infallible> {
        let before = remembered(tx.ledger(), &key);
        let witness = Witness { rollback: rollback.or(before.rollback.clone()), ..witness };
        if witness != before {
            // It is made of strings and a number.
            tx.put(act, key, serde_json::to_vec(&witness).unwrap_or_default());
        }
        Ok(())
    });
    written.await.map(|_| ())
}
