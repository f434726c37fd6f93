//! Carrying unfinished messages forward, out of segments that are old enough to go (JOURNAL rule
//! 22): each is written once more, whole, and stays the message that it is. Which segments go is
//! for the caller to say.

use std::convert::Infallible;

use crate::database::opening::trace_of;
use crate::event::Event;
use crate::journal::{BodyRef, ReadError, Reader};
use crate::messages::{Live, Summary};
use crate::record::{EntryId, Fact, Level};
use crate::store::Store;
use crate::transaction::Act;

/// Messages that go into one frame, and the bytes of bodies after which it takes no more.
const FRAME_MESSAGES: usize = 256;
const FRAME_BYTES: usize = 1 << 20;

/// Messages that are carried in one round.
const ROUND_MESSAGES: usize = 16_384;

/// Messages that are looked at at once: the committer waits meanwhile.
const LOOKED_AT: usize = 1_000;

/// What a round left behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: no unfinished message needs these frames.
    Nothing,
    /// Some were carried, and there may be more; or the store does not write just now.
    Later,
    /// Messages that cannot be carried, the oldest of which needs this frame.
    From(u64),
}

/// Carries what the frames up to one have of unfinished messages.
pub(super) fn carry(store: &Store, reader: &Reader, through: u64) -> Left {
    let found = needing(store, through);
    if found.is_empty() {
        return Left::Nothing;
    }
    let (mut stuck, mut is_done) = (None, false);
    let mut frame: Vec<(Live, Vec<u8>, String)> = Vec::new();
    let mut bytes = 0;
    for some in found.chunks(FRAME_MESSAGES) {
        for live in store.lives(some) {
            let at = live.place().1;
            match body(reader, &live).filter(|_| live.has_head()) {
                Some(salted) => {
                    bytes += salted.len();
                    let trace = trace_of(reader, live.place());
                    frame.push((live, salted, trace));
                }
                None => stuck = Some(stuck.unwrap_or(at).min(at)),
            }
            if frame.len() >= FRAME_MESSAGES || bytes >= FRAME_BYTES {
                is_done |= write(store, std::mem::take(&mut frame));
                bytes = 0;
            }
        }
    }
    is_done |= write(store, frame);
    match stuck {
        Some(at) if !is_done => Left::From(at),
        _ => Left::Later,
    }
}

/// The oldest messages that need a frame up to this one.
fn needing(store: &Store, through: u64) -> Vec<EntryId> {
    let mut found = Vec::new();
    let mut next = EntryId::default();
    let last = EntryId { sequence: through, index: u32::MAX };
    loop {
        let looked_at = store.messages(|messages| {
            let some = messages.live_in(next..=last).take(LOOKED_AT);
            let mut looked_at = 0;
            for summary in some {
                looked_at += 1;
                next = after(summary.entry);
                found.extend(needs(&summary, through).then_some(summary.entry));
            }
            looked_at
        });
        if looked_at < LOOKED_AT || found.len() >= ROUND_MESSAGES {
            return found;
        }
    }
}

fn needs(summary: &Summary<'_>, through: u64) -> bool {
    summary.place().1 <= through
}

fn after(entry: EntryId) -> EntryId {
    EntryId { index: entry.index.saturating_add(1), ..entry }
}

/// The body of a message with its salt, as it lies in the journal; `None` when it does not read
/// back.
fn body(reader: &Reader, live: &Live) -> Option<Vec<u8>> {
    let at = live.body;
    reader.body(&BodyRef { sequence: at.sequence, offset: at.offset, len: at.length }).ok()
}

/// Writes one frame; whether anything was carried.
fn write(store: &Store, frame: Vec<(Live, Vec<u8>, String)>) -> bool {
    if frame.is_empty() {
        return false;
    }
    let done = store.commit(move |transaction| -> Result<bool, Infallible> {
        let mut is_any = false;
        for (live, salted, trace) in frame {
            let head = &live.head;
            let from = format!(r#""accepted_in":"{}""#, live.entry);
            let act = Act::new(Event::StoreCarry, "store", &head.namespace, &head.message_id);
            let act = act.level(Level::Info).details(format!("{{{from}{trace}}}"));
            is_any |= transaction.carry(act, &live, salted);
        }
        Ok(is_any)
    });
    matches!(done.wait(), Ok(Ok(true)))
}

/// The messages that a range of frames, those of one segment, carries: where, and which.
///
/// # Errors
/// When the journal cannot be read.
pub(super) fn carried(
    reader: &Reader,
    (first, last): (u64, u64),
) -> Result<Vec<(EntryId, EntryId)>, ReadError> {
    let segments = reader.segments();
    let segment = segments.iter().find(|segment| segment.range() == (first, last));
    let Some(segment) = segment else { return Ok(Vec::new()) };
    let mut frames: Vec<u64> = Vec::new();
    frames.extend(segment.by_event(&[Event::StoreCarry.code()])?.iter().map(|at| at.sequence));
    frames.dedup();
    let mut found = Vec::new();
    for sequence in frames {
        let frame = reader.frame(sequence)?;
        found.extend(crate::view::records(&frame).filter_map(
            |(at, record, _)| match record.fact {
                Fact::Carry(carried) => Some((at, carried.state.message)),
                _ => None,
            },
        ));
    }
    Ok(found)
}
