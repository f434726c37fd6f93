//! The oldest message that waits. Those before it that do not wait, which may be a million dead
//! letters, are passed once and not each time that somebody asks.

use parking_lot::Mutex;
use storage::messages::Messages;
use storage::record::{EntryId, Fact, Status};
use storage::store::{Published, Store};

use crate::clock::Millis;

/// Where to look for it.
#[derive(Default)]
pub struct Oldest(Mutex<Hint>);

#[derive(Clone, Copy, Default)]
struct Hint {
    /// No message before this one waits.
    from: EntryId,
    /// How often one before the hint began to wait again.
    returns: u64,
}

/// When it was written, and when it was accepted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// When it was written.
    pub created_at: Millis,
    /// When it was accepted.
    pub accepted_at: Millis,
}

impl Oldest {
    /// Hears what a durable frame says.
    pub fn hear(&self, published: &Published) {
        for (_, record, _) in published.entries.iter() {
            if let Fact::Change(change) = &record.fact
                && waits(change.status)
            {
                self.returned(change.message);
            }
        }
    }

    fn returned(&self, message: EntryId) {
        let mut hint = self.0.lock();
        if message < hint.from {
            (hint.from, hint.returns) = (message, hint.returns + 1);
        }
    }

    /// The oldest one, if any waits.
    pub fn of(&self, store: &Store) -> Option<Waiting> {
        let hint = *self.0.lock();
        let (found, passed) = store.messages(|messages| first(messages, hint.from));
        let mut now = self.0.lock();
        // One that came back meanwhile may lie before what was looked at.
        if now.returns == hint.returns {
            now.from = now.from.max(passed);
        }
        found
    }
}

/// The first one that waits, and the place up to which none does.
fn first(messages: &Messages, from: EntryId) -> (Option<Waiting>, EntryId) {
    let mut passed = from;
    for live in messages.live_in(from..) {
        passed = live.entry;
        if waits(live.status) {
            let (created_at, accepted_at) = (live.created_at, live.accepted_at);
            return (Some(Waiting { created_at, accepted_at }), passed);
        }
    }
    (None, passed)
}

/// The first one that waits, for who asks once.
pub fn of(messages: &Messages) -> Option<Waiting> {
    first(messages, EntryId::default()).0
}

/// Whether a message with this status waits for the other side.
pub fn waits(status: Status) -> bool {
    matches!(status, Status::Pending | Status::Sending)
}
