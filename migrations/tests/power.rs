//! The power is cut while a store is migrated: the next start brings it to the end, nothing is
//! lost, and what was replaced is still kept as long as it may be needed.
//!
//! `LOKI_POWER_SEEDS=300` runs so many cuts, `LOKI_POWER_MUTANTS=300` leaves out each sync in turn
//! for up to so many; a failure names its seed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use powercut::{Chance, Cut, Disk};
use storage::database::{Setup, index_of};
use storage::format;
use storage::inspect::Inspect;
use storage::journal::{self, Options, SyncFault, SyncPoint, Syncer};
use storage::view::Filter;

/// Cuts of the short form.
const SEEDS: u64 = 10;
/// Cuts of the short form after which a missing sync must have been noticed.
const MUTANT_SEEDS: u64 = 12;
/// What a migration of the fixture and the opening after it do, so that cuts are spread over them.
const SYNCS: u64 = 24;
const CHANGES: u64 = 66;
const NOW: u64 = 1_770_000_000_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[expect(clippy::print_stderr, reason = "a long run is watched")]
fn say(what: &str) {
    eprintln!("{what}");
}

fn unavailable() -> bool {
    let why = Disk::unavailable();
    if let Some(why) = why {
        say(&format!("skipped: {why}"));
    }
    why.is_some()
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join("format-1").join("clean")
}

fn setup(syncer: &Arc<Syncer>) -> Setup {
    let mut journal =
        Options { segment_bytes: 16 << 10, reserve_bytes: 32 << 10, ..Options::new(NOW) };
    journal.syncer = Arc::clone(syncer);
    Setup::new(journal, Box::new(|| NOW), Box::new(|_| {}))
}

/// Migrates on a disk that loses its power somewhere, and looks at what is left.
fn cut(seed: u64, syncer: &Arc<Syncer>) -> Result<(), String> {
    let mut chance = Chance::new(seed);
    let text = |error: std::io::Error| error.to_string();
    let disk = Disk::mount(Some(&fixture())).map_err(text)?;
    let done = chance.flip();
    disk.schedule(if chance.flip() {
        Cut::Sync(1 + chance.below(SYNCS), done)
    } else {
        Cut::Change(1 + chance.below(CHANGES), done)
    });
    // Whether it came to its end before the cut does not matter.
    drop(migrations::open_with(disk.path(), setup(syncer), &mut |_| true));
    disk.cut();
    let image = tempfile::tempdir().map_err(text)?;
    disk.image(&mut chance, image.path()).map_err(text)?;
    look(image.path())?;
    let whole = Arc::new(Syncer::default());
    let opened = migrations::open_with(image.path(), setup(&whole), &mut |_| true);
    opened.map_err(|error| error.to_string())?.0.close().map_err(|error| error.to_string())?;
    let (dir, journal) = (image.path(), image.path().join("journal"));
    let rows = Inspect::open(dir).map_err(|error| error.to_string())?;
    let rows = rows.list(&Filter { limit: 1_000, ..Filter::default() }).rows.len();
    let check = journal::check(&journal, index_of).map_err(|error| error.to_string())?;
    let old = journal::old_footers(&journal).map_err(|error| error.to_string())?;
    match (rows, check.damage.as_slice(), old.as_slice()) {
        (90, [], []) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// What the cut left: each segment is whole, and what was replaced is in the copy.
fn look(dir: &Path) -> Result<(), String> {
    let journal = dir.join("journal");
    let check = journal::check(&journal, index_of).map_err(|error| error.to_string())?;
    if !check.damage.is_empty() {
        return Err(format!("{:?}", check.damage));
    }
    let old = journal::old_footers(&journal).map_err(|error| error.to_string())?;
    let number = format::of(dir).map_err(|error| error.to_string())?;
    if number == Some(format::CURRENT) {
        return if old.is_empty() { Ok(()) } else { Err(format!("numbered too early: {old:?}")) };
    }
    for entry in fs::read_dir(fixture().join("journal")).map_err(|error| error.to_string())? {
        let original = entry.map_err(|error| error.to_string())?.path();
        let name = original.file_name().unwrap_or_default();
        if old.iter().any(|old| old.path.file_name() == Some(name)) {
            continue;
        }
        let copy = fs::read(dir.join("before-format-2").join(name));
        if copy.ok() != fs::read(&original).ok() {
            return Err(format!("{} was replaced and is not kept", name.display()));
        }
    }
    Ok(())
}

#[test]
fn a_migration_outlives_any_power_cut() {
    if unavailable() {
        return;
    }
    let first = setting("LOKI_POWER_FIRST", 1);
    for seed in first..first + setting("LOKI_POWER_SEEDS", SEEDS) {
        let done = cut(seed, &Arc::new(Syncer::default()));
        done.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

#[test]
fn without_any_one_sync_of_a_migration_a_power_cut_is_noticed() {
    if unavailable() {
        return;
    }
    let seeds = setting("LOKI_POWER_MUTANTS", 0);
    let all = [SyncPoint::Refooted, SyncPoint::RefootedName, SyncPoint::Kept, SyncPoint::Format];
    let points = if seeds == 0 { &all[..1] } else { &all[..] };
    for point in points {
        let noticed = (1..=seeds.max(MUTANT_SEEDS)).find(|seed| {
            let syncer = Arc::new(Syncer::default());
            syncer.set_fault(*point, SyncFault::Skip);
            cut(*seed, &syncer).is_err()
        });
        let seed = noticed.unwrap_or_else(|| panic!("nothing notices that {point:?} is left out"));
        say(&format!("{point:?}: noticed by seed {seed}"));
    }
}
