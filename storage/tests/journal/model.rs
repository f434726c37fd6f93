//! Random operations on a journal on disk, against one in memory and a plain list.

use crate::support::*;
use proptest::prelude::*;
use storage::journal::*;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u16, u8, usize)>),
    Sync,
    Close,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let entry = (0..4u16, 0..20u8, 0..700usize);
    prop_oneof![
        6 => prop::collection::vec(entry, 1..6).prop_map(Step::Append),
        3 => Just(Step::Sync),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
    ]
}

fn append(log: &mut dyn Log, time: u64, made: &[(u16, u8, usize)]) -> Appended {
    let heads: Vec<Vec<u8>> = made
        .iter()
        .map(|(event, id, size)| head(*event, u128::from(*id) << 64, 1, &vec![7; size / 2]))
        .collect();
    let bodies: Vec<Option<Vec<u8>>> =
        made.iter().map(|(_, id, size)| (size % 3 > 0).then(|| vec![*id; *size])).collect();
    let entries: Vec<Entry<'_>> = heads
        .iter()
        .zip(&bodies)
        .map(|(head, body)| Entry { head, body: body.as_deref(), index: index(head, &identity()) })
        .collect();
    log.append(time, &entries).unwrap()
}

type Seen = (u64, u64, Vec<FrameEntry>, Vec<Option<Vec<u8>>>);

/// What can be compared: the hashes differ, because the journals' identities do.
fn seen(reader: &dyn ReadLog) -> Vec<Seen> {
    let frames = reader.frames(0).map(Result::unwrap);
    frames
        .map(|frame| {
            let body = |entry: &FrameEntry| entry.body.map(|body| reader.body(&body).unwrap());
            let bodies = frame.entries.iter().map(body).collect();
            (frame.position.sequence, frame.time, frame.entries, bodies)
        })
        .collect()
}

fn assert_same(file: &dyn ReadLog, memory: &dyn ReadLog) {
    assert_eq!(seen(file), seen(memory));
    for id in 0..20u128 {
        let mut found = file.find(id << 64).unwrap();
        found.sort_unstable();
        assert_eq!(found, memory.find(id << 64).unwrap());
    }
    for events in [&[0u16][..], &[1, 3], &[]] {
        for limit in [1, 5, 1000] {
            let found = file.by_event(events, None, limit).unwrap();
            assert_eq!(found, memory.by_event(events, None, limit).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_and_the_memory_agree(steps in prop::collection::vec(step(), 1..50)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path());
        let mut model = MemoryLog::new(identity());
        for (time, step) in (0u64..).zip(steps) {
            match step {
                Step::Append(made) => {
                    let here = append(&mut log, time, &made);
                    let there = append(&mut model, time, &made);
                    assert_eq!((here.position.sequence, here.bodies),
                        (there.position.sequence, there.bodies));
                }
                Step::Sync => {
                    log.sync().unwrap();
                    model.sync().unwrap();
                }
                Step::Close => {
                    log.close().unwrap();
                    model.sync().unwrap();
                    assert_eq!(check(dir.path(), index).unwrap().damage, []);
                    let (again, recovery) = open(dir.path());
                    assert!(recovery.clean);
                    log = again;
                }
                Step::Kill => {
                    // A kill keeps what was written; only a power cut loses what was not synced.
                    model.sync().unwrap();
                    drop(log);
                    let (again, recovery) = open(dir.path());
                    assert!(!recovery.clean && recovery.damage.is_empty());
                    log = again;
                }
            }
        }
        log.sync().unwrap();
        model.sync().unwrap();
        assert_same(&log.reader(), &model.reader());
        assert_chained(&frames(&log.reader()));
        let look = ReadOnly::open(dir.path(), index).unwrap();
        assert_same(look.reader(), &model.reader());
    }
}

#[test]
fn writers_in_memory_are_fenced_and_results_can_be_unknown() {
    let mut one = MemoryLog::new(identity());
    append(&mut one, 1, &[(1, 1, 1)]);
    one.sync().unwrap();
    append(&mut one, 2, &[(1, 1, 1)]);
    one.crash();
    let mut other = one.writer();
    other.set_next(Outcome::UnknownKept);
    let entry = Entry { head: b"h", body: None, index: IndexKeys::default() };
    assert!(matches!(other.append(3, &[entry]), Err(AppendError::Unknown)));
    other.set_next(Outcome::UnknownLost);
    assert!(matches!(other.append(4, &[entry]), Err(AppendError::Unknown)));
    assert_eq!(other.sync().unwrap().sequence, 2);
    assert_eq!(other.new_epoch(), 2);
    assert!(matches!(one.append(5, &[entry]), Err(AppendError::Fenced { epoch: 1 })));
    assert!(one.sync().is_err());
    assert_eq!(other.append(6, &[entry]).unwrap().position, Position { epoch: 2, sequence: 3 });
    let times: Vec<u64> = one.reader().frames(0).map(|frame| frame.unwrap().time).collect();
    assert_eq!(times, [1, 3]);
}
