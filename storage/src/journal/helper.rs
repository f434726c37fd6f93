//! The thread that keeps spares ready, seals full segments and keeps the reserve whole, so that no
//! commit waits for it.
//!
//! It never touches the active segment.

use super::catalog::{Sealed, Segment, State};
use super::files::{Spare, fill_spare, make_extra, make_spare};
use super::footer;
use super::segment::{FLAG_CLEAN, Tail};
use super::space::{Space, is_full};
use super::sync::{SyncPoint, Syncer};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Spares kept ready (rule 5).
const SPARES: usize = 2;

/// Spares beyond what is owed that are left alone, so that they do not come and go.
const SPARES_IDLE: usize = 2;

/// Between two attempts to make what a full disk refused.
const RETRY: Duration = Duration::from_secs(1);

/// What the helper and the committer tell each other.
struct Desk {
    /// By number, as they are used; the first are filled first.
    spares: VecDeque<Spare>,
    /// The first one is being filled: those behind it wait for it.
    is_filling: bool,
    seals: VecDeque<Arc<Segment>>,
    /// Full segments whose footer found no room.
    unsealed: Vec<Arc<Segment>>,
    next_number: u64,
    /// Why the last spare could not be made; cleared by the one who asks for it, and by time.
    failure: Option<io::Error>,
    /// What is not urgent found no room; cleared by time.
    is_postponed: bool,
    stop: Stop,
    /// The thread is gone.
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Running,
    AfterSeals,
    Now,
}

/// What does not change.
struct Setting {
    dir: PathBuf,
    spare_bytes: u64,
    syncer: Arc<Syncer>,
    space: Arc<Space>,
}

/// A running helper; dropping it stops it at the next step.
pub(super) struct Helper {
    desk: Arc<(Mutex<Desk>, Condvar)>,
    space: Arc<Space>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    pub(super) fn start(
        dir: PathBuf,
        spare_bytes: u64,
        syncer: Arc<Syncer>,
        (spares, next_number): (Vec<Spare>, u64),
        space: Arc<Space>,
    ) -> io::Result<Self> {
        let desk = Desk {
            spares: spares.into(),
            is_filling: false,
            seals: VecDeque::new(),
            unsealed: Vec::new(),
            next_number,
            failure: None,
            is_postponed: false,
            stop: Stop::Running,
            ended: false,
        };
        let desk = Arc::new((Mutex::new(desk), Condvar::new()));
        let rung = Arc::clone(&desk);
        space.set_bell(Some(Box::new(move || {
            // The lock, so that a helper about to wait is not missed.
            drop(rung.0.lock());
            rung.1.notify_all();
        })));
        let setting = Setting { dir, spare_bytes, syncer, space: Arc::clone(&space) };
        let mine = Arc::clone(&desk);
        let thread = Builder::new().name("journal-helper".into()).spawn(move || {
            let ended = Ended(mine);
            run(&ended.0, &setting);
        })?;
        Ok(Self { desk, space, thread: Some(thread) })
    }

    /// The next spare, waiting for it if need be; an error when none can be made now.
    pub(super) fn take_spare(&self) -> io::Result<Spare> {
        let (desk, bell) = &*self.desk;
        let mut desk = desk.lock();
        loop {
            if !desk.is_filling
                && let Some(spare) = desk.spares.pop_front()
            {
                // What failed before may work now: it is tried again.
                desk.failure = None;
                bell.notify_all();
                return Ok(spare);
            }
            if let Some(error) = desk.failure.take() {
                bell.notify_all();
                return Err(error);
            }
            if desk.ended {
                return Err(io::Error::other("the journal's helper thread has ended"));
            }
            bell.wait(&mut desk);
        }
    }

    /// Leaves a full segment to be sealed.
    pub(super) fn seal(&self, segment: Arc<Segment>) {
        let (desk, bell) = &*self.desk;
        desk.lock().seals.push_back(segment);
        bell.notify_all();
    }

    /// Seals what waits, and ends.
    pub(super) fn finish(mut self) {
        self.stop(Stop::AfterSeals);
    }

    fn stop(&mut self, stop: Stop) {
        let (desk, bell) = &*self.desk;
        desk.lock().stop = stop;
        bell.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's helper thread panicked");
        }
        self.space.set_bell(None);
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop(Stop::Now);
        }
    }
}

/// Tells the committer that nobody works any more, also after a panic.
struct Ended(Arc<(Mutex<Desk>, Condvar)>);

impl Drop for Ended {
    fn drop(&mut self) {
        let (desk, bell) = &*self.0;
        desk.lock().ended = true;
        bell.notify_all();
    }
}

enum Job {
    Spare(u64),
    /// The first spare that has its room and no zeros yet, and its place.
    Fill(usize, Spare),
    Seal(Arc<Segment>),
    /// A spare for what is owed.
    Extra(u64),
    Reserve,
    Remove(Spare),
}

fn run((desk, bell): &(Mutex<Desk>, Condvar), setting: &Setting) {
    while let Some(job) = next_job(desk, bell, &setting.space) {
        match job {
            Job::Spare(number) => {
                let made = spare(setting, number);
                let mut desk = desk.lock();
                match made {
                    Ok(spare) => {
                        desk.spares.push_back(spare);
                        desk.next_number = number.saturating_add(1);
                    }
                    Err(error) => desk.failure = Some(error),
                }
            }
            Job::Fill(place, mut spare) => {
                let filled = fill_spare(&setting.dir, &mut spare, &setting.syncer);
                let mut desk = desk.lock();
                // Without its zeros it is only slower; its room is taken.
                spare.is_filled = true;
                let place = place.min(desk.spares.len());
                desk.spares.insert(place, spare);
                desk.is_filling = false;
                if let Err(error) = filled {
                    tracing::debug!(%error, "a spare segment could not be filled");
                }
            }
            Job::Seal(segment) => sealed(desk, &segment, setting),
            Job::Extra(number) => {
                let made = make_extra(&setting.dir, number, setting.spare_bytes, &setting.syncer);
                let mut desk = desk.lock();
                match made {
                    Ok(spare) => {
                        desk.spares.push_back(spare);
                        desk.next_number = number.saturating_add(1);
                    }
                    Err(error) => desk.postpone(&setting.space, &error),
                }
            }
            Job::Reserve => {
                if let Err(error) = setting.space.refill() {
                    desk.lock().postpone(&setting.space, &error);
                }
            }
            Job::Remove(spare) => {
                // One that stays is found by the next start.
                let _ = fs::remove_file(&spare.path);
            }
        }
        bell.notify_all();
    }
}

/// A spare, on a full disk with room from the reserve.
fn spare(setting: &Setting, number: u64) -> io::Result<Spare> {
    let Setting { dir, spare_bytes, syncer, space } = setting;
    let made =
        space.with_reserve(*spare_bytes, is_full, || make_spare(dir, number, *spare_bytes, syncer));
    made.inspect_err(|error| space.stop_admission(error))
}

fn sealed(desk: &Mutex<Desk>, segment: &Arc<Segment>, setting: &Setting) {
    let Err(error) = seal_with(segment, 0, &setting.syncer, &setting.space) else { return };
    if is_full(&error) {
        let mut desk = desk.lock();
        desk.unsealed.push(Arc::clone(segment));
        desk.postpone(&setting.space, &error);
        return;
    }
    let path = segment.path.display();
    tracing::warn!(%path, %error, "segment is not sealed; the next start will");
}

impl Desk {
    fn postpone(&mut self, space: &Space, error: &io::Error) {
        self.is_postponed = true;
        space.stop_admission(error);
    }

    /// What the committer may wait for.
    fn urgent(&mut self) -> Option<Job> {
        if self.failure.is_some() {
            return None;
        }
        if self.spares.len() < SPARES {
            return Some(Job::Spare(self.next_number));
        }
        let place = self.spares.iter().take(SPARES).position(|spare| !spare.is_filled)?;
        self.is_filling = true;
        Some(Job::Fill(place, self.spares.remove(place)?))
    }

    /// What makes the room whole.
    fn later(&mut self, space: &Space) -> Option<Job> {
        if self.is_postponed || self.failure.is_some() {
            return None;
        }
        let wanted = SPARES.saturating_add(space.owed_segments());
        if self.spares.len() < wanted {
            return Some(Job::Extra(self.next_number));
        }
        if !space.is_whole() {
            return Some(Job::Reserve);
        }
        if self.spares.len() > wanted.saturating_add(SPARES_IDLE) {
            return self.spares.pop_back().map(Job::Remove);
        }
        space.admit();
        None
    }
}

/// The next thing to do: spares first, because the committer may wait for one.
fn next_job(desk: &Mutex<Desk>, bell: &Condvar, space: &Space) -> Option<Job> {
    let mut desk = desk.lock();
    loop {
        if desk.stop == Stop::Now {
            return None;
        }
        let is_running = desk.stop == Stop::Running;
        if is_running && let Some(job) = desk.urgent() {
            return Some(job);
        }
        if let Some(segment) = desk.seals.pop_front() {
            return Some(Job::Seal(segment));
        }
        if !is_running {
            return None;
        }
        if let Some(job) = desk.later(space) {
            return Some(job);
        }
        if desk.failure.is_none() && !desk.is_postponed {
            bell.wait(&mut desk);
        } else if bell.wait_for(&mut desk, RETRY).timed_out() {
            (desk.failure, desk.is_postponed) = (None, false);
            let again = std::mem::take(&mut desk.unsealed);
            desk.seals.extend(again);
        }
    }
}

/// Seals a segment, on a full disk with room from the reserve.
pub(super) fn seal_with(
    segment: &Segment,
    flags: u32,
    syncer: &Syncer,
    space: &Space,
) -> io::Result<()> {
    // A footer has a few dozen bytes an entry, and less than the entries.
    let bytes = segment.end() / 2;
    space.with_reserve(bytes, is_full, || seal(segment, flags, syncer))
}

/// Writes the footer and then the tail of a segment that nobody appends to, and cuts the zeros
/// off. The footer is on the disk before the tail is written, so that a tail without a whole
/// footer is damage and not a power cut. A tail that is lost is written by the next start.
fn seal(segment: &Segment, flags: u32, syncer: &Syncer) -> io::Result<()> {
    let (file, footer, end, bytes) = {
        let state = segment.state.read();
        let State::Open(file, index) = &*state else { return Ok(()) };
        let (footer, bytes) = footer::encode(&segment.header, index);
        (Arc::clone(file), footer, index.end, bytes)
    };
    let tail = Tail { flags, footer_offset: end, next_sequence: footer.next_sequence }.encode();
    let tail_at = end + bytes.len() as u64;
    file.write_all_at(&bytes, end)?;
    file.set_len(tail_at + tail.len() as u64)?;
    syncer.data(&file, SyncPoint::Seal)?;
    file.write_all_at(&tail, tail_at)?;
    if flags & FLAG_CLEAN != 0 {
        syncer.data(&file, SyncPoint::CleanStop)?;
    }
    let sealed = Sealed { footer, footer_offset: end };
    *segment.state.write() = State::Sealed(Arc::new(sealed));
    Ok(())
}
