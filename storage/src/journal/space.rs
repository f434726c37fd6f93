//! Room on the disk (JOURNAL rule 23): the reserve file, what unfinished messages are owed, and
//! whether new ones are admitted. It makes no segment; the journal's helper does.
//!
//! ```text
//! much room        spares and the reserve are whole                  new messages are admitted
//! no room          a spare cannot be made, or the reserve is not whole   they are refused; spares,
//!                  footers and rewritten segments take from the reserve, and the rest goes on
//! room again       the helper makes both whole                       they are admitted again
//! ```

use super::files;
use parking_lot::{Mutex, RwLock};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The reserve's name in the journal's directory.
const NAME: &str = "reserve";

/// What the reserve is unless the owner says otherwise: room for a segment that is written anew,
/// and for the spares of what is delivered and acknowledged meanwhile.
pub(super) const RESERVE_BYTES: u64 = 64 << 20;

/// Given with each piece of the reserve, for what the file system itself needs.
const MARGIN_BYTES: u64 = 64 << 10;

/// What a message that is not finished may still write: that it is being sent, and how that
/// ended, each in a frame of its own, with names of ordinary length. These are 264 bytes each,
/// and about 50 in the footer of their segment.
pub const OWED_BYTES: u64 = 640;

/// Called when admission stops or begins again; it must not block.
pub type Changed = Box<dyn Fn() + Send + Sync>;

/// The room that a journal has.
pub struct Space {
    dir: PathBuf,
    /// Size of the reserve when it is whole.
    whole: u64,
    /// What a segment has for frames.
    segment_room: u64,
    /// What the reserve has now.
    held: Mutex<u64>,
    is_short: AtomicBool,
    reason: RwLock<Option<String>>,
    /// Segments that must be there for what unfinished messages still write.
    owed: AtomicU64,
    changed: RwLock<Vec<Changed>>,
    /// Wakes the helper.
    bell: RwLock<Option<Changed>>,
}

impl Space {
    /// The room of a directory; what an earlier start reserved is still reserved.
    pub(super) fn new(dir: &Path, whole: u64, segment_bytes: u64) -> Self {
        let there = std::fs::metadata(dir.join(NAME)).map_or(0, |metadata| metadata.len());
        let held = Mutex::new(there.min(whole));
        Self {
            dir: dir.to_path_buf(),
            whole,
            segment_room: segment_bytes.saturating_sub(super::segment::FRAMES_START).max(1),
            held,
            is_short: AtomicBool::new(false),
            reason: RwLock::default(),
            owed: AtomicU64::new(0),
            changed: RwLock::default(),
            bell: RwLock::default(),
        }
    }

    /// Whether new messages are refused.
    pub fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// Why new messages are refused; `None` when they are not.
    pub fn reason(&self) -> Option<String> {
        if self.is_short() { self.reason.read().clone() } else { None }
    }

    /// Bytes that the reserve has, and those that it has when it is whole.
    pub fn reserve(&self) -> (u64, u64) {
        (*self.held.lock(), self.whole)
    }

    /// Calls `changed` when admission stops or begins again.
    pub fn on_change(&self, changed: Changed) {
        self.changed.write().push(changed);
    }

    /// So many messages are not finished: room for what they still write is kept in segments that
    /// are made beforehand.
    pub fn owe(&self, messages: u64) {
        let segments = messages.saturating_mul(OWED_BYTES).div_ceil(self.segment_room);
        if self.owed.swap(segments, Ordering::Relaxed) != segments
            && let Some(bell) = &*self.bell.read()
        {
            bell();
        }
    }

    /// Segments that are owed.
    pub(super) fn owed_segments(&self) -> usize {
        usize::try_from(self.owed.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    pub(super) fn set_bell(&self, bell: Option<Changed>) {
        *self.bell.write() = bell;
    }

    /// Gives some of the reserve back to the disk, because something needs it now. `false` when
    /// there is nothing left.
    pub fn give(&self, bytes: u64) -> bool {
        let mut held = self.held.lock();
        if *held == 0 {
            return false;
        }
        let left = held.saturating_sub(bytes.saturating_add(MARGIN_BYTES));
        let cut = OpenOptions::new().write(true).open(self.dir.join(NAME));
        if cut.and_then(|file| file.set_len(left)).is_err() {
            return false;
        }
        *held = left;
        drop(held);
        self.stop_admission(&io::Error::from(Errno::NOSPC));
        // Whoever took it may not be the helper, which makes it whole again.
        if let Some(bell) = &*self.bell.read() {
            bell();
        }
        true
    }

    /// Does something, and once more with room from the reserve when the disk is full.
    pub(crate) fn with_reserve<T, E>(
        &self,
        bytes: u64,
        is_full: impl Fn(&E) -> bool,
        mut work: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        match work() {
            Err(error) if is_full(&error) && self.give(bytes) => work(),
            other => other,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        *self.held.lock() == self.whole
    }

    /// Makes the reserve whole.
    pub(super) fn refill(&self) -> io::Result<()> {
        let mut held = self.held.lock();
        if self.is_short() && !self.has_free(self.whole.saturating_sub(*held)) {
            return Err(Errno::NOSPC.into());
        }
        let path = self.dir.join(NAME);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let before = *held;
        file.set_len(before)?;
        if let Err(error) = allocate(&file, before, self.whole) {
            // A part of it is of no use, and others may need it.
            file.set_len(before)?;
            return Err(error);
        }
        *held = self.whole;
        Ok(())
    }

    /// Whether the disk has so much free, as far as can be told.
    pub(super) fn has_free(&self, bytes: u64) -> bool {
        let free = statvfs(&self.dir).map(|it| it.f_bavail.saturating_mul(it.f_frsize));
        free.map_or(true, |free| free >= bytes.saturating_add(MARGIN_BYTES))
    }

    /// New messages are refused from now on, if the error says that the disk is full.
    pub(super) fn stop_admission(&self, error: &io::Error) {
        if !is_full(error) {
            return;
        }
        let mut reason = self.reason.write();
        *reason = Some(format!("{}: {error}", self.dir.display()));
        let was_short = self.is_short.swap(true, Ordering::Relaxed);
        drop(reason);
        if !was_short {
            self.tell();
        }
    }

    /// Everything is whole: new messages are admitted again.
    pub(super) fn admit(&self) {
        let mut reason = self.reason.write();
        let was_short = self.is_short.swap(false, Ordering::Relaxed);
        if was_short {
            *reason = None;
        }
        drop(reason);
        if was_short {
            self.tell();
        }
    }

    fn tell(&self) {
        for changed in &*self.changed.read() {
            changed();
        }
    }
}

/// Whether an error says that the disk, or what this user may have of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Takes the blocks of a range, so that what is written there needs no room; a file system that
/// cannot do that gets zeros.
pub(super) fn allocate(file: &File, from: u64, to: u64) -> io::Result<()> {
    if to <= from {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), from, to - from) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => files::fill(file, from, to),
        other => Ok(other?),
    }
}
