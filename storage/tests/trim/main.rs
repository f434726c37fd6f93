//! The oldest segments go when nobody needs them (JOURNAL rule 22), and nothing else changes.

mod carry;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod ended;
mod place;

use std::time::Duration;

use place::{
    KEPT, Place, SIZES, disagreements, fill, first, is_known, rows, told, trims, written_down,
};
use storage::database::Database;
use storage::event::Event;
use storage::inspect::{AuditFilter, Inspect, audit, check};
use storage::journal::DamageReason;
use storage::retention::{Keep, Retention};
use storage::transaction::Act;
use storage::view::Filter;

#[test]
fn what_nobody_needs_goes_with_its_rows_and_its_files() {
    let (place, database) = written_down();
    let before = place.segments().len();
    // The newest checkpoint is older than what was written down, and alone.
    let database = place.again(place.again(database));
    database.trim();
    let from = first(&database);
    assert!(from > 50, "frame {from} is the first one");
    assert!(place.segments().len() + 2 < before, "{:?}", place.segments());
    let kept = rows(&database);
    assert!(kept.contains(&"new-99".into()) && !kept.contains(&"old-0".into()), "{kept:?}");
    assert!(kept.len() >= 100 && kept.len() < 160, "{}", kept.len());
    assert!(!is_known(&database, "old-0") && is_known(&database, "new-50"));
    assert_eq!(told(&database), [""; 0], "nothing of what was dropped is missed");
    // What is trimmed is trimmed once.
    database.trim();
    assert_eq!((first(&database), trims(&database).len()), (from, 1));
    database.close().expect("closes");
    let look = Inspect::open(place.path()).expect("looks");
    let mut listed = Vec::new();
    look.each(&Filter::default(), &mut |row| listed.push(row.message_id.clone()));
    assert_eq!((listed, look.damage()), (kept.clone(), Vec::new()));
    let damage = look.each_entry(&AuditFilter::default(), &mut |_| true).expect("reads");
    assert_eq!(damage, [""; 0]);
    let checked = check(place.path(), true).expect("checks");
    assert!(checked.is_sound(), "{checked:?}");
    // Also from the journal alone: the rows are the same, and so are the counts.
    std::fs::remove_dir_all(place.path().join("messages")).expect("removed");
    let (database, _) = place.open();
    assert_eq!(rows(&database), kept);
    assert_eq!(disagreements(&database), [""; 0]);
    database.close().expect("closes");
}

#[test]
fn a_crash_between_the_word_and_the_files_changes_nothing() {
    let (place, database) = written_down();
    let kept = rows(&database);
    assert!(!kept.contains(&"old-0".into()));
    drop(database);
    let look = Inspect::open(place.path()).expect("looks");
    let mut listed = Vec::new();
    look.each(&Filter::default(), &mut |row| listed.push(row.message_id.clone()));
    assert_eq!(listed, kept, "though the files are there");
    std::fs::remove_dir_all(place.path().join("checkpoints")).expect("removed");
    std::fs::remove_dir_all(place.path().join("messages")).expect("removed");
    let (database, report) = place.open();
    assert_eq!((report.checkpoint, report.recovery.damage.len()), (None, 0));
    assert_eq!(rows(&database), kept);
    let database = place.again(place.again(database));
    database.trim();
    assert!(first(&database) > 50);
    assert_eq!(rows(&database), kept);
    database.close().expect("closes");
}

#[test]
fn a_kill_before_the_rows_know_costs_no_rebuild() {
    let place = Place::new();
    let (database, _) = place.open();
    fill(&place, &database, "old");
    fill(&place, &database, "new");
    let database = place.again(database);
    place.pass(1);
    database.tidy(1_000).expect("tidies");
    database.view().settle().expect("settles");
    let all = rows(&database);
    database.trim();
    drop(database);
    let (database, report) = place.open();
    assert_eq!((report.rebuild, report.recovery.damage), (None, Vec::new()));
    let kept = rows(&database);
    assert!(all.contains(&"old-0".into()) && !kept.contains(&"old-0".into()), "{kept:?}");
    let database = place.again(database);
    let filter = AuditFilter { events: vec!["store.rebuild".into()], ..AuditFilter::default() };
    let rebuilt = audit(database.reader(), &filter).expect("reads").entries;
    assert!(rebuilt.is_empty(), "{rebuilt:?}");
    database.close().expect("closes");
}

#[test]
fn what_was_dropped_is_in_no_other_place_than_the_checkpoints() {
    let (place, database) = written_down();
    let database = place.again(place.again(database));
    database.trim();
    assert!(first(&database) > 50);
    database.close().expect("closes");
    std::fs::remove_dir_all(place.path().join("checkpoints")).expect("removed");
    let refused = |place: &Place| {
        let opened = Database::open_sized(place.path(), SIZES, Box::new(|| 1), Box::new(|_| {}));
        opened.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(&place).contains("no checkpoint reads back"), "{}", refused(&place));
    // Damage besides is no reason to go on without what was dropped.
    let newest = place.segments().pop().expect("a segment");
    let mut bytes = std::fs::read(&newest).expect("reads");
    bytes[9_000] ^= 1;
    std::fs::write(&newest, bytes).expect("written");
    assert!(refused(&place).contains("no checkpoint reads back"), "{}", refused(&place));
}

#[test]
fn files_stay_while_somebody_needs_them() {
    let (place, database) = written_down();
    database.trim();
    assert_eq!(first(&database), 1, "one checkpoint is not enough");
    let database = place.again(place.again(database));
    let hold = database.reader().hold(5);
    database.trim();
    assert_eq!(first(&database), 1, "a reader has not read them");
    hold.advance(20);
    database.trim();
    assert_eq!(first(&database), 1, "nor all of them");
    drop(hold);
    database.trim();
    assert!(first(&database) > 50);
    database.close().expect("closes");
}

#[test]
fn a_log_that_is_signed_has_the_word_signed_first() {
    let place = Place::new();
    let (database, _) = place.open();
    let sign = |database: &Database| {
        let done = database.store().commit(|tx| -> Result<(), ()> {
            tx.note(Act::new(Event::AuditSign, "store", "", "journal"));
            Ok(())
        });
        done.wait().expect("durable").expect("signed");
    };
    sign(&database);
    fill(&place, &database, "old");
    fill(&place, &database, "new");
    place.pass(1);
    database.tidy(1_000).expect("tidies");
    database.view().settle().expect("settles");
    database.trim();
    let database = place.again(place.again(database));
    database.trim();
    assert_eq!((first(&database), trims(&database).len()), (1, 1));
    sign(&database);
    database.trim();
    assert_eq!(first(&database), 1, "what was signed may be an end before it");
    sign(&database);
    database.trim();
    assert!(first(&database) > 50);
    database.close().expect("closes");
}

#[test]
fn what_is_young_or_remembered_or_has_a_body_that_is_kept_stays() {
    let place = Place::new();
    let (database, _) = place.open();
    fill(&place, &database, "old");
    place.pass(101);
    fill(&place, &database, "new");
    database.view().settle().expect("settles");
    database.trim();
    assert_eq!(trims(&database).len(), 0, "their ids are remembered until they are forgotten");
    database.tidy(1_000).expect("tidies");
    database.set_retention(Retention::default());
    database.trim();
    assert_eq!(trims(&database).len(), 0, "their bodies are kept for thirty days");
    database.set_retention(Retention::uniform(Keep { age: 0, bytes: u64::MAX }));
    database.set_audit_retention(Duration::from_secs(10_000));
    database.trim();
    assert_eq!(trims(&database).len(), 0, "the audit log is kept for longer");
    database.set_audit_retention(KEPT);
    database.trim();
    assert_eq!(trims(&database).len(), 1);
    assert!(trims(&database)[0].contains(r#""messages":9"#), "{:?}", trims(&database));
    database.close().expect("closes");
}

#[test]
fn frames_that_are_missing_at_the_beginning_are_named_unless_they_were_dropped() {
    let place = Place::new();
    let (database, _) = place.open();
    fill(&place, &database, "old");
    let database = place.again(database);
    database.close().expect("closes");
    std::fs::remove_file(&place.segments()[0]).expect("removed");
    let lost = |damage: &[storage::journal::Damage]| -> Vec<(DamageReason, u64)> {
        damage.iter().map(|one| (one.reason, one.first)).collect()
    };
    let look = Inspect::open(place.path()).expect("looks");
    assert_eq!(lost(&look.damage()), [(DamageReason::Missing, 1)]);
    let (database, report) = place.open();
    assert_eq!(lost(&report.recovery.damage), [(DamageReason::Missing, 1)]);
    let told = told(&database);
    assert!(told.iter().all(|one| one.contains("frames 1 to")) && told.len() == 2, "{told:?}");
    database.close().expect("closes");

    let (place, database) = written_down();
    let database = place.again(place.again(database));
    database.trim();
    let from = first(&database);
    database.close().expect("closes");
    std::fs::remove_file(&place.segments()[0]).expect("removed");
    let look = Inspect::open(place.path()).expect("looks");
    assert_eq!(lost(&look.damage()), [(DamageReason::Missing, from)], "one more than was dropped");
}
