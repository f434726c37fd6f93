//! What a store must have after a cut: what was acknowledged, and perhaps what was asked for.

use std::collections::BTreeMap;

use storage::database::Database;
use storage::fold::State;
use storage::inspect::replay;
use storage::journal::ReadError;
use storage::record::{Direction, EntityKey, Kind, MessageKey, Status};
use storage::view::Filter;

/// What is known of one message.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Its body.
    pub body: Vec<u8>,
    /// What was acknowledged last; `None`: not even that it was accepted.
    pub acknowledged: Option<Status>,
    /// What was asked for since, in order.
    pub asked: Vec<Status>,
    /// Compaction was reported to have dropped its body.
    pub is_body_gone: bool,
}

/// Everything that one producer was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// By id.
    pub messages: BTreeMap<String, Message>,
    /// The acknowledged value of its counter, and the one that was asked for.
    pub counter: (u64, u64),
}

/// The key of a producer's counter.
pub fn counter(producer: usize) -> EntityKey {
    EntityKey::new(Kind::State, &["default", &format!("counter-{producer}")])
}

/// The key of a message.
pub fn key(id: &str) -> MessageKey<'_> {
    let direction = Direction::Outbound;
    MessageKey { direction, namespace: "default", peer: "server", message_id: id }
}

/// Compares an opened store with what its producers were told, and takes over what became of the
/// rest.
pub fn check(database: &Database, told: &mut [Told]) -> Result<u64, String> {
    let mut count = 0;
    for (number, told) in told.iter_mut().enumerate() {
        count += check_messages(database, &mut told.messages)?;
        check_counter(database, number, told)?;
    }
    let live = database.store().state(State::digest);
    let replayed = replay(database.reader(), u64::MAX).digest();
    if live != replayed {
        return Err("the state is not the replay of the journal".into());
    }
    check_rows(database, told)?;
    Ok(count)
}

fn check_messages(
    database: &Database,
    messages: &mut BTreeMap<String, Message>,
) -> Result<u64, String> {
    let mut lost = Vec::new();
    let mut count = 0;
    for (id, message) in messages.iter_mut() {
        let found = database.store().messages(|messages| messages.find(&key(id)));
        let Some(known) = found else {
            if let Some(status) = message.acknowledged {
                return Err(format!("{id} was acknowledged as {} and is gone", status.as_str()));
            }
            lost.push(id.clone());
            continue;
        };
        let allowed = message.acknowledged.into_iter().chain(message.asked.iter().copied());
        if !allowed.into_iter().any(|status| status == known.status) {
            return Err(format!("{id} is {}, and should be {message:?}", known.status.as_str()));
        }
        match database.store().body(known.body) {
            Ok(_) if message.is_body_gone => return Err(format!("the body of {id} came back")),
            Ok(body) if body == message.body => {}
            Ok(_) => return Err(format!("{id} has another body")),
            Err(ReadError::NoBody { .. }) if known.status.is_finished() => {}
            Err(error) => return Err(format!("{id}, {}: {error}", known.status.as_str())),
        }
        count += u64::from(message.acknowledged.is_some());
        message.acknowledged = Some(known.status);
        message.asked.clear();
    }
    messages.retain(|id, _| !lost.contains(id));
    Ok(count)
}

fn check_counter(database: &Database, number: usize, told: &mut Told) -> Result<(), String> {
    let ledger = database.store().ledger();
    let value = ledger.get(&counter(number)).map_or(0, |entity| {
        entity.value.first_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
    });
    let (acknowledged, asked) = told.counter;
    if value < acknowledged || value > asked {
        return Err(format!("counter {number} is {value}, told {acknowledged} to {asked}"));
    }
    told.counter = (value, value);
    Ok(())
}

/// Every message has its row, with its status.
fn check_rows(database: &Database, told: &[Told]) -> Result<(), String> {
    database.view().settle().map_err(|error| error.to_string())?;
    let mut rows = BTreeMap::new();
    let mut filter = Filter::default();
    loop {
        let page = database.view().list(&filter).map_err(|error| error.to_string())?;
        rows.extend(page.rows.into_iter().map(|row| (row.message_id.clone(), row.status)));
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    let wanted: BTreeMap<String, Status> = told
        .iter()
        .flat_map(|told| &told.messages)
        .filter_map(|(id, message)| Some((id.clone(), message.acknowledged?)))
        .collect();
    if rows == wanted {
        return Ok(());
    }
    let differs = |(id, status): (&String, &Status)| wanted.get(id) != Some(status);
    let extra = rows.iter().find(|row| differs(*row));
    Err(format!("{} rows for {} messages; one that differs: {extra:?}", rows.len(), wanted.len()))
}
