//! A store on a clock that a test sets, and what is asked of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use storage::database::{Database, Report, Setup, Sizes};
use storage::inspect::{AuditFilter, audit, summary};
use storage::record::Status;
use storage::retention::{Keep, Retention};
use storage::view::{Filter, Row};

use crate::common::{head, receive};

pub const SIZES: Sizes = Sizes { segment_bytes: 16 << 10, reserve_bytes: 32 << 10 };

pub const SECOND: u64 = 1_000;

/// For how long everything is kept here.
pub const KEPT: Duration = Duration::from_secs(100);

/// A store on a clock that the test sets.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub clock: Arc<AtomicU64>,
}

impl Place {
    pub fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(SECOND));
        Self { dir: tempfile::tempdir().expect("folder"), clock }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn open(&self) -> (Database, Report) {
        let clock = Arc::clone(&self.clock);
        let journal = SIZES.options(clock.load(Ordering::SeqCst));
        let now = Box::new(move || clock.load(Ordering::SeqCst));
        let (database, report) =
            Database::open_with(self.path(), Setup::new(journal, now, Box::new(|_| {})))
                .expect("opens");
        database.set_dedup_window(KEPT);
        database.set_audit_retention(KEPT);
        let age = u64::try_from(KEPT.as_millis()).expect("milliseconds");
        database.set_retention(Retention::uniform(Keep { age, bytes: u64::MAX }));
        (database, report)
    }

    /// Stops cleanly and opens again: a checkpoint more.
    pub fn again(&self, database: Database) -> Database {
        database.close().expect("closes");
        let (database, report) = self.open();
        assert_eq!((report.rebuild, report.recovery.damage), (None, Vec::new()));
        database
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds * SECOND, Ordering::SeqCst);
    }

    /// Milliseconds on its clock.
    pub fn time(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join("journal")).expect("the journal");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut segments: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
        segments.sort();
        segments
    }
}

pub fn accept(database: &Database, id: &str, status: Status) {
    receive(database, id, status, &[7; 400]);
}

/// A hundred finished messages, one a second.
pub fn fill(place: &Place, database: &Database, name: &str) {
    for number in 0..100 {
        accept(database, &format!("{name}-{number}"), Status::Processed);
        place.pass(1);
    }
}

pub fn is_known(database: &Database, id: &str) -> bool {
    let wanted = head(id, Status::Processed);
    let done = database.store().commit(move |tx| -> Result<_, ()> { Ok(tx.find(&wanted.key())) });
    done.wait().expect("answered").expect("decided").is_some()
}

pub fn ids(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.message_id.clone()).collect()
}

pub fn rows(database: &Database) -> Vec<String> {
    database.view().settle().expect("settles");
    let filter = Filter { limit: 1_000, ..Filter::default() };
    ids(&database.view().list(&filter).expect("lists").rows)
}

pub fn listed(database: &Database) -> Vec<Row> {
    database.view().settle().expect("settles");
    database.view().list(&Filter { limit: 1_000, ..Filter::default() }).expect("lists").rows
}

pub fn first(database: &Database) -> u64 {
    database.reader().first_sequence()
}

pub fn trims(database: &Database) -> Vec<String> {
    let filter = AuditFilter { events: vec!["store.trim".into()], ..AuditFilter::default() };
    let page = audit(database.reader(), &filter).expect("reads");
    page.entries.into_iter().map(|one| one.record.details).collect()
}

/// What was said of rows that were not those of the fold, and were made again.
pub fn disagreements(database: &Database) -> Vec<String> {
    let filter = AuditFilter { events: vec!["store.rebuild".into()], ..AuditFilter::default() };
    let page = audit(database.reader(), &filter).expect("reads");
    let details = page.entries.into_iter().map(|one| one.record.details);
    details.filter(|details| details.contains("rows of")).collect()
}

/// What the audit log, in a page, whole and summed up, says of damage.
pub fn told(database: &Database) -> Vec<String> {
    let (reader, all) = (database.reader(), AuditFilter::default());
    let mut told =
        audit(reader, &AuditFilter { skip: 1_000_000, ..all.clone() }).expect("reads").damage;
    told.extend(summary(reader, &all).expect("reads").damage);
    told
}

/// A store with old messages, written down to be dropped, whose files are still there.
pub fn written_down() -> (Place, Database) {
    let place = Place::new();
    let (database, _) = place.open();
    fill(&place, &database, "old");
    fill(&place, &database, "new");
    let database = place.again(database);
    place.pass(1);
    database.tidy(1_000).expect("tidies");
    database.view().settle().expect("settles");
    database.trim();
    database.view().settle().expect("settles");
    assert_eq!((first(&database), trims(&database).len()), (1, 1));
    (place, database)
}
