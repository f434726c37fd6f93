//! A backup of a store that is written to meanwhile, and of one that is stopped: it opens, has all
//! that was acknowledged before it began, and outlives a power cut once it is reported.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use powercut::{Chance, Disk};
use storage::backup::{BackupError, MANIFEST, backup, differing};
use storage::database::{Database, Setup};
use storage::event::Event;
use storage::inspect::{Inspect, check};
use storage::journal::{Options, SyncFault, SyncPoint, Syncer};
use storage::record::Record;
use storage::store::Store;
use storage::transaction::Act;

const NOW: u64 = 1_000_000;

fn open(dir: &Path) -> Database {
    let journal = Options { segment_bytes: 16 << 10, ..Options::new(NOW) };
    let setup = Setup::new(journal, Box::new(|| NOW), Box::new(|_| {}));
    Database::open_with(dir, setup).unwrap().0
}

fn note(store: &Store, number: u64) {
    let done = store.commit(move |transaction| -> Result<(), ()> {
        let resource = format!("note-{number}");
        let act = Act::new(Event::ConfigLoad, "test", "", &resource);
        transaction.note(act.details(format!(r#"{{"text":"{}"}}"#, "x".repeat(200))));
        Ok(())
    });
    done.wait().unwrap().unwrap();
}

/// The numbers of the notes that a store has, in order.
fn notes(dir: &Path) -> Vec<u64> {
    let look = Inspect::open(dir).unwrap();
    let mut found = Vec::new();
    for frame in look.reader().frames(1).map(Result::unwrap) {
        for entry in &frame.entries {
            let record: Record = storage::codec::decode(&entry.head).unwrap();
            if let Some(number) = record.resource.strip_prefix("note-") {
                found.push(number.parse().unwrap());
            }
        }
    }
    found
}

#[test]
fn a_backup_beside_a_writer_has_everything_that_was_acknowledged_before() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = open(dir.path());
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                note(database.store(), number);
                acknowledged.store(number, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        for round in 0..6 {
            let before = acknowledged.load(Ordering::SeqCst);
            let to = copies.path().join(round.to_string());
            let made = backup(dir.path(), &to, &[], &Syncer::default()).unwrap();
            assert_eq!(differing(&to).unwrap(), Some(Vec::new()));
            let checked = check(&to, true).unwrap();
            assert!(checked.is_sound(), "{checked:?}");
            let found = notes(&to);
            assert!(found.len() as u64 >= before, "{} of {before}", found.len());
            assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
            let restored = open(&to);
            let head = restored.reader().head().position.sequence;
            assert!(head > made.head.position.sequence);
            restored.close().unwrap();
            assert_eq!(notes(&to), found);
            assert!(check(&to, true).unwrap().is_sound());
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(dir.path().join("journal").read_dir().unwrap().count() > 5, "segments were sealed");
    database.close().unwrap();
    assert!(check(dir.path(), true).unwrap().is_sound(), "the original is untouched");
}

#[test]
fn a_stopped_store_is_copied_and_a_changed_copy_is_named() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = open(dir.path());
    (1..=200).for_each(|number| note(database.store(), number));
    database.close().unwrap();
    fs::write(dir.path().join("agent_id"), "loki-7\n").unwrap();
    let to = copies.path().join("one/two");
    let made = backup(dir.path(), &to, &["agent_id", "not there"], &Syncer::default()).unwrap();
    assert_eq!(fs::read_to_string(to.join("agent_id")).unwrap(), "loki-7\n");
    let text = fs::read_to_string(to.join(MANIFEST)).unwrap();
    assert_eq!(text.lines().count(), made.files + 1);
    assert!(text.contains(&format!("sequence {} hash", made.head.position.sequence)), "{text}");
    let Err(error) = backup(dir.path(), &to, &[], &Syncer::default()) else { panic!("made twice") };
    assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
    assert_eq!(differing(&to).unwrap(), Some(Vec::new()));
    let segment = to.join("journal/segment-0000000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[6_000] ^= 1;
    // The other name of the same file is the original's.
    fs::remove_file(&segment).unwrap();
    fs::write(&segment, bytes).unwrap();
    assert_eq!(differing(&to).unwrap(), Some(vec![segment]));
    assert!(check(dir.path(), true).unwrap().is_sound());
}

/// Makes a backup on a disk that then loses its power; what is wrong with what it kept.
fn cut(seed: u64, syncer: &Syncer) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path());
    (1..=60).for_each(|number| note(database.store(), number));
    let disk = Disk::mount(None).unwrap();
    let made = backup(dir.path(), &disk.path().join("copy"), &[], syncer).unwrap();
    disk.cut();
    let image = tempfile::tempdir().unwrap();
    disk.image(&mut Chance::new(seed), image.path()).unwrap();
    let kept = image.path().join("copy");
    match (differing(&kept), check(&kept, true)) {
        (Ok(Some(bad)), Ok(checked)) if bad.is_empty() && checked.is_sound() => {
            (checked.hash != Some(made.head.hash)).then(|| "another head".to_owned())
        }
        other => Some(format!("{other:?}")),
    }
}

#[test]
fn a_backup_that_was_reported_outlives_a_power_cut_and_only_by_its_syncs() {
    if Disk::unavailable().is_some() {
        return;
    }
    for seed in 1..=3 {
        assert_eq!(cut(seed, &Syncer::default()), None, "seed {seed}");
    }
    for point in [SyncPoint::Backup, SyncPoint::BackupName] {
        let noticed = (1..=12).any(|seed| {
            let syncer = Arc::new(Syncer::default());
            syncer.set_fault(point, SyncFault::Skip);
            cut(seed, &syncer).is_some()
        });
        assert!(noticed, "nothing notices that {point:?} is left out");
    }
}
