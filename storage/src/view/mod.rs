//! The view: a row a message in sled, with its status, for lists and look-ups.
//!
//! It is derived from the journal and can be deleted at any time. No acknowledgement waits for it,
//! and it holds no body. Reads merge the rows in sled with what is durable and not there yet.

mod comparison;
mod early;
mod feed;
mod filter;
mod handle;
mod overlay;
mod row;
mod tree;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::journal::{ReadLog, Syncer, is_full};
use crate::record::{EntryId, Status};
use crate::store::Published;
use comparison::Comparison;
use feed::Feed;
use row::{Applied, FORMAT};
use tree::Tree;
use worker::Worker;

pub use comparison::Audit;
pub use early::Early;
pub use feed::Lag;
pub use filter::{Filter, PAGE_ROWS_MAX, Page};
pub use row::{Row, decode_rows};

pub(crate) use comparison::Compared;
pub(crate) use overlay::{Overlay, Patch};
pub(crate) use worker::records;

/// Rows that a list looks at for one page.
pub(crate) const SCAN_ROWS_MAX: usize = 100_000;

/// The view cannot be read or written. The journal has everything; opening again catches up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ViewError {
    /// It was closed.
    #[error("the message view is closed")]
    Closed,
    /// The disk has no room for the rows.
    #[error("message view {}: {what}; it is made again when the disk has room", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        what: String,
    },
    /// sled refused.
    #[error("message view {}: {what}; it is made again soon", path.display())]
    Sled {
        /// The directory.
        path: PathBuf,
        /// What sled says.
        what: String,
    },
    /// A row does not read back.
    #[error("message view {}: {what}; it is made again soon", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// sled panicked over the bytes.
    #[error("message view {} is damaged; it is made again soon", path.display())]
    Panicked {
        /// The directory.
        path: PathBuf,
    },
    /// The disk does not answer.
    #[error("message view: the disk does not answer; it catches up at the next start")]
    Stuck,
    /// The file system refused.
    #[error("message view {}: {what}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        what: String,
    },
}

impl ViewError {
    pub(crate) fn sled(path: &Path, error: &sled::Error) -> Self {
        let (path, what) = (path.into(), error.to_string());
        match error {
            sled::Error::Io(source) if is_full(source) => Self::Full { path, what },
            _ => Self::Sled { path, what },
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is used to map errors")]
    pub(crate) fn io(path: &Path, error: std::io::Error) -> Self {
        let (path, what) = (path.into(), error.to_string());
        if is_full(&error) { Self::Full { path, what } } else { Self::Io { path, what } }
    }
}

pub(crate) struct Shared {
    /// Gone once the view is closed or has failed.
    pub(crate) tree: RwLock<Result<Tree, ViewError>>,
    pub(crate) overlay: RwLock<Overlay>,
    pub(crate) feed: Feed,
    /// The rows were compared with the fold after opening.
    pub(crate) compared: AtomicBool,
    /// They were the fold's, and no damage was known that may make them differ.
    pub(crate) is_sound: AtomicBool,
    /// What those know who wait for a comparison, and their bell.
    pub(crate) comparison: Mutex<Comparison>,
    pub(crate) comparing: Condvar,
    /// Told after each write of rows.
    pub(crate) progress: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// The view; clones share it.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl View {
    /// Opens the rows in `path` and starts the thread that keeps them. What is missing is read
    /// from the journal in the background. The second value says why all of it is rebuilt.
    ///
    /// # Errors
    /// When the directory cannot be made or the thread cannot be started.
    pub fn start(
        mut early: Early,
        reader: Arc<dyn ReadLog>,
        audit: Audit,
        (syncer, boot): (Arc<Syncer>, String),
    ) -> Result<(Self, Option<String>), ViewError> {
        let mut applied = begin(&*reader, &boot);
        let prepared = prepare(&mut early, &*reader, &syncer, &mut applied);
        let path = early.path();
        let (tree, rebuild, failed) = match prepared {
            Ok((tree, rebuild)) => (tree, rebuild, None),
            Err(error @ ViewError::Io { .. }) => return Err(error),
            // The journal goes on without rows, and so does whoever asks for none.
            Err(error) => (Tree::closed(path), None, Some(error)),
        };
        let published = reader.head().position.sequence;
        let catching_up = applied.sequence < published;
        let there = failed.clone().map_or_else(|| Ok(tree.clone()), Err);
        let shared = Arc::new(Shared {
            tree: RwLock::new(there),
            overlay: RwLock::default(),
            feed: Feed::new(applied.sequence, published, catching_up),
            compared: AtomicBool::new(false),
            is_sound: AtomicBool::new(false),
            comparison: Mutex::default(),
            comparing: Condvar::new(),
            progress: OnceLock::new(),
        });
        let (here, path) = (Arc::clone(&shared), path.to_path_buf());
        let worker = Worker { shared: here, path: path.clone(), tree, reader, applied, syncer };
        let thread = std::thread::Builder::new()
            .name("view".into())
            .spawn(move || worker.run(&audit, failed))
            .map_err(|source| ViewError::io(&path, source))?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok((Self { shared, thread }, rebuild))
    }

    /// What the committer calls after each durable frame. It costs a lock and a clone of a handle.
    pub fn listener(&self) -> impl FnMut(&Published) -> bool + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move |published| {
            shared.feed.push(published);
            true
        }
    }

    /// How far the view is behind; above the bound whoever admits messages slows down.
    pub fn lag(&self) -> Lag {
        self.shared.feed.lag()
    }

    /// Calls `told` after each write of rows; there is one such call.
    pub fn on_progress(&self, told: Box<dyn Fn() + Send + Sync>) {
        let _ = self.shared.progress.set(told);
    }

    /// The messages that a filter asks for, the newest first, with everything that is published.
    /// While the rows are caught up after opening, those that are missing are missing here: see
    /// [`Lag::catching_up`].
    ///
    /// # Errors
    /// When the view is closed or failed.
    pub fn list(&self, filter: &Filter) -> Result<Page, ViewError> {
        let tree = self.tree()?;
        let overlay = self.merged();
        // Few are unfinished: those have an index. Any other list goes through the rows.
        let indexed = !filter.status.iter().any(|status| status.is_finished());
        let wanted: Vec<Option<Status>> = match &filter.status[..] {
            some @ [_, ..] if indexed => some.iter().copied().map(Some).collect(),
            _ => vec![None],
        };
        let mut sources: Vec<Source<'_>> = Vec::new();
        for status in wanted {
            let stored = tree.backwards(status, filter.after);
            let stored = stored.map(|row| row.map(|row| (row.entry, Some(row))));
            sources.push((Box::new(stored) as Box<dyn Iterator<Item = _>>).peekable());
        }
        for patches in [&overlay.pending, &*overlay.flushing] {
            let end = filter.after.unwrap_or(EntryId { sequence: u64::MAX, index: u32::MAX });
            let keys = patches.range(..end).rev().map(|(at, _)| Ok((*at, None)));
            sources.push((Box::new(keys) as Box<dyn Iterator<Item = _>>).peekable());
        }
        page(filter, sources, |at, stored| {
            overlay.merge(at, || stored.map_or_else(|| tree.row(at), |row| Ok(Some(row))))
        })
    }

    /// Every message with this id, the newest first: ids are unique only for a direction, a
    /// namespace and a peer.
    ///
    /// # Errors
    /// When the view is closed or failed.
    pub fn get(&self, message_id: &str) -> Result<Vec<Row>, ViewError> {
        let tree = self.tree()?;
        let overlay = self.merged();
        let mut entries = tree.by_id(message_id)?;
        for patches in [&overlay.pending, &*overlay.flushing] {
            entries.extend(patches.iter().filter_map(|(at, patch)| match patch {
                Patch::Row(row) if row.message_id == message_id => Some(*at),
                _ => None,
            }));
        }
        entries.sort_unstable_by(|one, other| other.cmp(one));
        entries.dedup();
        let mut rows = Vec::new();
        for entry in entries {
            let row = overlay.merge(entry, || tree.row(entry))?;
            rows.extend(row.filter(|row| row.message_id == message_id));
        }
        Ok(rows)
    }

    /// The rows that frames of a range of sequences accepted, as sled has them: what was published
    /// a moment ago may be missing.
    ///
    /// # Errors
    /// When the view is closed or failed.
    pub fn rows_of(
        &self,
        (first, last): (u64, u64),
        look: &mut dyn FnMut(&Row),
    ) -> Result<(), ViewError> {
        let first = EntryId { sequence: first, index: 0 };
        self.tree()?.rows_of((first, EntryId { sequence: last, index: u32::MAX }), look)
    }

    /// Every row that is in sled, the newest first.
    ///
    /// # Errors
    /// When the view is closed or failed.
    pub fn newest_first(&self, look: &mut dyn FnMut(&Row)) -> Result<(), ViewError> {
        let tree = self.tree()?;
        for row in tree.backwards(None, None) {
            look(&row?);
        }
        Ok(())
    }

    /// Waits until everything that is published now is in sled.
    ///
    /// # Errors
    /// When the view is closed or failed.
    pub fn settle(&self) -> Result<(), ViewError> {
        self.shared.feed.settle();
        self.tree().map(|_| ())
    }

    /// A clean stop: everything published goes to sled, is synced and marked so.
    ///
    /// # Errors
    /// When sled refuses, or had failed before.
    pub fn close(&self) -> Result<(), ViewError> {
        self.end(true)
    }

    /// Stops the thread and leaves what a crash would.
    pub(crate) fn abandon(&self) {
        let _ = self.end(false);
    }

    fn end(&self, clean: bool) -> Result<(), ViewError> {
        self.shared.feed.stop(clean);
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        if !self.shared.feed.wait_end() {
            // The thread is left to its disk: the program can end without it.
            *self.shared.tree.write() = Err(ViewError::Stuck);
            return Err(ViewError::Stuck);
        }
        let joined = thread.join();
        let before = std::mem::replace(&mut *self.shared.tree.write(), Err(ViewError::Closed));
        let path = before?.path().to_path_buf();
        handle::wait_released(&path);
        joined.map_err(|_| ViewError::Closed)
    }

    fn tree(&self) -> Result<Tree, ViewError> {
        self.shared.tree.read().clone()
    }

    /// The overlay with everything that was published so far.
    fn merged(&self) -> parking_lot::RwLockReadGuard<'_, Overlay> {
        let mut overlay = self.shared.overlay.write();
        self.shared.feed.drain(&mut overlay);
        parking_lot::RwLockWriteGuard::downgrade(overlay)
    }
}

type Item = Result<(EntryId, Option<Row>), ViewError>;
type Source<'a> = std::iter::Peekable<Box<dyn Iterator<Item = Item> + 'a>>;

/// Merges sources that each go backwards into one page.
fn page(
    filter: &Filter,
    mut sources: Vec<Source<'_>>,
    row: impl Fn(EntryId, Option<Row>) -> Result<Option<Row>, ViewError>,
) -> Result<Page, ViewError> {
    let mut page = Page::default();
    for _ in 0..SCAN_ROWS_MAX {
        let Some((at, value)) = newest(&mut sources)? else {
            page.next = None;
            return Ok(page);
        };
        if page.rows.len() == filter.rows_max() {
            return Ok(page);
        }
        page.rows.extend(row(at, value)?.filter(|row| filter.matches(row)));
        page.next = Some(at);
    }
    Ok(page)
}

/// Takes the newest entry from all sources that have it.
fn newest(sources: &mut [Source<'_>]) -> Result<Option<(EntryId, Option<Row>)>, ViewError> {
    let mut at = None;
    for source in sources.iter_mut() {
        match source.peek() {
            Some(Ok((entry, _))) => at = at.max(Some(*entry)),
            Some(Err(error)) => return Err(error.clone()),
            None => {}
        }
    }
    let Some(at) = at else { return Ok(None) };
    let mut found = None;
    for source in sources {
        let same = |item: &Item| matches!(item, Ok((entry, _)) if *entry == at);
        if let Some(Ok((_, value))) = source.next_if(same) {
            found = found.or(value);
        }
    }
    Ok(Some((at, found)))
}

/// No rows of this journal.
fn begin(reader: &dyn ReadLog, boot: &str) -> Applied {
    Applied {
        format: FORMAT,
        journal: reader.identity().journal,
        boot: boot.to_owned(),
        sequence: 0,
        hash: [0; 32],
        clean: false,
    }
}

/// Opens the rows and adds what little they lack; `applied` is then how far they go. The second
/// value says why they begin anew.
fn prepare(
    early: &mut Early,
    reader: &dyn ReadLog,
    syncer: &Syncer,
    applied: &mut Applied,
) -> Result<(Tree, Option<String>), ViewError> {
    let (tree, rebuild) = open(early, reader, applied)?;
    if tree.applied().is_some_and(|stored| stored.clean) {
        tree.mark_used(applied, syncer)?;
    }
    let published = reader.head().position.sequence;
    let tail = worker::short_tail(reader, applied.sequence, published);
    if let Some((overlay, head)) = tail.and_then(|tail| tail.head.map(|head| (tail, head))) {
        (applied.sequence, applied.hash) = head;
        tree.trim(overlay.trimmed)?;
        tree.write(&overlay.pending, applied)?;
    }
    Ok((tree, rebuild))
}

/// Opens the tree, or begins a new one when its rows are not to be trusted (JOURNAL rule 13).
fn open(
    early: &mut Early,
    reader: &dyn ReadLog,
    applied: &mut Applied,
) -> Result<(Tree, Option<String>), ViewError> {
    let why = match early.tree() {
        Ok(tree) => match distrust(&tree, reader, &applied.boot) {
            None => {
                if let Some(stored) = tree.applied() {
                    (applied.sequence, applied.hash) = (stored.sequence, stored.hash);
                }
                return Ok((tree, None));
            }
            Some(why) => why,
        },
        // A full disk says nothing about the rows.
        Err(error @ ViewError::Full { .. }) => return Err(error),
        Err(error) => error.to_string(),
    };
    Ok((Tree::create(early.path())?, Some(why)))
}

/// Why the rows cannot be trusted, or `None`.
fn distrust(tree: &Tree, reader: &dyn ReadLog, boot: &str) -> Option<String> {
    let head = reader.head().position.sequence;
    let Some(applied) = tree.applied() else {
        let nothing = tree.is_new() && head == 0;
        return (!nothing).then(|| "there are no rows".into());
    };
    if applied.format != FORMAT {
        return Some(format!("rows have format {}, this program writes {FORMAT}", applied.format));
    }
    if applied.journal != reader.identity().journal {
        return Some("rows are of another journal".into());
    }
    if !applied.clean && (applied.boot != boot || boot.is_empty()) {
        return Some("the machine stopped before the rows were synced".into());
    }
    if applied.sequence > head {
        return Some(format!("rows go up to {}, the journal to {head}", applied.sequence));
    }
    let same = |frame: &crate::journal::Frame| {
        frame.position.sequence == applied.sequence && frame.hash == applied.hash
    };
    let frame = reader.frames(applied.sequence).next();
    let matches = applied.sequence == 0 || frame.is_some_and(|one| one.is_ok_and(|one| same(&one)));
    (!matches).then(|| format!("rows up to {} are of another history", applied.sequence))
}
