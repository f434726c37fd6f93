//! Damage is named, kept aside and skipped; everything else stays readable.

use crate::support::*;
use std::fs;
use std::path::Path;
use storage::journal::*;

/// A killed journal of `frames` small frames in one segment.
fn killed(dir: &Path, frames: u64) {
    let (mut log, _) = open(dir);
    for number in 0..frames {
        put(&mut log, number, 20);
    }
}

#[test]
fn a_bad_frame_in_the_middle_is_skipped_and_later_ones_are_read() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 8);
    let file = segment_files(dir.path()).remove(0);
    let (at, len) = frame_places(&file)[3];
    for byte in 0..len {
        let crash = copy(dir.path());
        flip(&crash.path().join(file.file_name().unwrap()), at + byte);
        let look = ReadOnly::open(crash.path(), index).unwrap();
        assert_eq!(sequences(look.reader()), [1, 2, 3, 5, 6, 7, 8], "byte {byte}");
        let (mut log, recovery) = open(crash.path());
        assert_eq!(look.damage(), recovery.damage);
        let [damage] = &recovery.damage[..] else { panic!("{recovery:?}") };
        assert_eq!((damage.first, damage.last, damage.reason), (4, 4, DamageReason::Frame));
        assert_eq!((damage.offset, damage.len), (at as u64, len as u64));
        assert_eq!((recovery.torn_bytes, recovery.quarantined.len()), (0, 1));
        assert_eq!(sequences(&log.reader()), [1, 2, 3, 5, 6, 7, 8]);
        assert!(matches!(log.reader().frame(4), Err(ReadError::NoFrame { sequence: 4 })));
        assert_eq!(put(&mut log, 9, 1).position.sequence, 9);
        log.close().unwrap();
        let (log, recovery) = open(crash.path());
        assert!(recovery.clean && recovery.damage.is_empty(), "it is reported once");
        assert_eq!(log.reader().damage().unwrap().len(), 1, "and recorded");
    }
}

#[test]
fn frames_missing_at_the_end_of_an_earlier_segment_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = options();
    options.syncer.set_fault(SyncPoint::Seal, SyncFault::Fail);
    let (mut log, _) = FileLog::open(dir.path(), &options, index).unwrap();
    let mut count = 0;
    while log.reader().segments().len() < 2 {
        put(&mut log, count, 300);
        count += 1;
    }
    drop(log);
    let file = segment_files(dir.path()).remove(0);
    let (at, _) = *frame_places(&file).last().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[at..].fill(0);
    bytes.truncate(SEGMENT as usize);
    fs::write(&file, bytes).unwrap();
    let look = ReadOnly::open(dir.path(), index).unwrap();
    let (log, recovery) = open(dir.path());
    assert_eq!(look.damage(), recovery.damage);
    let [damage] = &recovery.damage[..] else { panic!("{recovery:?}") };
    assert_eq!((damage.first, damage.last), (count - 1, count - 1));
    assert_eq!(damage.reason, DamageReason::Missing);
    let expected: Vec<u64> = (1..=count).filter(|number| *number != count - 1).collect();
    assert_eq!(sequences(&log.reader()), expected);
}

#[test]
fn after_a_clean_stop_nothing_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for number in 0..5 {
        put(&mut log, number, 20);
    }
    log.close().unwrap();
    let file = segment_files(dir.path()).remove(0);
    let (at, len) = *frame_places(&file).last().unwrap();
    flip(&file, at + 50);
    flip(&file, at + len + 100);
    let look = ReadOnly::open(dir.path(), index).unwrap();
    let (mut log, recovery) = open(dir.path());
    assert!(recovery.clean);
    assert_eq!(recovery.torn_bytes, 0);
    let lost = recovery.damage.iter().find(|damage| damage.reason == DamageReason::Frame).unwrap();
    assert_eq!((lost.first, lost.last), (5, 5));
    assert!(look.damage().contains(lost));
    assert_eq!(put(&mut log, 6, 10).position.sequence, 6, "the lost number is not used again");
    assert_eq!(sequences(&log.reader()), [1, 2, 3, 4, 6]);
}

#[test]
fn a_lost_header_costs_no_frame() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        killed(dir.path(), 4);
    }
    for (which, file) in segment_files(dir.path()).iter().enumerate() {
        for byte in [0, 9, 20, 60, 121, 125] {
            let crash = copy(dir.path());
            flip(&crash.path().join(file.file_name().unwrap()), byte);
            let look = ReadOnly::open(crash.path(), index).unwrap();
            assert_eq!(sequences(look.reader()).len(), 8, "file {which} byte {byte}");
            let (log, recovery) = open(crash.path());
            assert_eq!(sequences(&log.reader()), (1..=8).collect::<Vec<_>>());
            let reasons: Vec<_> = recovery.damage.iter().map(|damage| damage.reason).collect();
            assert_eq!(reasons, [DamageReason::Header], "file {which} byte {byte}");
            assert_eq!(log.reader().identity(), look.reader().identity());
        }
    }
}

#[test]
fn a_damaged_footer_is_rebuilt_from_the_frames() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for number in 0..12 {
        put(&mut log, number, 20);
    }
    log.close().unwrap();
    let file = segment_files(dir.path()).remove(0);
    let (at, len) = *frame_places(&file).last().unwrap();
    let size = fs::metadata(&file).unwrap().len() as usize;
    for byte in (at + len..size).step_by(13) {
        let crash = copy(dir.path());
        flip(&crash.path().join(file.file_name().unwrap()), byte);
        let report = check(crash.path(), index).unwrap();
        assert!(!report.damage.is_empty() || byte >= size - 40, "byte {byte}");
        let (log, _) = open(crash.path());
        assert_eq!(sequences(&log.reader()), (1..=12).collect::<Vec<_>>(), "byte {byte}");
        let found = log.reader().find(5 << 64 | 5).unwrap();
        assert_eq!(found, [EntryRef { sequence: 6, index: 0 }], "byte {byte}");
        assert_eq!(log.reader().by_event(&[1], None, 9).unwrap().len(), 4, "byte {byte}");
        assert_eq!(log.reader().damage().unwrap(), []);
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 3);
    let file = segment_files(dir.path()).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[8..12].copy_from_slice(&7u32.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&sum.to_le_bytes());
    fs::write(&file, &bytes).unwrap();
    let Err(error) = FileLog::open(dir.path(), &options(), index) else { panic!("opened") };
    let text = error.to_string();
    assert!(text.contains("newer version (format 7, this program reads up to 1)"), "{text}");
    assert!(text.contains("segment-0000000001.log"), "{text}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "and not touched");
    assert!(matches!(
        ReadOnly::open(dir.path(), index),
        Err(OpenError::NewerFormat { found: 7, .. })
    ));
}

#[test]
fn a_segment_of_another_journal_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    killed(dir.path(), 3);
    killed(other.path(), 3);
    let stranger = dir.path().join("segment-0000000000.log");
    fs::copy(segment_files(other.path()).remove(0), stranger).unwrap();
    assert!(matches!(FileLog::open(dir.path(), &options(), index), Err(OpenError::Foreign { .. })));
}

#[test]
fn any_bytes_at_all_are_read_without_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 6);
    let (log, _) = open(dir.path());
    log.close().unwrap();
    let file = segment_files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let mut state = 1u64;
    for _ in 0..150 {
        let mut bytes = whole.clone();
        for _ in 0..20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 16) as usize % bytes.len();
            bytes[at] = (state >> 56) as u8;
        }
        let crash = copy(dir.path());
        fs::write(crash.path().join(file.file_name().unwrap()), bytes).unwrap();
        if let Ok(look) = ReadOnly::open(crash.path(), index) {
            let read = look.reader().frames(0).filter_map(Result::ok).count();
            assert!(read <= 6);
        }
        if let Ok((mut log, _)) = FileLog::open(crash.path(), &options(), index) {
            put(&mut log, 1, 1);
        }
    }
}

#[test]
fn what_rots_while_the_journal_is_open_is_known_once_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let reader = log.reader();
    let mut count = 0;
    while reader.segments().len() < 3 {
        put(&mut log, count, 300);
        count += 1;
    }
    let file = segment_files(dir.path()).remove(0);
    let places = frame_places(&file);
    flip(&file, places[1].0 + 60);
    flip(&file, places[4].0 + 60);
    assert_eq!(reader.found(), [], "nobody has read it");
    assert!(reader.frame(2).is_err());
    let known = |sequences: &[u64]| {
        let found = reader.found();
        let lost: Vec<_> = found.iter().map(|one| (one.first, one.last)).collect();
        let expected: Vec<_> = sequences.iter().map(|one| (*one, *one)).collect();
        assert_eq!(lost, expected);
        assert!(found.iter().all(|one| one.segment == file));
    };
    known(&[2]);
    // Read again, it is the same place.
    assert_eq!(reader.frames(1).filter(Result::is_err).count(), 2);
    known(&[2, 5]);
    assert_eq!(reader.damage().unwrap(), [], "no footer records it");
}
