//! Power cuts under a journal alone.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use powercut::{Disk, Unsynced};
use storage::database::index_of;
use storage::journal::{
    Entry, FileLog, IndexKeys, Log, Options, Reader, Recovery, SegmentView, SyncFault, SyncPoint,
    Syncer,
};

use super::{claim, kept, nothing, text};

const SEGMENT_BYTES: u64 = 8_192;

/// Where the frames of a segment begin.
const FRAMES_START: u64 = 4_096;

/// The last bytes of a sealed segment.
const TAIL_BYTES: usize = 40;

/// What a journal has after a start.
struct Found {
    sequences: Vec<u64>,
    recovery: Recovery,
    log: FileLog,
}

/// A disk whose journal lies two folders down.
fn disk() -> Result<Disk, String> {
    Disk::mount(None).map_err(text)
}

fn place(root: &Path) -> PathBuf {
    root.join("store/journal")
}

fn open(root: &Path, syncer: &Arc<Syncer>) -> Result<Found, String> {
    let mut options = Options::new(1);
    (options.segment_bytes, options.reserve_bytes) = (SEGMENT_BYTES, 0);
    options.syncer = Arc::clone(syncer);
    let (log, recovery) = FileLog::open(&place(root), &options, index_of).map_err(text)?;
    let sequences = sequences(&log.reader())?;
    Ok(Found { sequences, recovery, log })
}

fn sequences(reader: &Reader) -> Result<Vec<u64>, String> {
    let frames = reader.frames(1).map(|frame| frame.map(|frame| frame.position.sequence));
    frames.collect::<Result<_, _>>().map_err(text)
}

fn append(log: &mut FileLog) -> Result<(), String> {
    let entry = Entry { head: &[7; 40], body: Some(&[8; 300]), index: IndexKeys::default() };
    log.append(1, &[entry]).map(|_| ()).map_err(text)
}

/// Appends a frame; that this returns is its acknowledgement.
fn put(log: &mut FileLog) -> Result<(), String> {
    append(log)?;
    log.sync().map(|_| ()).map_err(text)
}

/// Appends until there is another segment.
fn fill(log: &mut FileLog) -> Result<(), String> {
    let segments = log.reader().segments().len();
    while log.reader().segments().len() == segments {
        append(log)?;
    }
    Ok(())
}

/// Waits until something that another thread does is so; gives up after a while.
fn wait(what: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
    for _ in 0..10_000 {
        if is_so() {
            return Ok(());
        }
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
    Err(format!("never: {what}"))
}

/// Waits until a journal that was just opened has all its spares.
fn with_spares(syncer: &Syncer, root: &Path) -> Result<(), String> {
    let is_segment =
        |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "log");
    let there = || {
        let entries = fs::read_dir(place(root)).into_iter().flatten().flatten();
        entries.filter(is_segment).count()
    };
    // The segment in use, and two spares.
    wait("two spares", || there() == 3 && syncer.count(SyncPoint::SpareName) >= 3)
}

/// The journal that the disk kept has these frames, and no damage.
fn has(image: &Path, wanted: &[u64]) -> Result<(), String> {
    let found = open(image, &Arc::default())?;
    let damage = found.recovery.damage;
    claim(damage.is_empty(), || format!("damage: {damage:?}"))?;
    claim(found.sequences == wanted, || format!("has {:?}, not {wanted:?}", found.sequences))
}

/// A disk on which a start was killed: frame 1 is durable, frame 2 only in the page cache.
fn killed() -> Result<Disk, String> {
    let (disk, syncer) = (disk()?, Arc::default());
    let mut log = open(disk.path(), &syncer)?.log;
    put(&mut log)?;
    with_spares(&syncer, disk.path())?;
    append(&mut log)?;
    Ok(disk)
}

/// No spare is finished: the power goes before the helper is so far.
fn without_new_spares(syncer: &Syncer) {
    syncer.set_fault(SyncPoint::SpareName, SyncFault::Fail);
}

pub fn an_acknowledged_frame_is_there(syncer: &Arc<Syncer>) -> Result<(), String> {
    let disk = disk()?;
    let mut log = open(disk.path(), syncer)?.log;
    put(&mut log)?;
    has(kept(&disk, nothing)?.path(), &[1])
}

pub fn a_frame_in_the_segment_before_is_there(syncer: &Arc<Syncer>) -> Result<(), String> {
    let disk = disk()?;
    // The power goes before the helper seals the segment, which syncs it.
    syncer.set_fault(SyncPoint::Seal, SyncFault::Fail);
    let mut log = open(disk.path(), syncer)?.log;
    fill(&mut log)?;
    log.sync().map_err(text)?;
    let all: Vec<u64> = (1..log.next_sequence()).collect();
    has(kept(&disk, nothing)?.path(), &all)
}

pub fn a_full_disk_takes_frames_into_spares(syncer: &Arc<Syncer>) -> Result<(), String> {
    let disk = disk()?;
    let mut log = open(disk.path(), syncer)?.log;
    with_spares(syncer, disk.path())?;
    disk.limit(Some(0));
    fill(&mut log)?;
    log.sync().map(|_| ()).map_err(text)
}

pub fn a_full_disk_takes_frames_into_found_spares(syncer: &Arc<Syncer>) -> Result<(), String> {
    let (disk, before) = (disk()?, Arc::<Syncer>::default());
    // A start that is killed when its spares are written and not synced.
    before.set_fault(SyncPoint::SpareBlocks, SyncFault::Skip);
    let mut log = open(disk.path(), &before)?.log;
    put(&mut log)?;
    with_spares(&before, disk.path())?;
    drop(log);
    without_new_spares(syncer);
    let mut log = open(disk.path(), syncer)?.log;
    disk.limit(Some(0));
    fill(&mut log)?;
    log.sync().map(|_| ()).map_err(text)
}

pub fn a_tail_has_its_footer(syncer: &Arc<Syncer>) -> Result<(), String> {
    let disk = disk()?;
    let mut log = open(disk.path(), syncer)?.log;
    fill(&mut log)?;
    log.sync().map_err(text)?;
    let all: Vec<u64> = (1..log.next_sequence()).collect();
    let reader = log.reader();
    wait("a sealed segment", || reader.segments().iter().any(SegmentView::is_sealed))?;
    let only_the_tail = |_: &Path, change: Unsynced<'_>| match change {
        Unsynced::Written(_, bytes) => bytes == TAIL_BYTES,
        Unsynced::Length(_) => true,
        _ => false,
    };
    has(kept(&disk, only_the_tail)?.path(), &all)
}

pub fn a_clean_stop_is_one(syncer: &Arc<Syncer>) -> Result<(), String> {
    let disk = disk()?;
    let mut log = open(disk.path(), syncer)?.log;
    put(&mut log)?;
    log.close().map_err(text)?;
    let found = open(kept(&disk, nothing)?.path(), &Arc::default())?;
    claim(found.recovery.clean, || "the next start finds a crash".into())
}

pub fn what_was_recovered_stays(syncer: &Arc<Syncer>) -> Result<(), String> {
    let disk = killed()?;
    let found = open(disk.path(), syncer)?;
    claim(found.sequences == [1, 2], || format!("the start saw {:?}", found.sequences))?;
    has(kept(&disk, nothing)?.path(), &[1, 2])
}

pub fn a_recovered_file_stays_in_place(syncer: &Arc<Syncer>) -> Result<(), String> {
    let disk = killed()?;
    without_new_spares(syncer);
    let mut log = open(disk.path(), syncer)?.log;
    put(&mut log)?;
    has(kept(&disk, nothing)?.path(), &[1, 2, 3])
}

pub fn a_file_that_was_renamed_before_a_kill_stays_in_place(
    syncer: &Arc<Syncer>,
) -> Result<(), String> {
    let (disk, between) = (killed()?, Arc::<Syncer>::default());
    between.set_fault(SyncPoint::RecoveredName, SyncFault::Fail);
    claim(open(disk.path(), &between).is_err(), || "the start did not end".into())?;
    without_new_spares(syncer);
    let mut log = open(disk.path(), syncer)?.log;
    put(&mut log)?;
    has(kept(&disk, nothing)?.path(), &[1, 2, 3])
}

/// A disk on which a frame was torn: two are whole, and these bytes follow.
fn torn() -> Result<(Disk, Vec<u8>), String> {
    let disk = disk()?;
    let mut log = open(disk.path(), &Arc::default())?.log;
    put(&mut log)?;
    put(&mut log)?;
    drop(log);
    let path = place(disk.path()).join("segment-0000000001.log");
    let bytes = fs::read(&path).map_err(text)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let torn = vec![0x5a; 200];
    let file = fs::File::options().write(true).open(&path).map_err(text)?;
    file.write_all_at(&torn, end.next_multiple_of(8) as u64).map_err(text)?;
    file.sync_all().map_err(text)?;
    Ok((disk, torn))
}

/// Some file under the folder has these bytes in it.
fn is_somewhere(folder: &Path, bytes: &[u8]) -> Result<bool, String> {
    for entry in fs::read_dir(folder).map_err(text)? {
        let path = entry.map_err(text)?.path();
        let found = if path.is_dir() {
            is_somewhere(&path, bytes)?
        } else {
            fs::read(&path).map_err(text)?.windows(bytes.len()).any(|part| part == bytes)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_kept(image: &Path, bytes: &[u8]) -> Result<(), String> {
    claim(is_somewhere(image, bytes)?, || "the bytes that were cut are nowhere".into())
}

pub fn what_is_cut_is_kept(syncer: &Arc<Syncer>) -> Result<(), String> {
    let (disk, bytes) = torn()?;
    let found = open(disk.path(), syncer)?;
    claim(found.sequences == [1, 2], || format!("the start saw {:?}", found.sequences))?;
    is_kept(kept(&disk, nothing)?.path(), &bytes)
}

pub fn what_is_cut_is_kept_when_only_a_rename_is(syncer: &Arc<Syncer>) -> Result<(), String> {
    let (disk, bytes) = torn()?;
    // The power goes right after the recovered file took its place.
    syncer.set_fault(SyncPoint::RecoveredName, SyncFault::Fail);
    claim(open(disk.path(), syncer).is_err(), || "the start did not end".into())?;
    let only_renames = |_: &Path, change: Unsynced<'_>| matches!(change, Unsynced::Renamed(..));
    is_kept(kept(&disk, only_renames)?.path(), &bytes)
}

pub fn a_frame_without_its_header_does_no_harm(syncer: &Arc<Syncer>) -> Result<(), String> {
    let disk = disk()?;
    let mut log = open(disk.path(), syncer)?.log;
    append(&mut log)?;
    let only_frames = |_: &Path, change: Unsynced<'_>| match change {
        Unsynced::Written(offset, _) => offset >= FRAMES_START,
        _ => false,
    };
    has(kept(&disk, only_frames)?.path(), &[1])
}
