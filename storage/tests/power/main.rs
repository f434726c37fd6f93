//! The power is cut under a whole store, at its syncs and its writes, again and again on the same
//! data: what was acknowledged is there, nothing else is claimed, and it opens by itself. And for
//! each sync, the one cut that shows why it is there.
//!
//! `LOKI_POWER_SEEDS=1000` runs so many seeds, from `LOKI_POWER_FIRST` on; a failure names its
//! seed.

mod life;
mod mistakes;
mod model;
mod points;

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
    let (first, seeds) = (setting("LOKI_POWER_FIRST", 1), setting("LOKI_POWER_SEEDS", SEEDS));
    let mut outcomes: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + seeds {
        let syncer = Arc::new(Syncer::default());
        let lived = Life::new(seed, syncer).run();
        let seen = lived.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        for (what, count) in seen {
            *outcomes.entry(what).or_default() += count;
        }
    }
    say(&format!("{outcomes:?}"));
    let count = |what: &str| outcomes.get(what).copied().unwrap_or(0);
    let told = count("acknowledged");
    let cuts = outcomes.values().sum::<u64>() - told - count("compacted");
    say(&format!("figures: seeds={seeds} cuts={cuts} acknowledged={told} lost=0 twice=0"));
    for what in
        ["acknowledged", "compacted", "cut while running", "cut while stopping", "stopped cleanly"]
    {
        assert!(outcomes.get(what).is_some_and(|count| *count > 0), "never {what}: {outcomes:?}");
    }
}

/// Chance alone notices that a sync is left out, where it has the time: `points` shows the same for
/// each of them without any chance. The short form leaves out the one that most depends on;
/// `LOKI_POWER_MUTANTS=60` each in turn, for up to so many seeds, and says who was noticed.
#[test]
fn without_a_sync_chance_alone_notices_a_loss() {
    if unavailable() {
        return;
    }
    let seeds = setting("LOKI_POWER_MUTANTS", 0);
    let points = if seeds == 0 { &[SyncPoint::Commit][..] } else { SyncPoint::ALL };
    for point in points {
        let noticed = (1..=seeds.max(MUTANT_SEEDS)).find(|seed| {
            let syncer = Arc::new(Syncer::default());
            syncer.set_fault(*point, SyncFault::Skip);
            Life::new(*seed, syncer).run().is_err()
        });
        let seed = noticed.map_or("by none".to_owned(), |seed| format!("by seed {seed}"));
        say(&format!("{point:?}: noticed {seed}"));
        assert!(
            noticed.is_some() || *point != SyncPoint::Commit,
            "no cut loses what was not synced"
        );
    }
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
