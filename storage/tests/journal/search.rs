//! Ids, events, actors and times are found in footers and in the unsealed tail alike.

use crate::support::*;
use storage::journal::*;

fn filled(log: &mut FileLog, count: u64) {
    for number in 1..=count {
        put(log, number, 60);
    }
}

/// That of a number that was put.
fn id(number: u64) -> u128 {
    u128::from(number) << 64 | u128::from(number)
}

fn assert_found(reader: &Reader, count: u64) {
    for number in 1..=count {
        let at = EntryRef { sequence: number, index: 0 };
        assert_eq!(reader.find(id(number)).unwrap(), [at], "{number}");
        let body = reader.frame(number).unwrap().entries[0].body.unwrap();
        assert_eq!(reader.body(&body).unwrap(), vec![number as u8; 60]);
    }
    assert!(reader.find(3).unwrap().is_empty());
    let expected: Vec<u64> = (1..=count).rev().filter(|number| number % 3 != 0).collect();
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let page = reader.by_event(&[1, 2], before, 7).unwrap();
        found.extend(page.iter().map(|at| at.sequence));
        let Some(last) = page.last() else { break };
        before = Some(*last);
    }
    assert_eq!(found, expected);
    for segment in reader.segments() {
        let (first, last) = segment.range();
        assert_eq!(segment.times(), (first * 10, last * 10));
        assert_eq!(segment.actors().unwrap(), [0, 1]);
        assert_eq!(segment.frames().count() as u64, last - first + 1);
        assert_eq!(segment.by_event(&[0, 1, 2]).unwrap().len() as u64, last - first + 1);
        let expected = |wanted: &dyn Fn(u64) -> bool| {
            let numbers = (first..=last).rev().filter(|number| wanted(*number));
            numbers.map(|sequence| EntryRef { sequence, index: 0 }).collect::<Vec<_>>()
        };
        for key in 0..2 {
            let found = segment.by_actor(key).unwrap();
            assert_eq!(found, expected(&|number| number % 2 == key));
        }
        for key in 0..5 {
            let found = segment.by_resource(key).unwrap();
            assert_eq!(found, expected(&|number| number % 5 == key));
        }
        for key in 1..4 {
            let found = segment.by_level(key).unwrap();
            assert_eq!(found, expected(&|number| number % 4 >= u64::from(key)));
        }
        assert!(
            segment.by_actor(7).unwrap().is_empty() && segment.by_resource(9).unwrap().is_empty()
        );
    }
}

#[test]
fn footers_and_the_tail_answer_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    filled(&mut log, 150);
    assert!(log.reader().segments().len() > 4);
    assert_found(&log.reader(), 150);
    assert_found(ReadOnly::open(dir.path(), index).unwrap().reader(), 150);
    log.close().unwrap();
    let look = ReadOnly::open(dir.path(), index).unwrap();
    assert!(look.is_clean() && look.reader().segments().iter().all(SegmentView::is_sealed));
    assert_found(look.reader(), 150);
}

/// What a look-up finds of a number that was put, or would have been.
fn accepted(reader: &Reader, number: u64) -> Result<Vec<EntryRef>, ReadError> {
    let made_at = number.is_multiple_of(2).then_some(number * 10);
    reader.find_accepted(&Wanted { id: id(number), made_at, since: 0 })
}

#[test]
fn an_id_is_looked_for_in_the_segments_of_its_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    filled(&mut log, 150);
    let check = |reader: &Reader| {
        for number in 1..=150 {
            let at = EntryRef { sequence: number, index: 0 };
            assert_eq!(accepted(reader, number).unwrap(), [at], "{number}");
        }
        assert!(accepted(reader, 152).unwrap().is_empty());
        assert!(accepted(reader, 151).unwrap().is_empty());
    };
    check(&log.reader());
    check(ReadOnly::open(dir.path(), index).unwrap().reader());
    log.close().unwrap();
    let look = ReadOnly::open(dir.path(), index).unwrap();
    let reader = look.reader();
    let oldest = reader.segments().pop().unwrap();
    std::fs::remove_file(oldest.path()).unwrap();
    let (first, last) = oldest.range();
    assert!(accepted(reader, 152).unwrap().is_empty(), "nobody asks the one that cannot answer");
    assert!(accepted(reader, 151).is_err(), "an id without a time may be anywhere");
    let even = first + first % 2;
    assert!(accepted(reader, even).is_err() && even <= last);
    let wanted = Wanted { id: id(151), made_at: None, since: last * 10 + 1 };
    assert!(reader.find_accepted(&wanted).unwrap().is_empty(), "it is older than what counts");
}

#[test]
fn an_id_without_a_time_is_looked_for_in_many_segments_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let mut count = 0;
    while log.reader().segments().len() < 150 {
        count += 1;
        put(&mut log, count, 3_000);
    }
    let reader = log.reader();
    for number in 1..=count {
        let at = EntryRef { sequence: number, index: 0 };
        assert_eq!(accepted(&reader, number).unwrap(), [at], "{number}");
    }
    log.close().unwrap();
    let look = ReadOnly::open(dir.path(), index).unwrap();
    let reader = look.reader();
    let stranger = count + 1 + count % 2;
    assert!(accepted(reader, stranger).unwrap().is_empty());
    let oldest = reader.segments().pop().unwrap();
    let unread = ReadOnly::open(dir.path(), index).unwrap();
    std::fs::remove_file(oldest.path()).unwrap();
    assert!(accepted(reader, stranger).unwrap().is_empty(), "its filter is in a group by now");
    assert!(accepted(reader, 1).is_err(), "but it is asked for what it may have");
    assert!(accepted(unread.reader(), stranger).is_err(), "no group could be made of it");
}

#[test]
fn what_became_of_an_id_is_found_where_no_id_of_its_time_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let from_the_future = 1_000_000u128 << 64;
    let put_id = |log: &mut FileLog, number: u64, made| {
        let head = head(1, from_the_future, 0, &[0; 60]);
        let keys = IndexKeys { made, ..index(&head, &identity()) };
        log.append(number * 10, &[Entry { head: &head, body: None, index: keys }]).unwrap();
        log.sync().unwrap();
    };
    put_id(&mut log, 1, Made::At(10_000_000));
    (2..=80).for_each(|number| drop(put(&mut log, number, 60)));
    put_id(&mut log, 81, Made::Elsewhere);
    (82..=150).for_each(|number| drop(put(&mut log, number, 60)));
    let wanted = Wanted { id: from_the_future, made_at: Some(10_000_000), since: 0 };
    let at = |sequence| EntryRef { sequence, index: 0 };
    assert_eq!(log.reader().find_accepted(&wanted).unwrap(), [at(1), at(81)]);
    log.close().unwrap();
}

#[test]
fn one_id_in_many_entries_over_many_pages_is_found_whole() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1 << 20, ..Options::new(1) };
    let (mut log, _) = FileLog::open(dir.path(), &options, index).unwrap();
    let heads: Vec<Vec<u8>> =
        (0..1000u128).map(|n| head(1, if n % 2 == 0 { 42 } else { n << 64 }, 0, b"")).collect();
    let entries: Vec<Entry<'_>> = heads
        .iter()
        .map(|head| Entry { head, body: None, index: index(head, &identity()) })
        .collect();
    log.append(1, &entries).unwrap();
    log.sync().unwrap();
    let expected: Vec<EntryRef> =
        (0..500).map(|n| EntryRef { sequence: 1, index: 2 * n }).collect();
    assert_eq!(log.reader().find(42).unwrap(), expected);
    log.close().unwrap();
    let look = ReadOnly::open(dir.path(), index).unwrap();
    let mut found = look.reader().find(42).unwrap();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(look.reader().find(999 << 64).unwrap(), [EntryRef { sequence: 1, index: 999 }]);
}

#[test]
fn bodies_are_read_from_other_threads_while_the_log_rotates() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let reader = log.reader();
    std::thread::scope(|scope| {
        let (sender, bodies) = std::sync::mpsc::channel::<(u64, BodyRef)>();
        let reading = scope.spawn(move || {
            let read = |(number, body): (u64, BodyRef)| {
                assert_eq!(reader.body(&body).unwrap(), vec![number as u8; 99]);
            };
            bodies.iter().map(read).count()
        });
        for number in 0..300 {
            let appended = put(&mut log, number, 99);
            sender.send((number, appended.bodies[0].unwrap())).unwrap();
        }
        drop(sender);
        assert_eq!(reading.join().unwrap(), 300);
    });
}

#[test]
fn a_frame_larger_than_a_segment_gets_one_of_its_own_size() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    put(&mut log, 1, 10);
    let large = put(&mut log, 2, 3 << 20);
    put(&mut log, 3, 10);
    let read = log.reader().body(&large.bodies[0].unwrap()).unwrap();
    assert_eq!(read, vec![2; 3 << 20]);
    drop(log);
    let (log, _) = open(dir.path());
    assert_eq!(sequences(&log.reader()), [1, 2, 3]);
    assert_chained(&frames(&log.reader()));
}

#[test]
fn a_wrong_body_reference_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let body = put(&mut log, 1, 50).bodies[0].unwrap();
    let reader = log.reader();
    for wrong in [
        BodyRef { offset: u32::MAX, ..body },
        BodyRef { len: u32::MAX, ..body },
        BodyRef { len: 4000, ..body },
    ] {
        assert!(matches!(reader.body(&wrong), Err(ReadError::NoBody { .. })));
    }
    let wrong = BodyRef { sequence: 9, ..body };
    assert!(matches!(reader.body(&wrong), Err(ReadError::NoFrame { sequence: 9 })));
}
