//! What is durable comes back, what is torn is cut, and no start appends to what another left.

use crate::support::*;
use std::fs;
use storage::journal::*;

#[test]
fn a_new_journal_is_empty_and_clean() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("very/deep/journal");
    let options = options();
    let (log, recovery) = FileLog::open(&deep, &options, index).unwrap();
    let above = std::fs::canonicalize(&deep).unwrap().ancestors().skip(1).count() as u64;
    assert_eq!(options.syncer.count(SyncPoint::Directory), above, "each name is synced");
    assert!(recovery.clean && recovery.damage.is_empty());
    assert_eq!((recovery.epoch, recovery.head.position.sequence), (1, 0));
    assert_eq!(recovery.head.hash, genesis(&log.identity().journal));
    assert!(sequences(&log.reader()).is_empty());
}

#[test]
fn frames_come_back_with_heads_bodies_and_chain() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let heads: Vec<Vec<u8>> = (0..5).map(|n| head(n, 1 + u128::from(n), 7, &[9; 3])).collect();
    let entries: Vec<Entry<'_>> = heads
        .iter()
        .map(|head| Entry {
            head,
            body: (head[0] % 2 == 0).then_some(head.as_slice()),
            index: index(head, &identity()),
        })
        .collect();
    let appended = log.append(77, &entries).unwrap();
    assert!(sequences(&log.reader()).is_empty(), "not durable, not visible");
    assert!(log.reader().body(&appended.bodies[0].unwrap()).is_err());
    assert_eq!(log.sync().unwrap(), appended.position);
    let read = frames(&log.reader());
    assert_eq!(read[0].hash, appended.hash);
    assert_eq!((read[0].time, read[0].entries.len()), (77, 5));
    for (entry, (head, body)) in read[0].entries.iter().zip(heads.iter().zip(&appended.bodies)) {
        assert_eq!((&entry.head, &entry.body), (head, body));
        let bytes = body.map(|body| log.reader().body(&body).unwrap());
        assert_eq!(bytes.as_ref(), body.map(|_| head));
    }
    let root = merkle_root(heads.iter().map(Vec::as_slice));
    let expected = next_hash(&read[0].previous, appended.position, 77, 5, &root);
    assert_eq!(expected, appended.hash);
}

#[test]
fn a_clean_stop_is_clean_and_the_next_epoch_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for epoch in 1..=4u32 {
        let (mut log, recovery) = open(dir.path());
        assert!(recovery.clean, "epoch {epoch}: {recovery:?}");
        assert_eq!((recovery.epoch, recovery.torn_bytes), (epoch, 0));
        for number in 0..40 {
            put(&mut log, number, 200);
        }
        log.close().unwrap();
    }
    let (log, _) = open(dir.path());
    let read = frames(&log.reader());
    assert_eq!(read.len(), 160);
    assert!(read.windows(2).all(|pair| pair[1].position.sequence == pair[0].position.sequence + 1));
    assert_eq!(read[159].position, Position { epoch: 4, sequence: 160 });
    assert_chained(&read);
    assert_eq!(check(dir.path(), index).unwrap().damage, []);
}

#[test]
fn starts_that_write_nothing_leave_no_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    put(&mut log, 1, 10);
    log.close().unwrap();
    for round in 0..5 {
        let (log, recovery) = open(dir.path());
        assert_eq!(recovery.epoch, round + 2, "an epoch is never used twice");
        if round % 2 == 0 {
            drop(log);
        } else {
            log.close().unwrap();
        }
    }
    assert_eq!(segment_files(dir.path()).len(), 2);
}

#[test]
fn a_kill_loses_nothing_that_was_synced_and_the_tail_is_sealed_first() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for number in 0..10 {
        put(&mut log, number, 50);
    }
    drop(log);
    let (mut log, recovery) = open(dir.path());
    assert!(!recovery.clean);
    assert_eq!((recovery.epoch, recovery.torn_bytes), (2, 0));
    let segments = log.reader().segments();
    assert!(segments[1].is_sealed() && !segments[0].is_sealed());
    assert_eq!(segments[0].range(), (11, 10));
    let next = put(&mut log, 10, 50);
    assert_eq!(next.position, Position { epoch: 2, sequence: 11 });
    assert_chained(&frames(&log.reader()));
}

#[test]
fn a_frame_torn_at_any_byte_is_cut_and_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for number in 0..3 {
        put(&mut log, number, 20);
    }
    drop(log);
    let file = segment_files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let (start, len) = *frame_places(&file).last().unwrap();
    for kept in 0..len {
        let crash = copy(dir.path());
        let mut torn = whole.clone();
        torn[start + kept..].fill(0);
        let path = crash.path().join(file.file_name().unwrap());
        fs::write(&path, &torn).unwrap();
        let whole_but_zeros = torn == whole;
        let (log, recovery) = open(crash.path());
        let expected: &[u64] = if whole_but_zeros { &[1, 2, 3] } else { &[1, 2] };
        assert_eq!(sequences(&log.reader()), expected, "{kept} bytes");
        assert_eq!(recovery.damage, []);
        let left = torn[start..].iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let left = if whole_but_zeros { 0 } else { left };
        assert_eq!(recovery.torn_bytes, left as u64);
        assert_eq!(recovery.quarantined.len(), usize::from(left > 0));
        for copy in &recovery.quarantined {
            assert_eq!(fs::read(copy).unwrap(), torn[start..start + left]);
        }
    }
}

#[test]
fn a_file_cut_short_at_any_length_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    put(&mut log, 1, 20);
    put(&mut log, 2, 20);
    drop(log);
    let file = segment_files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let places = frame_places(&file);
    for len in (0..places[1].0 + places[1].1).step_by(7) {
        let crash = copy(dir.path());
        fs::write(crash.path().join(file.file_name().unwrap()), &whole[..len]).unwrap();
        let (log, _) = open(crash.path());
        let expected = places.iter().filter(|(at, size)| at + size <= len).count();
        assert_eq!(sequences(&log.reader()).len(), expected, "{len} bytes");
    }
}

#[test]
fn every_crash_during_recovery_is_recovered_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for number in 0..60 {
        put(&mut log, number, 200);
    }
    put_unsynced(&mut log, 60, 30);
    drop(log);
    let last = segment_files(dir.path()).pop().unwrap();
    let (at, _) = *frame_places(&last).last().unwrap();
    flip(&last, at + 100);
    for step in 0..8 {
        for point in RECOVERY {
            let crash = copy(dir.path());
            let options = options();
            options.syncer.set_fault_after(*point, step, SyncFault::Fail);
            drop(FileLog::open(crash.path(), &options, index));
            let (log, recovery) = open(crash.path());
            assert_eq!(sequences(&log.reader()), (1..=60).collect::<Vec<_>>(), "{point:?}");
            assert_eq!(recovery.damage, []);
            assert_chained(&frames(&log.reader()));
            assert!(!crash.path().join("segment-0000000001.new").exists());
        }
    }
}

const RECOVERY: &[SyncPoint] = &[
    SyncPoint::SpareBlocks,
    SyncPoint::FoundSpare,
    SyncPoint::SpareName,
    SyncPoint::Recovered,
    SyncPoint::RecoveredName,
    SyncPoint::FoundName,
    SyncPoint::Quarantine,
    SyncPoint::QuarantineFolder,
    SyncPoint::QuarantineName,
    SyncPoint::Epoch,
];

#[test]
fn an_error_of_a_sync_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let options = options();
    let (mut log, _) = FileLog::open(dir.path(), &options, index).unwrap();
    put(&mut log, 1, 10);
    put_unsynced(&mut log, 2, 10);
    options.syncer.set_fault(SyncPoint::Commit, SyncFault::Fail);
    let error = log.sync().unwrap_err();
    assert!(error.is_final() && matches!(error, AppendError::Sync { .. }));
    options.syncer.set_fault(SyncPoint::Commit, SyncFault::None);
    assert!(matches!(log.sync(), Err(AppendError::Stopped)));
    let head = head(0, 0, 0, b"");
    let entry = Entry { head: &head, body: None, index: IndexKeys::default() };
    assert!(matches!(log.append(1, &[entry]), Err(AppendError::Stopped)));
    assert_eq!(sequences(&log.reader()), [1], "what is not durable is not shown");
    assert!(log.close().is_err());
}

#[test]
fn each_guarantee_has_its_sync() {
    let dir = tempfile::tempdir().unwrap();
    let options = options();
    let (mut log, _) = FileLog::open(dir.path(), &options, index).unwrap();
    let count = |point| options.syncer.count(point);
    assert_eq!((count(SyncPoint::Epoch), count(SyncPoint::Recovered)), (1, 0));
    put(&mut log, 1, 10);
    log.sync().unwrap();
    assert_eq!(count(SyncPoint::Commit), 1, "nothing new, nothing to sync");
    for number in 2..100 {
        put_unsynced(&mut log, number, 100);
    }
    log.sync().unwrap();
    assert_eq!(count(SyncPoint::Commit), 2);
    let segments = log.reader().segments().len() as u64;
    assert_eq!(count(SyncPoint::Rotate), segments - 1);
    log.close().unwrap();
    assert_eq!((count(SyncPoint::Seal), count(SyncPoint::CleanStop)), (segments, 1));
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let Err(error) = FileLog::open(dir.path(), &options(), index) else { panic!("two writers") };
    assert!(matches!(&error, OpenError::Locked { path } if path.ends_with("lock")), "{error}");
    for number in 0..200u64 {
        put(&mut log, number, 100);
        if number % 20 == 0 {
            let look = ReadOnly::open(dir.path(), index).unwrap();
            assert_eq!(look.damage(), []);
            assert_eq!(sequences(look.reader()), (1..=number + 1).collect::<Vec<_>>());
        }
    }
    drop(log);
    open(dir.path());
}

#[test]
fn a_lock_that_a_killed_program_left_for_a_moment_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let begun = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            begun.wait();
            std::thread::park_timeout(std::time::Duration::from_millis(200));
            drop(log);
        });
        begun.wait();
        FileLog::open(dir.path(), &options(), index).map(|_| ()).unwrap();
    });
}

#[test]
fn refused_frames_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let head = head(0, 0, 0, b"");
    let body = vec![0; FRAME_BYTES_MAX];
    let entry = Entry { head: &head, body: Some(&body), index: IndexKeys::default() };
    let error = log.append(1, &[entry]).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }) && !error.is_final());
    assert!(matches!(log.append(1, &[]), Err(AppendError::Empty)));
    assert_eq!(put(&mut log, 1, 10).position.sequence, 1);
}

#[test]
fn a_disk_without_room_refuses_and_goes_on_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = options();
    let (mut log, _) = FileLog::open(dir.path(), &options, index).unwrap();
    options.syncer.set_fault(SyncPoint::SpareBlocks, SyncFault::Fail);
    let head = head(0, 5, 0, &[0; 900]);
    let entry = [Entry { head: &head, body: None, index: index(&head, &identity()) }];
    let mut appended = 0;
    let error = loop {
        match log.append(1, &entry) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
        assert!(appended < 1000, "the spares end");
    };
    assert!(matches!(error, AppendError::Full { .. }) && !error.is_final(), "{error}");
    options.syncer.set_fault(SyncPoint::SpareBlocks, SyncFault::None);
    while log.append(1, &entry).is_err() {}
    log.sync().unwrap();
    assert_eq!(sequences(&log.reader()).len(), appended + 1);
    assert_eq!(log.reader().find(5).unwrap().len(), appended + 1);
}

#[test]
fn frames_are_appended_while_the_disk_syncs_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let options = options();
    let (mut log, _) = FileLog::open(dir.path(), &options, index).unwrap();
    put_unsynced(&mut log, 1, 10);
    let ticket = log.begin_sync();
    put_unsynced(&mut log, 2, 10);
    assert_eq!(log.finish_sync(ticket.run()).unwrap().sequence, 1);
    assert_eq!(sequences(&log.reader()), [1]);
    let ticket = log.begin_sync();
    for number in 3..60 {
        put_unsynced(&mut log, number, 300);
    }
    assert!(log.reader().head().position.sequence > 2, "a rotation makes durable what was before");
    assert_eq!(log.finish_sync(ticket.run()).unwrap().sequence, 2);
    assert!(log.reader().head().position.sequence > 2, "and it stays visible");
    assert_eq!(log.sync().unwrap().sequence, 59);
    assert_eq!(log.reader().head(), log.appended());

    put_unsynced(&mut log, 60, 10);
    options.syncer.set_fault(SyncPoint::Commit, SyncFault::Fail);
    let failed = log.begin_sync().run();
    options.syncer.set_fault(SyncPoint::Commit, SyncFault::None);
    let later = log.begin_sync().run();
    assert!(matches!(later, Err(AppendError::Stopped)), "the system tells an error only once");
    assert!(log.finish_sync(failed).is_err());
    assert_eq!(sequences(&log.reader()).len(), 59);
    assert!(log.close().is_err());
}

#[test]
fn the_sync_that_an_append_hands_over_makes_its_frame_durable() {
    let dir = tempfile::tempdir().unwrap();
    let options = options();
    let (mut log, _) = FileLog::open(dir.path(), &options, index).unwrap();
    let mut done = Vec::new();
    let entry = Entry { head: b"head", body: None, index: IndexKeys::default() };
    let appended = log.append_with(7, &[entry], &mut |sync| done.push(sync.run())).unwrap();
    assert!(log.reader().frame(1).is_err(), "nobody has said yet how the sync ended");
    assert_eq!(options.syncer.count(SyncPoint::Commit), 1);
    log.finish_sync(done.pop().unwrap()).unwrap();
    let head = Head { position: appended.position, hash: appended.hash };
    assert_eq!((log.reader().head(), log.appended()), (head, head));
    assert_eq!(log.reader().frame(1).unwrap().hash, appended.hash);
    let refused = log.append_with(8, &[], &mut |sync| done.push(sync.run()));
    assert!(refused.is_err() && done.is_empty(), "nothing was written that could be synced");
}

/// A power cut may keep the first frame of a segment and lose the header before it: neither was
/// synced, so nothing is damaged.
#[test]
fn a_header_that_was_never_durable_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for number in 0.. {
        let before = log.reader().segments().len();
        put_unsynced(&mut log, number, 300);
        if log.reader().segments().len() > before {
            break;
        }
        log.sync().unwrap();
    }
    let newest = log.reader().segments().first().unwrap().path().to_path_buf();
    drop(log);
    let mut bytes = fs::read(&newest).unwrap();
    assert_eq!(frame_places(&newest).len(), 1, "it has the one frame that was not synced");
    bytes[..4096].fill(0);
    fs::write(&newest, bytes).unwrap();
    let look = ReadOnly::open(dir.path(), index).unwrap();
    assert!(look.damage().is_empty(), "{:?}", look.damage());
    let (log, recovery) = open(dir.path());
    assert!(recovery.damage.is_empty(), "{recovery:?}");
    assert_chained(&frames(&log.reader()));
}
