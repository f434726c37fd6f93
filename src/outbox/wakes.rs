//! Wakes a pump, and only when a durable frame may let a message of its destination leave: of many
//! pumps each frame concerns few. It takes nothing out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use storage::record::{Direction, Fact, Kind, Record, Status};
use storage::store::Store;
use tokio::sync::watch;

/// One destination's wakings.
pub(super) struct Wakes {
    key: (Arc<str>, Direction, Status),
    published: watch::Receiver<u64>,
    /// A message of the destination may be pending: then whatever changes may let it leave.
    has_pending: Arc<AtomicBool>,
}

impl Wakes {
    /// Listens from now on.
    pub(super) fn new(store: &Store, destination: &str) -> Self {
        let (sender, published) = watch::channel(0);
        let has_pending = Arc::new(AtomicBool::new(true));
        let (pending, own) = (Arc::clone(&has_pending), Arc::<str>::from(destination));
        let key = (Arc::clone(&own), Direction::Outbound, Status::Pending);
        store.listen(Box::new(move |frame| {
            let has_pending = pending.load(Ordering::SeqCst);
            let mut records = frame.entries.iter().map(|(_, record, _)| record);
            let wakes = records.any(|record| concerns(record, &own, has_pending));
            if wakes { sender.send(frame.sequence).is_ok() } else { !sender.is_closed() }
        }));
        Self { key, published, has_pending }
    }

    /// Changes with each waking.
    pub(super) fn receiver(&self) -> watch::Receiver<u64> {
        self.published.clone()
    }

    /// To be called before the queue is looked at, so that no change in between is missed.
    pub(super) fn look(&self) {
        self.has_pending.store(true, Ordering::SeqCst);
    }

    /// To be called when what may leave was taken. What was just taken counts as pending until its
    /// start is durable.
    pub(super) fn looked(&self, store: &Store) {
        if !store.messages(|messages| messages.counts().contains_key(&self.key)) {
            self.has_pending.store(false, Ordering::SeqCst);
        }
    }
}

/// Whether a record may let a message of this destination leave. An end frees its lane, and what is
/// pending again is due some day; the destination of a change is not in its record.
fn concerns(record: &Record, destination: &str, has_pending: bool) -> bool {
    match &record.fact {
        Fact::Accept(head) => head.destination == destination,
        Fact::Change(change) => has_pending || change.status == Status::Pending,
        Fact::Prune(_) => has_pending,
        Fact::Put(write) => write.key.kind == Kind::Circuit,
        Fact::Note | Fact::Forget(_) | Fact::Evict(_) | Fact::Trim(_) | Fact::Carry(_) => false,
    }
}
