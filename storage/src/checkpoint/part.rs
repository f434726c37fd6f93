//! The items of a state as bytes: what a chunk of a checkpoint holds, and the canonical form that
//! a digest is made of. It opens no file.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::fold::State;
use crate::ledger::Entity;
use crate::messages::{BodyPlace, Finished, Live};
use crate::record::{Direction, EntityKey, EntryId, MessageHead, Millis, Reason, Status};

/// One item of a state, each with its length before it where several stand together.
#[derive(Encode, Decode)]
pub(super) enum Part {
    Position { sequence: u64, time: Millis, superseded: u64 },
    Entity { key: EntityKey, version: u64, value: Arc<[u8]> },
    Live(Box<LivePart>),
    Finished { fingerprint: u128, entry: EntryId, body: BodyPlace, at: Millis, status: Status },
    Count { destination: Arc<str>, direction: Direction, status: Status, count: u64 },
    Marks { forgotten_before: Millis, evicted_through: EntryId },
}

#[derive(Encode, Decode)]
pub(super) struct LivePart {
    head: Arc<MessageHead>,
    entry: EntryId,
    body: BodyPlace,
    status: Status,
    reason: Reason,
    attempts: u32,
    next_attempt_at: Millis,
    maybe_delivered: bool,
    error: Arc<str>,
    updated_at: Millis,
    accepted_at: Millis,
    lane_at: EntryId,
}

impl Part {
    pub(super) fn entity(key: &EntityKey, entity: &Entity) -> Self {
        let value = Arc::clone(&entity.value);
        Self::Entity { key: key.clone(), version: entity.version, value }
    }

    pub(super) fn live(live: &Live) -> Self {
        Self::Live(Box::new(LivePart {
            head: Arc::clone(&live.head),
            entry: live.entry,
            body: live.body,
            status: live.status,
            reason: live.reason,
            attempts: live.attempts,
            next_attempt_at: live.next_attempt_at,
            maybe_delivered: live.maybe_delivered,
            error: Arc::clone(&live.error),
            updated_at: live.updated_at,
            accepted_at: live.accepted_at,
            lane_at: live.lane_at,
        }))
    }

    pub(super) fn finished(fingerprint: u128, finished: &Finished) -> Self {
        Self::Finished {
            fingerprint,
            entry: finished.entry,
            body: finished.body,
            at: finished.accepted_at,
            status: finished.status,
        }
    }

    /// Puts an item of a chunk into a state; the others are no items of a chunk.
    pub(super) fn restore(self, state: &mut State) {
        match self {
            Self::Entity { key, version, value } => state.restore(key, Entity { version, value }),
            Self::Live(live) => state.messages.restore_live(live.whole()),
            Self::Finished { fingerprint, entry, body, at, status } => {
                let finished = Finished { entry, body, accepted_at: at, status };
                state.messages.restore_finished(fingerprint, finished);
            }
            Self::Position { .. } | Self::Count { .. } | Self::Marks { .. } => {}
        }
    }
}

impl LivePart {
    fn whole(self) -> Live {
        Live {
            head: self.head,
            entry: self.entry,
            body: self.body,
            status: self.status,
            reason: self.reason,
            attempts: self.attempts,
            next_attempt_at: self.next_attempt_at,
            maybe_delivered: self.maybe_delivered,
            error: self.error,
            updated_at: self.updated_at,
            accepted_at: self.accepted_at,
            lane_at: self.lane_at,
        }
    }
}

/// Appends a part with its length before it.
pub(super) fn push(bytes: &mut Vec<u8>, part: &Part) -> Result<(), CodecError> {
    let encoded = codec::encode(part)?;
    bytes.extend(u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(encoded);
    Ok(())
}

/// Takes the next part off; `None` at the end.
pub(super) fn pop(bytes: &mut &[u8]) -> Option<Result<Part, String>> {
    if bytes.is_empty() {
        return None;
    }
    let taken = bytes.split_first_chunk::<4>().and_then(|(length, rest)| {
        let length = u32::from_le_bytes(*length) as usize;
        Some((rest.get(..length)?, &rest[length..]))
    });
    let Some((part, rest)) = taken else {
        *bytes = &[];
        return Some(Err("a part is cut".into()));
    };
    *bytes = rest;
    Some(codec::decode(part).map_err(|error| error.to_string()))
}

/// The canonical form of a state, part by part.
pub(crate) fn parts(state: &State) -> impl Iterator<Item = Vec<u8>> + use<'_> {
    let (sequence, time, superseded) = (state.sequence, state.time, state.superseded);
    let messages = &state.messages;
    let forgotten_before = messages.forgotten_before();
    let evicted_through = messages.evicted_through();
    let position = [
        Part::Position { sequence, time, superseded },
        Part::Marks { forgotten_before, evicted_through },
    ];
    let entities = state.ledger.iter().map(|(key, entity)| Part::entity(key, entity));
    let live = messages.iter().map(Part::live);
    let finished = messages.finished().map(|(key, finished)| Part::finished(key, finished));
    let there = messages.counts().iter().filter(|(_, count)| **count > 0);
    let counts = there.map(|((destination, direction, status), count)| Part::Count {
        destination: Arc::clone(destination),
        direction: *direction,
        status: *status,
        count: *count,
    });
    let parts = position.into_iter().chain(entities).chain(live).chain(finished).chain(counts);
    parts.filter_map(|part| codec::encode(&part).ok())
}
