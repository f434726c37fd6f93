//! Messages that are not finished are carried forward out of the segments that go.

use std::collections::BTreeMap;
use std::fs;

use storage::database::Database;
use storage::event::Event;
use storage::inspect::{Inspect, check, head_of, history_of, replay};
use storage::record::{Direction, EntryId, MessageHead, Millis, Status};
use storage::transaction::{Act, Body, Change};
use storage::view::{Filter, Row, decode_rows};

use crate::common::head;
use crate::place::{Place, accept, disagreements, fill, first, is_known, listed, rows, trims};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Accepts a message that leaves by a link.
pub fn send(database: &Database, id: &str, expires_at: Option<Millis>) -> EntryId {
    let head = MessageHead {
        direction: Direction::Outbound,
        destination: "server".into(),
        lane: "a lane".into(),
        expires_at,
        ..head(id, Status::Pending)
    };
    let done = database.store().commit(move |tx| -> Result<EntryId, ()> {
        let act = Act::new(Event::MessageQueued, "agent", "default", &head.message_id)
            .details(format!(r#"{{"traceparent":"{TRACE}"}}"#));
        let body = Body::new(head.message_id.repeat(60).as_bytes());
        Ok(tx.accept(act, head, body))
    });
    done.wait().expect("durable").expect("accepted")
}

pub fn change(database: &Database, entry: EntryId, status: Status) {
    let done = database.store().commit(move |tx| -> Result<(), ()> {
        let live = tx.live(entry).ok_or(())?;
        let act = Act::new(Event::MessageRetry, "agent", "default", &live.head.message_id);
        let attempts = live.attempts + 1;
        let error = format!("attempt {attempts} failed");
        tx.change(act, &live, Change { status, attempts, error, ..Change::of(&live) });
        Ok(())
    });
    done.wait().expect("durable").expect("is not finished");
}

fn row(database: &Database, id: &str) -> Row {
    database.view().settle().expect("settles");
    database.view().get(id).expect("reads").pop().expect("there")
}

/// Lets enough time and enough starts pass for what is old to go.
pub fn pass(place: &Place, database: Database) -> Database {
    pass_with(place, database, &|database| place.again(database))
}

/// The same with starts of another kind.
pub fn pass_with(
    place: &Place,
    database: Database,
    again: &dyn Fn(Database) -> Database,
) -> Database {
    fill(place, &database, &format!("at-{}", place.time()));
    let mut database = database;
    for _ in 0..2 {
        place.pass(1);
        database.tidy(1_000).expect("tidies");
        for _ in 0..2 {
            database.view().settle().expect("settles");
            database.trim();
        }
        database = again(again(database));
        database.trim();
    }
    database
}

/// Lets what is old be carried forward; nothing is dropped yet.
fn carry(place: &Place, database: &Database) {
    fill(place, database, "old");
    fill(place, database, "new");
    place.pass(1);
    database.tidy(1_000).expect("tidies");
    database.view().settle().expect("settles");
    database.trim();
    database.view().settle().expect("settles");
}

/// What a store says of itself is what its journal says, however it is asked.
pub fn agrees(place: &Place, database: Database) -> Database {
    let kept = listed(&database);
    let (sequence, digest) = database.store().state(|state| (state.sequence, state.digest()));
    database.close().expect("closes");
    let look = Inspect::open(place.path()).expect("looks");
    let mut seen = Vec::new();
    look.each(&Filter::default(), &mut |row| seen.push(row.clone()));
    for kept in &kept {
        assert_eq!(look.get(&kept.message_id), std::slice::from_ref(kept), "found by its id");
    }
    for (seen, kept) in seen.iter().zip(&kept) {
        assert_eq!(seen, kept, "from the journal alone");
    }
    assert_eq!(seen.len(), kept.len());
    // The housekeeper may have forgotten old ids meanwhile.
    if look.state().sequence == sequence {
        assert_eq!(look.state().digest(), digest);
    }
    let checked = check(place.path(), true).expect("checks");
    let bodies = kept.iter().filter(|row| row.body.length > 0).count();
    assert!(checked.is_sound() && checked.bodies >= bodies as u64, "{checked:?}");
    fs::remove_dir_all(place.path().join("messages")).expect("removed");
    let (database, _) = place.open();
    assert_eq!(listed(&database), kept, "made again");
    // Rows that disagree with the fold would be made again once more, and said to be.
    let database = place.again(database);
    database.close().expect("closes");
    for rows in blocks(place) {
        assert!(rows <= 33, "{rows} rows are too large for a page of sled");
    }
    let (database, report) = place.open();
    assert_eq!(report.rebuild, None);
    database
}

/// How many rows the blocks in sled have.
fn blocks(place: &Place) -> Vec<usize> {
    let tree = sled::open(place.path().join("messages")).expect("opens");
    let blocks = tree.iter().map(|item| item.expect("reads"));
    let blocks = blocks.filter_map(|(key, value)| decode_rows(&key, &value));
    blocks.map(|rows| rows.expect("decodes").len()).collect()
}

#[test]
fn what_waits_is_the_same_message_after_its_frames_are_gone() {
    let place = Place::new();
    let (database, _) = place.open();
    let waits = send(&database, "waits", Some(9_000_000));
    let behind = send(&database, "behind", None);
    change(&database, waits, Status::Pending);
    let dead = send(&database, "dead", None);
    change(&database, dead, Status::Failed);
    accept(&database, "comes", Status::Received);
    let ids = ["waits", "behind", "dead", "comes"];
    let before: Vec<Row> = ids.iter().map(|id| row(&database, id)).collect();
    fill(&place, &database, "old");
    let mut database = pass(&place, database);
    let mut before_first = 50;
    for round in 0..3 {
        let from = first(&database);
        assert!(from > before_first, "{from} in round {round}");
        before_first = from;
        for (id, before) in ids.iter().zip(&before) {
            let now = row(&database, id);
            assert!(now.body.sequence >= first(&database), "{id} lies where nothing is kept");
            assert_eq!(Row { body: before.body, ..now.clone() }, *before);
            let live = database.store().live(before.entry).expect("waits");
            assert_eq!(live.head, head_of(database.reader(), now.place()).expect("is there"));
            assert_eq!((live.body, &live.head.message_id[..]), (now.body, *id));
            let history = history_of(database.reader(), &now).expect("reads");
            assert_eq!(history[0].record.event, Event::StoreCarry, "in round {round}");
            assert!(is_known(&database, "comes"));
        }
        let live = database.store().live(waits).expect("waits");
        assert_eq!(database.store().body(live.body).expect("reads"), "waits".repeat(60).as_bytes());
        assert_eq!((live.head.expires_at, &*live.error), (Some(9_000_000), "attempt 1 failed"));
        let lane = database.store().messages(|messages| messages.lane_head(behind));
        assert_eq!(lane.map(|(head, _)| head), Some(waits));
        database = agrees(&place, database);
        database = pass(&place, database);
    }
    // What they name of a trace they name for as long as they live.
    let details = history_of(database.reader(), &row(&database, "dead")).expect("reads");
    assert!(details[0].record.details.contains(TRACE), "{}", details[0].record.details);
    assert_eq!(disagreements(&database), [""; 0]);
    database.close().expect("closes");
}

#[test]
fn what_changes_while_the_rest_goes_is_not_lost() {
    let place = Place::new();
    let (database, _) = place.open();
    let waits = send(&database, "waits", None);
    carry(&place, &database);
    // It goes to the rows together with the word that the frames before it are dropped.
    change(&database, waits, Status::Failed);
    database.trim();
    assert_eq!(trims(&database).len(), 1);
    let row = row(&database, "waits");
    assert_eq!((row.status, row.attempts), (Status::Failed, 1));
    let database = agrees(&place, database);
    assert_eq!(disagreements(&database), [""; 0]);
    database.close().expect("closes");
}

#[test]
fn what_ended_after_that_goes_like_everything_else() {
    let place = Place::new();
    let (database, _) = place.open();
    let ids: Vec<String> = (0..300).map(|number| format!("waits-{number}")).collect();
    let entries: BTreeMap<&str, EntryId> =
        ids.iter().map(|id| (id.as_str(), send(&database, id, None))).collect();
    fill(&place, &database, "old");
    let database = pass(&place, database);
    let kept = rows(&database);
    assert!(first(&database) > 300 && ids.iter().all(|id| kept.contains(id)), "{kept:?}");
    // The order of the list is still that in which they came.
    let (newer, older) = kept.split_at(kept.len() - ids.len());
    assert!(older.iter().rev().eq(&ids) && !newer.iter().any(|id| id.starts_with("waits")));
    let database = agrees(&place, database);
    for id in &ids[..290] {
        change(&database, entries[id.as_str()], Status::Delivered);
    }
    let database = agrees(&place, database);
    let database = pass(&place, database);
    let kept = rows(&database);
    let left: Vec<&String> = ids.iter().filter(|id| kept.contains(id)).collect();
    assert_eq!(left, ids[290..].iter().collect::<Vec<_>>());
    let database = agrees(&place, database);
    let counts = database.store().messages(|messages| messages.counts().clone());
    let pending = ("server".into(), Direction::Outbound, Status::Pending);
    let delivered = ("server".into(), Direction::Outbound, Status::Delivered);
    assert_eq!((counts.get(&pending), counts.get(&delivered)), (Some(&10), None));
    assert_eq!(disagreements(&database), [""; 0]);
    database.close().expect("closes");
}

#[test]
fn a_body_that_was_carried_lies_in_one_place_and_goes_when_its_message_ended() {
    let place = Place::new();
    let (database, _) = place.open();
    let entries: Vec<EntryId> =
        (0..40).map(|number| send(&database, &format!("waits-{number}"), None)).collect();
    carry(&place, &database);
    assert_eq!(first(&database), 1, "they are carried, and nothing is dropped yet");
    let is_carried = |entry: &EntryId| {
        database.store().live(*entry).is_some_and(|live| live.place().1 > entry.sequence)
    };
    assert!(entries.iter().all(is_carried));
    let read = |entry| {
        let live = database.store().live(entry).expect("waits");
        database.store().body(live.body)
    };
    let begun = database.reader().frame(entries[0].sequence).expect("reads");
    let place_before = begun.entries[0].body.expect("a body");
    assert!(read(entries[0]).is_ok() && database.reader().body(&place_before).is_ok());
    let database_digest = database.store().state(storage::fold::State::digest);
    let replayed = replay(database.reader(), u64::MAX).digest();
    assert_eq!(replayed, database_digest);
    // Another segment is begun, so that the one that carries them is sealed.
    fill(&place, &database, "newer");
    database.view().settle().expect("settles");
    let freed = database.upkeep().compact();
    let freed = freed.expect("is answered");
    assert!(freed.bodies >= 40, "{freed:?}");
    assert!(database.reader().body(&place_before).is_err(), "it lies somewhere else now");
    assert!(entries.iter().all(|entry| read(*entry).is_ok()), "where it stays");
    let carried = database.store().live(entries[0]).expect("waits").body;
    for entry in &entries {
        change(&database, *entry, Status::Delivered);
    }
    place.pass(200);
    fill(&place, &database, "newest");
    database.view().settle().expect("settles");
    let freed = database.upkeep().compact();
    let freed = freed.expect("is answered");
    assert!(freed.bodies >= 40, "{freed:?}");
    let gone = |body| database.store().body(body).is_err();
    assert!(gone(carried), "nobody needs it any more");
    assert_eq!(disagreements(&database), [""; 0]);
    database.close().expect("closes");
}
