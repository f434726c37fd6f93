//! The oldest message that waits. Those before it that do not wait, which may be a million dead
//! letters, are passed once and not each time that somebody asks.

use parking_lot::Mutex;
use storage::messages::Messages;
use storage::record::{EntryId, Fact, Status};
use storage::store::{Published, Store};

use crate::clock::Millis;

/// Where to look for it.
#[derive(Default)]
pub struct Oldest {
    hint: Mutex<Hint>,
    /// One looks at a time.
    looks: Mutex<()>,
}

#[derive(Clone, Copy, Default)]
struct Hint {
    /// No message before this one waits.
    from: EntryId,
    /// The first one that began to wait again since somebody began to look.
    returned: Option<EntryId>,
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
        let mut hint = self.hint.lock();
        hint.from = hint.from.min(message);
        hint.returned = Some(hint.returned.map_or(message, |known| known.min(message)));
    }

    /// The oldest one, if any waits.
    pub fn of(&self, store: &Store) -> Option<Waiting> {
        let _alone = self.looks.lock();
        let from = {
            let mut hint = self.hint.lock();
            hint.returned = None;
            hint.from
        };
        let (found, passed) = store.messages(|messages| first(messages, from));
        let mut now = self.hint.lock();
        // One that came back meanwhile may lie before what was looked at, or within it.
        now.from = now.returned.map_or(passed, |returned| returned.min(passed));
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
