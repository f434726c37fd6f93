//! Which segment is compacted next: one at a time, oldest first, when enough of it is dead. It runs
//! on the housekeeper's thread, and never without room for what it writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use parking_lot::Mutex;

use super::carrying::carried;
use crate::event::Event;
use crate::journal::{CompactError, Compacted, Compactor, ReadError, Space};
use crate::record::{EntryId, Level, Millis};
use crate::retention::{Limits, Retention, is_dead};
use crate::shred::Shredded;
use crate::store::Store;
use crate::transaction::Act;
use crate::view::{Row, View, ViewError};

/// A segment is written anew when this part of it is dead: one in
const DEAD_PART: u64 = 4;

/// On a full disk, or when a person asks, this many dead bytes are enough.
const DEAD_BYTES_MIN: u64 = 4 << 10;

/// A segment with unfinished messages is looked at again after so much record time.
const AGAIN_SOON: Millis = 60 * 1_000;

/// And one whose messages are all finished and not old enough.
const AGAIN_LATER: Millis = 10 * 60 * 1_000;

/// Messages that are compared with the fold at once: the committer waits meanwhile.
const COMPARED_MAX: usize = 1_000;

/// What compaction did since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Segments that were written anew.
    pub segments: u64,
    /// Bodies that are gone.
    pub bodies: u64,
    /// Bytes that the disk got back.
    pub bytes: u64,
}

impl Freed {
    /// Adds what was done to a segment.
    fn add(&mut self, done: Compacted) {
        self.segments += 1;
        self.bodies += done.bodies;
        self.bytes += done.before.saturating_sub(done.after);
    }
}

/// A segment was not compacted.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Segment(#[from] CompactError),
    #[error(transparent)]
    Journal(#[from] ReadError),
    #[error(transparent)]
    Rows(#[from] ViewError),
}

/// What a segment has of bodies, judged at one time by one retention.
#[derive(Default)]
struct Found {
    now: Millis,
    retention: Retention,
    /// Where a dead one lies, and the entry that accepted its message.
    dead: Vec<(EntryId, EntryId)>,
    /// Bytes of the others.
    kept: u64,
    /// One of them is of a message that is not finished.
    is_open: bool,
    /// A person wants one of the dead gone.
    is_asked: bool,
}

/// The work on all segments.
pub(super) struct Compaction {
    compactor: Compactor,
    store: Store,
    view: View,
    space: Arc<Space>,
    retention: Arc<Mutex<Retention>>,
    /// Segments of this pass, the next one last.
    pass: Vec<u64>,
    limits: Limits,
    /// Whose content a person wants gone.
    shredded: Shredded,
    /// When a segment is looked at again; never: nothing is left in it, or it cannot be done.
    again: HashMap<u64, Option<Millis>>,
    /// Who waits for the end of this pass, which then takes everything that is dead.
    waiting: Vec<SyncSender<Freed>>,
    /// What this pass did.
    freed: Freed,
}

impl Compaction {
    pub(super) fn new(
        compactor: Compactor,
        store: &Store,
        view: &View,
        space: &Arc<Space>,
        retention: &Arc<Mutex<Retention>>,
    ) -> Self {
        Self {
            compactor,
            store: store.clone(),
            view: view.clone(),
            space: Arc::clone(space),
            retention: Arc::clone(retention),
            pass: Vec::new(),
            limits: Limits::default(),
            shredded: Shredded::default(),
            again: HashMap::new(),
            waiting: Vec::new(),
            freed: Freed::default(),
        }
    }

    /// Whether there are segments to look at now.
    pub(super) fn is_busy(&self) -> bool {
        !self.pass.is_empty()
    }

    /// Begins to look at the segments that may have become worth it, if that is not under way.
    pub(super) fn begin(&mut self) {
        if self.is_busy() {
            return;
        }
        let (now, is_short) = (self.now(), self.space.is_short());
        let is_due = |number: &u64| match self.again.get(number) {
            None => true,
            Some(None) => false,
            Some(Some(at)) => is_short || *at <= now,
        };
        let mut due = self.compactor.sealed();
        due.retain(is_due);
        due.reverse();
        if !due.is_empty() && self.count() {
            self.pass = due;
        }
    }

    /// Looks at the next segment, and writes it anew if that is worth it.
    pub(super) fn step(&mut self) {
        let Some(number) = self.pass.pop() else { return };
        let is_eager = !self.waiting.is_empty() || self.space.is_short();
        match self.look(number, is_eager) {
            Ok(Some(done)) => self.freed.add(done),
            Ok(None) => {}
            Err(failure) => self.failed(number, &failure),
        }
        if self.pass.is_empty() {
            self.finish();
        }
    }

    /// Begins with all segments, each as soon as there is something to win, and tells what came of
    /// it. Whoever asks while that is under way has it begin again, as something may have become
    /// dead since, and all are told at the end.
    pub(super) fn all(&mut self, answer: SyncSender<Freed>) {
        if self.count() {
            if self.waiting.is_empty() {
                self.freed = Freed::default();
            }
            self.pass = self.compactor.sealed();
            self.pass.reverse();
        }
        self.waiting.push(answer);
        if self.pass.is_empty() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let freed = std::mem::take(&mut self.freed);
        for answer in self.waiting.drain(..) {
            // Whoever asked may be gone.
            let _ = answer.send(freed);
        }
    }

    fn failed(&mut self, number: u64, failure: &Failure) {
        tracing::warn!(segment = number, error.text = %failure, "a segment is not compacted");
        let later = self.now().saturating_add(AGAIN_LATER);
        let is_final = matches!(
            failure,
            Failure::Segment(CompactError::Damaged { .. } | CompactError::Differs { .. })
        );
        self.again.insert(number, (!is_final).then_some(later));
    }

    /// By record time: a clock that jumped ahead is followed only once something was recorded then.
    fn now(&self) -> Millis {
        self.store.state(|state| state.time)
    }

    /// Counts the bytes of each status, and finds what is shredded; `false` when that cannot be
    /// read yet.
    fn count(&mut self) -> bool {
        let retention = *self.retention.lock();
        let mut limits = Limits::default();
        if self.view.lag().catching_up {
            return false;
        }
        if retention.counts_bytes() {
            let counted = self.view.newest_first(&mut |row| limits.count(row, &retention));
            if counted.is_err() {
                return false;
            }
        }
        let Ok(shredded) = Shredded::read(&self.compactor.reader()) else { return false };
        (self.limits, self.shredded) = (limits, shredded);
        true
    }

    fn look(&mut self, number: u64, is_eager: bool) -> Result<Option<Compacted>, Failure> {
        let Some(weight) = self.compactor.weigh(number)? else { return Ok(None) };
        if weight.bodies == 0 {
            self.again.insert(number, None);
            return Ok(None);
        }
        let now = self.now();
        let mut found = Found { now, retention: *self.retention.lock(), ..Found::default() };
        self.view.rows_of(weight.range, &mut |row| self.judge(row, row.entry, &mut found))?;
        for (at, message) in carried(&self.compactor.reader(), weight.range)? {
            let mut row = None;
            self.view.rows_of((message.sequence, message.sequence), &mut |one| {
                row = (one.entry == message).then(|| one.clone()).or(row.take());
            })?;
            match row {
                Some(row) => self.judge(&row, at, &mut found),
                // It ended, and nothing is known of it any more.
                None => found.dead.push((at, message)),
            }
        }
        let gain = weight.bodies.saturating_sub(found.kept);
        let again = now.saturating_add(if found.is_open { AGAIN_SOON } else { AGAIN_LATER });
        self.again.insert(number, Some(again));
        let is_worth = gain.saturating_mul(DEAD_PART) >= weight.bytes
            || is_eager && gain >= DEAD_BYTES_MIN
            || found.is_asked && gain > 0;
        if found.dead.is_empty() || !is_worth {
            return Ok(None);
        }
        let dead = self.dead_in_the_fold(&found.dead);
        let is_dead = |at: crate::journal::EntryRef| {
            dead.contains(&EntryId { sequence: at.sequence, index: at.index })
        };
        let done = self.compactor.compact(number, &is_dead)?;
        if let Some(done) = done {
            self.record(done);
        }
        Ok(done)
    }

    /// Whether the body that lies at an entry of the message of a row is dead.
    fn judge(&self, row: &Row, at: EntryId, found: &mut Found) {
        let is_shredded = self.shredded.is_dead(row.entry);
        let Found { now, retention, .. } = *found;
        // Another one lies where it was carried to.
        let is_here = row.kept_by() == at.sequence;
        if is_shredded || !is_here || is_dead(row, &retention, &self.limits, now) {
            found.is_asked |= is_shredded;
            found.dead.push((at, row.entry));
        } else {
            found.kept += u64::from(row.body.length);
            found.is_open |= !row.status.is_finished();
        }
    }

    /// The rows are derived: what the fold has as unfinished is not dead, whatever a row says.
    fn dead_in_the_fold(&self, found: &[(EntryId, EntryId)]) -> HashSet<EntryId> {
        let mut dead = HashSet::with_capacity(found.len());
        for some in found.chunks(COMPARED_MAX) {
            self.store.messages(|messages| {
                let is_dead = |(at, message): &&(EntryId, EntryId)| {
                    messages.live(*message).is_none_or(|live| live.place().1 != at.sequence)
                };
                dead.extend(some.iter().filter(is_dead).map(|(at, _)| at));
            });
        }
        dead
    }

    fn record(&self, done: Compacted) {
        let Compacted { number, before, after, bodies } = done;
        let sizes = format!(r#""bytes_before":{before},"bytes_after":{after}"#);
        let details = format!(r#"{{"segment":{number},{sizes},"bodies":{bodies}}}"#);
        let act = Act::new(Event::StoreCompact, "store", "", &format!("segment-{number:010}"));
        let act = act.level(Level::Info).details(details);
        let done = self.store.commit(move |transaction| -> Result<(), std::convert::Infallible> {
            transaction.note(act);
            Ok(())
        });
        // The bodies are gone also when the store stops just now.
        let _ = done.wait();
    }
}
