//! What sled is known to do to its files, each done to the rows of a real store: it costs a rebuild
//! from the journal at the most, which happens by itself and is in the audit log.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use powercut::Chance;
use storage::database::{Database, Report, Setup};
use storage::event::Event;
use storage::inspect::{AuditFilter, audit};
use storage::journal::{Options, SyncFault, SyncPoint, Syncer};
use storage::record::{Direction, MessageHead, Reason, Status};
use storage::transaction::{Act, Body};
use storage::view::Filter;

/// Places in sled's file that are damaged in turn.
const PLACES: u64 = 24;

const MESSAGES: usize = 600;

fn head(id: &str) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: "server".into(),
        sender: "loki".into(),
        lane: String::new(),
        priority: 2,
        created_at: 1_000,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 4,
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: 1_000,
    }
}

fn open(dir: &Path) -> (Database, Report) {
    let syncer = Syncer::default();
    // No power is cut here.
    for point in SyncPoint::ALL {
        syncer.set_fault(*point, SyncFault::Skip);
    }
    let mut journal = Options::new(1);
    (journal.segment_bytes, journal.reserve_bytes) = (1 << 20, 0);
    journal.syncer = Arc::new(syncer);
    let setup = Setup::new(journal, Box::new(|| 5_000), Box::new(|_| {}));
    Database::open_with(dir, setup).expect("opens")
}

/// A store with messages whose ids are as long as they may be, stopped cleanly.
fn stopped(dir: &Path) -> BTreeMap<String, Status> {
    let (database, _) = open(dir);
    let ids: Vec<String> = (0..MESSAGES).map(|number| format!("{number:0>128}")).collect();
    for part in ids.chunks(100) {
        let part = part.to_vec();
        let done = database.store().commit(move |transaction| -> Result<(), ()> {
            for id in &part {
                let act = Act::new(Event::MessageQueued, "loki", "default", id);
                transaction.accept(act, head(id), Body::new(b"body"));
            }
            Ok(())
        });
        done.wait().expect("durable").expect("accepted");
    }
    database.close().expect("closes");
    ids.into_iter().map(|id| (id, Status::Pending)).collect()
}

fn rows(database: &Database) -> Result<BTreeMap<String, Status>, String> {
    let mut rows = BTreeMap::new();
    let mut filter = Filter::default();
    loop {
        let page = database.view().list(&filter).map_err(|error| error.to_string())?;
        rows.extend(page.rows.into_iter().map(|row| (row.message_id, row.status)));
        filter.after = page.next;
        if filter.after.is_none() {
            return Ok(rows);
        }
    }
}

fn rebuilds(database: &Database) -> usize {
    let events = vec!["store.rebuild".to_owned()];
    let filter = AuditFilter { events, ..AuditFilter::default() };
    audit(database.reader(), &filter).expect("reads").entries.len()
}

/// Waits until the rows are right; says whether they were made again, as the audit log has it.
fn heals(dir: &Path, wanted: &BTreeMap<String, Status>, what: &str) -> bool {
    let (database, _) = open(dir);
    let mut seen = Err("nothing yet".to_owned());
    for _ in 0..400 {
        let _ = database.view().settle();
        seen = rows(&database);
        if seen.as_ref() == Ok(wanted) {
            let rebuilt = rebuilds(&database) > 0;
            database.close().expect("closes");
            return rebuilt;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(25));
    }
    let seen = seen.map(|rows| format!("{} rows", rows.len()));
    panic!("{what}: the rows do not heal by themselves: {seen:?}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("reads") {
        let entry = entry.expect("reads");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// A copy of a stopped store, to which something is done.
fn harmed(from: &Path, harm: impl FnOnce(PathBuf)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    copy(from, dir.path());
    harm(dir.path().join("messages"));
    dir
}

#[test]
fn a_changed_file_of_sled_costs_a_rebuild_at_the_most() {
    let place = tempfile::tempdir().expect("a folder");
    let wanted = stopped(place.path());
    let length = fs::metadata(place.path().join("messages/db")).expect("there").len();
    let mut chance = Chance::new(11);
    let mut rebuilt = 0;
    for number in 0..PLACES {
        let at = usize::try_from(chance.below(length)).expect("small");
        let bytes = [1, 64, 4_096][usize::try_from(number % 3).expect("small")];
        let dir = harmed(place.path(), |rows| {
            let mut file = fs::read(rows.join("db")).expect("reads");
            let end = (at + bytes).min(file.len());
            file[at..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
            fs::write(rows.join("db"), file).expect("written");
        });
        rebuilt += u32::from(heals(dir.path(), &wanted, &format!("{bytes} bytes at {at}")));
    }
    assert!(rebuilt > 0, "no damage was ever noticed");
}

#[test]
fn a_lost_or_cut_file_of_sled_costs_a_rebuild_at_the_most() {
    let place = tempfile::tempdir().expect("a folder");
    let wanted = stopped(place.path());
    let gone = harmed(place.path(), |rows| fs::remove_file(rows.join("db")).expect("removed"));
    assert!(heals(gone.path(), &wanted, "no db"));
    let settings = harmed(place.path(), |rows| {
        fs::write(rows.join("conf"), b"nonsense").expect("written");
    });
    heals(settings.path(), &wanted, "a changed conf");
    for part in [0, 1, 2, 3] {
        let cut = harmed(place.path(), |rows| {
            let file = fs::File::options().write(true).open(rows.join("db")).expect("opens");
            let length = file.metadata().expect("there").len();
            file.set_len(length * part / 4).expect("cut");
        });
        let rebuilt = heals(cut.path(), &wanted, &format!("{part} quarters of db"));
        // With the last quarter the newest rows alone may be gone: those are read from the journal.
        assert!(rebuilt || part == 3, "{part} quarters of db are enough");
    }
    let half = harmed(place.path(), |rows| {
        fs::write(rows.join("snap.00000000000000FF.generating"), b"half").expect("written");
        fs::write(rows.join("snap.00000000000000FE"), b"half").expect("written");
    });
    heals(half.path(), &wanted, "half a snapshot");
}

/// sled moves large values to files that it never syncs. No row is that large.
#[test]
fn no_row_is_moved_to_a_file_that_is_never_synced() {
    let hazard = tempfile::tempdir().expect("a folder");
    let raw = sled::open(hazard.path()).expect("opens");
    raw.insert("key", vec![7; 1_000_000]).expect("written");
    raw.flush().expect("flushed");
    let blobs = |dir: &Path| fs::read_dir(dir.join("blobs")).map_or(0, Iterator::count);
    assert!(blobs(hazard.path()) > 0, "sled does not do that any more");
    let place = tempfile::tempdir().expect("a folder");
    stopped(place.path());
    assert_eq!(blobs(&place.path().join("messages")), 0);
}
