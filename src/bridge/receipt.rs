//! What the server said later on of a message that it took: that it could not be delivered to its
//! recipient. The status stays `delivered`, because the next hop has it; the receipt stands beside.

use serde::{Deserialize, Serialize};
use storage::event::Event;
use storage::inspect::Inspect;
use storage::ledger::Ledger;
use storage::record::{Direction, EntityKey, Kind, Level};
use storage::store::read_body;
use storage::transaction::{Act, Transaction};
use storage::view::Filter;

use crate::clock::{Millis, rfc3339};
use crate::protocol::payload::Nack;
use crate::protocol::{Envelope, MessageType, RELAYED_BYTES_MAX, parse_one_within};

/// Receipts that are kept: each was a message that somebody has to look at.
const RECEIPTS_MAX: usize = 10_000;

/// Messages that are looked through for receipts in a journal at a time.
const PAGE: usize = 1_000;

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
pub(super) fn record(tx: &mut Transaction<'_>, actor: &str, envelope: &Envelope, nack: &Nack) {
    let namespace = envelope.namespace();
    for id in named(envelope, nack) {
        let receipt = Receipt::of(nack, tx.now());
        let details = serde_json::json!({ "receipt": receipt.code }).to_string();
        let act = Act::new(Event::MessageFailed, actor, namespace, &id).level(Level::Warning);
        // It is made of strings.
        let value = serde_json::to_vec(&receipt).unwrap_or_default();
        tx.put(act.details(details), key(namespace, &id), value);
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

/// The receipts of a running store.
pub fn of_ledger(ledger: Ledger) -> Box<Receipts<'static>> {
    Box::new(move |namespace, id| {
        let entity = ledger.get(&key(namespace, id))?;
        serde_json::from_slice(&entity.value).ok()
    })
}

/// The receipts of a stopped one, which are among the messages that it received.
pub fn of_journal(inspect: &Inspect) -> Box<Receipts<'_>> {
    let mut found = std::collections::HashMap::new();
    let mut filter = Filter {
        limit: PAGE,
        direction: Some(Direction::Inbound),
        message_type: Some(MessageType::Nack.as_str().to_owned()),
        ..Filter::default()
    };
    loop {
        let page = inspect.list(&filter);
        for row in &page.rows {
            let body = read_body(inspect.reader(), row.body).unwrap_or_default();
            let Ok(envelope) = parse_one_within(body, RELAYED_BYTES_MAX) else { continue };
            let Ok(nack) = envelope.payload::<Nack>() else { continue };
            for id in named(&envelope, &nack) {
                // The newest comes first, and is what the ledger of a running store has.
                let receipt = Receipt::of(&nack, row.updated_at);
                found.entry((row.namespace.clone(), id)).or_insert(receipt);
            }
        }
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    Box::new(move |namespace, id| found.get(&(namespace.to_owned(), id.to_owned())).cloned())
}
