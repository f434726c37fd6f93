//! The power is cut under a whole store, at its syncs and its writes, again and again on the same
//! data: what was acknowledged is there, nothing else is claimed, and it opens by itself.
//!
//! `LOKI_POWER_SEEDS=1000` runs so many seeds, from `LOKI_POWER_FIRST` on; a failure names its
//! seed.

mod life;
mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use life::Life;
use powercut::{Chance, Disk};
use storage::journal::{SyncFault, SyncPoint, Syncer};

/// Seeds of the short form.
const SEEDS: u64 = 12;

/// Seeds of the short form after which a missing sync must have been noticed.
const MUTANT_SEEDS: u64 = 10;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Tells whoever watches; the harness shows it when asked to.
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

#[test]
fn what_was_acknowledged_outlives_any_power_cut() {
    if unavailable() {
        return;
    }
    let first = setting("LOKI_POWER_FIRST", 1);
    let mut outcomes: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + setting("LOKI_POWER_SEEDS", SEEDS) {
        let syncer = Arc::new(Syncer::default());
        let lived = Life::new(seed, syncer).run();
        let seen = lived.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        for (what, count) in seen {
            *outcomes.entry(what).or_default() += count;
        }
    }
    say(&format!("{outcomes:?}"));
    for what in
        ["acknowledged", "compacted", "cut while running", "cut while stopping", "stopped cleanly"]
    {
        assert!(outcomes.get(what).is_some_and(|count| *count > 0), "never {what}: {outcomes:?}");
    }
}

/// Each sync protects something: without it some cut is noticed. The short form leaves out one,
/// `LOKI_POWER_MUTANTS=60` each in turn, for up to so many seeds.
#[test]
fn without_any_one_sync_a_power_cut_is_noticed() {
    if unavailable() {
        return;
    }
    let seeds = setting("LOKI_POWER_MUTANTS", 0);
    let points = if seeds == 0 { &[SyncPoint::Commit][..] } else { SyncPoint::ALL };
    // These have their own tests, in the migrations and in `backup.rs`.
    let elsewhere = [
        SyncPoint::Kept,
        SyncPoint::Refooted,
        SyncPoint::RefootedName,
        SyncPoint::Backup,
        SyncPoint::BackupName,
    ];
    let mut unnoticed = Vec::new();
    for point in points.iter().filter(|point| !elsewhere.contains(point)) {
        let noticed = (1..=seeds.max(MUTANT_SEEDS)).find(|seed| {
            let syncer = Arc::new(Syncer::default());
            syncer.set_fault(*point, SyncFault::Skip);
            Life::new(*seed, syncer).run().is_err()
        });
        match noticed {
            Some(seed) => say(&format!("{point:?}: noticed by seed {seed}")),
            None => unnoticed.push(*point),
        }
    }
    assert!(unnoticed.is_empty(), "nothing notices that these are left out: {unnoticed:?}");
}

#[test]
fn a_seed_gives_the_same_chance() {
    let draw = |seed| {
        let mut chance = Chance::new(seed);
        (chance.draw(), chance.below(10), chance.flip())
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}
