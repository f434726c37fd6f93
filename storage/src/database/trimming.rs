//! When the oldest segments go (JOURNAL rule 22), in two rounds of the housekeeper. The first
//! writes down what goes and how the chain of the rest begins; the second, once that is signed and
//! nobody needs the frames any more, removes the files. Cut short at any point, the next round goes
//! on: what is written down is dropped for good, whether its files are still there or not. A
//! segment with damage goes as the others do, into quarantine, which is kept for as long only.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::carrying::{Carrier, Left, ROUND_MESSAGES, needing};
use super::lost::{Damaged, Lost, UNNAMED, unended};
use crate::checkpoint;
use crate::event::Event;
use crate::journal::{CompactError, Compactor, EntryRef, ReadError, Reader, SegmentView};
use crate::messages::Messages;
use crate::record::{Direction, EntryId, Level, Millis, Status, Trim};
use crate::retention::Retention;
use crate::store::Store;
use crate::transaction::Act;
use crate::trim;
use crate::view::{Compared, Row, View, ViewError};

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
    /// The rows are to know the frames up to here, which carried something, before they count.
    carried: u64,
    /// What goes next: something of it was carried. More that has become old since waits, or what
    /// is to be carried of that would never come to an end.
    aim: Option<u64>,
    /// The messages of it that only rows know, and that the audit log names already.
    named: BTreeSet<EntryId>,
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
            carried: 0,
            aim: None,
            named: BTreeSet::new(),
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
        // What cannot be removed there keeps nothing else.
        if let Err(failure) = self.clear_quarantine() {
            tracing::warn!(error.text = %failure, "the journal's quarantine is not cleared");
        }
        let open = self.newest.as_ref();
        let open = open.filter(|(_, trim)| self.reader.first_sequence() <= trim.through);
        let Some((at, trim)) = open else { return self.write_down() };
        if self.may_go(at.sequence, trim)? {
            let damaged = Damaged::read(&self.reader)?;
            let is_evidence = |path: &Path| damaged.has(path);
            // Not what the clock says, which may be behind, or cannot be asked at a stop.
            let recorded = self.store.state(|state| state.time);
            let (segments, bytes) = self.compactor.trim(trim.through, &is_evidence, recorded)?;
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
        let now = self.now();
        // The newest one is written to.
        let older = segments.len().saturating_sub(1).min(SEGMENTS_MAX);
        let is_next = |last| self.aim.is_none_or(|aim| last <= aim);
        let goes = |segment: &&SegmentView| is_next(segment.range().1) && self.is_old(segment, now);
        let mut going = segments.iter().take(older).take_while(goes).count();
        if let Some(through) = through(&segments, going) {
            match self.carry(through) {
                Left::Nothing => {}
                // The rows are to know it first.
                Left::Later => {
                    self.aim = Some(through);
                    return Ok(());
                }
                Left::From(at) => {
                    going = segments.iter().take_while(|segment| segment.range().1 < at).count();
                }
            }
        }
        let Some(through) = through(&segments, going) else { return Ok(()) };
        if !self.view.is_whole(through.max(self.carried)) {
            return Ok(());
        }
        let Some(Counts { rows, unended, unnamed, dropped, kept }) = self.count(through, now)?
        else {
            return Ok(());
        };
        if !kept.is_empty() {
            self.aim = Some(through);
            self.keep(kept);
            return Ok(());
        }
        if !unnamed.is_empty() {
            self.aim = Some(through);
            self.name(unnamed);
            return Ok(());
        }
        // The rows may have been given up meanwhile.
        if !self.view.is_whole(through) {
            return Ok(());
        }
        let mut lost = Lost::of(&segments[..=going], &Damaged::read(&self.reader)?)?;
        lost.messages = unended;
        let until = segments[going - 1].times().1;
        let frames = format!(r#""through":{through},"recorded_until":{until}"#);
        let rows = format!(r#""segments":{going},"messages":{rows}{}"#, lost.members());
        let level = if lost.is_some() { Level::Warning } else { Level::Info };
        let act = Act::new(Event::StoreTrim, "store", "", "journal").level(level);
        let act = act.details(format!("{{{frames},{rows}}}"));
        let finished = dropped.into_iter();
        let finished: Vec<_> = finished
            .map(|((to, direction, status), count)| (to, direction, status, count))
            .collect();
        self.put_down(act, Trim { through, hash: segments[going].previous(), finished });
        Ok(())
    }

    fn put_down(&mut self, act: Act, trim: Trim) {
        let written = trim.clone();
        let done = self.store.commit(move |transaction| -> Result<EntryId, Infallible> {
            Ok(transaction.trim(act, trim))
        });
        // A store that does not write just now is asked again in the next round.
        if let Ok(Ok(entry)) = done.wait() {
            let at = EntryRef { sequence: entry.sequence, index: entry.index };
            (self.newest, self.aim) = (Some((at, written)), None);
            self.named.clear();
        }
    }

    /// Names messages that nobody can end any more, because only their rows are left: one entry
    /// each, which stays when they go.
    fn name(&mut self, rows: Vec<Row>) {
        let entries: Vec<EntryId> = rows.iter().map(|row| row.entry).collect();
        let done = self.store.commit(move |transaction| -> Result<(), Infallible> {
            for row in &rows {
                transaction.note(unended(row));
            }
            Ok(())
        });
        if matches!(done.wait(), Ok(Ok(()))) {
            self.named.extend(entries);
        }
    }

    /// Lets go of what lies in quarantine for as long as the audit log is kept.
    fn clear_quarantine(&self) -> Result<(), Failure> {
        let before = self.now().saturating_sub(self.kept());
        let (files, bytes) = self.compactor.clear_quarantine(before)?;
        if files == 0 {
            return Ok(());
        }
        let details = format!(r#"{{"files":{files},"bytes":{bytes}}}"#);
        let act = Act::new(Event::StoreTrim, "store", "", "quarantine").details(details);
        let done = self.store.commit(move |transaction| -> Result<(), Infallible> {
            transaction.note(act);
            Ok(())
        });
        // The files are gone also when the store stops just now.
        let _ = done.wait();
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
        let kept = self.kept();
        let (_, latest) = segment.times();
        latest.saturating_add(kept) <= now
            && self.store.messages(|messages| latest < remembered_from(messages))
    }

    /// For how long anything is kept: the audit log, or bodies where those are kept for longer.
    fn kept(&self) -> Millis {
        let bodies = *self.bodies.lock();
        let all = [bodies.delivered, bodies.expired, bodies.processed, bodies.rejected];
        let bodies = all.iter().map(|keep| keep.age).max().unwrap_or(0);
        self.kept.load(Ordering::Relaxed).max(bodies)
    }

    /// Writes what unfinished messages need of the frames up to one anew, where there is room.
    fn carry(&self, through: u64) -> Left {
        if self.store.is_full() { Left::Later } else { self.carrier().carry(through) }
    }

    /// The same of finished ones. Each is then in a frame that is kept for as long as any of them,
    /// so that this is done once for a message.
    fn keep(&mut self, rows: Vec<Row>) {
        if !self.store.is_full() {
            self.carrier().keep(rows);
            self.carried = self.store.state(|state| state.sequence);
        }
    }

    fn carrier(&self) -> Carrier<'_> {
        let (store, view) = (&self.store, &self.view);
        Carrier { store, view, reader: &self.reader, compactor: &self.compactor }
    }

    /// The messages that nothing but the frames up to one has; `None` when one of them is not
    /// finished, or it cannot be told just now. No unfinished message needs these frames: one
    /// that was being sent, or that the disk had no room for, was not carried.
    fn count(&self, through: u64, now: Millis) -> Result<Option<Counts>, Failure> {
        if !needing(&self.store, through).is_empty() {
            return Ok(None);
        }
        // Where rows and fold may differ, what goes is what makes them agree. That is counted
        // first: a row that is not finished then is of a message whose end is lost.
        let compared = if self.view.is_sound() {
            None
        } else {
            let Some(compared) = self.view.compare() else { return Ok(None) };
            Some(compared)
        };
        let (mut counted, mut unended) = (Counted::new(), 0);
        let (mut kept, mut unnamed) = (Vec::new(), Vec::new());
        let retention = *self.bodies.lock();
        let until = |row: &Row| {
            retention.of(row.status).map(|keep| row.updated_at.saturating_add(keep.age))
        };
        self.view.rows_of((0, through), &mut |row| {
            if row.kept_by() > through {
                return;
            }
            if !row.status.is_finished() {
                unended += 1;
                if unnamed.len() < UNNAMED && !self.named.contains(&row.entry) {
                    unnamed.push(row.clone());
                }
            }
            if until(row).is_some_and(|until| until > now) && kept.len() < ROUND_MESSAGES {
                kept.push(row.clone());
            }
            let key = (row.destination.as_str().into(), row.direction, row.status);
            *counted.entry(key).or_default() += 1;
        })?;
        let rows = counted.values().sum();
        // Until then the rows lag behind.
        let is_known = compared.is_some() || unended == 0;
        let dropped = match compared {
            Some(compared) => dropped(&compared, &counted),
            None => counted,
        };
        Ok(is_known.then_some(Counts { rows, unended, unnamed, dropped, kept }))
    }
}

/// What goes with some frames.
struct Counts {
    /// Rows.
    rows: u64,
    /// Those that are not finished, because the end of their messages is lost.
    unended: u64,
    /// Some of those, which the audit log does not name yet.
    unnamed: Vec<Row>,
    /// What the fold counts no more.
    dropped: Counted,
    /// Rows that are to be carried first: their messages ended too short a while ago.
    kept: Vec<Row>,
}

/// What the fold is to count no more, so that it has the finished messages that the rows have when
/// those that were `counted` are gone. What it has of unfinished ones is there.
fn dropped(compared: &Compared, counted: &Counted) -> Counted {
    let of = |counts: &Counted, key| counts.get(key).copied().unwrap_or(0);
    let finished = compared.fold.iter().filter(|((.., status), _)| status.is_finished());
    let dropped = finished.map(|(key, count)| {
        let stays = of(&compared.rows, key).saturating_sub(of(counted, key));
        (key.clone(), count.saturating_sub(stays))
    });
    dropped.filter(|(_, count)| *count > 0).collect()
}

/// Through which frame so many of the segments go, if there are frames in them.
fn through(segments: &[SegmentView], going: usize) -> Option<u64> {
    let (first, next) = (segments.first()?, segments.get(going).filter(|_| going > 0)?);
    Some(next.range().0.saturating_sub(1)).filter(|through| *through >= first.range().0)
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use crate::database::Database;
    use crate::event::Event;
    use crate::record::{Direction, MessageHead, Reason, Status};
    use crate::transaction::{Act, Body};

    fn head(id: &str) -> MessageHead {
        MessageHead {
            direction: Direction::Outbound,
            message_id: id.into(),
            message_type: "note".into(),
            namespace: "default".into(),
            peer: String::new(),
            destination: "server".into(),
            sender: String::new(),
            lane: String::new(),
            priority: 2,
            created_at: 1,
            deadline: None,
            expires_at: None,
            task_id: None,
            correlation_id: None,
            retry_of: None,
            sealed: false,
            size: 0,
            digest: [0; 32],
            status: Status::Pending,
            reason: Reason::None,
            due_at: 1,
        }
    }

    #[test]
    fn frames_that_an_unfinished_message_needs_do_not_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let opened = Database::open(dir.path(), Box::new(|| 1), Box::new(|_| {}));
        let (database, _) = opened.expect("opens");
        let done = database.store.commit(|transaction| -> Result<_, Infallible> {
            let act = Act::new(Event::MessageQueued, "agent", "default", "waits");
            Ok(transaction.accept(act, head("waits"), Body::new(b"body")))
        });
        let Ok(entry) = done.wait().expect("durable");
        database.view.settle().expect("settles");
        // Rows that may differ from the fold say nothing about it.
        database.view.distrust();
        let trimming = database.housekeeper.trimming();
        let counted = trimming.lock().count(entry.sequence, 1).expect("reads");
        assert!(counted.is_none(), "its frame would go");
        let before = trimming.lock().count(entry.sequence - 1, 1).expect("reads");
        assert!(before.is_some(), "nobody needs those before it");
        database.close().expect("closes");
    }
}
