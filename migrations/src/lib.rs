//! Brings a store that an older version wrote to the format of this one, before it is opened. One
//! file a step; a step never changes once it was released. `storage` knows nothing of it.
//!
//! ```text
//! copy         the files that will be replaced, as hard links, in <dir>/before-format-N
//! step         each file written aside, synced, renamed
//! verify       the whole journal is scanned: the same frames, the same chain, no new damage
//! number       <dir>/format
//! open         the store is opened, and its audit log has `store.migrate`
//! forget       the copy is removed
//! ```
//!
//! A migration that is cut short at any point is taken up by the next start.

mod keep;
mod step_2;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::database::{Database, OpenError, Report, Setup, Sizes, index_of, known_format};
use storage::event::Event;
use storage::format;
use storage::journal::{self, Check, Lock, Syncer};
use storage::record::Level;
use storage::store::{Fatal, Now};
use storage::transaction::Act;

/// The actor of what the store does by itself.
const ACTOR: &str = "store";

/// A store was not migrated. What was there is there as it was, or the next start goes on.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// It cannot be opened, with or without a migration.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The operating system refused.
    #[error(
        "the store {} is not migrated: cannot {action} {}: {source}",
        dir.display(),
        path.display()
    )]
    Io {
        /// The store's directory.
        dir: PathBuf,
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// What came out is not what went in; the copy was put back.
    #[error(
        "the store {} is not migrated: {what}; it was put back as it was: go on with the older \
         version, and report this",
        dir.display()
    )]
    Unverified {
        /// The store's directory.
        dir: PathBuf,
        /// What differs.
        what: String,
    },
    /// A caller that watches the steps ended it.
    #[error("the migration of {} was interrupted; the next start goes on with it", dir.display())]
    Interrupted {
        /// The store's directory.
        dir: PathBuf,
    },
}

/// What a migration would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The format that the store has; `None` when there is none.
    pub from: Option<u32>,
    /// The format that it would get.
    pub to: u32,
    /// Files that would be written anew.
    pub files: Vec<PathBuf>,
    /// Their bytes.
    pub bytes: u64,
}

impl Plan {
    /// Whether there is anything to do.
    pub fn is_needed(&self) -> bool {
        self.from.is_some_and(|from| from != self.to)
    }
}

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The format that the store had.
    pub from: u32,
    /// The one that it has.
    pub to: u32,
    /// Files that were written anew.
    pub files: usize,
    /// Files that were left as they are, because they are damaged, and why.
    pub left: Vec<String>,
}

/// Told before each thing that a migration does; `false` ends it there, as a kill would.
pub type Watch<'a> = &'a mut dyn FnMut(&str) -> bool;

/// What a migration of the store in a directory would do. It changes nothing.
///
/// # Errors
/// When a newer program wrote it, or it cannot be read.
pub fn plan(dir: &Path) -> Result<Plan, MigrateError> {
    let from = known_format(dir)?;
    let mut plan = Plan { from, to: format::CURRENT, files: Vec::new(), bytes: 0 };
    if plan.is_needed() {
        for old in step_2::old(dir)? {
            plan.bytes += old.bytes;
            plan.files.push(old.path);
        }
    }
    Ok(plan)
}

/// Opens the store in a directory, after bringing it to the format of this program, and says in
/// its audit log what that did.
///
/// # Errors
/// When it cannot be migrated or opened.
pub fn open(
    dir: &Path,
    sizes: Sizes,
    now: Now,
    fatal: Fatal,
) -> Result<(Database, Report, Option<Migrated>), MigrateError> {
    let setup = Setup::new(sizes.options(now()), now, fatal);
    open_with(dir, setup, &mut |_| true)
}

/// The same, with everything that a test may want otherwise.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    dir: &Path,
    setup: Setup,
    watch: Watch<'_>,
) -> Result<(Database, Report, Option<Migrated>), MigrateError> {
    let syncer = Arc::clone(&setup.journal.syncer);
    let mut work = Work { dir, syncer: &syncer, watch };
    let done = work.migrate()?;
    let (database, report) = Database::open_with(dir, setup)?;
    let Some(migrated) = done else { return Ok((database, report, None)) };
    work.told("record")?;
    record(&database, dir, &migrated)?;
    work.told("forget")?;
    keep::forget(dir)?;
    Ok((database, report, Some(migrated)))
}

fn record(database: &Database, dir: &Path, migrated: &Migrated) -> Result<(), MigrateError> {
    let Migrated { from, to, files, left } = migrated;
    let level = if left.is_empty() { Level::Info } else { Level::Warning };
    let details = format!(r#"{{"from":{from},"to":{to},"files":{files},"left":{}}}"#, left.len());
    let done =
        database.store().commit(move |transaction| -> Result<(), std::convert::Infallible> {
            let act = Act::new(Event::StoreMigrate, ACTOR, "", "store").level(level);
            transaction.note(act.details(details));
            Ok(())
        });
    let path = dir.to_path_buf();
    done.wait()
        .map(|_| ())
        .map_err(|error| MigrateError::Open(OpenError::Io { path, what: error.to_string() }))
}

/// A migration while it lasts.
struct Work<'a> {
    dir: &'a Path,
    syncer: &'a Syncer,
    watch: Watch<'a>,
}

impl Work<'_> {
    fn told(&mut self, what: &str) -> Result<(), MigrateError> {
        if (self.watch)(what) {
            return Ok(());
        }
        Err(MigrateError::Interrupted { dir: self.dir.to_path_buf() })
    }

    /// Brings the store to the format of today, or finds what an earlier start has to tell of.
    fn migrate(&mut self) -> Result<Option<Migrated>, MigrateError> {
        let (dir, to) = (self.dir, format::CURRENT);
        let Some(from) = known_format(dir)? else { return Ok(None) };
        if from == to {
            // A migration ended before its last two steps.
            let files = keep::kept(dir).len();
            let from = keep::from(dir);
            return Ok(from.map(|from| Migrated { from, to, files, left: Vec::new() }));
        }
        let _lock = self.lock()?;
        let before = self.check()?;
        self.told("copy")?;
        let old = step_2::old(dir)?;
        keep::keep(dir, from, old.iter().map(|one| one.path.as_path()), self.syncer)?;
        let left = step_2::run(self)?;
        self.told("verify")?;
        let after = self.check()?;
        if let Some(what) = difference(&before, &after) {
            keep::put_back(dir, self.syncer)?;
            return Err(MigrateError::Unverified { dir: dir.to_path_buf(), what });
        }
        self.told("number")?;
        let number = format::write(dir, to, self.syncer);
        number
            .map_err(|error| OpenError::Io { path: dir.to_path_buf(), what: error.to_string() })?;
        let files = keep::kept(dir).len();
        Ok(Some(Migrated { from, to, files: files.saturating_sub(left.len()), left }))
    }

    fn lock(&self) -> Result<Lock, MigrateError> {
        let locked = journal::lock(&self.dir.join("journal"));
        locked.map_err(|error| self.failed(error).into())
    }

    fn check(&self) -> Result<Check, MigrateError> {
        let checked = journal::check(&self.dir.join("journal"), index_of);
        checked.map_err(|error| self.failed(error).into())
    }

    fn failed(&self, error: journal::OpenError) -> OpenError {
        failed(self.dir, error)
    }
}

/// The store's error for one of its journal.
fn failed(dir: &Path, error: journal::OpenError) -> OpenError {
    let path = dir.to_path_buf();
    match error {
        journal::OpenError::Locked { .. } => OpenError::Locked { path },
        journal::OpenError::NewerFormat { .. } => OpenError::NewerFormat { path, source: error },
        other => OpenError::Io { path, what: other.to_string() },
    }
}

/// What differs between two checks of the same journal; damage that was there before may stay.
fn difference(before: &Check, after: &Check) -> Option<String> {
    let told = |check: &Check| (check.segments, check.frames, check.bytes, check.hash);
    if told(before) != told(after) {
        return Some("the journal has other frames than before".to_owned());
    }
    let new = after.damage.iter().find(|damage| !before.damage.contains(damage))?;
    Some(format!("{} became damaged: {}", new.segment.display(), new.reason))
}
