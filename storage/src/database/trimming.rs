//! When the oldest segments go (JOURNAL rule 22), in two rounds of the housekeeper. The first
//! writes down what goes and how the chain of the rest begins; the second, once that is signed and
//! nobody needs the frames any more, removes the files. Cut short at any point, the next round goes
//! on: what is written down is dropped for good, whether its files are still there or not.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::carrying::{Left, carry};
use crate::checkpoint;
use crate::event::Event;
use crate::journal::{CompactError, Compactor, EntryRef, ReadError, Reader, SegmentView};
use crate::messages::Messages;
use crate::record::{Direction, EntryId, Level, Millis, Status, Trim};
use crate::retention::Retention;
use crate::store::Store;
use crate::transaction::Act;
use crate::trim;
use crate::view::{View, ViewError};

/// Segments that go at once: their rows are read and removed.
const SEGMENTS_MAX: usize = 256;

/// Between two rounds: under load the housekeeper looks more often.
const INTERVAL: Millis = 20_000;

/// Signed ends after the word of what goes, before it goes.
const SIGNED: usize = 2;

/// Nothing was dropped this time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Journal(#[from] ReadError),
    #[error(transparent)]
    Rows(#[from] ViewError),
    #[error(transparent)]
    Files(#[from] CompactError),
}

type Counted = BTreeMap<(Arc<str>, Direction, Status), u64>;

/// What decides about the oldest segments, and drops them.
pub(super) struct Trimming {
    compactor: Compactor,
    reader: Reader,
    store: Store,
    view: View,
    checkpoints: PathBuf,
    bodies: Arc<Mutex<Retention>>,
    /// For how long the audit log is kept; for ever until the owner says otherwise, who has the
    /// readers that hold frames by then.
    kept: Arc<AtomicU64>,
    /// The newest trim that the journal has, if it was looked for.
    newest: Option<(EntryRef, Trim)>,
    /// To look for what is hardly ever there takes long: it is done once.
    is_known: bool,
    /// When there was a round.
    last: Millis,
}

impl Trimming {
    pub(super) fn new(
        compactor: &Compactor,
        (store, view): (&Store, &View),
        checkpoints: PathBuf,
        (bodies, kept): (&Arc<Mutex<Retention>>, &Arc<AtomicU64>),
    ) -> Self {
        Self {
            compactor: compactor.clone(),
            reader: compactor.reader(),
            store: store.clone(),
            view: view.clone(),
            checkpoints,
            bodies: Arc::clone(bodies),
            kept: Arc::clone(kept),
            newest: None,
            is_known: false,
            last: 0,
        }
    }

    /// One round, if the last one was a while ago.
    pub(super) fn step_in_time(&mut self) {
        let now = self.store.state(|state| state.time);
        if now >= self.last.saturating_add(INTERVAL) {
            self.last = now;
            self.step();
        }
    }

    /// One round.
    pub(super) fn step(&mut self) {
        if self.kept.load(Ordering::Relaxed) == Millis::MAX {
            return;
        }
        if let Err(failure) = self.try_step() {
            tracing::warn!(error.text = %failure, "old entries of the audit log are not dropped");
        }
    }

    fn try_step(&mut self) -> Result<(), Failure> {
        if !self.is_known {
            self.newest = trim::recorded(&self.reader)?;
            self.is_known = true;
        }
        let open = self.newest.as_ref();
        let open = open.filter(|(_, trim)| self.reader.first_sequence() <= trim.through);
        let Some((at, trim)) = open else { return self.write_down() };
        if self.may_go(at.sequence, trim)? {
            let (segments, bytes) = self.compactor.trim(trim.through)?;
            tracing::info!(segments, bytes, "old segments of the journal are dropped");
        }
        Ok(())
    }

    /// Whether the files of what is written down may go. A checkpoint needs the frames after it; of
    /// two the newer may be cut short. An audit log that is signed has the word signed first: of
    /// two ends that were signed after it the second one lies after it.
    fn may_go(&self, at: u64, trim: &Trim) -> Result<bool, Failure> {
        if !self.view.is_whole(at) || self.reader.held_from() <= trim.through {
            return Ok(false);
        }
        let firsts = checkpoint::firsts(&self.checkpoints, self.reader.identity().journal);
        if firsts.len() < checkpoint::KEPT || firsts.iter().any(|first| *first <= trim.through) {
            return Ok(false);
        }
        let signed = self.reader.by_event(&[Event::AuditSign.code()], None, SIGNED)?;
        Ok(signed.is_empty() || signed.iter().filter(|one| one.sequence > at).count() == SIGNED)
    }

    fn write_down(&mut self) -> Result<(), Failure> {
        let mut segments = self.reader.segments();
        segments.reverse();
        let damage = self.reader.damage()?;
        let now = self.now();
        // The newest one is written to. One that is damaged is evidence, and its counts are not
        // sure.
        let older = segments.len().saturating_sub(1).min(SEGMENTS_MAX);
        let is_damaged =
            |segment: &SegmentView| damage.iter().any(|one| one.segment == segment.path());
        let goes = |segment: &&SegmentView| !is_damaged(segment) && self.is_old(segment, now);
        let mut going = segments.iter().take(older).take_while(goes).count();
        if let Some(newest) = going.checked_sub(1).and_then(|at| segments.get(at)) {
            match self.carry(newest.range().1) {
                Left::Nothing => {}
                // The rows are to know it first.
                Left::Later => return Ok(()),
                Left::From(at) => {
                    going = segments.iter().take_while(|segment| segment.range().1 < at).count();
                }
            }
        }
        let (Some(first), Some(next)) = (segments.first(), segments.get(going)) else {
            return Ok(());
        };
        let (from, through) = (first.range().0, next.range().0.saturating_sub(1));
        if going == 0 || through < from || !self.view.is_whole(through) {
            return Ok(());
        }
        let counted = self.count(through)?;
        // The rows may have been given up meanwhile.
        let Some(counted) = counted.filter(|_| self.view.is_whole(through)) else { return Ok(()) };
        let (hash, until) = (next.previous(), segments[going - 1].times().1);
        let messages: u64 = counted.values().sum();
        let finished = counted.into_iter();
        let finished: Vec<_> = finished
            .map(|((to, direction, status), count)| (to, direction, status, count))
            .collect();
        let frames = format!(r#""through":{through},"recorded_until":{until}"#);
        let details = format!(r#"{{{frames},"segments":{going},"messages":{messages}}}"#);
        let act = Act::new(Event::StoreTrim, "store", "", "journal").level(Level::Info);
        let (act, trim) = (act.details(details), Trim { through, hash, finished });
        let written = trim.clone();
        let done = self.store.commit(move |transaction| -> Result<EntryId, Infallible> {
            Ok(transaction.trim(act, trim))
        });
        // A store that does not write just now is asked again in the next round.
        if let Ok(Ok(entry)) = done.wait() {
            let at = EntryRef { sequence: entry.sequence, index: entry.index };
            self.newest = Some((at, written));
        }
        Ok(())
    }

    /// By record time, which follows a clock that jumped ahead only once something was recorded
    /// then, and no longer than it is there.
    fn now(&self) -> Millis {
        let wall = self.store.commit(|transaction| Ok::<_, Infallible>(transaction.now()));
        let recorded = self.store.state(|state| state.time);
        wall.wait().map_or(0, |wall| wall.unwrap_or(0)).min(recorded)
    }

    /// Whether nobody needs a segment, as far as that shows without reading it.
    fn is_old(&self, segment: &SegmentView, now: Millis) -> bool {
        let bodies = *self.bodies.lock();
        let all = [bodies.delivered, bodies.expired, bodies.processed, bodies.rejected];
        let bodies = all.iter().map(|keep| keep.age).max().unwrap_or(0);
        let kept = self.kept.load(Ordering::Relaxed).max(bodies);
        let (_, latest) = segment.times();
        latest.saturating_add(kept) <= now
            && self.store.messages(|messages| latest < remembered_from(messages))
    }

    /// Writes what unfinished messages need of the frames up to one anew, where there is room.
    fn carry(&self, through: u64) -> Left {
        if self.store.is_full() { Left::Later } else { carry(&self.store, &self.reader, through) }
    }

    /// How many messages of which kind nothing but the frames up to one has; `None` when one of
    /// them is not finished.
    fn count(&self, through: u64) -> Result<Option<Counted>, Failure> {
        let (mut counted, mut all_finished) = (Counted::new(), true);
        self.view.rows_of((0, through), &mut |row| {
            if row.kept_by() > through {
                return;
            }
            all_finished &= row.status.is_finished();
            let key = (row.destination.as_str().into(), row.direction, row.status);
            *counted.entry(key).or_default() += 1;
        })?;
        Ok(all_finished.then_some(counted))
    }
}

/// When the oldest id was accepted that a message sent again would be found by.
fn remembered_from(messages: &Messages) -> Millis {
    let forgotten = messages.forgotten_before();
    if messages.evicted_through() > EntryId::default() {
        return forgotten;
    }
    let oldest = messages.finished().next().map_or(Millis::MAX, |(_, one)| one.accepted_at);
    oldest.max(forgotten)
}
