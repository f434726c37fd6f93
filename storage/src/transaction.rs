//! One decision: what the committer's caller sees and what it adds. All of it is committed, or
//! nothing. It sees ahead of what is published, which nobody else does.

use std::cell::RefCell;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::batch::Batch;
use crate::codec::{self, CodecError};
use crate::event::Event;
use crate::fold::State;
use crate::journal::{FRAME_BYTES_MAX, IndexKeys, ReadError, ReadLog, Wanted};
use crate::ledger::{Entity, Ledger};
use crate::messages::{BodyPlace, Fingerprint, Known, Live};
use crate::record::{
    Carried, EntityKey, EntityWrite, EntryId, Fact, Level, MessageChange, MessageHead, MessageKey,
    Millis, Prune, Reason, Record, Status, Trim, id_time,
};
use crate::salt;
use crate::store::{Heads, Time, record_keys};
use crate::view::Row;

/// Bytes of the salt that lies before a body.
pub const SALT_BYTES: usize = salt::SALT_BYTES;

/// Bytes of an entry in a frame's table.
const ENTRY_BYTES: usize = 16;

/// Bytes of a frame besides its entries, with padding, generously.
const FRAME_BYTES_MARGIN: usize = 4_096;

/// A body as it lies in the journal, with its digest: made by the producer, outside the committer.
#[derive(Clone, Debug)]
pub struct Body {
    pub(crate) salted: Vec<u8>,
    pub(crate) digest: [u8; 32],
}

impl Body {
    /// Salts and digests `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut salted = Vec::with_capacity(SALT_BYTES + bytes.len());
        salted.extend_from_slice(&salt::fresh());
        salted.extend_from_slice(bytes);
        let digest = Sha256::digest(&salted).into();
        Self { salted, digest }
    }
}

/// Who did what to what: the audit side of a record.
#[derive(Clone, Debug)]
pub struct Act {
    /// The event.
    pub event: Event,
    /// Its level.
    pub level: Level,
    /// Who caused it.
    pub actor: Arc<str>,
    /// Where; empty for the whole program.
    pub namespace: Arc<str>,
    /// What it is about.
    pub resource: Arc<str>,
    /// A JSON object, or empty. Never a payload or a secret.
    pub details: String,
}

impl Act {
    /// An act of ordinary level.
    pub fn new(event: Event, actor: &str, namespace: &str, resource: &str) -> Self {
        Self {
            event,
            level: Level::Info,
            actor: actor.into(),
            namespace: namespace.into(),
            resource: resource.into(),
            details: String::new(),
        }
    }

    /// With another level.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// With details: a JSON object.
    #[must_use]
    pub fn details(mut self, details: String) -> Self {
        self.details = details;
        self
    }

    fn record(self, fact: Fact) -> Record {
        Record {
            event: self.event,
            level: self.level,
            actor: self.actor,
            namespace: self.namespace,
            resource: self.resource,
            details: self.details,
            fact,
        }
    }
}

/// What changes on a message; what is not named stays.
#[derive(Clone, Debug)]
pub struct Change {
    /// The new status.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// Attempts made.
    pub attempts: u32,
    /// The next attempt is due at this time; 0 when there is none.
    pub next_attempt_at: Millis,
    /// Bytes left and were not answered.
    pub maybe_delivered: bool,
    /// The error of the last attempt, or empty.
    pub error: String,
}

impl Change {
    /// The message as it is.
    pub fn of(live: &Live) -> Self {
        Self {
            status: live.status,
            reason: live.reason,
            attempts: live.attempts,
            next_attempt_at: live.next_attempt_at,
            maybe_delivered: live.maybe_delivered,
            error: live.error.to_string(),
        }
    }

    fn of_message(self, message: EntryId, fingerprint: Fingerprint) -> MessageChange {
        MessageChange {
            message,
            fingerprint,
            status: self.status,
            reason: self.reason,
            attempts: self.attempts,
            next_attempt_at: self.next_attempt_at,
            maybe_delivered: self.maybe_delivered,
            error: self.error,
        }
    }
}

/// One decision in the making.
pub struct Transaction<'a> {
    state: &'a State,
    reader: &'a dyn ReadLog,
    heads: &'a Heads,
    batch: &'a mut Batch,
    time: Time,
    base: usize,
    /// With what this decision writes; `None` until it writes something.
    ledger: Option<Ledger>,
    changed: Vec<(EntryId, Live)>,
    bytes: usize,
    /// A record that cannot be written.
    broken: Option<CodecError>,
    /// Why the journal could not say whether an id is known.
    unreadable: RefCell<Option<String>>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(
        state: &'a State,
        (reader, heads): (&'a dyn ReadLog, &'a Heads),
        batch: &'a mut Batch,
        time: Time,
    ) -> Self {
        let base = batch.staged.len();
        Self {
            state,
            reader,
            heads,
            batch,
            time,
            base,
            ledger: None,
            changed: Vec::new(),
            bytes: 0,
            broken: None,
            unreadable: RefCell::default(),
        }
    }

    /// Bytes that this decision adds to its frame so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The wall clock, by which is judged what is late, due or too old. It may lie before the time
    /// of the records, which never goes back.
    pub fn now(&self) -> Millis {
        self.time.wall
    }

    /// The entities, with everything decided so far.
    pub fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap_or(&self.batch.ahead.ledger)
    }

    /// The entity of a key, with everything decided so far.
    pub fn get(&self, key: &EntityKey) -> Option<&Entity> {
        self.ledger().get(key)
    }

    /// What is known of a message id, with everything decided so far.
    pub fn find(&self, key: &MessageKey<'_>) -> Option<Known> {
        let fingerprint = self.state.messages.fingerprint(key);
        let mut ahead = self.batch.aheads();
        if let Some(entry) = ahead.find_map(|ahead| ahead.accepted.get(&fingerprint)) {
            let status = self.status_ahead(*entry).unwrap_or(Status::Pending);
            return Some(Known { entry: *entry, body: BodyPlace::default(), status });
        }
        let mut known =
            self.state.messages.find(key).or_else(|| self.remembered(fingerprint, key))?;
        known.status = self.status_ahead(known.entry).unwrap_or(known.status);
        Some(known)
    }

    /// What the journal's footers know of an id that is no longer in memory (JOURNAL rule 17).
    fn remembered(&self, fingerprint: Fingerprint, key: &MessageKey<'_>) -> Option<Known> {
        let messages = &self.state.messages;
        if messages.evicted_through() == EntryId::default() {
            return None;
        }
        let (made_at, since) = (id_time(key.message_id), messages.forgotten_before());
        let found = remembered(self.reader, Wanted { id: fingerprint, made_at, since });
        found.unwrap_or_else(|error| {
            // Whether it is known cannot be told now, so nothing is decided on it.
            self.unreadable.replace(Some(error.to_string()));
            None
        })
    }

    /// The body of a message that was accepted so recently that it cannot be read from the
    /// journal yet.
    pub fn staged_body(&self, entry: EntryId) -> Option<&[u8]> {
        let index = entry.index as usize;
        let body = if entry.sequence == self.batch.ahead.sequence {
            self.batch.staged.get(index)?.body.as_deref()
        } else {
            self.batch.before_of(entry)?.bodies.get(index)?.as_deref()
        };
        body.and_then(|salted| salted.get(SALT_BYTES..))
    }

    /// An unfinished message, with everything decided so far. One whose head cannot be read has
    /// what memory knows of it, and no id.
    pub fn live(&self, entry: EntryId) -> Option<Live> {
        if let Some(live) = self.changed(entry) {
            return (!live.status.is_finished()).then(|| live.clone());
        }
        if let Some((head, time)) = self.batch.accepted(entry) {
            let live = || Live::accepted(head, entry, BodyPlace::default(), time);
            return (!head.status.is_finished()).then(live);
        }
        let summary = self.state.messages.live(entry)?;
        match self.heads.get(summary.place()) {
            Ok(head) => Some(summary.with(head)),
            Err(error @ ReadError::Io { .. }) => {
                // It may be read again in a moment, so nothing is decided on it.
                self.unreadable.replace(Some(error.to_string()));
                None
            }
            Err(_) => Some(summary.with(Arc::new(summary.remains()))),
        }
    }

    /// Accepts a message. The caller has seen by [`Transaction::find`] that its id is new.
    pub fn accept(&mut self, act: Act, mut head: MessageHead, body: Body) -> EntryId {
        let entry = self.batch.next_entry();
        head.digest = body.digest;
        let fingerprint = self.state.messages.fingerprint(&head.key());
        self.batch.ahead.accepted.entry(fingerprint).or_insert(entry);
        let record = act.record(Fact::Accept(Arc::new(head)));
        let keys = record_keys(&record, |_| fingerprint);
        self.push(record, Some(body.salted), keys);
        entry
    }

    /// Records a change of an unfinished message.
    pub fn change(&mut self, act: Act, live: &Live, change: Change) {
        let mut after = live.clone();
        after.status = change.status;
        after.reason = change.reason;
        after.attempts = change.attempts;
        after.next_attempt_at = change.next_attempt_at;
        after.maybe_delivered = change.maybe_delivered;
        after.error = change.error.as_str().into();
        self.changed.push((live.entry, after));
        let change = change.of_message(live.entry, self.fingerprint(live));
        self.stage(act, Fact::Change(change));
    }

    /// Ends an unfinished message because a person wants it so; with `shred`, its content leaves
    /// the journal at the next compaction of its segment.
    pub fn prune(&mut self, act: Act, live: &Live, change: Change, shred: bool) {
        self.changed.push((live.entry, Live { status: change.status, ..live.clone() }));
        let change = change.of_message(live.entry, self.fingerprint(live));
        self.stage(act, Fact::Prune(Prune { change, shred }));
    }

    /// Records that the content of a finished message is to leave the journal; `stands` is how the
    /// message stands, which stays so.
    pub fn shred(&mut self, act: Act, entry: EntryId, key: &MessageKey<'_>, stands: Change) {
        let change = stands.of_message(entry, self.state.messages.fingerprint(key));
        self.stage(act, Fact::Prune(Prune { change, shred: true }));
    }

    /// Writes an entity.
    pub fn put(&mut self, act: Act, key: EntityKey, value: Vec<u8>) {
        self.write(act, key, Some(value.into()));
    }

    /// Removes an entity; one that does not exist is left alone.
    pub fn remove(&mut self, act: Act, key: EntityKey) {
        if self.ledger().get(&key).is_some() {
            self.write(act, key, None);
        }
    }

    /// Records an event that changes nothing.
    pub fn note(&mut self, act: Act) {
        self.stage(act, Fact::Note);
    }

    /// Forgets finished message ids that were accepted before `before`.
    pub fn forget(&mut self, act: Act, before: Millis) {
        self.stage(act, Fact::Forget(before));
    }

    /// Records that the oldest frames are dropped.
    pub(crate) fn trim(&mut self, act: Act, trim: Trim) -> EntryId {
        let entry = self.batch.next_entry();
        self.stage(act, Fact::Trim(trim));
        entry
    }

    /// Carries an unfinished message forward: `salted` is its body as it lies in the journal. Its
    /// state is the published one, so that `false` is the answer while a change of it is not.
    pub(crate) fn carry(&mut self, act: Act, live: &Live, salted: Vec<u8>) -> bool {
        let stands = self.state.messages.live(live.entry);
        let is_as_seen = stands.is_some_and(|stands| stands.is_state_of(live));
        if self.changed(live.entry).is_some() || !is_as_seen {
            return false;
        }
        let state = Change::of(live).of_message(live.entry, self.fingerprint(live));
        let (head, updated_at) = (Arc::clone(&live.head), live.updated_at);
        let carried = Box::new(Carried { head, state, updated_at });
        let record = act.record(Fact::Carry(carried));
        let keys = record_keys(&record, |key| self.state.messages.fingerprint(key));
        self.push(record, Some(salted), keys);
        true
    }

    /// Carries a finished message forward: nothing about it changes any more.
    pub(crate) fn keep_finished(
        &mut self,
        act: Act,
        row: &Row,
        head: MessageHead,
        salted: Vec<u8>,
    ) {
        let stands = Change {
            status: row.status,
            reason: row.reason,
            attempts: row.attempts,
            next_attempt_at: row.next_attempt_at,
            maybe_delivered: row.maybe_delivered,
            error: row.error.clone(),
        };
        let fingerprint = self.state.messages.fingerprint(&head.key());
        let state = stands.of_message(row.entry, fingerprint);
        let carried = Carried { head: Arc::new(head), state, updated_at: row.updated_at };
        let record = act.record(Fact::Carry(Box::new(carried)));
        let keys = record_keys(&record, |_| fingerprint);
        self.push(record, Some(salted), keys);
    }

    /// Drops finished message ids accepted up to `through` from memory; the journal has them.
    pub fn evict(&mut self, act: Act, through: EntryId) {
        self.stage(act, Fact::Evict(through));
    }

    /// Adds the decision to the frame.
    ///
    /// # Errors
    /// When it cannot be written or does not fit; nothing of it is then in the frame.
    pub(crate) fn keep(self) -> Result<(), String> {
        let too_large = self.batch.bytes + self.bytes > FRAME_BYTES_MAX - FRAME_BYTES_MARGIN;
        let refusal = match &self.broken {
            Some(error) => Some(error.to_string()),
            None => too_large.then(|| "it does not fit into one frame of the journal".to_owned()),
        };
        if let Some(refusal) = refusal.or_else(|| self.unreadable.take()) {
            self.discard();
            return Err(refusal);
        }
        if let Some(ledger) = self.ledger {
            self.batch.ahead.ledger = ledger;
        }
        self.batch.ahead.changed.extend(self.changed);
        self.batch.bytes += self.bytes;
        Ok(())
    }

    pub(crate) fn discard(self) {
        self.batch.truncate(self.base);
    }

    fn write(&mut self, act: Act, key: EntityKey, value: Option<Arc<[u8]>>) {
        let ledger = self.ledger.get_or_insert_with(|| self.batch.ahead.ledger.clone());
        let expected_version = ledger.version(&key);
        let write = EntityWrite { key, expected_version, value };
        ledger.apply(&write);
        self.stage(act, Fact::Put(write));
    }

    fn stage(&mut self, act: Act, fact: Fact) {
        let record = act.record(fact);
        let keys = record_keys(&record, |key| self.state.messages.fingerprint(key));
        self.push(record, None, keys);
    }

    fn push(&mut self, record: Record, body: Option<Vec<u8>>, keys: IndexKeys) {
        self.bytes += ENTRY_BYTES + body.as_ref().map_or(0, Vec::len);
        match self.batch.push(record, body, keys) {
            Ok(bytes) => self.bytes += bytes,
            Err(error) => self.broken = Some(error),
        }
    }

    /// That of an unfinished message, whose head may be lost.
    fn fingerprint(&self, live: &Live) -> Fingerprint {
        let messages = &self.state.messages;
        let known = messages.live(live.entry).map(|summary| summary.fingerprint);
        known.unwrap_or_else(|| messages.fingerprint(&live.head.key()))
    }

    fn status_ahead(&self, entry: EntryId) -> Option<Status> {
        let changed = self.changed(entry).map(|live| live.status);
        changed.or_else(|| self.batch.accepted(entry).map(|(head, _)| head.status))
    }

    /// A message with the changes of it that are not published yet, if there are any.
    fn changed(&self, entry: EntryId) -> Option<&Live> {
        let mine = self.changed.iter().rev().find(|(changed, _)| *changed == entry);
        let ahead = || self.batch.aheads().find_map(|ahead| ahead.changed.get(&entry));
        mine.map(|(_, live)| live).or_else(ahead)
    }
}

/// The message with this id, accepted at `since` or later, as the journal has it. An index
/// names it also when its frame is damaged: it is then known, and nothing more is known of it.
fn remembered(reader: &dyn ReadLog, wanted: Wanted) -> Result<Option<Known>, ReadError> {
    let mut known: Option<Known> = None;
    for at in reader.find_accepted(&wanted)? {
        let entry = EntryId { sequence: at.sequence, index: at.index };
        let frame = match reader.frame(at.sequence) {
            Ok(frame) => frame,
            Err(ReadError::NoFrame { .. } | ReadError::Damaged { .. }) => {
                let (body, status) = (BodyPlace::default(), Status::Processed);
                known.get_or_insert(Known { entry, body, status });
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(one) = frame.entries.get(at.index as usize) else { continue };
        let Ok(record) = codec::decode::<Record>(&one.head) else { continue };
        match record.fact {
            Fact::Accept(head) if frame.time >= wanted.since => {
                let body = crate::store::place(one.body);
                known = Some(Known { entry, body, status: head.status });
            }
            // Where it was accepted may be gone.
            Fact::Carry(carried) if frame.time >= wanted.since => {
                let (entry, status) = (carried.state.message, carried.state.status);
                known = Some(Known { entry, body: crate::store::place(one.body), status });
            }
            Fact::Change(change) | Fact::Prune(Prune { change, .. }) => {
                if let Some(known) = known.as_mut().filter(|one| one.entry == change.message) {
                    known.status = change.status;
                }
            }
            _ => {}
        }
    }
    Ok(known)
}
