//! Message ids are remembered for a window, also beyond what stays in memory and over restarts; and
//! rows that disagree with the journal are made anew.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::head;
use storage::database::{Database, Report};
use storage::inspect::{AuditFilter, audit};
use storage::messages::Known;
use storage::record::Status;
use storage::view::{Filter, Row, decode_rows};

/// A store with a clock that the test sets.
fn open(dir: &Path, clock: &Arc<AtomicU64>) -> (Database, Report) {
    let clock = Arc::clone(clock);
    let now = Box::new(move || clock.load(Ordering::SeqCst));
    Database::open(dir, now, Box::new(|_| {})).expect("opens")
}

fn receive(database: &Database, id: &str, status: Status) {
    common::receive(database, id, status, id.as_bytes());
}

/// What a decision finds of an id, and the body that it leads to.
fn find(database: &Database, id: &str) -> Option<(Known, Vec<u8>)> {
    let wanted = head(id, Status::Processed);
    let done = database
        .store()
        .commit(move |transaction| -> Result<_, ()> { Ok(transaction.find(&wanted.key())) });
    let known = done.wait().expect("answered").expect("decided")?;
    Some((known, database.store().body(known.body).expect("its body")))
}

fn resident(database: &Database) -> usize {
    database.store().messages(storage::messages::Messages::finished_len)
}

#[test]
fn an_id_that_left_the_memory_is_found_in_the_journal_until_the_window_ends() {
    let dir = tempfile::tempdir().expect("folder");
    let clock = Arc::new(AtomicU64::new(1_000));
    let (database, _) = open(dir.path(), &clock);
    database.set_dedup_window(Duration::from_secs(50));
    for number in 0..40_u64 {
        clock.store(1_000 + number * 1_000, Ordering::SeqCst);
        let status = if number == 3 { Status::Rejected } else { Status::Processed };
        receive(&database, &format!("m-{number}"), status);
    }
    database.tidy(16).expect("tidies");
    assert_eq!(resident(&database), 14, "two beyond the surplus, so that the next has room");
    let expect = |database: &Database, number: u64, status| {
        let id = format!("m-{number}");
        let (known, body) = find(database, &id).unwrap_or_else(|| panic!("{id} is forgotten"));
        assert_eq!((known.status, body), (status, id.into_bytes()));
    };
    let check = |database: &Database| {
        expect(database, 0, Status::Processed);
        expect(database, 3, Status::Rejected);
        expect(database, 39, Status::Processed);
        assert_eq!(find(database, "never"), None);
    };
    check(&database);
    drop(database);
    let (database, _) = open(dir.path(), &clock);
    assert_eq!(resident(&database), 14);
    check(&database);
    database.close().expect("closes");
    let (database, report) = open(dir.path(), &clock);
    assert_eq!((report.replayed, resident(&database)), (0, 14));
    check(&database);
    // The window ends for the first ten, which nobody finds any more, wherever they were.
    database.set_dedup_window(Duration::from_secs(50));
    clock.store(60_500, Ordering::SeqCst);
    receive(&database, "late", Status::Processed);
    database.tidy(16).expect("tidies");
    assert_eq!((find(&database, "m-0"), find(&database, "m-9")), (None, None));
    expect(&database, 10, Status::Processed);
    database.close().expect("closes");
}

fn rows(database: &Database) -> Vec<Row> {
    database.view().settle().expect("settles");
    database.view().list(&Filter::default()).expect("lists").rows
}

#[test]
fn rows_that_disagree_with_the_journal_are_made_again_and_the_audit_log_says_so() {
    let dir = tempfile::tempdir().expect("folder");
    let clock = Arc::new(AtomicU64::new(1_000));
    let (database, _) = open(dir.path(), &clock);
    for number in 0..50 {
        receive(&database, &format!("m-{number}"), Status::Processed);
    }
    let right = rows(&database);
    database.close().expect("closes");
    // Whoever does this leaves the position of the rows as it was: only counting finds it.
    let tree = sled::open(dir.path().join("messages")).expect("opens");
    let (key, value) = tree.scan_prefix("m").next().expect("a block").expect("reads");
    let mut block = decode_rows(&key, &value).expect("rows").expect("decodes");
    block.pop();
    tree.insert(key, storage::codec::encode(&block).expect("encodes")).expect("written");
    tree.flush().expect("flushed");
    drop(tree);
    let (database, report) = open(dir.path(), &clock);
    assert_eq!(report.rebuild, None, "nothing but the count is wrong");
    assert_eq!(rows(&database), right);
    let rebuilt = AuditFilter { events: vec!["store.rebuild".into()], ..AuditFilter::default() };
    let page = audit(database.reader(), &rebuilt).expect("reads");
    let why = &page.entries.first().expect("an entry").record.details;
    assert!(why.contains("rows of 49 inbound messages with the status processed"), "{why}");
    database.close().expect("closes");
    let (database, _) = open(dir.path(), &clock);
    assert_eq!(rows(&database), right);
    let page = audit(database.reader(), &rebuilt).expect("reads");
    assert_eq!(page.entries.len(), 1, "they agree now: {page:?}");
    database.close().expect("closes");
}
