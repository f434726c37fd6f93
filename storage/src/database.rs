//! A store in a directory, put together: the journal, the state that is folded from it, the
//! committer, and the view. It decides nothing about messages and starts no delivery.
//!
//! ```text
//! <dir>/journal       the truth
//! <dir>/checkpoints   the folded state written aside, so that opening is quick
//! <dir>/messages      the rows in sled; may be deleted
//! ```

mod carrying;
mod compaction;
mod housekeeper;
mod lost;
mod opening;
mod shared_log;
mod trimming;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::codec;
use crate::fold::State;
use crate::format::{self, FormatError};
use crate::inspect::Touched;
use crate::journal::{
    self, Damage, FileLog, Identity, IndexKeys, Options, Reader, Recovery, Space,
};
use crate::messages::fingerprint;
use crate::record::Millis;
use crate::retention::Retention;
use crate::store::{CommitError, Fatal, Now, Store, record_keys};
use crate::trim;
use crate::view::{Audit, Early, View, ViewError};
pub use compaction::Freed;
use housekeeper::Housekeeper;
pub use housekeeper::Upkeep;
use shared_log::SharedLog;

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the store {} is in use by another process; stop that one first, or look at it with the \
         read-only commands",
        path.display()
    )]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error("the store {}: {source}", path.display())]
    NewerFormat {
        /// The store's directory.
        path: PathBuf,
        /// Which file, which format, and what to do.
        source: journal::OpenError,
    },
    /// An older program wrote it.
    #[error(
        "the store {} was written by an older version (format {found}); `loki store migrate` \
         brings it to format {}",
        path.display(),
        format::CURRENT
    )]
    OlderFormat {
        /// The store's directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// What is there cannot be a store of this program.
    #[error(
        "the store {} is corrupt: {what}; restore it from a backup, or look at it with the \
         read-only commands",
        path.display()
    )]
    Corrupt {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file system refused.
    #[error("the store {} cannot be opened: {what}", path.display())]
    Io {
        /// The store's directory.
        path: PathBuf,
        /// What was refused.
        what: String,
    },
}

/// The store did not stop cleanly. Nothing that was acknowledged is lost; the next start recovers.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The journal could not be sealed.
    #[error("the journal was not closed cleanly: {0}")]
    Journal(#[from] journal::AppendError),
    /// The rows could not be completed; they are at the next start.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// What opening found and did.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the journal says.
    pub recovery: Recovery,
    /// The frame of the checkpoint that was used.
    pub checkpoint: Option<u64>,
    /// Checkpoints that were of no use, and why.
    pub checkpoint_errors: Vec<String>,
    /// Frames that were applied after the checkpoint.
    pub replayed: u64,
    /// Bytes of their entries.
    pub replayed_bytes: usize,
    /// Frames that could not be read, and why.
    pub unreadable: Vec<String>,
    /// Messages that were being sent when the store stopped; they wait again.
    pub interrupted: usize,
    /// Why the rows are being rebuilt from the journal, if they are.
    pub rebuild: Option<String>,
    /// What of the damage no earlier start has told of.
    pub new_damage: Vec<Damage>,
    /// The messages that lost records to it.
    pub touched: Touched,
}

/// How much room a store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a segment of the journal.
    pub segment_bytes: u64,
    /// Bytes of the reserve.
    pub reserve_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        let Options { segment_bytes, reserve_bytes, .. } = Options::new(0);
        Self { segment_bytes, reserve_bytes }
    }
}

impl Sizes {
    /// How a journal of these sizes is opened at a time.
    pub fn options(self, time: Millis) -> Options {
        let Self { segment_bytes, reserve_bytes } = self;
        Options { segment_bytes, reserve_bytes, ..Options::new(time) }
    }
}

/// How a store is opened.
pub struct Setup {
    /// How its journal is opened.
    pub journal: Options,
    /// Which start of the machine this is; empty when that is not known. Rows that another one left
    /// are trusted only after a clean stop.
    pub boot: String,
    /// The wall clock.
    pub now: Now,
    /// Told when the store stops for good.
    pub fatal: Fatal,
}

impl Setup {
    /// A store on this machine.
    pub fn new(journal: Options, now: Now, fatal: Fatal) -> Self {
        Self { journal, boot: boot_id(), now, fatal }
    }
}

/// Which start of the machine this is; empty when it is not known.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// An open store. Dropped without [`Database::close`] it leaves what a crash would.
pub struct Database {
    dir: PathBuf,
    store: Store,
    view: View,
    log: SharedLog,
    reader: Reader,
    space: Arc<Space>,
    housekeeper: Housekeeper,
    closed: bool,
}

impl Database {
    /// Opens the store in a directory, making it if need be. What was found is in the report and
    /// in the audit log.
    ///
    /// # Errors
    /// When another process has it, a newer program wrote it, it is not a store, or the file
    /// system refuses.
    pub fn open(dir: &Path, now: Now, fatal: Fatal) -> Result<(Self, Report), OpenError> {
        Self::open_with(dir, Setup::new(Options::new(now()), now, fatal))
    }

    /// The same, with files of these sizes.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_sized(
        dir: &Path,
        sizes: Sizes,
        now: Now,
        fatal: Fatal,
    ) -> Result<(Self, Report), OpenError> {
        Self::open_with(dir, Setup::new(sizes.options(now()), now, fatal))
    }

    /// The same, with everything that a test may want otherwise.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_with(dir: &Path, setup: Setup) -> Result<(Self, Report), OpenError> {
        let Setup { journal: options, boot, now, fatal } = setup;
        let io = |what: String| OpenError::Io { path: dir.into(), what };
        check_format(dir, &options.syncer)?;
        let (log, recovery) = FileLog::open(&dir.join("journal"), &options, index_of)
            .map_err(|error| journal_error(dir, error))?;
        let syncer = options.syncer;
        let reader = log.reader();
        let folder = dir.join("checkpoints");
        let early = Early::begin(&dir.join("messages")).map_err(|error| io(error.to_string()))?;
        let (state, writer, mut replay) = opening::fold(&folder, &reader);
        let mut damaged = std::mem::take(&mut replay.damage);
        let is_sound = damaged.is_empty() && recovery.damage.is_empty();
        // That it cannot be told now is told when the frames are read.
        damaged.extend(trim::damage(&reader).unwrap_or_default());
        let mut report = Report::of(recovery, replay, &state);
        report.damaged(damaged, (&reader, &state), &syncer);
        // What was dropped is nowhere else; what is damaged besides is no reason to do without it.
        let is_needed = || is_sound || !matches!(trim::recorded(&reader), Ok(None));
        if report.checkpoint.is_none() && reader.first_sequence() > 1 && is_needed() {
            let what = format!(
                "the journal begins at frame {} and no checkpoint reads back",
                reader.first_sequence()
            );
            return Err(OpenError::Corrupt { path: dir.into(), what });
        }
        let (at, counts) = (state.sequence, state.messages.counts().clone());
        let (space, compactor) = (log.space(), log.compactor());
        let log = SharedLog::new(log);
        let store = Store::start(Box::new(log.clone()), state, now, fatal)
            .map_err(|error| io(error.to_string()))?;
        let disagree = opening::disagree(&store);
        store.watch(Arc::clone(&space));
        let room = Arc::clone(&space);
        let has_room = Box::new(move || !room.is_short());
        let (now, is_damaged) = (opening::counts(&store), !report.recovery.damage.is_empty());
        let audit = Audit { sequence: at, counts, now, is_damaged, disagree, has_room };
        let started =
            View::start(early, Arc::new(reader.clone()), audit, (Arc::clone(&syncer), boot));
        let (view, rebuild) = started.map_err(|error| {
            store.stop();
            io(error.to_string())
        })?;
        store.listen(Box::new(view.listener()));
        report.rebuild = rebuild;
        let housekeeper = Housekeeper::start(
            (writer.syncer(syncer), folder),
            &store,
            (&reader, &space, compactor),
            &view,
            report.replayed_bytes,
        );
        let housekeeper = housekeeper.map_err(|error| {
            store.stop();
            view.abandon();
            io(error.to_string())
        })?;
        let (behind, relieved) = (view.clone(), store.clone());
        store.throttle(Box::new(move || behind.lag().over));
        store.throttle(Box::new(housekeeper.is_behind()));
        view.on_progress(Box::new(move || relieved.relieve()));
        let dir = dir.to_path_buf();
        let database = Self { dir, store, view, log, reader, space, housekeeper, closed: false };
        opening::record(&database.store, &report).map_err(|error| io(error.to_string()))?;
        Ok((database, report))
    }

    /// The committer and the published state.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The rows.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// For how long finished message ids are remembered; 8 days unless this is called.
    pub fn set_dedup_window(&self, window: Duration) {
        let window = Millis::try_from(window.as_millis()).unwrap_or(Millis::MAX);
        self.housekeeper.set_dedup_window(window);
    }

    /// What is kept of the bodies of finished messages; thirty days unless this is called.
    pub fn set_retention(&self, retention: Retention) {
        self.housekeeper.set_retention(retention);
    }

    /// For how long the audit log is kept, and with it what is known of finished messages; for ever
    /// unless this is called. What bodies, ids and readers need of it stays longer.
    pub fn set_audit_retention(&self, kept: Duration) {
        self.housekeeper
            .set_audit_retention(Millis::try_from(kept.as_millis()).unwrap_or(Millis::MAX));
    }

    /// What is done beside the decisions, on demand.
    pub fn upkeep(&self) -> Upkeep {
        self.housekeeper.upkeep(&self.dir, &self.store, &self.reader, &self.view)
    }

    /// One round of what is done every minute: ids beyond the window are forgotten, and of the
    /// others no more than `resident_max` stay in memory.
    ///
    /// # Errors
    /// When the store does not write.
    pub fn tidy(&self, resident_max: usize) -> Result<(), CommitError> {
        housekeeper::tidy(&self.store, self.housekeeper.dedup_window(), Millis::MAX, resident_max)
    }

    /// One round of what else is done every minute: the oldest segments that nobody needs are
    /// written down, or their files removed; see [`Database::set_audit_retention`]. It waits for
    /// the rows to be compared with the fold, without which nothing goes.
    pub fn trim(&self) {
        self.view.compared();
        self.housekeeper.trim();
    }

    /// The journal's reading side, for [`crate::inspect::audit`] and [`crate::inspect::history`].
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Writes a small file beside the store, on a full disk with room from the reserve.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn with_reserve<T>(&self, write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.space.with_reserve(0, journal::is_full, write)
    }

    /// The room of its disk.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// A clean stop: takes no more, completes the rows, writes a checkpoint, seals the journal.
    ///
    /// # Errors
    /// When one of these failed; the others are done all the same.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.closed = true;
        self.store.stop();
        let viewed = self.view.close();
        if self.store.is_whole() {
            self.housekeeper.finish();
        } else {
            self.housekeeper.stop();
        }
        if let Some(log) = self.log.take() {
            log.close()?;
        }
        Ok(viewed?)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.closed {
            self.store.stop();
            self.view.abandon();
            self.housekeeper.stop();
            self.log.take();
        }
    }
}

/// By what a footer finds an entry: computed from its head, so that an index can be rebuilt.
pub fn index_of(head: &[u8], identity: &Identity) -> IndexKeys {
    codec::decode(head).map_or_else(
        |_| IndexKeys::default(),
        |record| record_keys(&record, |key| fingerprint(&identity.key, key)),
    )
}

/// Sees that a store has the format of this program, and numbers a new one.
fn check_format(dir: &Path, syncer: &journal::Syncer) -> Result<(), OpenError> {
    let path = dir.to_path_buf();
    match known_format(dir)? {
        Some(format::CURRENT) => Ok(()),
        Some(found) => Err(OpenError::OlderFormat { path, found }),
        None => format::write(dir, format::CURRENT, syncer)
            .map_err(|error| OpenError::Io { path, what: error.to_string() }),
    }
}

/// The format of the store in a directory, `None` when there is none.
///
/// # Errors
/// When a newer program wrote it, or its number cannot be read.
pub fn known_format(dir: &Path) -> Result<Option<u32>, OpenError> {
    let path = dir.to_path_buf();
    match format::of(dir) {
        Ok(Some(found)) if found > format::CURRENT => {
            let (file, supported) = (format::path(dir), format::CURRENT);
            let source = journal::OpenError::NewerFormat { path: file, found, supported };
            Err(OpenError::NewerFormat { path, source })
        }
        Ok(found) => Ok(found),
        Err(error @ FormatError::Damaged { .. }) => {
            Err(OpenError::Corrupt { path, what: error.to_string() })
        }
        Err(error @ FormatError::Io { .. }) => Err(OpenError::Io { path, what: error.to_string() }),
    }
}

fn journal_error(dir: &Path, error: journal::OpenError) -> OpenError {
    let path = dir.to_path_buf();
    match error {
        journal::OpenError::Locked { .. } => OpenError::Locked { path },
        journal::OpenError::NewerFormat { .. } => OpenError::NewerFormat { path, source: error },
        journal::OpenError::Foreign { .. } | journal::OpenError::HeaderLost { .. } => {
            OpenError::Corrupt { path, what: error.to_string() }
        }
        journal::OpenError::SegmentSize { .. } | journal::OpenError::Io { .. } => {
            OpenError::Io { path, what: error.to_string() }
        }
    }
}

/// The state that a journal gives, with a folder of checkpoints if one of them fits. Nothing is
/// written.
pub(crate) fn fold(checkpoints: &Path, reader: &Reader) -> State {
    opening::fold(checkpoints, reader).0
}

/// The state after a frame, given the state before it.
pub(crate) fn apply(state: &mut State, frame: &journal::Frame) {
    for (entry, record, body) in crate::view::records(frame) {
        state.apply(entry, frame.time, &record, body);
    }
    state.sequence = frame.position.sequence;
}
