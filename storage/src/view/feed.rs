//! What the committer hands to the view: published frames, bounded in bytes. It never waits: above
//! its bound it forgets the frames, and the view reads them from the journal.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::record::{Fact, Prune};
use crate::store::Published;
use crate::view::overlay::Overlay;

/// Above this many bytes that are not in sled, whoever admits messages slows down.
const LAG_BYTES_MAX: usize = 64 << 20;

/// Bytes of frames that wait here at the most. Room for what is under way when admission slows.
const QUEUE_BYTES_MAX: usize = 2 * LAG_BYTES_MAX;

/// Rows are written when this much is gathered, or after [`FLUSH_INTERVAL`].
const FLUSH_BYTES: usize = 4 << 20;

/// How long rows are gathered, so that a short life is one write.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// A worker that makes no progress for this long at a stop waits for a disk that does not answer.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Bytes of an entry besides its texts.
const ENTRY_BYTES: usize = 320;

/// How far the view is behind the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The newest published frame.
    pub published: u64,
    /// The newest frame whose rows are in sled.
    pub applied: u64,
    /// About how many bytes wait in memory.
    pub bytes: usize,
    /// Too many: admission is to slow down, acknowledgements and deliveries are not.
    pub over: bool,
    /// Rows are being read from the journal; lists are not complete.
    pub catching_up: bool,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each changes by itself")]
struct Inner {
    frames: Vec<Published>,
    bytes: usize,
    /// Bytes in the overlay.
    gathered: usize,
    published: u64,
    applied: u64,
    /// Frames are read from the journal; those that arrive are not kept.
    catching_up: bool,
    hurry: bool,
    /// Somebody waits for the rows to be counted.
    compare: bool,
    /// sled cannot be used; nobody waits for rows.
    failed: bool,
    stop: Option<bool>,
    ended: bool,
}

/// What the worker is to do next.
pub(crate) enum Order {
    /// Read the journal from where it is.
    CatchUp,
    /// Count the rows at one frame of the fold; until then the journal is read.
    Compare,
    /// Write what is gathered.
    Flush,
    /// End; `true`: everything is written, mark it clean.
    Stop(bool),
}

pub(crate) struct Feed {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Feed {
    pub(crate) fn new(applied: u64, published: u64, catching_up: bool) -> Self {
        let inner = Inner { published, applied, catching_up, ..Inner::default() };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// Takes a published frame.
    pub(crate) fn push(&self, published: &Published) {
        let mut inner = self.inner.lock();
        inner.published = published.sequence;
        if inner.catching_up || inner.ended || published.sequence <= inner.applied {
            return;
        }
        let before = inner.bytes;
        inner.bytes +=
            published.entries.iter().map(|(_, record, _)| cost(&record.fact)).sum::<usize>();
        inner.frames.push(published.clone());
        if inner.bytes > QUEUE_BYTES_MAX {
            inner.frames = Vec::new();
            inner.bytes = 0;
            inner.catching_up = true;
        }
        if before == 0 || inner.bytes > FLUSH_BYTES || inner.catching_up {
            self.changed.notify_all();
        }
    }

    /// Moves the frames that wait into the overlay.
    pub(crate) fn drain(&self, overlay: &mut Overlay) {
        let frames = {
            let mut inner = self.inner.lock();
            inner.bytes = 0;
            std::mem::take(&mut inner.frames)
        };
        for frame in frames {
            for (entry, record, body) in frame.entries.iter() {
                overlay.add(*entry, frame.time, record, *body);
            }
            overlay.head = Some((frame.sequence, frame.hash));
        }
        self.gathered(overlay.bytes);
    }

    /// Tells how much the overlay has, so that nobody who asks for the lag waits for its lock.
    pub(crate) fn gathered(&self, bytes: usize) {
        self.inner.lock().gathered = bytes;
    }

    /// Waits until there is something to do, and then a little more, so that it is more.
    pub(crate) fn wait(&self) -> Order {
        let mut inner = self.inner.lock();
        loop {
            if inner.stop == Some(false) {
                return Order::Stop(false);
            }
            if inner.catching_up {
                return Order::CatchUp;
            }
            if inner.stop.is_none() && std::mem::take(&mut inner.compare) {
                (inner.frames, inner.bytes, inner.catching_up) = (Vec::new(), 0, true);
                return Order::Compare;
            }
            if !inner.frames.is_empty() || inner.applied < inner.published {
                break;
            }
            if inner.stop == Some(true) {
                return Order::Stop(true);
            }
            inner.hurry = false;
            self.changed.wait(&mut inner);
        }
        if !inner.hurry && inner.bytes < FLUSH_BYTES && inner.stop.is_none() {
            self.changed.wait_for(&mut inner, FLUSH_INTERVAL);
        }
        if inner.catching_up { Order::CatchUp } else { Order::Flush }
    }

    /// Has the rows counted at one frame of the fold.
    pub(crate) fn compare(&self) {
        self.inner.lock().compare = true;
        self.changed.notify_all();
    }

    /// Rows up to this frame are in sled.
    pub(crate) fn applied(&self, sequence: u64) {
        let mut inner = self.inner.lock();
        inner.applied = sequence;
        self.changed.notify_all();
    }

    /// Ends the reading of the journal if nothing was published after `sequence`.
    pub(crate) fn caught_up(&self, sequence: u64) {
        let mut inner = self.inner.lock();
        inner.applied = sequence;
        inner.catching_up = inner.published > sequence;
        self.changed.notify_all();
    }

    /// Everything is to be read from the journal again; lists are not complete meanwhile.
    pub(crate) fn behind(&self) {
        let mut inner = self.inner.lock();
        (inner.frames, inner.bytes) = Default::default();
        (inner.applied, inner.catching_up) = (0, true);
    }

    /// sled cannot be used: what it had is read from the journal when it can be again.
    pub(crate) fn failed(&self) {
        self.behind();
        let mut inner = self.inner.lock();
        (inner.gathered, inner.failed) = (0, true);
        self.changed.notify_all();
    }

    /// sled can be used again.
    pub(crate) fn mended(&self) {
        self.inner.lock().failed = false;
    }

    /// Lets some time pass. When the worker is to end: whether cleanly.
    pub(crate) fn pause(&self, pause: Duration) -> Option<bool> {
        let mut inner = self.inner.lock();
        if inner.stop.is_none() {
            self.changed.wait_for(&mut inner, pause);
        }
        inner.stop
    }

    /// The worker is to end now, whatever it does.
    pub(crate) fn aborted(&self) -> bool {
        self.inner.lock().stop == Some(false)
    }

    /// The worker answers no question: it is to end, has ended, or waits for sled to be of use.
    pub(crate) fn is_out_of_work(&self) -> bool {
        let inner = self.inner.lock();
        inner.failed || inner.ended || inner.stop.is_some()
    }

    /// The worker has ended: nothing is kept any more and nobody waits.
    pub(crate) fn end(&self) {
        let mut inner = self.inner.lock();
        inner.ended = true;
        inner.frames = Vec::new();
        (inner.bytes, inner.gathered) = (0, 0);
        self.changed.notify_all();
    }

    /// Waits until the worker has ended; `false` when it has done nothing for too long. sled waits
    /// for ever for a write that failed.
    pub(crate) fn wait_end(&self) -> bool {
        let mut inner = self.inner.lock();
        while !inner.ended {
            let before = inner.applied;
            let waited = self.changed.wait_for(&mut inner, STUCK_AFTER);
            if waited.timed_out() && inner.applied == before && !inner.ended {
                return false;
            }
        }
        true
    }

    pub(crate) fn stop(&self, clean: bool) {
        self.inner.lock().stop.get_or_insert(clean);
        self.changed.notify_all();
    }

    /// Waits until what is published now is in sled, or the worker has ended.
    pub(crate) fn settle(&self) {
        let mut inner = self.inner.lock();
        let target = inner.published;
        while (inner.applied < target || inner.catching_up) && !inner.ended && !inner.failed {
            inner.hurry = true;
            self.changed.notify_all();
            self.changed.wait(&mut inner);
        }
    }

    pub(crate) fn lag(&self) -> Lag {
        let inner = self.inner.lock();
        let bytes = inner.bytes + inner.gathered;
        Lag {
            published: inner.published,
            applied: inner.applied,
            bytes,
            over: bytes > LAG_BYTES_MAX,
            catching_up: inner.catching_up,
        }
    }
}

fn cost(fact: &Fact) -> usize {
    match fact {
        Fact::Change(change) | Fact::Prune(Prune { change, .. }) => {
            ENTRY_BYTES + change.error.len()
        }
        Fact::Put(write) => ENTRY_BYTES + write.value.as_ref().map_or(0, |value| value.len()),
        Fact::Accept(head) => 2 * ENTRY_BYTES + head.message_id.len(),
        Fact::Carry(carried) => 2 * ENTRY_BYTES + carried.head.message_id.len(),
        Fact::Note | Fact::Forget(_) | Fact::Evict(_) | Fact::Trim(_) => ENTRY_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Feed, LAG_BYTES_MAX, Order};
    use crate::event::Event;
    use crate::messages::BodyPlace;
    use crate::record::{EntityKey, EntityWrite, EntryId, Fact, Kind, Level, Record};
    use crate::store::Published;
    use crate::view::overlay::Overlay;

    /// A frame of one entry that costs a mebibyte.
    fn frame(sequence: u64, value: &Arc<[u8]>) -> Published {
        let key = EntityKey::new(Kind::State, &["key"]);
        let write = EntityWrite { key, expected_version: 0, value: Some(Arc::clone(value)) };
        let record = Record {
            event: Event::StateSync,
            level: Level::Info,
            actor: "test".into(),
            namespace: "".into(),
            resource: "".into(),
            details: String::new(),
            fact: Fact::Put(write),
        };
        let entry = EntryId { sequence, index: 0 };
        let entries = [(entry, record, BodyPlace::default())].into();
        Published { sequence, time: 1, hash: [0; 32], entries }
    }

    #[test]
    fn above_its_bound_it_says_so_and_then_leaves_the_rest_to_the_journal() {
        let value: Arc<[u8]> = vec![0; 1 << 20].into();
        let feed = Feed::new(0, 0, false);
        for sequence in 1..=65 {
            feed.push(&frame(sequence, &value));
        }
        let lag = feed.lag();
        assert!(lag.over && lag.bytes > LAG_BYTES_MAX && !lag.catching_up);
        for sequence in 66..=130 {
            feed.push(&frame(sequence, &value));
        }
        let lag = feed.lag();
        assert!(!lag.over && lag.catching_up && lag.bytes == 0);
        assert!(matches!(feed.wait(), Order::CatchUp));
        feed.caught_up(129);
        assert!(feed.lag().catching_up, "frame 130 was published meanwhile");
        feed.caught_up(130);
        assert!(!feed.lag().catching_up);
        feed.push(&frame(131, &value));
        let mut overlay = Overlay::default();
        feed.drain(&mut overlay);
        assert_eq!(overlay.head, Some((131, [0; 32])));
    }
}
