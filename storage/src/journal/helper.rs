//! The thread that keeps spares ready and seals full segments, so that no commit waits for it.
//!
//! It never touches the active segment.

use super::catalog::{Sealed, Segment, State};
use super::files::{Spare, make_spare};
use super::footer;
use super::segment::{FLAG_CLEAN, Tail};
use super::sync::{SyncPoint, Syncer};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// Spares kept ready (rule 5).
const SPARES: usize = 2;

/// What the helper and the committer tell each other.
struct Desk {
    spares: VecDeque<Spare>,
    seals: VecDeque<Arc<Segment>>,
    next_number: u64,
    /// Why the last spare could not be made; cleared by the one who asks for it.
    failure: Option<io::Error>,
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
}

/// A running helper; dropping it stops it at the next step.
pub(super) struct Helper {
    desk: Arc<(Mutex<Desk>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    pub(super) fn start(
        dir: PathBuf,
        spare_bytes: u64,
        syncer: Arc<Syncer>,
        spares: Vec<Spare>,
        next_number: u64,
    ) -> io::Result<Self> {
        let desk = Desk {
            spares: spares.into(),
            seals: VecDeque::new(),
            next_number,
            failure: None,
            stop: Stop::Running,
            ended: false,
        };
        let desk = Arc::new((Mutex::new(desk), Condvar::new()));
        let (mine, setting) = (Arc::clone(&desk), Setting { dir, spare_bytes, syncer });
        let thread = Builder::new().name("journal-helper".into()).spawn(move || {
            let ended = Ended(mine);
            run(&ended.0, &setting);
        })?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// The next spare, waiting for it if need be; an error when none can be made now.
    pub(super) fn take_spare(&self) -> io::Result<Spare> {
        let (desk, bell) = &*self.desk;
        let mut desk = desk.lock();
        loop {
            if let Some(spare) = desk.spares.pop_front() {
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
    Seal(Arc<Segment>),
}

fn run((desk, bell): &(Mutex<Desk>, Condvar), setting: &Setting) {
    while let Some(job) = next_job(desk, bell) {
        match job {
            Job::Spare(number) => {
                let made = make_spare(&setting.dir, number, setting.spare_bytes, &setting.syncer);
                let mut desk = desk.lock();
                match made {
                    Ok(spare) => {
                        desk.spares.push_back(spare);
                        desk.next_number = number.saturating_add(1);
                    }
                    Err(error) => desk.failure = Some(error),
                }
                bell.notify_all();
            }
            Job::Seal(segment) => {
                if let Err(error) = seal(&segment, 0, &setting.syncer) {
                    let path = segment.path.display();
                    tracing::warn!(%path, %error, "segment is not sealed; the next start will");
                }
            }
        }
    }
}

/// The next thing to do: spares first, because the committer may wait for one.
fn next_job(desk: &Mutex<Desk>, bell: &Condvar) -> Option<Job> {
    let mut desk = desk.lock();
    loop {
        let wants_spare = desk.spares.len() < SPARES && desk.failure.is_none();
        match desk.stop {
            Stop::Now => return None,
            Stop::Running if wants_spare => return Some(Job::Spare(desk.next_number)),
            _ => {}
        }
        if let Some(segment) = desk.seals.pop_front() {
            return Some(Job::Seal(segment));
        }
        if desk.stop == Stop::AfterSeals {
            return None;
        }
        bell.wait(&mut desk);
    }
}

/// Writes the footer and then the tail of a segment that nobody appends to, and cuts the zeros
/// off. The footer is on the disk before the tail is written, so that a tail without a whole
/// footer is damage and not a power cut. A tail that is lost is written by the next start.
pub(super) fn seal(segment: &Segment, flags: u32, syncer: &Syncer) -> io::Result<()> {
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
