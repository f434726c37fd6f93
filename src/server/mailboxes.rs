//! Which unfinished messages lie in which mailbox, in order, and when each is to be given up.
//! Derived from the store's frames, never on disk. It reads no body and decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use storage::messages::Messages;
use storage::record::{EntryId, Fact, Prune, Status};
use storage::store::{Published, Store};

use super::measure;
use crate::clock::Millis;

/// The mailboxes of all agents. Clones share them.
#[derive(Debug, Clone)]
pub struct Mailboxes {
    max_age: Millis,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    letters: BTreeMap<EntryId, Letter>,
    by_mailbox: HashMap<Arc<str>, BTreeSet<EntryId>>,
    /// Those that nobody has in hand now, by the time at which they are given up.
    waiting: BTreeSet<(Millis, EntryId)>,
}

#[derive(Debug)]
struct Letter {
    mailbox: Arc<str>,
    until: Millis,
    kind: &'static str,
    status: Status,
}

impl Mailboxes {
    /// Empty ones, in which a message may lie for `max_age` milliseconds.
    pub fn new(max_age: Millis) -> Self {
        Self { max_age, inner: Arc::default() }
    }

    /// Enters what is unfinished. Frames may be heard meanwhile: each is entered once.
    pub fn fill(&self, messages: &Messages) {
        let mut inner = self.inner.lock();
        for live in messages.iter() {
            let expires_at = live.expires_at;
            let texts = (live.destination, live.message_type);
            // One that a person sends again has its first attempt yet, and its whole time.
            let begun = if live.attempts == 0 { live.updated_at } else { 0 };
            let since = live.accepted_at.max(begun);
            inner.insert(live.entry, texts, (since, expires_at), self.max_age);
            inner.change(live.entry, live.status);
        }
    }

    /// Hears what a durable frame says.
    pub fn hear(&self, published: &Published) {
        let mut inner = self.inner.lock();
        for (entry, record, _) in published.entries.iter() {
            match &record.fact {
                Fact::Accept(head) if head.status.is_finished() => {}
                Fact::Accept(head) => {
                    let texts = (head.destination.as_str(), head.message_type.as_str());
                    inner.insert(*entry, texts, (published.time, head.expires_at), self.max_age);
                }
                Fact::Change(change) | Fact::Prune(Prune { change, .. }) => {
                    if let Some((kind, before)) = inner.change(change.message, change.status) {
                        measure::delivery(kind, before, change.status);
                    }
                }
                _ => {}
            }
        }
    }

    /// Enters again what a frame made pending that a person had been asked about: it may lie there
    /// as long as a new one. The names of its mailboxes are given back.
    pub fn take_back(&self, published: &Published, store: &Store) -> Vec<Arc<str>> {
        let again = published.entries.iter().filter_map(|(_, record, _)| match &record.fact {
            Fact::Change(change) if change.status == Status::Pending => Some(change.message),
            _ => None,
        });
        let mut again: Vec<EntryId> = again.collect();
        if again.is_empty() {
            return Vec::new();
        }
        let mut inner = self.inner.lock();
        again.retain(|entry| !inner.letters.contains_key(entry));
        store.messages(|messages| {
            let lives = again.iter().filter_map(|entry| messages.live(*entry));
            // It may have gone on since the frame.
            for live in lives.filter(|live| live.status == Status::Pending) {
                let texts = (live.destination, live.message_type);
                let times = (published.time, live.expires_at);
                inner.insert(live.entry, texts, times, self.max_age);
            }
        });
        let letters = again.iter().filter_map(|entry| inner.letters.get(entry));
        letters.map(|letter| Arc::clone(&letter.mailbox)).collect()
    }

    /// Up to `limit` messages of a mailbox behind `after`, oldest first.
    pub fn letters(&self, mailbox: &str, after: Option<EntryId>, limit: usize) -> Vec<EntryId> {
        let inner = self.inner.lock();
        let Some(entries) = inner.by_mailbox.get(mailbox) else { return Vec::new() };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        entries.range((start, Bound::Unbounded)).take(limit).copied().collect()
    }

    /// Up to `limit` messages that lay long enough at `now`, and that nobody has in hand.
    pub fn overdue(&self, now: Millis, limit: usize) -> Vec<EntryId> {
        let inner = self.inner.lock();
        let overdue = inner.waiting.iter().take_while(|(until, _)| *until <= now);
        overdue.take(limit).map(|(_, entry)| *entry).collect()
    }

    /// The oldest message that is not settled.
    pub fn oldest(&self) -> Option<EntryId> {
        self.inner.lock().letters.keys().next().copied()
    }

    /// Whether nothing lies in a mailbox.
    pub fn is_empty(&self, mailbox: &str) -> bool {
        !self.inner.lock().by_mailbox.contains_key(mailbox)
    }
}

impl Inner {
    fn insert(
        &mut self,
        entry: EntryId,
        (mailbox, message_type): (&str, &str),
        (accepted_at, expires_at): (Millis, Option<Millis>),
        max_age: Millis,
    ) {
        if mailbox.is_empty() {
            return;
        }
        let known = self.by_mailbox.get_key_value(mailbox);
        let mailbox = known.map_or_else(|| mailbox.into(), |(name, _)| Arc::clone(name));
        self.by_mailbox.entry(Arc::clone(&mailbox)).or_default().insert(entry);
        // The age counts from the acceptance here, whatever the sender's clock says.
        let aged = accepted_at.saturating_add(max_age);
        let until = expires_at.map_or(aged, |at| at.min(aged));
        let (kind, status) = (measure::label(message_type), Status::Pending);
        self.letters.insert(entry, Letter { mailbox, until, kind, status });
        self.waiting.insert((until, entry));
    }

    /// Gives back the type of the message, and where it stood before.
    fn change(&mut self, entry: EntryId, status: Status) -> Option<(&'static str, Status)> {
        let letter = self.letters.get_mut(&entry)?;
        let before = (letter.kind, std::mem::replace(&mut letter.status, status));
        self.waiting.remove(&(letter.until, entry));
        match status {
            Status::Pending => {
                self.waiting.insert((letter.until, entry));
            }
            Status::Sending | Status::Held => {}
            // A failed one waits for a person, all others are finished.
            _ => {
                if let Some(entries) = self.by_mailbox.get_mut(&letter.mailbox) {
                    entries.remove(&entry);
                    if entries.is_empty() {
                        self.by_mailbox.remove(&letter.mailbox);
                    }
                }
                self.letters.remove(&entry);
            }
        }
        Some(before)
    }
}
