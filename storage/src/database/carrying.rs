//! Carrying messages forward, out of segments that are old enough to go (JOURNAL rule 22): each is
//! written once more, whole, and stays the message that it is. One whose content is lost is written
//! without it: it stays visible. Which segments go is for the caller to say.

use std::convert::Infallible;
use std::sync::Arc;

use super::opening::{details, is_told, name, trace_in};
use crate::event::Event;
use crate::journal::{BodyRef, Compactor, Damage, ReadError, Reader};
use crate::messages::{BodyPlace, Live, Place, Summary};
use crate::record::{EntryId, Fact, Level, MessageHead};
use crate::shred::Shredded;
use crate::store::{Store, head_in};
use crate::transaction::Act;
use crate::view::{Row, View};

/// Messages that go into one frame, and the bytes of bodies after which it takes no more.
const FRAME_MESSAGES: usize = 256;
const FRAME_BYTES: usize = 1 << 20;

/// Messages that are carried in one round.
pub(super) const ROUND_MESSAGES: usize = 16_384;

/// The priority of a finished message whose own is lost: the usual one. Nobody sends it again.
const PRIORITY: u8 = 2;

/// A member of the details about a message whose content is lost.
const LOST: &str = r#","lost":"its content does not read back""#;

/// Messages that are looked at at once: the committer waits meanwhile.
const LOOKED_AT: usize = 1_000;

/// What a round left behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: no unfinished message needs these frames.
    Nothing,
    /// Some were carried, and there may be more; or the store does not write just now.
    Later,
    /// Messages that cannot be read just now, the oldest of which needs this frame.
    From(u64),
}

/// A message that is carried.
struct Parcel {
    act: Act,
    what: What,
    /// Its body with its salt, as it lies in the journal; empty when there is none any more.
    salted: Vec<u8>,
}

enum What {
    Unfinished(Live),
    Finished(Box<(Row, MessageHead)>),
}

/// What a frame that passes its checksum has of a message.
struct Found {
    head: Option<Arc<MessageHead>>,
    /// The trace that it names, as a member of details.
    trace: String,
    salted: Result<Vec<u8>, ReadError>,
}

/// Who carries.
pub(super) struct Carrier<'a> {
    pub(super) store: &'a Store,
    pub(super) view: &'a View,
    pub(super) reader: &'a Reader,
    pub(super) compactor: &'a Compactor,
}

impl Carrier<'_> {
    /// Carries what the frames up to one have of unfinished messages.
    pub(super) fn carry(&self, through: u64) -> Left {
        let found = needing(self.store, through);
        if found.is_empty() {
            return Left::Nothing;
        }
        let mut stuck: Option<u64> = None;
        let lives = found.chunks(FRAME_MESSAGES).flat_map(|some| self.store.lives(some));
        let is_done = self.write_all(lives.filter_map(|live| {
            let at = live.place().1;
            let parcel = self.parcel(live);
            if parcel.is_none() {
                stuck = Some(stuck.map_or(at, |before| before.min(at)));
            }
            parcel
        }));
        match stuck {
            Some(at) if !is_done => Left::From(at),
            _ => Left::Later,
        }
    }

    /// Carries finished messages, whose rows these are: they are kept for longer than what they
    /// lie in.
    pub(super) fn keep(&self, rows: Vec<Row>) {
        // What a person wants gone is not written again.
        let Ok(shredded) = Shredded::read(self.reader) else { return };
        self.write_all(rows.into_iter().filter_map(|row| self.finished(row, &shredded)));
    }

    /// A finished message as it is carried; `None` when it cannot be read just now.
    fn finished(&self, row: Row, shredded: &Shredded) -> Option<Parcel> {
        let (mut level, mut lost) = (Level::Info, "");
        let found = match read(self.reader, row.place(), row.body) {
            Err(ReadError::Io { .. }) | Ok(Found { salted: Err(ReadError::Io { .. }), .. }) => {
                return None;
            }
            Err(error) => {
                self.tell(&error);
                (level, lost) = (Level::Error, LOST);
                None
            }
            Ok(found) => Some(found),
        };
        let (head, trace, salted) = match found {
            Some(Found { head, trace, salted }) => (head, trace, salted.unwrap_or_default()),
            None => (None, String::new(), Vec::new()),
        };
        let head = head.map_or_else(|| head_of(&row, &remains(&row)), Arc::unwrap_or_clone);
        let salted = if shredded.is_dead(row.entry) { Vec::new() } else { salted };
        let act = about(&head).level(level);
        let act = act.details(format!(r#"{{"accepted_in":"{}"{lost}{trace}}}"#, row.entry));
        Some(Parcel { act, what: What::Finished(Box::new((row, head))), salted })
    }

    /// An unfinished message as it is carried; `None` when it cannot be read just now.
    fn parcel(&self, mut live: Live) -> Option<Parcel> {
        let from = format!(r#""accepted_in":"{}""#, live.entry);
        let found = read(self.reader, live.place(), live.body);
        let (act, salted) = match found.and_then(|found| Ok((found.salted?, found.trace))) {
            Ok((salted, trace)) if live.has_head() || salted.is_empty() => {
                let act = about(&live.head).level(Level::Info);
                (act.details(format!("{{{from}{trace}}}")), salted)
            }
            // Or its head could not be read a moment ago.
            Ok(_) | Err(ReadError::Io { .. }) => return None,
            Err(error) => {
                self.tell(&error);
                if !live.has_head()
                    && let Some(row) = self.row(live.entry)
                {
                    live.head = Arc::new(head_of(&row, &live.head));
                }
                let id = &live.head.message_id;
                tracing::error!(message.id = id, error.text = %error, "a message has no content");
                let act = about(&live.head).level(Level::Error);
                (act.details(format!("{{{from}{LOST}}}")), Vec::new())
            }
        };
        Some(Parcel { act, what: What::Unfinished(live), salted })
    }

    /// Writes into the audit log that a frame is damaged, as a start does that reads it.
    fn tell(&self, error: &ReadError) {
        let ReadError::Damaged { path, offset, sequence, reason } = error else { return };
        // On a full disk only the copy is missing: the segment has the bytes.
        let len = self.compactor.quarantine(*sequence).ok().flatten().unwrap_or_default();
        let (segment, first, last) = (path.clone(), *sequence, *sequence);
        let damage = Damage { segment, offset: *offset, len, first, last, reason: *reason };
        if is_told(self.reader, &damage) {
            return;
        }
        let act = Act::new(Event::StoreDamage, "store", "", &name(path)).level(Level::Error);
        let act = act.details(details(&damage));
        let done = self.store.commit(move |transaction| -> Result<(), Infallible> {
            transaction.note(act);
            Ok(())
        });
        // A store that does not write is told of the damage by its next start.
        let _ = done.wait();
    }

    /// The row of the message that an entry accepted, which may know what the journal has lost.
    fn row(&self, entry: EntryId) -> Option<Row> {
        let mut found = None;
        let range = (entry.sequence, entry.sequence);
        let looked = self.view.rows_of(range, &mut |row| {
            found = (row.entry == entry).then(|| row.clone()).or(found.take());
        });
        looked.ok().and(found)
    }

    /// Writes messages in frames; whether any was carried.
    fn write_all(&self, parcels: impl Iterator<Item = Parcel>) -> bool {
        let (mut is_done, mut bytes) = (false, 0);
        let mut frame: Vec<Parcel> = Vec::new();
        for parcel in parcels {
            bytes += parcel.salted.len();
            frame.push(parcel);
            if frame.len() >= FRAME_MESSAGES || bytes >= FRAME_BYTES {
                is_done |= self.write(std::mem::take(&mut frame));
                bytes = 0;
            }
        }
        self.write(frame) || is_done
    }

    /// Writes one frame; whether anything was carried.
    fn write(&self, frame: Vec<Parcel>) -> bool {
        if frame.is_empty() {
            return false;
        }
        let done = self.store.commit(move |transaction| -> Result<bool, Infallible> {
            let mut is_any = false;
            for Parcel { act, what, salted } in frame {
                is_any |= match what {
                    What::Unfinished(live) => transaction.carry(act, &live, salted),
                    What::Finished(it) => {
                        let (row, head) = *it;
                        transaction.keep_finished(act, &row, head, salted);
                        true
                    }
                };
            }
            Ok(is_any)
        });
        matches!(done.wait(), Ok(Ok(true)))
    }
}

fn about(head: &MessageHead) -> Act {
    Act::new(Event::StoreCarry, "store", &head.namespace, &head.message_id)
}

/// What is left of the head of a finished message beside its row.
fn remains(row: &Row) -> MessageHead {
    MessageHead {
        direction: row.direction,
        message_id: String::new(),
        message_type: String::new(),
        namespace: String::new(),
        peer: String::new(),
        destination: String::new(),
        sender: String::new(),
        lane: String::new(),
        priority: PRIORITY,
        created_at: row.created_at,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: row.sealed,
        size: row.size_bytes,
        digest: row.digest,
        status: row.status,
        reason: row.reason,
        due_at: row.created_at,
    }
}

/// What the row of a message knows of its head, and what memory does.
fn head_of(row: &Row, remains: &MessageHead) -> MessageHead {
    MessageHead {
        direction: row.direction,
        message_id: row.message_id.clone(),
        message_type: row.message_type.clone(),
        namespace: row.namespace.clone(),
        peer: row.peer.clone(),
        destination: row.destination.clone(),
        created_at: row.created_at,
        task_id: row.task_id.clone(),
        correlation_id: row.correlation_id.clone(),
        sealed: row.sealed,
        size: row.size_bytes,
        digest: row.digest,
        ..remains.clone()
    }
}

/// What the journal has of a message, from a frame that passes its checksum.
fn read(reader: &Reader, (message, at): Place, body: BodyPlace) -> Result<Found, ReadError> {
    let frame = reader.frame(at)?;
    let heads = frame.entries.iter().filter_map(|one| head_in(&frame, one));
    let head = heads.into_iter().find(|(its, _)| *its == message).map(|(_, head)| head);
    let BodyPlace { sequence, offset, length: len } = body;
    // One of no bytes was carried without it before.
    let salted = if body.is_empty() {
        Ok(Vec::new())
    } else {
        reader.body(&BodyRef { sequence, offset, len })
    };
    Ok(Found { head, trace: trace_in(&frame, message), salted })
}

/// The oldest messages that need a frame up to this one.
pub(super) fn needing(store: &Store, through: u64) -> Vec<EntryId> {
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
