//! The items of a state as bytes: what a chunk of a checkpoint holds, and the canonical form that
//! a digest is made of. It opens no file.
//!
//! ```text
//! item:   kind 1 | what follows
//!   1     text: length 4 | UTF-8; it gets the next number of the chunk, from 1
//!   2     unfinished message, 110 bytes of fixed places: Slot
//!   3     the same, and what few of them have, 32 bytes: Slot, Rest
//!   4     remembered id, 56 bytes: Remembered
//!   5     entity: length 4 | record of the codec
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::fold::State;
use crate::ledger::Entity;
use crate::messages::{BodyPlace, Fingerprint, Finished, Summary};
use crate::record::{Direction, EntityKey, EntryId, Millis, Reason, Status};

const TEXT: u8 = 1;
const SLOT: u8 = 2;
const SLOT_AND_REST: u8 = 3;
const REMEMBERED: u8 = 4;
const ENTITY: u8 = 5;

/// An unfinished message. Texts are numbers of the chunk; 0 is the empty one.
#[derive(Encode, Decode)]
struct Slot {
    fingerprint: u128,
    entry: EntryId,
    body: BodyPlace,
    accepted_at: Millis,
    created_at: Millis,
    updated_at: Millis,
    next_attempt_at: Millis,
    lane: u64,
    attempts: u32,
    destination: u32,
    message_type: u32,
    status: Status,
    reason: Reason,
    direction: Direction,
    priority: u8,
    maybe_delivered: bool,
}

/// What few unfinished messages have. A time that is never comes is `u64::MAX`.
#[derive(Encode, Decode)]
struct Rest {
    lane_at: EntryId,
    deadline: Millis,
    expires_at: Millis,
    error: u32,
}

#[derive(Encode, Decode)]
struct Remembered {
    fingerprint: u128,
    entry: EntryId,
    body: BodyPlace,
    accepted_at: Millis,
    status: Status,
}

#[derive(Encode, Decode)]
struct EntityPart {
    key: EntityKey,
    version: u64,
    value: Arc<[u8]>,
}

/// The items of a chunk in the making.
#[derive(Default)]
pub(super) struct Items {
    pub(super) bytes: Vec<u8>,
    pub(super) count: usize,
    texts: HashMap<String, u32>,
    /// An item that could not be written.
    pub(super) broken: Option<CodecError>,
}

impl Items {
    pub(super) fn entity(&mut self, key: &EntityKey, entity: &Entity) {
        let value = Arc::clone(&entity.value);
        let part = EntityPart { key: key.clone(), version: entity.version, value };
        let Some(encoded) = codec::encode(&part).map_err(|error| self.fail(error)).ok() else {
            return;
        };
        self.begin(ENTITY);
        self.sized(&encoded);
    }

    pub(super) fn live(&mut self, one: &Summary<'_>) {
        let slot = Slot {
            fingerprint: one.fingerprint,
            entry: one.entry,
            body: one.body,
            accepted_at: one.accepted_at,
            created_at: one.created_at,
            updated_at: one.updated_at,
            next_attempt_at: one.next_attempt_at,
            lane: one.lane,
            attempts: one.attempts,
            destination: self.text(one.destination),
            message_type: self.text(one.message_type),
            status: one.status,
            reason: one.reason,
            direction: one.direction,
            priority: one.priority,
            maybe_delivered: one.maybe_delivered,
        };
        let rest = Rest {
            lane_at: one.lane_at,
            deadline: one.deadline.unwrap_or(Millis::MAX),
            expires_at: one.expires_at.unwrap_or(Millis::MAX),
            error: self.text(one.error),
        };
        let is_usual = one.lane_at == one.entry
            && (one.deadline, one.expires_at) == (None, None)
            && one.error.is_empty();
        self.begin(if is_usual { SLOT } else { SLOT_AND_REST });
        self.fixed(&slot);
        if !is_usual {
            self.fixed(&rest);
        }
    }

    pub(super) fn finished(&mut self, fingerprint: Fingerprint, finished: &Finished) {
        let Finished { entry, body, accepted_at, status } = *finished;
        self.begin(REMEMBERED);
        self.fixed(&Remembered { fingerprint, entry, body, accepted_at, status });
    }

    fn begin(&mut self, kind: u8) {
        self.bytes.push(kind);
        self.count += 1;
    }

    fn fixed<T: Encode>(&mut self, value: &T) {
        if let Err(error) = codec::append(&mut self.bytes, value) {
            self.fail(error);
        }
    }

    fn sized(&mut self, content: &[u8]) {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(content);
    }

    /// The number of a text, which stands before the first item that has it.
    fn text(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len() + 1).unwrap_or(u32::MAX);
        self.texts.insert(text.to_owned(), number);
        self.bytes.push(TEXT);
        self.sized(text.as_bytes());
        number
    }

    fn fail(&mut self, error: CodecError) {
        self.broken.get_or_insert(error);
    }
}

/// Puts the items of a chunk into a state.
pub(super) fn restore(mut bytes: &[u8], state: &mut State) -> Result<(), String> {
    let mut texts: Vec<&str> = vec![""];
    while let Some((kind, rest)) = bytes.split_first() {
        bytes = rest;
        match *kind {
            TEXT => texts
                .push(std::str::from_utf8(sized(&mut bytes)?).map_err(|error| error.to_string())?),
            SLOT => restore_live(&fixed(&mut bytes)?, None, &texts, state)?,
            SLOT_AND_REST => {
                let slot = fixed(&mut bytes)?;
                restore_live(&slot, Some(fixed(&mut bytes)?), &texts, state)?;
            }
            REMEMBERED => {
                let Remembered { fingerprint, entry, body, accepted_at, status } =
                    fixed(&mut bytes)?;
                let finished = Finished { entry, body, accepted_at, status };
                state.messages.restore_finished(fingerprint, finished);
            }
            ENTITY => {
                let part = codec::decode(sized(&mut bytes)?).map_err(|error| error.to_string())?;
                let EntityPart { key, version, value } = part;
                state.restore(key, Entity { version, value });
            }
            other => return Err(format!("an item is of the unknown kind {other}")),
        }
    }
    Ok(())
}

fn restore_live(
    slot: &Slot,
    rest: Option<Rest>,
    texts: &[&str],
    state: &mut State,
) -> Result<(), String> {
    let text = |number: u32| {
        texts.get(number as usize).copied().ok_or_else(|| format!("text {number} is missing"))
    };
    let some = |time: Millis| (time != Millis::MAX).then_some(time);
    let never = Millis::MAX;
    let usual = Rest { lane_at: slot.entry, deadline: never, expires_at: never, error: 0 };
    let rest = rest.unwrap_or(usual);
    state.messages.restore_live(&Summary {
        entry: slot.entry,
        body: slot.body,
        direction: slot.direction,
        destination: text(slot.destination)?,
        message_type: text(slot.message_type)?,
        priority: slot.priority,
        status: slot.status,
        reason: slot.reason,
        attempts: slot.attempts,
        next_attempt_at: slot.next_attempt_at,
        maybe_delivered: slot.maybe_delivered,
        error: text(rest.error)?,
        created_at: slot.created_at,
        accepted_at: slot.accepted_at,
        updated_at: slot.updated_at,
        deadline: some(rest.deadline),
        expires_at: some(rest.expires_at),
        lane_at: rest.lane_at,
        fingerprint: slot.fingerprint,
        lane: slot.lane,
    });
    Ok(())
}

fn fixed<T: Decode<()>>(bytes: &mut &[u8]) -> Result<T, String> {
    codec::take(bytes).map_err(|error| error.to_string())
}

fn sized<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let taken = bytes.split_first_chunk::<4>().and_then(|(length, rest)| {
        let length = u32::from_le_bytes(*length) as usize;
        Some((rest.get(..length)?, &rest[length..]))
    });
    let (content, rest) = taken.ok_or("an item is cut")?;
    *bytes = rest;
    Ok(content)
}

/// The items of a range of entries, in their order, as long as `goes_on` says so; it is told how
/// many there are and which comes next. Says where the rest begins.
pub(super) fn messages_from(
    state: &State,
    items: &mut Items,
    from: std::ops::Bound<EntryId>,
    goes_on: impl Fn(usize, &EntryId) -> bool,
) -> Option<EntryId> {
    let range = (from, std::ops::Bound::Unbounded);
    let mut live = state.messages.live_in(range).peekable();
    let mut finished = state.messages.finished_in(range).peekable();
    loop {
        let at_live = live.peek().map(|live| live.entry);
        let at_finished = finished.peek().map(|(_, finished)| finished.entry);
        let at = at_live.into_iter().chain(at_finished).min()?;
        if !goes_on(items.count, &at) {
            return Some(at);
        }
        if at_live == Some(at) {
            if let Some(one) = live.next() {
                items.live(&one);
            }
        } else if let Some((fingerprint, one)) = finished.next() {
            items.finished(fingerprint, one);
        }
    }
}

/// The canonical form of a state, piece by piece: equal pieces, equal states.
pub(crate) fn canonical(state: &State, mut sink: impl FnMut(&[u8])) {
    let messages = &state.messages;
    let mut items = Items::default();
    items.fixed(&(state.sequence, state.time, state.superseded));
    items.fixed(&(messages.forgotten_before(), messages.evicted_through()));
    for ((destination, direction, status), count) in messages.counts() {
        if *count > 0 {
            items.sized(destination.as_bytes());
            items.fixed(&(direction, status, count));
        }
    }
    for (key, entity) in state.ledger.iter() {
        items.entity(key, entity);
        sink(&std::mem::take(&mut items.bytes));
    }
    messages_from(state, &mut items, std::ops::Bound::Unbounded, |_, _| true);
    sink(&items.bytes);
}
