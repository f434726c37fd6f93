//! When the oldest segments go (JOURNAL rule 22), in two rounds of the housekeeper. The first
//! writes down what goes and how the chain of the rest begins; the second, once that is signed and
//! nobody needs the frames any more, removes the files. Cut short at any point, the next round goes
//! on: what is written down is dropped for good, whether its files are still there or not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::checkpoint;
use crate::event::Event;
use crate::journal::{CompactError, Compactor, ReadError, Reader, SegmentView};
use crate::messages::Messages;
use crate::record::{Direction, EntryId, Level, Millis, Status, Trim};
use crate::retention::Retention;
use crate::store::Store;
use crate::transaction::Act;
use crate::trim;
use crate::view::{View, ViewError};

/// Segments that go at once: their rows are read and removed.
const SEGMENTS_MAX: usize = 256;

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
    /// For how long the audit log is kept.
    kept: Arc<AtomicU64>,
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
        }
    }

    /// One round.
    pub(super) fn step(&self) {
        if let Err(failure) = self.try_step() {
            tracing::warn!(error.text = %failure, "old entries of the audit log are not dropped");
        }
    }

    fn try_step(&self) -> Result<(), Failure> {
        if let Some((at, trim)) = trim::recorded(&self.reader)?
            && self.reader.first_sequence() <= trim.through
        {
            if self.may_go(at.sequence, &trim)? {
                let (segments, bytes) = self.compactor.trim(trim.through)?;
                tracing::info!(segments, bytes, "old segments of the journal are dropped");
            }
            return Ok(());
        }
        self.write_down()
    }

    /// Whether the files of what is written down may go. A checkpoint needs the frames after it; of
    /// two the newer may be cut short. An audit log that is signed has the word signed first.
    fn may_go(&self, at: u64, trim: &Trim) -> Result<bool, Failure> {
        let lag = self.view.lag();
        if lag.applied < at || lag.catching_up || self.reader.held_from() <= trim.through {
            return Ok(false);
        }
        let firsts = checkpoint::firsts(&self.checkpoints, self.reader.identity().journal);
        if firsts.len() < checkpoint::KEPT || firsts.iter().any(|first| *first <= trim.through) {
            return Ok(false);
        }
        let signed = self.reader.by_event(&[Event::AuditSign.code()], None, 1)?;
        Ok(signed.first().is_none_or(|signed| signed.sequence > at))
    }

    fn write_down(&self) -> Result<(), Failure> {
        let oldest_first = self.reader.segments().into_iter().rev();
        let going: Vec<SegmentView> =
            oldest_first.take(SEGMENTS_MAX).take_while(|segment| self.is_old(segment)).collect();
        let (Some(first), Some(last)) = (going.first(), going.last()) else { return Ok(()) };
        let (through, lag) = (last.range().1, self.view.lag());
        if lag.catching_up || lag.applied < through {
            return Ok(());
        }
        let Some(counted) = self.count((first.range().0, through))? else { return Ok(()) };
        let hash = self.reader.frame(through)?.hash;
        let finished = counted.into_iter();
        let finished: Vec<_> = finished
            .map(|((destination, direction, status), count)| {
                (destination, direction, status, count)
            })
            .collect();
        let messages: u64 = finished.iter().map(|(.., count)| count).sum();
        let (segments, until) = (going.len(), last.times().1);
        let frames = format!(r#""through":{through},"recorded_until":{until}"#);
        let details = format!(r#"{{{frames},"segments":{segments},"messages":{messages}}}"#);
        let act = Act::new(Event::StoreTrim, "store", "", "journal").level(Level::Info);
        let (act, trim) = (act.details(details), Trim { through, hash, finished });
        let done = self.store.commit(move |transaction| -> Result<(), std::convert::Infallible> {
            transaction.trim(act, trim);
            Ok(())
        });
        // A store that does not write just now is asked again in the next round.
        let _ = done.wait();
        Ok(())
    }

    /// Whether nobody needs a segment, as far as that shows without reading it.
    fn is_old(&self, segment: &SegmentView) -> bool {
        let bodies = *self.bodies.lock();
        let all = [bodies.delivered, bodies.expired, bodies.processed, bodies.rejected];
        let bodies = all.iter().map(|keep| keep.age).max().unwrap_or(0);
        let kept = self.kept.load(Ordering::Relaxed).max(bodies);
        let ((_, through), (_, latest)) = (segment.range(), segment.times());
        // By record time: a clock that jumped ahead is followed once something was recorded then.
        let now = self.store.state(|state| state.time);
        segment.is_sealed()
            && latest.saturating_add(kept) <= now
            && self.store.messages(|messages| {
                let oldest = messages.iter().next().map_or(u64::MAX, |one| one.entry.sequence);
                through < oldest && latest < remembered_from(messages)
            })
    }

    /// How many messages of which kind were accepted in a range of frames; `None` when one of them
    /// is not finished.
    fn count(&self, range: (u64, u64)) -> Result<Option<Counted>, Failure> {
        let (mut counted, mut all_finished) = (Counted::new(), true);
        self.view.rows_of(range, &mut |row| {
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
