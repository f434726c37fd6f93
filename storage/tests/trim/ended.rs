//! Messages that ended a short while ago stay for as long as finished messages do, however long
//! ago they were accepted.

use std::collections::BTreeMap;
use std::fs;

use storage::database::Database;
use storage::event::Event;
use storage::inspect::{AuditFilter, audit, history_of};
use storage::record::{EntryId, Status};
use storage::retention::{Keep, Retention};
use storage::transaction::{Act, Change};
use storage::view::Row;

use crate::carry::{agrees, change, pass, send};
use crate::place::{Place, accept, disagreements, fill, first, trims};

fn shred(database: &Database, entry: EntryId) {
    let done = database.store().commit(move |tx| -> Result<(), ()> {
        let live = tx.live(entry).ok_or(())?;
        let act = Act::new(Event::MessagePruned, "person", "default", &live.head.message_id);
        let change = Change { status: Status::Pruned, ..Change::of(&live) };
        tx.prune(act, &live, change, true);
        Ok(())
    });
    done.wait().expect("durable").expect("is not finished");
}

fn found(database: &Database, id: &str) -> Option<Row> {
    database.view().settle().expect("settles");
    database.view().get(id).expect("reads").pop()
}

/// How often each message was carried, of what the audit log still has, added to what it had.
fn carried(database: &Database, times: &mut BTreeMap<(String, EntryId), u32>) {
    let filter = AuditFilter { events: vec!["store.carry".into()], ..AuditFilter::default() };
    for entry in audit(database.reader(), &filter).expect("reads").entries {
        times.insert((entry.record.resource.to_string(), entry.entry), 1);
    }
}

fn times(times: &BTreeMap<(String, EntryId), u32>, id: &str) -> usize {
    times.keys().filter(|(name, _)| name == id).count()
}

#[test]
fn what_ended_just_now_stays_for_as_long_as_it_is_kept() {
    let place = Place::new();
    let (database, _) = place.open();
    let waits = send(&database, "waits", None);
    let gone = send(&database, "gone", None);
    fill(&place, &database, "old");
    let lost = send(&database, "lost", None);
    fill(&place, &database, "new");
    let database = place.again(database);
    change(&database, waits, Status::Delivered);
    change(&database, lost, Status::Delivered);
    shred(&database, gone);
    let ended = found(&database, "waits").expect("a row");
    // The frame that accepted one of them is damaged, and nobody has read it since.
    let segments = place.segments();
    let hit = segments.iter().find_map(|path| {
        let bytes = fs::read(path).expect("reads");
        let at = bytes.windows(20).rposition(|some| some == b"lostlostlostlostlost")?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = hit.expect("lies in a segment");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
    place.pass(40);
    let mut counted = BTreeMap::new();
    let mut database = database;
    for _ in 0..3 {
        for _ in 0..3 {
            database.tidy(1_000).expect("tidies");
            database.view().settle().expect("settles");
            database.trim();
        }
        carried(&database, &mut counted);
        database = place.again(place.again(database));
        place.pass(1);
    }
    assert!(first(&database) > lost.sequence, "{}", first(&database));
    let row = found(&database, "waits").expect("it ended a few seconds ago");
    assert_eq!(Row { body: ended.body, ..row.clone() }, ended);
    let body = database.store().body(row.body).expect("reads");
    assert_eq!(body, "waits".repeat(60).as_bytes());
    let history = history_of(database.reader(), &row).expect("reads");
    let events: Vec<Event> = history.iter().map(|entry| entry.record.event).collect();
    assert_eq!(events, [Event::MessageRetry, Event::StoreCarry]);
    let gone = found(&database, "gone").expect("it ended a few seconds ago");
    assert_eq!(gone.status, Status::Pruned);
    assert!(database.store().body(gone.body).is_err(), "a person wanted it gone");
    let mut database = agrees(&place, database);
    for _ in 0..2 {
        database = pass(&place, database);
        carried(&database, &mut counted);
    }
    for id in ["waits", "gone", "lost"] {
        assert_eq!((found(&database, id), times(&counted, id)), (None, 1), "{id}");
    }
    assert!(!counted.keys().any(|(id, _)| id.starts_with("old-")), "they were old enough");
    assert_eq!(disagreements(&database), [""; 0]);
    database.close().expect("closes");
}

#[test]
fn what_is_to_be_carried_comes_to_an_end_while_more_becomes_old() {
    let place = Place::new();
    let (database, _) = place.open();
    let mut entries = Vec::new();
    // In each round another segment is old, and has a message that waited for 40 seconds.
    for round in 0..20 {
        entries.push(send(&database, &format!("waits-{round}"), None));
        for number in 0..20 {
            accept(&database, &format!("other-{round}-{number}"), Status::Processed);
            place.pass(1);
        }
        if let Some(ends) = entries.len().checked_sub(3) {
            change(&database, entries[ends], Status::Delivered);
        }
        database.tidy(1_000).expect("tidies");
        database.view().settle().expect("settles");
        database.trim();
    }
    let written = trims(&database).len();
    assert!(written > 0, "nothing went in ten rounds");
    database.close().expect("closes");
}

#[test]
fn each_message_is_carried_once_in_the_time_that_it_is_kept() {
    let place = Place::new();
    let (database, _) = place.open();
    let ids: Vec<String> = (0..30).map(|number| format!("waits-{number}")).collect();
    let entries: Vec<EntryId> = ids.iter().map(|id| send(&database, id, None)).collect();
    let (mut database, mut counted, mut passed) = (database, BTreeMap::new(), 0);
    for ends in entries.chunks(10) {
        database = pass(&place, database);
        carried(&database, &mut counted);
        for entry in ends {
            change(&database, *entry, Status::Delivered);
        }
        passed += 1;
        // Each ten waited for longer than those before them.
        assert!(ids.iter().all(|id| times(&counted, id) <= passed), "{passed} {counted:?}");
    }
    for _ in 0..3 {
        // They are kept for longer than the entries that tell of them, and so is the rest.
        let keep = Keep { age: 150_000, bytes: u64::MAX };
        database.set_retention(Retention::uniform(keep));
        database = pass(&place, database);
        carried(&database, &mut counted);
    }
    database = pass(&place, pass(&place, database));
    assert!(ids.iter().all(|id| found(&database, id).is_none()));
    for (number, id) in ids.iter().enumerate() {
        let times = times(&counted, id);
        assert!(times <= number / 10 + 2, "{id} was carried {times} times");
    }
    agrees(&place, database).close().expect("closes");
}
