//! What a store keeps right over restarts, damage and its own failures: lanes, checkpoints, ids,
//! and the answers that somebody waits for.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use parking_lot::RwLock;
use storage::checkpoint::{self, Writer};
use storage::database::{Database, Report};
use storage::event::Event;
use storage::fold::State;
use storage::journal::{Entry, Identity, IndexKeys, Log, MemoryLog};
use storage::messages::{BodyPlace, Counts};
use storage::record::{
    Direction, EntityKey, EntityWrite, EntryId, Fact, Kind, Level, MessageHead, Reason, Record,
    Status,
};
use storage::store::{CommitError, Published, Store};
use storage::transaction::{Act, Body, Change};
use storage::view::{Audit, Early, View};

/// How long something may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

const MEBIBYTE: usize = 1 << 20;

fn open(dir: &Path) -> (Database, Report) {
    Database::open(dir, Box::new(|| 5_000), Box::new(|_| {})).expect("opens")
}

fn head(id: &str, lane: &str, status: Status) -> MessageHead {
    let is_out = status == Status::Pending;
    MessageHead {
        direction: if is_out { Direction::Outbound } else { Direction::Inbound },
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: if is_out { "server".into() } else { String::new() },
        sender: "loki".into(),
        lane: lane.into(),
        priority: 2,
        created_at: 1,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 4,
        digest: [0; 32],
        status,
        reason: Reason::None,
        due_at: 1,
    }
}

fn accept(store: &Store, id: &str, lane: &str, status: Status, body: &[u8]) -> EntryId {
    let (head, body) = (head(id, lane, status), Body::new(body));
    let done = store.commit(move |transaction| -> Result<EntryId, ()> {
        let act = Act::new(Event::MessageQueued, "loki", "default", &head.message_id);
        Ok(transaction.accept(act, head, body))
    });
    done.wait().expect("durable").expect("accepted")
}

fn change(store: &Store, entry: EntryId, status: Status) {
    let done = store.commit(move |transaction| -> Result<(), ()> {
        let live = transaction.live(entry).ok_or(())?;
        let act = Act::new(Event::MessageRetry, "loki", "default", "x");
        transaction.change(act, &live, Change { status, ..Change::of(&live) });
        Ok(())
    });
    done.wait().expect("durable").expect("changed");
}

fn record(fact: Fact) -> Record {
    Record {
        event: Event::ConfigLoad,
        level: Level::Info,
        actor: "test".into(),
        namespace: "".into(),
        resource: "".into(),
        details: String::new(),
        fact,
    }
}

fn memory(fatal: Box<dyn Fn(&str) + Send + Sync>) -> Store {
    let log = MemoryLog::new(Identity { journal: [1; 16], key: [2; 16] });
    Store::start(Box::new(log), State::new([2; 16]), Box::new(|| 1), fatal).expect("starts")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[test]
fn a_lane_keeps_its_order_over_a_restart_also_when_its_first_was_retried() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    let first = accept(database.store(), "a", "lane", Status::Pending, b"a");
    let second = accept(database.store(), "b", "lane", Status::Pending, b"b");
    change(database.store(), first, Status::Failed);
    change(database.store(), first, Status::Pending);
    database.close().expect("closes");
    let (database, report) = open(dir.path());
    assert_eq!(report.replayed, 0, "it comes from the checkpoint");
    let take = || database.store().queues(|queues| queues.take("server", 9_999, 10));
    assert_eq!(take(), [second]);
    change(database.store(), second, Status::Delivered);
    assert_eq!(take(), [first]);
    drop(database);
}

#[test]
fn a_checkpoint_forgets_what_the_state_forgot() {
    let dir = tempfile::tempdir().expect("folder");
    let state = RwLock::new(State::new([7; 16]));
    let mut writer = Writer::begin(dir.path(), [1; 16]).chunk_items(16);
    let mut sequence = 0;
    let mut apply = |fact: Fact| {
        sequence += 1;
        let entry = EntryId { sequence, index: 0 };
        state.write().apply(entry, sequence, &record(fact), BodyPlace::default());
        sequence
    };
    let mut sizes = Vec::new();
    for round in 0..30 {
        for number in 0..64 {
            let id = format!("{round}-{number}");
            apply(Fact::Accept(Arc::new(head(&id, "", Status::Processed))));
        }
        writer.write(&state, &|_| Some([2; 32])).expect("written");
        let now = apply(Fact::Note);
        apply(Fact::Evict(EntryId { sequence: now - 8, index: 0 }));
        writer.write(&state, &|_| Some([2; 32])).expect("written");
        let manifest = checkpoint::candidates(dir.path()).remove(0);
        sizes.push(std::fs::metadata(manifest).expect("a manifest").len());
    }
    assert!(sizes[29] <= sizes[9], "{sizes:?}");
}

#[test]
fn checkpoints_of_another_history_do_not_stand_in_the_way() {
    let dir = tempfile::tempdir().expect("folder");
    let kept = tempfile::tempdir().expect("folder");
    let journal = dir.path().join("journal");
    let (database, _) = open(dir.path());
    accept(database.store(), "first", "", Status::Pending, b"1");
    database.close().expect("closes");
    copy(&journal, kept.path());
    for round in 0..2 {
        let (database, _) = open(dir.path());
        for number in 0..20 {
            accept(database.store(), &format!("{round}-{number}"), "", Status::Pending, b"1");
        }
        database.close().expect("closes");
    }
    std::fs::remove_dir_all(&journal).expect("removed");
    copy(kept.path(), &journal);
    let (database, report) = open(dir.path());
    assert_eq!(report.checkpoint, None, "{report:?}");
    database.close().expect("closes");
    let (database, report) = open(dir.path());
    assert_eq!((report.checkpoint_errors.len(), report.replayed), (0, 0), "{report:?}");
    database.close().expect("closes");
}

#[test]
fn a_store_that_is_killed_again_and_again_replays_no_more_and_no_more() {
    let dir = tempfile::tempdir().expect("folder");
    let mut replayed = Vec::new();
    for round in 0..4 {
        let (database, report) = open(dir.path());
        replayed.push(report.replayed);
        for number in 0..20 {
            let id = format!("{round}-{number}");
            accept(database.store(), &id, "", Status::Pending, &vec![1; MEBIBYTE]);
        }
    }
    assert!(*replayed.iter().max().expect("rounds") < 45, "{replayed:?}");
}

#[test]
fn a_failure_inside_is_told_to_those_who_wait_and_to_the_program() {
    let (tell, told) = channel();
    let store = memory(Box::new(move |why| drop(tell.send(why.to_owned()))));
    let panics = store.commit(|_| -> Result<(), ()> { panic!("as the test asked") });
    assert_eq!(panics.wait(), Err(CommitError::Decision));
    let note = || {
        store.commit(|transaction| -> Result<(), ()> {
            transaction.note(Act::new(Event::ConfigLoad, "test", "", "x"));
            Ok(())
        })
    };
    assert_eq!(note().wait(), Ok(Ok(())));
    // A frame of two is handed to the thread that syncs, in which the listener fails.
    store.listen(Box::new(|published: &Published| {
        assert!(published.entries.len() < 2, "as the test asked");
        true
    }));
    let (go, held) = channel::<()>();
    let gate =
        store.commit(move |_| -> Result<(), ()> { held.recv_timeout(PATIENCE).map_err(|_| ()) });
    let both = [note(), note()];
    go.send(()).expect("waits");
    assert_eq!(gate.wait(), Ok(Ok(())));
    for one in both {
        assert_eq!(one.wait(), Ok(Ok(())), "it is durable");
    }
    assert!(told.recv_timeout(PATIENCE).is_ok());
    assert_eq!(note().wait(), Err(CommitError::Stopped));
}

#[test]
fn an_id_whose_frame_is_damaged_is_known_all_the_same() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    let marker = b"a body that is found again";
    accept(database.store(), "x", "", Status::Processed, marker);
    accept(database.store(), "y", "", Status::Processed, b"other");
    database.tidy(0).expect("tidies");
    let find = |id: &str| {
        let wanted = head(id, "", Status::Processed);
        let done = database.store().commit(move |transaction| -> Result<_, ()> {
            Ok(transaction.find(&wanted.key()).is_some())
        });
        done.wait().expect("answered").expect("decided")
    };
    assert!(find("x") && !find("z"));
    let mut damaged = 0;
    for file in std::fs::read_dir(dir.path().join("journal")).expect("lists") {
        let path = file.expect("a file").path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let Some(at) = bytes.windows(marker.len()).position(|part| part == marker) else {
            continue;
        };
        let file = std::fs::File::options().write(true).open(&path).expect("opens");
        file.write_all_at(b"A", at as u64).expect("written");
        damaged += 1;
    }
    assert_eq!(damaged, 1);
    assert!(find("x") && !find("z"));
}

#[test]
fn who_waits_for_room_is_let_go_when_the_rows_have_failed() {
    let dir = tempfile::tempdir().expect("folder");
    let mut log = MemoryLog::new(Identity { journal: [1; 16], key: [2; 16] });
    let encoded = storage::codec::encode(&record(Fact::Note)).expect("encodes");
    let index = IndexKeys::default();
    log.append(5, &[Entry { head: &encoded, body: None, index }]).expect("appended");
    log.sync().expect("synced");
    let store = memory(Box::new(|_| {}));
    let (go, held) = channel::<()>();
    // It stands for an error of sled: the thread that writes rows ends.
    let disagree = Box::new(move |_: &str| {
        let _ = held.recv_timeout(PATIENCE);
        panic!("as the test asked");
    });
    let counts = Counts::from([(("x".into(), Direction::Outbound, Status::Pending), 1)]);
    let (now, has_room) = (Box::new(|| (1, Counts::new())), Box::new(|| true));
    let audit = Audit { sequence: 1, counts, now, is_damaged: false, disagree, has_room };
    let path = dir.path().join("messages");
    let early = Early::begin(&path).expect("begins");
    let started = View::start(early, Arc::new(log.reader()), audit, (Arc::default(), "b".into()));
    let (view, _) = started.expect("starts");
    let (behind, relieved) = (view.clone(), store.clone());
    store.throttle(Box::new(move || behind.lag().over));
    view.on_progress(Box::new(move || relieved.relieve()));
    let mut listener = view.listener();
    let value: Arc<[u8]> = vec![0; MEBIBYTE].into();
    for sequence in 2..=70 {
        let key = EntityKey::new(Kind::State, &["key"]);
        let write = EntityWrite { key, expected_version: 0, value: Some(Arc::clone(&value)) };
        let entry = EntryId { sequence, index: 0 };
        let entries = [(entry, record(Fact::Put(write)), BodyPlace::default())].into();
        listener(&Published { sequence, time: 5, hash: [0; 32], entries });
    }
    let room = store.room().expect("it is far behind");
    go.send(()).expect("waits");
    let (tell, told) = channel();
    let waiting = std::thread::Builder::new().spawn(move || tell.send(room.wait()));
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Ok(())));
    waiting.expect("a thread").join().expect("ends").expect("told");
    store.stop();
}
