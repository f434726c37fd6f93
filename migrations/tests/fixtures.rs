//! Stores that old versions wrote open, are brought to the format of today, and say the same as
//! before; a migration that is cut short anywhere is taken up; a newer store is refused by name.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use migrations::{MigrateError, Migrated, open_with, plan};
use storage::database::{Database, OpenError, Setup, index_of};
use storage::format;
use storage::inspect::{AuditFilter, Inspect};
use storage::journal::{self, Options};
use storage::record::Level;
use storage::view::Filter;
use tempfile::TempDir;

const FIXTURES: [&str; 2] = ["format-1/clean", "format-1/killed"];
const NOW: u64 = 1_770_000_000_000;

fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    copy_folder(&fixture, dir.path());
    dir
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

fn open(
    dir: &Path,
    watch: migrations::Watch<'_>,
) -> Result<(Database, Option<Migrated>), MigrateError> {
    let journal = Options { segment_bytes: 16 << 10, reserve_bytes: 32 << 10, ..Options::new(NOW) };
    let setup = Setup::new(journal, Box::new(|| NOW), Box::new(|_| {}));
    open_with(dir, setup, watch).map(|(database, _, migrated)| (database, migrated))
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("journal")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    found.sort();
    found
}

fn filter(change: impl FnOnce(&mut AuditFilter)) -> AuditFilter {
    let mut filter = AuditFilter { until: Some(NOW), ..AuditFilter::default() };
    change(&mut filter);
    filter
}

/// Everything that a store says of the time before today.
fn told(dir: &Path) -> (Vec<String>, Vec<String>) {
    let look = Inspect::open(dir).unwrap();
    let rows = look.list(&Filter { limit: 1_000, ..Filter::default() }).rows;
    let rows =
        rows.iter().map(|row| format!("{} {:?} {}", row.message_id, row.status, row.attempts));
    let entries = look.audit(&filter(|_| {})).unwrap().entries;
    let entries = entries.iter().map(|one| format!("{} {:?}", one.entry, one.record));
    (rows.collect(), entries.collect())
}

/// What the indexes answer is what looking at every entry gives.
fn assert_indexed(dir: &Path) {
    let look = Inspect::open(dir).unwrap();
    let all = look.audit(&filter(|_| {})).unwrap().entries;
    assert!(all.len() > 200, "{}", all.len());
    let asked = |change: &dyn Fn(&mut AuditFilter)| look.audit(&filter(change)).unwrap().entries;
    for actor in ["agent-0", "agent-1", "agent-2", "server", "store", "nobody"] {
        let expected: Vec<_> =
            all.iter().filter(|one| &*one.record.actor == actor).cloned().collect();
        assert_eq!(asked(&|filter| filter.actor = Some(actor.into())), expected, "{actor}");
    }
    for level in [Level::Info, Level::Warning, Level::Error] {
        let expected: Vec<_> =
            all.iter().filter(|one| one.record.level >= level).cloned().collect();
        assert!(!expected.is_empty());
        assert_eq!(asked(&|filter| filter.level = Some(level)), expected, "{level:?}");
    }
    for number in 0..90 {
        let id = format!("message-{number:03}");
        let same = |one: &&storage::inspect::AuditEntry| *one.record.resource == *id;
        let expected: Vec<_> = all.iter().filter(same).cloned().collect();
        assert_eq!(asked(&|filter| filter.resource = Some(id.clone())), expected, "{id}");
        let both = |filter: &mut AuditFilter| {
            filter.resource = Some(id.clone());
            filter.events = vec!["message.queued".into()];
        };
        assert_eq!(asked(&both).len(), 1, "{id}");
    }
}

fn notes(dir: &Path) -> Vec<String> {
    let events = vec!["store.migrate".to_owned()];
    let look = Inspect::open(dir).unwrap();
    let page = look.audit(&AuditFilter { events, ..AuditFilter::default() }).unwrap();
    page.entries.into_iter().map(|one| one.record.details).collect()
}

fn assert_migrated(dir: &Path, before: &(Vec<String>, Vec<String>), name: &str) {
    assert_eq!(&told(dir), before, "{name}");
    assert_indexed(dir);
    let check = journal::check(&dir.join("journal"), index_of).unwrap();
    assert_eq!(check.damage, [], "{name}");
    assert_eq!(format::of(dir).unwrap(), Some(format::CURRENT), "{name}");
    assert_eq!(journal::old_footers(&dir.join("journal")).unwrap(), [], "{name}");
    assert!(!dir.join("before-format-2").exists(), "{name}");
    assert!(!notes(dir).is_empty(), "{name}");
}

#[test]
fn a_store_of_every_old_format_is_brought_to_the_one_of_today() {
    for name in FIXTURES {
        let dir = copy(name);
        let before = told(dir.path());
        assert_indexed(dir.path());
        let planned = plan(dir.path()).unwrap();
        assert!(planned.is_needed() && planned.from == Some(1), "{name}");
        assert!(planned.files.len() >= 5, "{name}");
        let (database, migrated) = open(dir.path(), &mut |_| true).unwrap();
        let migrated = migrated.expect("a migration");
        assert_eq!((migrated.from, migrated.files), (1, planned.files.len()), "{name}");
        assert_eq!(migrated.left, [] as [&str; 0]);
        database.close().unwrap();
        assert_migrated(dir.path(), &before, name);
        assert_eq!(notes(dir.path()).len(), 1, "{name}");
        let (database, migrated) = open(dir.path(), &mut |_| true).unwrap();
        assert_eq!(migrated, None, "{name}");
        database.close().unwrap();
        assert_eq!(notes(dir.path()).len(), 1, "{name}");
    }
}

#[test]
fn a_migration_that_is_cut_short_at_any_step_is_taken_up() {
    for name in FIXTURES {
        let mut steps = Vec::new();
        let whole = copy(name);
        let before = told(whole.path());
        let watch = &mut |what: &str| {
            steps.push(what.to_owned());
            true
        };
        drop(open(whole.path(), watch).unwrap());
        assert!(steps.len() >= 11, "{steps:?}");
        // Every step of one, some of the other.
        let some = if name == FIXTURES[0] { 1 } else { 3 };
        for cut in (0..steps.len()).step_by(some) {
            let dir = copy(name);
            let mut count = 0;
            let killed = open(dir.path(), &mut |_| {
                count += 1;
                count <= cut
            });
            let Err(MigrateError::Interrupted { .. }) = killed else {
                panic!("{name}: {}", steps[cut])
            };
            // Cut once more at the same place, as far as it comes again.
            let mut count = 0;
            drop(open(dir.path(), &mut |what| {
                count += 1;
                what != steps[cut] || count < 2
            }));
            let (database, _) = open(dir.path(), &mut |_| true).unwrap();
            database.close().unwrap();
            assert_migrated(dir.path(), &before, &format!("{name} cut at {}", steps[cut]));
        }
    }
}

#[test]
fn what_does_not_verify_is_put_back_as_it_was() {
    for name in FIXTURES {
        let (dir, untouched) = (copy(name), copy(name));
        let path = dir.path().to_path_buf();
        let failed = open(dir.path(), &mut |what| {
            if what == "verify" {
                let file = segments(&path).remove(1);
                let mut bytes = fs::read(&file).unwrap();
                bytes[5_000] ^= 1;
                // Another file, as every step writes one.
                fs::remove_file(&file).unwrap();
                fs::write(&file, bytes).unwrap();
            }
            true
        });
        let Err(error @ MigrateError::Unverified { .. }) = failed else { panic!("verified") };
        assert!(error.to_string().contains("put back as it was"), "{error}");
        for (one, other) in segments(dir.path()).iter().zip(segments(untouched.path())) {
            assert_eq!(fs::read(one).unwrap(), fs::read(other).unwrap(), "{}", one.display());
        }
        assert_eq!(format::of(dir.path()).unwrap(), Some(1));
        assert!(!dir.path().join("before-format-2").exists());
    }
}

#[test]
fn a_damaged_segment_keeps_its_footer_and_the_store_opens() {
    let dir = copy("format-1/clean");
    let file = segments(dir.path()).remove(2);
    let mut bytes = fs::read(&file).unwrap();
    bytes[5_000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let (database, migrated) = open(dir.path(), &mut |_| true).unwrap();
    let left = migrated.expect("a migration").left;
    assert!(left.len() == 1 && left[0].contains("segment-0000000003.log"), "{left:?}");
    database.close().unwrap();
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert!(notes(dir.path())[0].contains(r#""left":1"#));
}

#[test]
fn what_a_query_does_not_need_is_not_read() {
    let dir = copy("format-1/clean");
    open(dir.path(), &mut |_| true).unwrap().0.close().unwrap();
    let file = segments(dir.path()).remove(2);
    let mut bytes = fs::read(&file).unwrap();
    bytes[5_000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let look = Inspect::open(dir.path()).unwrap();
    let read = |change: &dyn Fn(&mut AuditFilter)| {
        let page = look.audit(&filter(change)).unwrap();
        (page.entries.len(), page.damage.len())
    };
    assert_eq!(read(&|_| {}).1, 1);
    assert_eq!(read(&|filter| filter.resource = Some("message-004".into())), (2, 0));
    assert_eq!(read(&|filter| filter.resource = Some("nothing".into())), (0, 0));
    assert_eq!(read(&|filter| filter.actor = Some("nobody".into())), (0, 0));
}

#[test]
fn a_newer_store_and_one_in_use_are_refused_by_name() {
    let dir = copy("format-1/clean");
    let lock = journal::lock(&dir.path().join("journal")).unwrap();
    let Err(error) = open(dir.path(), &mut |_| true) else { panic!("migrated in use") };
    assert!(matches!(error, MigrateError::Open(OpenError::Locked { .. })), "{error}");
    drop(lock);
    let syncer = Arc::new(journal::Syncer::default());
    format::write(dir.path(), format::CURRENT + 1, &syncer).unwrap();
    let path = dir.path().to_path_buf();
    for error in [
        open(dir.path(), &mut |_| true).err().expect("refused").to_string(),
        plan(dir.path()).unwrap_err().to_string(),
        Inspect::open(dir.path()).err().expect("refused").to_string(),
        Database::open(&path, Box::new(|| NOW), Box::new(|_| {}))
            .err()
            .expect("refused")
            .to_string(),
    ] {
        let expected =
            format!("{} was written by a newer version (format 3", path.join("format").display());
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn an_older_store_is_not_opened_without_its_migration() {
    let dir = copy("format-1/clean");
    let opened = Database::open(dir.path(), Box::new(|| NOW), Box::new(|_| {}));
    let error = opened.err().expect("refused").to_string();
    assert!(error.contains("`loki store migrate` brings it to format 2"), "{error}");
}
