//! One decision: what the committer's caller sees and what it adds. All of it is committed, or
//! nothing. It sees ahead of what is published, which nobody else does.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::event::Event;
use crate::fold::State;
use crate::ledger::{Entity, Ledger};
use crate::messages::{BodyPlace, Fingerprint, Known, Live};
use crate::record::{
    EntityKey, EntityWrite, EntryId, Fact, Level, MessageChange, MessageHead, MessageKey, Millis,
    Reason, Record, Status,
};

/// Bytes of the salt that lies before a body.
pub const SALT_BYTES: usize = 16;

/// A body as it lies in the journal, with its digest: made by the producer, outside the committer.
#[derive(Clone, Debug)]
pub struct Body {
    pub(crate) salted: Vec<u8>,
    pub(crate) digest: [u8; 32],
}

impl Body {
    /// Salts and digests `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut salted = vec![0; SALT_BYTES];
        // A short read leaves zeros: the digest is then as good as an unsalted one.
        let _ = rustix::rand::getrandom(&mut salted[..], rustix::rand::GetRandomFlags::empty());
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
}

/// A record and its body, on their way into a frame.
pub(crate) struct Staged {
    pub(crate) record: Record,
    pub(crate) body: Option<Vec<u8>>,
}

/// What is decided in this batch and not published yet.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) staged: Vec<Staged>,
    ledger: Ledger,
    accepted: HashMap<Fingerprint, EntryId>,
    changed: HashMap<EntryId, Live>,
    body_bytes: usize,
}

impl Batch {
    pub(crate) fn new(state: &State) -> Self {
        Self { ledger: state.ledger.clone(), ..Self::default() }
    }

    /// Body bytes that were staged.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }
}

/// One decision in the making.
pub struct Transaction<'a> {
    state: &'a State,
    batch: &'a mut Batch,
    now: Millis,
    base: usize,
    sequence: u64,
    ledger: Ledger,
    accepted: Vec<(Fingerprint, EntryId)>,
    changed: Vec<(EntryId, Live)>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(state: &'a State, batch: &'a mut Batch, now: Millis, sequence: u64) -> Self {
        let base = batch.staged.len();
        let ledger = batch.ledger.clone();
        let (accepted, changed) = (Vec::new(), Vec::new());
        Self { state, batch, now, base, sequence, ledger, accepted, changed }
    }

    /// The time of the frame that this decision goes into.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// The entities, with everything decided so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The entity of a key, with everything decided so far.
    pub fn get(&self, key: &EntityKey) -> Option<&Entity> {
        self.ledger.get(key)
    }

    /// What is known of a message id, with everything decided so far.
    pub fn find(&self, key: &MessageKey<'_>) -> Option<Known> {
        let fingerprint = self.state.messages.fingerprint(key);
        let mine = self.accepted.iter().find(|(known, _)| *known == fingerprint);
        let ahead = mine.map(|(_, entry)| entry).or_else(|| self.batch.accepted.get(&fingerprint));
        if let Some(entry) = ahead {
            let status = self.status_ahead(*entry).unwrap_or(Status::Pending);
            return Some(Known { entry: *entry, body: BodyPlace::default(), status });
        }
        let mut known = self.state.messages.find(key)?;
        known.status = self.status_ahead(known.entry).unwrap_or(known.status);
        Some(known)
    }

    /// The body of a message that was accepted in this batch and so is not in the journal yet.
    pub fn staged_body(&self, entry: EntryId) -> Option<&[u8]> {
        if entry.sequence != self.sequence {
            return None;
        }
        let staged = self.batch.staged.get(entry.index as usize)?;
        staged.body.as_deref().and_then(|salted| salted.get(SALT_BYTES..))
    }

    /// An unfinished message, with everything decided so far.
    pub fn live(&self, entry: EntryId) -> Option<Live> {
        let live = self.ahead(entry).or_else(|| self.state.messages.live(entry))?;
        (!live.status.is_finished()).then(|| live.clone())
    }

    /// Accepts a message. The caller has seen by [`Transaction::find`] that its id is new.
    pub fn accept(&mut self, act: Act, mut head: MessageHead, body: Body) -> EntryId {
        let entry = self.next_entry();
        head.digest = body.digest;
        self.accepted.push((self.state.messages.fingerprint(&head.key()), entry));
        let head = Arc::new(head);
        self.changed.push((entry, Live::accepted(&head, entry, BodyPlace::default(), self.now)));
        let record = act.record(Fact::Accept(head));
        self.batch.body_bytes += body.salted.len();
        self.batch.staged.push(Staged { record, body: Some(body.salted) });
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
        let fact = Fact::Change(MessageChange {
            message: live.entry,
            fingerprint: self.state.messages.fingerprint(&live.head.key()),
            status: change.status,
            reason: change.reason,
            attempts: change.attempts,
            next_attempt_at: change.next_attempt_at,
            maybe_delivered: change.maybe_delivered,
            error: change.error,
        });
        self.stage(act, fact);
    }

    /// Writes an entity.
    pub fn put(&mut self, act: Act, key: EntityKey, value: Vec<u8>) {
        self.write(act, key, Some(value.into()));
    }

    /// Removes an entity; one that does not exist is left alone.
    pub fn remove(&mut self, act: Act, key: EntityKey) {
        if self.ledger.get(&key).is_some() {
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

    pub(crate) fn keep(self) {
        self.batch.ledger = self.ledger;
        self.batch.accepted.extend(self.accepted);
        self.batch.changed.extend(self.changed);
    }

    pub(crate) fn discard(self) {
        self.batch.staged.truncate(self.base);
    }

    fn write(&mut self, act: Act, key: EntityKey, value: Option<Arc<[u8]>>) {
        let expected_version = self.ledger.version(&key);
        let write = EntityWrite { key, expected_version, value };
        self.ledger.apply(&write);
        self.stage(act, Fact::Put(write));
    }

    fn stage(&mut self, act: Act, fact: Fact) {
        self.batch.staged.push(Staged { record: act.record(fact), body: None });
    }

    fn next_entry(&self) -> EntryId {
        let index = u32::try_from(self.batch.staged.len()).unwrap_or(u32::MAX);
        EntryId { sequence: self.sequence, index }
    }

    fn status_ahead(&self, entry: EntryId) -> Option<Status> {
        self.ahead(entry).map(|live| live.status)
    }

    fn ahead(&self, entry: EntryId) -> Option<&Live> {
        let mine = self.changed.iter().rev().find(|(changed, _)| *changed == entry);
        mine.map(|(_, live)| live).or_else(|| self.batch.changed.get(&entry))
    }
}
