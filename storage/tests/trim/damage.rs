//! Segments that are damaged, or missing, go as the others do: what is left of them is kept aside,
//! nobody misses what was dropped, and rows and fold count the same.

use std::collections::BTreeMap;
use std::fs::{self, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use storage::database::{Database, Report};
use storage::event::Event;
use storage::inspect::{AuditFilter, Inspect, audit, check};
use storage::record::{Direction, EntryId, Status};
use storage::view::Row;

use crate::carry::{change, pass_with, send};
use crate::place::{Place, disagreements, fill, first, listed, rows, told, trims};

/// What happens to the segment in which a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// A frame beside it and the footer: the start writes into a new footer what is lost.
    Footer,
    /// A frame beside it, which a start without checkpoints reads.
    Frame,
    /// The frame of that message, which no start reads.
    Head,
    /// All of it.
    Missing,
}

/// A stopped store with the harm done, and the message that waits in it.
fn harmed(harm: Harm) -> (Place, EntryId, PathBuf) {
    let place = Place::new();
    let (database, _) = place.open();
    fill(&place, &database, "a");
    let entry = send(&database, "waits", None);
    fill(&place, &database, "b");
    database.close().expect("closes");
    let holds = |path: &PathBuf| frames(path).iter().any(|one| one.2 == entry.sequence);
    let segment = place.segments().into_iter().find(holds).expect("a segment");
    let (mut bytes, all) = (fs::read(&segment).expect("reads"), frames(&segment));
    let at = all.iter().position(|one| one.2 == entry.sequence).expect("a frame");
    assert!(at > 2 && at + 2 < all.len(), "it has neighbours on both sides");
    let hit = all[if harm == Harm::Head { at } else { at - 1 }].0 + 120;
    bytes[hit] ^= 1;
    if harm == Harm::Footer {
        bytes[all[all.len() - 1].1 + 20] ^= 1;
    }
    match harm {
        Harm::Missing => fs::remove_file(&segment).expect("removed"),
        _ => fs::write(&segment, bytes).expect("written"),
    }
    if harm == Harm::Frame {
        fs::remove_dir_all(place.path().join("checkpoints")).expect("removed");
    }
    (place, entry, segment)
}

/// Where each frame of a segment begins and ends, and its sequence.
fn frames(file: &Path) -> Vec<(usize, usize, u64)> {
    let bytes = fs::read(file).expect("reads");
    let number = |at: usize| {
        let four = bytes[at..at + 4].try_into().expect("four bytes");
        usize::try_from(u32::from_le_bytes(four)).expect("fits")
    };
    let (mut at, mut found) = (4096, Vec::new());
    while bytes[at..].starts_with(b"LKFR") {
        let len = (96 + number(at + 48) + number(at + 52)).next_multiple_of(8);
        let sequence = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().expect("eight"));
        found.push((at, at + len, sequence));
        at += len;
    }
    found
}

fn without_rows(place: &Place) {
    fs::remove_dir_all(place.path().join("messages")).expect("removed");
}

type Counts = BTreeMap<(Arc<str>, Direction, Status), u64>;

/// What the rows count, and what the fold does.
fn counts(database: &Database) -> [Counts; 2] {
    database.view().settle().expect("settles");
    let mut counted = Counts::new();
    let counting = database.view().newest_first(&mut |row| {
        *counted
            .entry((row.destination.as_str().into(), row.direction, row.status))
            .or_default() += 1;
    });
    counting.expect("reads");
    [counted, database.store().messages(|messages| messages.counts().clone())]
}

fn agree(database: &Database) {
    let [rows, fold] = counts(database);
    assert_eq!(rows, fold);
}

/// What the audit log has of an event: about what, and the details.
fn entries(database: &Database, event: Event) -> Vec<(String, String)> {
    let filter = AuditFilter { events: vec![event.name().into()], ..AuditFilter::default() };
    let page = audit(database.reader(), &filter).expect("reads");
    let told = page.entries.into_iter();
    told.map(|one| (one.record.resource.to_string(), one.record.details)).collect()
}

fn quarantined(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.path().join("journal/quarantine")).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> =
        names.map(|name| name.to_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

/// Lets enough time pass for what is old to go; damage is found at each start meanwhile.
fn pass(place: &Place, database: Database) -> Database {
    pass_with(place, database, &|database| {
        database.close().expect("closes");
        place.open().0
    })
}

/// Opens it, with the rows or without, and as often as that.
fn opened(place: &Place, has_rows: bool, starts: u32) -> (Database, Report) {
    if !has_rows {
        without_rows(place);
    }
    let (mut database, report) = place.open();
    for _ in 1..starts {
        database.close().expect("closes");
        database = place.open().0;
    }
    (database, report)
}

fn waiting(database: &Database) -> Vec<Row> {
    let open = |row: &Row| !row.status.is_finished();
    listed(database).into_iter().filter(open).collect()
}

/// Nobody misses what was dropped, and nobody comes to another result by reading it again.
fn is_as_if_nothing_was(place: &Place, database: Database) -> Database {
    assert_eq!(told(&database), [""; 0]);
    agree(&database);
    let kept = listed(&database);
    database.close().expect("closes");
    let checked = check(place.path(), true).expect("checks");
    assert!(checked.is_sound(), "{checked:?}");
    assert_eq!(Inspect::open(place.path()).expect("looks").damage(), []);
    let before = place.open().0;
    let rebuilt = entries(&before, Event::StoreRebuild).len();
    before.close().expect("closes");
    without_rows(place);
    let (database, _) = place.open();
    assert_eq!(listed(&database), kept);
    let database = place.again(database);
    agree(&database);
    // One for the rows that were removed, and none for counts that differ.
    assert_eq!(entries(&database, Event::StoreRebuild).len(), rebuilt + 1);
    database
}

#[test]
fn a_segment_with_damage_goes_into_quarantine_and_what_waits_in_it_goes_on() {
    let cases = [
        (Harm::Footer, true, 1),
        (Harm::Footer, false, 2),
        (Harm::Frame, true, 1),
        (Harm::Frame, false, 3),
    ];
    for (harm, has_rows, starts) in cases {
        let (place, entry, segment) = harmed(harm);
        let damaged = fs::read(&segment).expect("reads");
        let (database, report) = opened(&place, has_rows, starts);
        assert_eq!(report.new_damage.len(), if harm == Harm::Footer { 2 } else { 1 });
        let name = segment.file_name().and_then(|name| name.to_str()).expect("a name");
        let told = entries(&database, Event::StoreDamage);
        assert!(told.iter().any(|(about, _)| about == name), "{told:?}");
        let mut database = pass(&place, database);
        assert!(first(&database) > entry.sequence, "{harm:?}");
        assert!(quarantined(&place).contains(&name.to_owned()), "{:?}", quarantined(&place));
        let kept = place.path().join("journal/quarantine").join(name);
        if harm == Harm::Frame {
            assert_eq!(fs::read(kept).expect("reads"), damaged);
        }
        let said = trims(&database).join(" ");
        assert!(said.contains(r#""frames_damaged":1,"files_kept":1"#), "{said}");
        assert!(said.contains(&format!(r#""kept":["journal/quarantine/{name}"]"#)), "{said}");
        let body = database.store().live(entry).expect("waits").body;
        assert_eq!(database.store().body(body).expect("reads"), "waits".repeat(60).as_bytes());
        database = is_as_if_nothing_was(&place, database);
        change(&database, entry, Status::Delivered);
        // What lies in quarantine goes with the audit log that tells of it, and nothing else.
        let note = place.path().join("journal/quarantine/note.txt");
        fs::write(&note, "ask whoever has the disk").expect("written");
        let long_ago = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        let file = fs::File::options().write(true).open(&note).expect("a file");
        file.set_times(long_ago).expect("dated");
        database = pass(&place, database);
        assert!(note.exists());
        assert!(!quarantined(&place).contains(&name.to_owned()), "{:?}", quarantined(&place));
        let said = entries(&database, Event::StoreTrim);
        assert!(said.iter().any(|(about, _)| about == "quarantine"), "{said:?}");
        database = pass(&place, database);
        agree(&database);
        assert!(!rows(&database).contains(&"waits".to_owned()));
        assert_eq!(disagreements(&database), [""; 0]);
        database.close().expect("closes");
    }
}

#[test]
fn a_message_whose_content_is_lost_stays_and_says_so() {
    let cases = [
        (Harm::Head, true, 1),
        (Harm::Head, true, 2),
        (Harm::Missing, true, 1),
        (Harm::Missing, false, 2),
    ];
    for (harm, has_rows, starts) in cases {
        let (place, entry, _) = harmed(harm);
        let (database, _) = opened(&place, has_rows, starts);
        let mut damage = entries(&database, Event::StoreDamage);
        let mut database = pass(&place, database);
        assert!(first(&database) > entry.sequence, "{harm:?}");
        // Without its row nobody knows its name any more, and it is there all the same.
        let name = if has_rows { "waits" } else { "" };
        let left = waiting(&database);
        assert_eq!(left.len(), 1, "{harm:?} {has_rows}");
        assert_eq!((left[0].entry, &*left[0].message_id), (entry, name));
        assert_eq!(left[0].status, Status::Pending);
        let live = database.store().live(entry).expect("waits");
        assert!(database.store().body(live.body).is_err(), "nothing is given out for it");
        assert!(database.store().messages(|messages| messages.lane_head(entry)).is_some());
        let carried = entries(&database, Event::StoreCarry);
        assert!(carried.iter().all(|(about, _)| about == name), "{carried:?}");
        assert!(carried[0].1.contains(r#""lost":"its content"#), "{carried:?}");
        let said = trims(&database).join(" ");
        let lost = if harm == Harm::Head { "frames_damaged" } else { "frames_missing" };
        assert!(said.contains(lost), "{said}");
        damage.extend(entries(&database, Event::StoreDamage));
        assert!(damage.iter().any(|(_, details)| details.contains(r#""first":"#)), "{damage:?}");
        database = is_as_if_nothing_was(&place, database);
        // It is carried once more and stays what it is, and a person ends it.
        database = pass(&place, pass(&place, database));
        assert_eq!(waiting(&database).len(), 1);
        change(&database, entry, Status::Pruned);
        database = pass(&place, pass(&place, database));
        assert_eq!(waiting(&database), []);
        database = is_as_if_nothing_was(&place, database);
        assert_eq!(disagreements(&database), [""; 0]);
        database.close().expect("closes");
    }
}

#[test]
fn a_message_that_only_its_row_knows_is_named_before_it_goes() {
    let place = Place::new();
    let (database, _) = place.open();
    fill(&place, &database, "a");
    let entry = send(&database, "lost", None);
    fill(&place, &database, "b");
    database.view().settle().expect("settles");
    // Killed before the next checkpoint; the frame that accepted it is damaged then.
    drop(database);
    let holds = |path: &PathBuf| frames(path).iter().any(|one| one.2 == entry.sequence);
    let segment = place.segments().into_iter().find(holds).expect("a segment");
    let frame = frames(&segment).into_iter().find(|one| one.2 == entry.sequence).expect("it");
    let mut bytes = fs::read(&segment).expect("reads");
    bytes[frame.0 + 120] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let (database, _) = place.open();
    let left = waiting(&database);
    assert_eq!((left.len(), left[0].entry), (1, entry));
    assert!(database.store().live(entry).is_none(), "nobody can end it");
    let database = pass(&place, database);
    assert!(first(&database) > entry.sequence);
    assert_eq!(waiting(&database), []);
    let said = trims(&database).join(" ");
    assert!(said.contains(r#""messages_unended":1"#), "{said}");
    let told = entries(&database, Event::StoreDamage);
    let named = told.iter().filter(|(about, _)| about == "lost").collect::<Vec<_>>();
    assert_eq!(named.len(), 1, "{told:?}");
    assert!(named[0].1.contains(&format!(r#""accepted_in":"{entry}""#)), "{told:?}");
    assert!(named[0].1.contains(r#""last_status":"pending""#), "{told:?}");
    is_as_if_nothing_was(&place, database).close().expect("closes");
}
