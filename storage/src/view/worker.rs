//! The thread that writes rows to sled: what is published, and, after opening, what the journal
//! has and sled has not. It decides nothing. After an error of sled the rows are made again when
//! the disk has room, and what is asked of them meanwhile is refused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::codec;
use crate::journal::{Frame, ReadLog, Syncer};
use crate::messages::{BodyPlace, Counts};
use crate::record::{EntryId, Record};
use crate::view::feed::Order;
use crate::view::overlay::Overlay;
use crate::view::row::Applied;
use crate::view::tree::Tree;
use crate::view::{Audit, Compared, Shared, ViewError};

/// Frames that opening reads at once, so that lists are complete from the beginning.
const SHORT_TAIL_FRAMES: u64 = 4_096;

/// Bytes of rows that are gathered from the journal for one batch.
const CATCH_UP_BYTES: usize = 4 << 20;

/// Between an error of sled and the next attempt, at first and at the most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) path: PathBuf,
    pub(crate) tree: Tree,
    pub(crate) reader: Arc<dyn ReadLog>,
    pub(crate) applied: Applied,
    pub(crate) syncer: Arc<Syncer>,
}

impl Worker {
    pub(crate) fn run(mut self, audit: &Audit, failed: Option<ViewError>) {
        let mut pause = PAUSE;
        let mut error = failed;
        let mut is_compared = false;
        loop {
            if let Some(why) = error.take() {
                self.answer(None);
                let again = AssertUnwindSafe(|| self.again(&why, audit, &mut pause));
                if !catch_unwind(again).unwrap_or(false) {
                    break;
                }
            }
            // sled panics on some damage; whoever waits for the rows must not wait for ever.
            let worked = catch_unwind(AssertUnwindSafe(|| {
                if !std::mem::replace(&mut is_compared, true) {
                    self.audit(audit)?;
                    let done = self.shared.comparison.lock();
                    self.shared.compared.store(true, Ordering::Release);
                    self.shared.comparing.notify_all();
                    drop(done);
                }
                self.work(audit, &mut pause)
            }));
            let path = self.path.clone();
            match worked.unwrap_or(Err(ViewError::Panicked { path })) {
                Ok(()) => break,
                Err(why) => error = Some(why),
            }
        }
        self.shared.feed.end();
        self.shared.comparison.lock().ended = true;
        self.answer(None);
        self.progress();
    }

    /// Lets sled go, waits until the disk has room, and begins the rows anew; the journal has all
    /// of them. `false` when the store stops meanwhile; a clean stop is worth one more attempt.
    fn again(&mut self, why: &ViewError, audit: &Audit, pause: &mut Duration) -> bool {
        tracing::warn!(error.text = %why, "message view stopped");
        self.tree = Tree::closed(&self.path);
        *self.shared.tree.write() = Err(why.clone());
        self.shared.is_sound.store(false, Ordering::Release);
        self.shared.feed.failed();
        *self.shared.overlay.write() = Overlay::default();
        self.progress();
        let mut is_last = false;
        let tree = loop {
            let stop = self.shared.feed.pause(*pause);
            if stop == Some(false) || is_last {
                return false;
            }
            is_last = stop.is_some();
            if !(audit.has_room)() {
                continue;
            }
            *pause = (*pause * 2).min(PAUSE_MAX);
            match Tree::create(&self.path) {
                Ok(tree) => break tree,
                Err(error) => tracing::debug!(error.text = %error, "message view stays closed"),
            }
        };
        (audit.disagree)(&why.to_string());
        self.applied = Applied { sequence: 0, hash: [0; 32], clean: false, ..self.applied.clone() };
        self.tree = tree.clone();
        *self.shared.tree.write() = Ok(tree);
        self.shared.feed.mended();
        true
    }

    fn progress(&self) {
        if let Some(told) = self.shared.progress.get() {
            told();
        }
    }

    /// Brings the rows to the position of the fold's counts and compares. Rows that disagree are
    /// made again from the journal.
    fn audit(&mut self, audit: &Audit) -> Result<(), ViewError> {
        if self.applied.sequence < audit.sequence {
            self.catch_up(audit.sequence)?;
        }
        let recorded = || self.reader.damage().map_or(true, |damage| !damage.is_empty());
        let damaged = || audit.is_damaged || recorded();
        // What damage took is missing from the rows and perhaps not from a checkpoint.
        if self.applied.sequence != audit.sequence || self.shared.feed.aborted() || damaged() {
            return Ok(());
        }
        let Some(why) = disagreement(&self.tree.counts()?, &audit.counts) else {
            self.shared.is_sound.store(true, Ordering::Release);
            return Ok(());
        };
        (audit.disagree)(&why);
        tracing::warn!(reason = %why, "the rows of messages are rebuilt");
        self.shared.feed.behind();
        self.tree.clear()?;
        self.applied = Applied { sequence: 0, hash: [0; 32], ..self.applied.clone() };
        Ok(())
    }

    /// Counts the rows at one frame of the fold, for whoever asked.
    fn compare(&mut self, audit: &Audit) -> Result<(), ViewError> {
        let (at, fold) = (audit.now)();
        self.catch_up(at)?;
        let is_there = self.applied.sequence == at;
        let rows = if is_there { Some(self.tree.counts()?) } else { None };
        self.answer(rows.map(|rows| Compared { rows, fold }));
        Ok(())
    }

    fn answer(&self, found: Option<Compared>) {
        let mut comparison = self.shared.comparison.lock();
        (comparison.is_asked, comparison.found) = (false, found);
        self.shared.comparing.notify_all();
    }

    fn work(&mut self, audit: &Audit, pause: &mut Duration) -> Result<(), ViewError> {
        loop {
            match self.shared.feed.wait() {
                Order::CatchUp => self.catch_up(u64::MAX)?,
                Order::Compare => self.compare(audit)?,
                Order::Flush => {
                    self.shared.feed.drain(&mut self.shared.overlay.write());
                    self.flush()?;
                    *pause = PAUSE;
                }
                Order::Stop(false) => return Ok(()),
                Order::Stop(true) => return self.tree.mark_clean(&self.applied, &self.syncer),
            }
        }
    }

    /// Reads the journal from the last frame that sled has, through `last` or until nothing newer
    /// is published.
    fn catch_up(&mut self, last: u64) -> Result<(), ViewError> {
        let reader = Arc::clone(&self.reader);
        let target = reader.head().position.sequence.min(last);
        {
            let mut overlay = self.shared.overlay.write();
            (overlay.pending, overlay.bytes) = Default::default();
        }
        for frame in reader.frames(self.applied.sequence + 1) {
            if self.shared.feed.aborted() {
                return Ok(());
            }
            // Damage is reported by whoever opens the journal; rows go on behind it.
            let Ok(frame) = frame else { continue };
            if frame.position.sequence > target {
                break;
            }
            let full = {
                let mut overlay = self.shared.overlay.write();
                add(&mut overlay, &frame);
                overlay.bytes > CATCH_UP_BYTES
            };
            if full {
                self.flush()?;
            }
        }
        self.flush()?;
        // A frame that is lost at the end is not waited for.
        self.shared.feed.caught_up(self.applied.sequence.max(target));
        Ok(())
    }

    /// Writes the overlay; reads see it until it is in sled.
    fn flush(&mut self) -> Result<(), ViewError> {
        let (patches, head, trimmed) = {
            let mut overlay = self.shared.overlay.write();
            overlay.flushing = Arc::new(std::mem::take(&mut overlay.pending));
            overlay.bytes = 0;
            self.shared.feed.gathered(0);
            let trimmed = std::mem::take(&mut overlay.trimmed);
            (Arc::clone(&overlay.flushing), overlay.head, trimmed)
        };
        let Some((sequence, hash)) = head.filter(|(at, _)| *at > self.applied.sequence) else {
            return Ok(());
        };
        self.applied.sequence = sequence;
        self.applied.hash = hash;
        // Before it is said how far the rows are: cut short, it is done again.
        self.tree.trim(trimmed)?;
        self.tree.write(&patches, &self.applied)?;
        self.shared.overlay.write().flushing = Arc::default();
        self.shared.feed.applied(sequence);
        self.progress();
        Ok(())
    }
}

/// Where the rows differ from the fold, in words.
fn disagreement(rows: &Counts, fold: &Counts) -> Option<String> {
    let keys = rows.keys().chain(fold.keys());
    let of = |counts: &Counts, key| counts.get(key).copied().unwrap_or(0);
    let mut differing = keys.filter(|key| of(rows, key) != of(fold, key));
    differing.next().map(|key| {
        let (destination, direction, status) = key;
        let link = if destination.is_empty() { "no link" } else { destination };
        format!(
            "rows of {} {} messages with the status {} for {link}, and the journal has {}",
            of(rows, key),
            direction.as_str(),
            status.as_str(),
            of(fold, key),
        )
    })
}

/// What the journal has and sled has not, unless it is much: that is read in the background.
pub(crate) fn short_tail(reader: &dyn ReadLog, applied: u64, published: u64) -> Option<Overlay> {
    if published.saturating_sub(applied) > SHORT_TAIL_FRAMES {
        return None;
    }
    let mut overlay = Overlay::default();
    for frame in reader.frames(applied + 1) {
        add(&mut overlay, &frame.ok()?);
        if overlay.bytes > CATCH_UP_BYTES {
            return None;
        }
    }
    Some(overlay)
}

fn add(overlay: &mut Overlay, frame: &Frame) {
    for (entry, record, body) in records(frame) {
        overlay.add(entry, frame.time, &record, body);
    }
    overlay.head = Some((frame.position.sequence, frame.hash));
}

/// The entries of a frame, decoded; one that cannot be is left out.
pub(crate) fn records(frame: &Frame) -> impl Iterator<Item = (EntryId, Record, BodyPlace)> {
    frame.entries.iter().filter_map(|one| {
        let entry = EntryId { sequence: frame.position.sequence, index: one.index };
        let record = codec::decode(&one.head).ok()?;
        Some((entry, record, crate::store::place(one.body)))
    })
}
