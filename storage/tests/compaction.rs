//! Compaction of sealed segments (JOURNAL rule 21): dead bodies go, and nothing else changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use storage::database::{Database, Setup, Sizes, index_of};
use storage::event::Event;
use storage::fold::State;
use storage::inspect::{AuditFilter, Inspect, audit, replay};
use storage::journal::{Frame, Options, ReadError, SyncFault, SyncPoint, Syncer, check};
use storage::messages::BodyPlace;
use storage::record::{Direction, EntryId, MessageHead, MessageKey, Reason, Status};
use storage::retention::{Keep, Limits, Retention, is_dead};
use storage::store::Store;
use storage::transaction::{Act, Body, Change};
use storage::view::{Filter, Row};

const SIZES: Sizes = Sizes { segment_bytes: 64 << 10, reserve_bytes: 128 << 10 };

const MESSAGES: usize = 200;

const BODY_BYTES: usize = 2_000;

/// Everything that is finished is dead.
const NOTHING: Keep = Keep { age: 0, bytes: u64::MAX };

fn open_with(dir: &Path, syncer: &Arc<Syncer>) -> Database {
    let journal = Options { syncer: Arc::clone(syncer), ..SIZES.options(1_000) };
    let setup = Setup::new(journal, Box::new(|| 1_000), Box::new(|_| {}));
    Database::open_with(dir, setup).expect("opens").0
}

fn open(dir: &Path) -> Database {
    open_with(dir, &Arc::default())
}

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

fn body(number: usize) -> Vec<u8> {
    (0..BODY_BYTES).map(|at| u8::try_from((number + at) % 251).unwrap_or(0)).collect()
}

fn accept(store: &Store, number: usize) {
    let done = store.commit(move |tx| -> Result<(), ()> {
        let id = format!("m-{number}");
        let act = Act::new(Event::MessageQueued, "loki", "default", &id);
        tx.accept(act, head(&id), Body::new(&body(number)));
        Ok(())
    });
    done.wait().expect("durable").expect("accepted");
}

fn end(store: &Store, number: usize, status: Status) {
    let done = store.commit(move |tx| -> Result<(), ()> {
        let id = format!("m-{number}");
        let key = MessageKey {
            direction: Direction::Outbound,
            namespace: "default",
            peer: "server",
            message_id: &id,
        };
        let live = tx.live(tx.find(&key).ok_or(())?.entry).ok_or(())?;
        let act = Act::new(Event::MessageDelivered, "loki", "default", &id);
        tx.change(act, &live, Change { status, attempts: 1, ..Change::of(&live) });
        Ok(())
    });
    done.wait().expect("durable").expect("it is not finished");
}

/// Messages of which every third is still pending and every third failed.
fn fill(store: &Store) {
    for number in 0..MESSAGES {
        accept(store, number);
    }
    for number in 0..MESSAGES {
        match number % 3 {
            0 => {}
            1 => end(store, number, Status::Failed),
            _ => end(store, number, Status::Delivered),
        }
    }
}

fn frames(database: &Database) -> Vec<Frame> {
    database.reader().frames(1).map(|frame| frame.expect("whole")).collect()
}

/// Where the body of each message lies, by its number.
fn places(database: &Database) -> BTreeMap<usize, BodyPlace> {
    database.view().settle().expect("settles");
    let mut places = BTreeMap::new();
    let last = database.reader().head().position.sequence;
    let mut look = |row: &Row| {
        let number = row.message_id.trim_start_matches("m-").parse().expect("a number");
        places.insert(number, row.body);
    };
    database.view().rows_of((1, last), &mut look).expect("rows");
    places
}

fn journal_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir.join("journal")).expect("the journal");
    entries.map(|entry| entry.expect("an entry").metadata().map_or(0, |it| it.len())).sum()
}

fn assert_bodies(database: &Database, places: &BTreeMap<usize, BodyPlace>) {
    let mut gone = 0;
    for (number, place) in places {
        match database.store().body(*place) {
            Ok(found) => assert_eq!(found, body(*number), "m-{number}"),
            Err(ReadError::NoBody { .. }) if number % 3 == 2 => gone += 1,
            Err(error) => panic!("m-{number}: {error}"),
        }
    }
    assert!(gone > MESSAGES / 4, "only {gone} bodies are gone");
}

#[test]
fn dead_bodies_go_and_nothing_else_changes() {
    let dir = tempfile::tempdir().expect("folder");
    let database = open(dir.path());
    fill(database.store());
    let (before, places) = (frames(&database), places(&database));
    assert_eq!(places.len(), MESSAGES);
    let digest = database.store().state(State::digest);
    // Readers that are at work when their segments are replaced.
    let mut under_way = database.reader().frames(1);
    let first = under_way.next().expect("a frame").expect("whole");
    assert_eq!(database.upkeep().compact().expect("runs").segments, 0, "they are kept a month");
    database.set_retention(Retention::uniform(NOTHING));
    let size = journal_bytes(dir.path());
    let freed = database.upkeep().compact().expect("runs");
    assert!(freed.segments > 3 && freed.bodies > MESSAGES as u64 / 4, "{freed:?}");
    assert_eq!(journal_bytes(dir.path()), size - freed.bytes);
    let rest: Vec<Frame> = under_way.map(|frame| frame.expect("whole")).collect();
    assert_eq!([vec![first], rest].concat(), before);
    assert_eq!(frames(&database)[..before.len()], before);
    assert_bodies(&database, &places);
    let events = vec![Event::StoreCompact.name().to_owned()];
    let told = audit(database.reader(), &AuditFilter { events, ..AuditFilter::default() });
    assert_eq!(told.expect("the audit log").entries.len() as u64, freed.segments);
    assert_eq!(database.upkeep().compact().expect("runs").segments, 0, "nothing is left to do");
    let through = before.last().expect("frames").position.sequence;
    assert_eq!(replay(database.reader(), through).digest(), digest, "the fold reads no body");
    database.close().expect("closes");
    let checked = check(&dir.path().join("journal"), index_of).expect("checked");
    assert!(checked.damage.is_empty(), "{:?}", checked.damage);
    let look = Inspect::open(dir.path()).expect("a look");
    assert!(look.damage().is_empty(), "{:?}", look.damage());
    assert_eq!(look.list(&Filter::default()).rows.len(), MESSAGES);
    let database = open(dir.path());
    assert_eq!(frames(&database)[..before.len()], before);
    assert_bodies(&database, &places);
    database.close().expect("closes");
}

#[test]
fn a_compaction_that_fails_leaves_the_segment_as_it_was() {
    let dir = tempfile::tempdir().expect("folder");
    let syncer = Arc::new(Syncer::default());
    let database = open_with(dir.path(), &syncer);
    fill(database.store());
    let (before, places) = (frames(&database), places(&database));
    database.set_retention(Retention::uniform(NOTHING));
    syncer.set_fault(SyncPoint::Compacted, SyncFault::Fail);
    assert_eq!(database.upkeep().compact().expect("runs").segments, 0);
    syncer.set_fault(SyncPoint::Compacted, SyncFault::None);
    for (number, place) in &places {
        assert_eq!(database.store().body(*place).expect("a body"), body(*number));
    }
    let aside = fs::read_dir(dir.path().join("journal")).expect("the journal");
    let is_aside = |path: &Path| path.extension().is_some_and(|it| it == "new");
    assert!(!aside.flatten().any(|entry| is_aside(&entry.path())), "nothing is left behind");
    assert!(database.upkeep().compact().expect("runs").segments > 3, "and it is tried again");
    assert_eq!(frames(&database)[..before.len()], before);
    assert_bodies(&database, &places);
    database.close().expect("closes");
}

#[test]
fn a_damaged_segment_is_left_alone() {
    let dir = tempfile::tempdir().expect("folder");
    let database = open(dir.path());
    fill(database.store());
    let path = database.reader().segments().last().expect("a segment").path().to_path_buf();
    database.close().expect("closes");
    let mut bytes = fs::read(&path).expect("a segment");
    bytes[4096 + 200] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let database = open(dir.path());
    database.view().settle().expect("settles");
    database.set_retention(Retention::uniform(NOTHING));
    assert!(database.upkeep().compact().expect("runs").segments > 2);
    assert_eq!(fs::read(&path).expect("a segment"), bytes, "it is evidence");
    database.close().expect("closes");
}

fn row(sequence: u64, status: Status, updated_at: u64, size_bytes: u32) -> Row {
    Row {
        entry: EntryId { sequence, index: 0 },
        message_id: format!("m-{sequence}"),
        direction: Direction::Outbound,
        message_type: "task_update".into(),
        peer: "server".into(),
        destination: "server".into(),
        namespace: "default".into(),
        status,
        reason: Reason::None,
        attempts: 1,
        next_attempt_at: 0,
        created_at: 1,
        updated_at,
        size_bytes,
        sealed: false,
        maybe_delivered: false,
        task_id: None,
        correlation_id: None,
        error: String::new(),
        body: BodyPlace::default(),
        digest: [0; 32],
    }
}

#[test]
fn only_finished_messages_have_dead_bodies_and_only_after_their_time() {
    let retention = Retention {
        delivered: Keep { age: 10, bytes: u64::MAX },
        expired: Keep { age: 20, bytes: u64::MAX },
        processed: Keep { age: 30, bytes: u64::MAX },
        rejected: Keep { age: 40, bytes: u64::MAX },
    };
    let ages = |status| {
        (0..60).find(|now| is_dead(&row(1, status, 5, 1), &retention, &Limits::default(), *now))
    };
    let expected = [
        (Status::Pending, None),
        (Status::Sending, None),
        (Status::Delivered, Some(15)),
        (Status::Failed, None),
        (Status::Expired, Some(25)),
        (Status::Held, None),
        (Status::Received, None),
        (Status::Processed, Some(35)),
        (Status::Rejected, Some(45)),
        (Status::Pruned, Some(25)),
    ];
    assert_eq!(Status::ALL.map(|status| (status, ages(status))), expected);
}

#[test]
fn beyond_a_size_the_oldest_go_first_and_each_status_is_counted_alone() {
    let keep = Keep { age: u64::MAX, bytes: 25 };
    let retention = Retention { delivered: keep, ..Retention::uniform(Keep::default()) };
    assert!(retention.counts_bytes() && !Retention::default().counts_bytes());
    let rows: Vec<Row> = (1..=6)
        .map(|at| {
            let status = if at == 5 { Status::Processed } else { Status::Delivered };
            row(at, status, 5, 10)
        })
        .collect();
    let mut limits = Limits::default();
    rows.iter().rev().for_each(|row| limits.count(row, &retention));
    let dead: Vec<u64> = rows
        .iter()
        .filter(|row| is_dead(row, &retention, &limits, 6))
        .map(|row| row.entry.sequence)
        .collect();
    assert_eq!(dead, [1, 2, 3], "two of 10 bytes fit into 25");
}
