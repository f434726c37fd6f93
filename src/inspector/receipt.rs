//! What the server said later on of a message that it took: that it could not be delivered to its
//! recipient. The status stays `delivered`, because the next hop has it; the receipt stands beside.

use serde::{Deserialize, Serialize};
use storage::event::Event;
use storage::inspect;
use storage::journal::Reader;
use storage::ledger::Ledger;
use storage::record::{EntityKey, Kind, Level};
use storage::transaction::{Act, Transaction};

use crate::clock::{Millis, rfc3339};
use crate::protocol::Envelope;
use crate::protocol::payload::Nack;
use crate::trace::traced;

/// Receipts that are kept: each was a message that somebody has to look at.
const RECEIPTS_MAX: usize = 10_000;

/// What the names of receipts begin with.
const NAME: &str = "receipt";

/// What became of a message after the server took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The error code, such as `undeliverable`.
    pub code: String,
    /// Why, for people.
    pub detail: Option<String>,
    /// When it was told.
    pub at: String,
}

/// Finds the receipt of a message by namespace and id.
pub type Receipts<'a> = dyn Fn(&str, &str) -> Option<Receipt> + 'a;

impl Receipt {
    fn of(nack: &Nack, at: Millis) -> Self {
        let (code, detail) = (nack.error.code.clone(), nack.error.message.clone());
        Self { code, detail, at: rfc3339(at) }
    }
}

/// The messages that a nack with an id of its own speaks of.
fn named(envelope: &Envelope, nack: &Nack) -> Vec<String> {
    let ids: Vec<String> = nack.ids().map(str::to_owned).collect();
    if ids.is_empty() {
        envelope.correlation_id().map(str::to_owned).into_iter().collect()
    } else {
        ids
    }
}

/// Records what a nack says of messages that were delivered.
pub fn record(tx: &mut Transaction<'_>, actor: &str, envelope: &Envelope, nack: &Nack) {
    let namespace = envelope.namespace();
    for id in named(envelope, nack) {
        let receipt = Receipt::of(nack, tx.now());
        let details = serde_json::json!({ "receipt": receipt.code }).to_string();
        let act = Act::new(Event::MessageFailed, actor, namespace, &id).level(Level::Warning);
        // It is made of strings.
        let value = serde_json::to_vec(&receipt).unwrap_or_default();
        let act = traced(act.details(details), envelope.traceparent());
        tx.put(act, key(namespace, &id), value);
    }
    let prefix = format!("{NAME}\0");
    let kept: Vec<EntityKey> =
        tx.ledger().scan(Kind::Meta, &prefix).map(|(key, _)| key.clone()).collect();
    // Ids of ours begin with their time, so that the first is the oldest.
    for oldest in kept.iter().take(kept.len().saturating_sub(RECEIPTS_MAX)) {
        tx.remove(Act::new(Event::MessagePruned, actor, namespace, &oldest.name), oldest.clone());
    }
}

fn key(namespace: &str, message_id: &str) -> EntityKey {
    EntityKey::new(Kind::Meta, &[NAME, namespace, message_id])
}

/// The receipt of one message, from the journal alone.
pub fn of_journal(journal: &Reader, namespace: &str, id: &str) -> Option<Receipt> {
    let key = key(namespace, id);
    // It is recorded and imported about the message, and removed about itself.
    let value = inspect::entity(journal, &key, &[id, &key.name])?;
    serde_json::from_slice(&value).ok()
}

/// The receipts that a store knows.
pub fn of_ledger(ledger: Ledger) -> Box<Receipts<'static>> {
    Box::new(move |namespace, id| {
        let entity = ledger.get(&key(namespace, id))?;
        serde_json::from_slice(&entity.value).ok()
    })
}
