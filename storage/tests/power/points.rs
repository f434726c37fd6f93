//! For each sync the power cut that breaks its guarantee, at the worst moment and with the worst
//! loss: nothing here is left to chance. With the sync the guarantee holds, without it it does not.

mod compaction;
mod journal;
mod store;
mod trimming;

use std::path::Path;
use std::sync::Arc;

use powercut::{Disk, Kept, Unsynced};
use storage::journal::{SyncFault, SyncPoint, Syncer};
use tempfile::TempDir;

use super::{say, unavailable};

/// Brings a disk to its state with these syncs, cuts the power, and says what is broken.
type Scenario = fn(&Arc<Syncer>) -> Result<(), String>;

/// What shows that a sync of a store is needed. A new point needs a line here.
fn scenario(point: SyncPoint) -> Option<Scenario> {
    let scenario: Scenario = match point {
        SyncPoint::Commit | SyncPoint::SpareName | SyncPoint::Directory => {
            journal::an_acknowledged_frame_is_there
        }
        SyncPoint::Rotate => journal::a_frame_in_the_segment_before_is_there,
        SyncPoint::SpareBlocks => journal::a_full_disk_takes_frames_into_spares,
        SyncPoint::FoundSpare => journal::a_full_disk_takes_frames_into_found_spares,
        SyncPoint::Seal => journal::a_tail_has_its_footer,
        SyncPoint::CleanStop => journal::a_clean_stop_is_one,
        SyncPoint::Recovered => journal::what_was_recovered_stays,
        SyncPoint::RecoveredName => journal::a_recovered_file_stays_in_place,
        SyncPoint::FoundName => journal::a_file_that_was_renamed_before_a_kill_stays_in_place,
        SyncPoint::Quarantine | SyncPoint::QuarantineName => journal::what_is_cut_is_kept,
        SyncPoint::QuarantineFolder => journal::what_is_cut_is_kept_when_only_a_rename_is,
        SyncPoint::Epoch => journal::a_frame_without_its_header_does_no_harm,
        SyncPoint::CheckpointChunks
        | SyncPoint::Checkpoint
        | SyncPoint::CheckpointFolder
        | SyncPoint::CheckpointName => store::a_clean_stop_leaves_nothing_to_do,
        SyncPoint::RowsUsed => store::rows_of_a_used_store_are_not_trusted,
        SyncPoint::Rows => store::rows_are_there_before_the_word,
        SyncPoint::RowsTrusted => store::rows_of_a_clean_stop_are_trusted,
        SyncPoint::Format => store::a_new_store_says_its_format,
        SyncPoint::Compacted | SyncPoint::CompactedName => {
            compaction::what_was_compacted_is_whole_and_stays_so
        }
        SyncPoint::Trimmed => trimming::what_is_kept_has_no_hole,
        // No store comes to these: `migrations/tests/power.rs` has the cuts of the first three, and
        // `tests/backup.rs` those of a backup.
        SyncPoint::Kept
        | SyncPoint::Refooted
        | SyncPoint::RefootedName
        | SyncPoint::Backup
        | SyncPoint::BackupName => return None,
    };
    Some(scenario)
}

/// What the disk kept by a rule, as a folder.
fn kept<K: Into<Kept>>(
    disk: &Disk,
    keeps: impl FnMut(&Path, Unsynced<'_>) -> K,
) -> Result<TempDir, String> {
    let image = tempfile::tempdir().map_err(text)?;
    disk.image_if(keeps, image.path()).map_err(text)?;
    Ok(image)
}

/// Nothing that was not synced.
fn nothing(_: &Path, _: Unsynced<'_>) -> bool {
    false
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// `Err` with what is said when it is not so.
fn claim(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

#[test]
fn each_sync_protects_what_it_says() {
    if unavailable() {
        return;
    }
    let mut wrong = Vec::new();
    for point in SyncPoint::ALL.iter().copied() {
        let Some(scenario) = scenario(point) else { continue };
        let syncer = Arc::new(Syncer::default());
        if let Err(broken) = scenario(&syncer) {
            wrong.push(format!("{point:?}: broken although it is synced: {broken}"));
        }
        if syncer.count(point) == 0 {
            wrong.push(format!("{point:?}: its scenario does not come to it"));
        }
        let syncer = Arc::new(Syncer::default());
        syncer.set_fault(point, SyncFault::Skip);
        match scenario(&syncer) {
            Err(broken) => say(&format!("without {point:?}: {broken}")),
            Ok(()) => wrong.push(format!("{point:?}: nothing is broken without it")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
