//! A store with damage: it is named by frame and by message, kept aside, told of once, and what is
//! sound goes on.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use storage::database::{Database, Report, Setup};
use storage::event::Event;
use storage::inspect::{AuditFilter, Inspect, check};
use storage::journal::{DamageReason, Options};
use storage::record::{Direction, MessageHead, Reason, Status};
use storage::transaction::{Act, Body, Change};
use storage::view::Filter;
use tempfile::TempDir;

const NOW: u64 = 1_000_000;
const MESSAGES: u64 = 60;

fn open(dir: &Path) -> (Database, Report) {
    let journal = Options { segment_bytes: 16 << 10, reserve_bytes: 32 << 10, ..Options::new(NOW) };
    let setup = Setup::new(journal, Box::new(|| NOW), Box::new(|_| {}));
    Database::open_with(dir, setup).unwrap()
}

fn head(id: &str) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: "server".into(),
        sender: "loki".into(),
        lane: String::new(),
        priority: 2,
        created_at: NOW,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 300,
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: NOW,
    }
}

/// Accepts so many messages, a frame each, and delivers every second one, some frames later.
fn fill(database: &Database, prefix: &str) {
    let mut waiting = std::collections::VecDeque::new();
    for number in 0..MESSAGES {
        let id = format!("{prefix}-{number:02}");
        let done = database.store().commit(move |transaction| -> Result<_, ()> {
            let act = Act::new(Event::MessageQueued, "loki", "default", &id);
            Ok((transaction.accept(act, head(&id), Body::new(&[7; 300])), id))
        });
        let (entry, id) = done.wait().unwrap().unwrap();
        if number % 2 == 0 {
            waiting.push_back((entry, id));
        }
        if waiting.len() > 4 {
            let (entry, id) = waiting.pop_front().unwrap();
            let done = database.store().commit(move |transaction| -> Result<(), ()> {
                let live = transaction.live(entry).unwrap();
                let act = Act::new(Event::MessageDelivered, "server", "default", &id);
                let change = Change { status: Status::Delivered, ..Change::of(&live) };
                transaction.change(act, &live, change);
                Ok(())
            });
            done.wait().unwrap().unwrap();
        }
    }
}

/// A store that was stopped cleanly, without its checkpoints, so that opening reads all of it.
fn stopped() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (database, _) = open(dir.path());
    fill(&database, "message");
    database.close().unwrap();
    fs::remove_dir_all(dir.path().join("checkpoints")).unwrap();
    dir
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("journal")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    // Spares are zeros.
    found.retain(|path| fs::read(path).unwrap()[0] != 0);
    found.sort();
    found
}

/// Where each frame of a segment begins and ends, and its sequence.
fn frames(file: &Path) -> Vec<(usize, usize, u64)> {
    let bytes = fs::read(file).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut found) = (4096, Vec::new());
    while bytes[at..].starts_with(b"LKFR") {
        let len = (96 + number(at + 48) + number(at + 52)).next_multiple_of(8);
        let sequence = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().unwrap());
        found.push((at, at + len, sequence));
        at += len;
    }
    found
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// The message that the entries of a frame are about.
fn subject(dir: &Path, sequence: u64) -> String {
    let look = Inspect::open(dir).unwrap();
    let all = look.audit(&AuditFilter::default()).unwrap().entries;
    let one = all.iter().find(|one| one.entry.sequence == sequence).unwrap();
    one.record.resource.to_string()
}

fn told(dir: &Path) -> Vec<String> {
    let events = vec!["store.damage".to_owned()];
    let look = Inspect::open(dir).unwrap();
    let page = look.audit(&AuditFilter { events, ..AuditFilter::default() }).unwrap();
    page.entries.iter().map(|one| one.record.resource.to_string()).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let look = Inspect::open(dir).unwrap();
    let page = look.list(&Filter { limit: 1_000, ..Filter::default() });
    page.rows.into_iter().map(|row| row.message_id).collect()
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_named_kept_and_told_of_once() {
    let dir = stopped();
    let file = segments(dir.path()).remove(1);
    let (start, end, sequence) = frames(&file)[4];
    let id = subject(dir.path(), sequence);
    assert!(check(dir.path(), true).unwrap().is_sound());
    let before = fs::read(&file).unwrap();
    flip(&file, start + 120);
    let checked = check(dir.path(), true).unwrap();
    let [damage] = &checked.damage[..] else { panic!("{checked:?}") };
    assert_eq!((damage.offset, damage.len), (start as u64, (end - start) as u64));
    assert_eq!(
        (damage.first, damage.last, damage.reason),
        (sequence, sequence, DamageReason::Frame)
    );
    assert_eq!(checked.touched.ids.iter().collect::<Vec<_>>(), [&id]);
    assert_eq!((checked.is_sound(), checked.touched.unnamed), (false, 0));

    let (database, report) = open(dir.path());
    assert_eq!(report.new_damage.len(), 1);
    assert_eq!(report.touched.ids.iter().collect::<Vec<_>>(), [&id]);
    let [copy] = &report.recovery.quarantined[..] else { panic!("{report:?}") };
    let mut expected = before[start..end].to_vec();
    expected[120] ^= 1;
    assert_eq!(fs::read(copy).unwrap(), expected);
    fill(&database, "later");
    database.close().unwrap();
    let segment = file.file_name().unwrap().to_str().unwrap();
    assert_eq!(told(dir.path()), [id.as_str(), segment]);
    fs::remove_dir_all(dir.path().join("checkpoints")).unwrap();
    let (database, report) = open(dir.path());
    assert_eq!((report.recovery.damage.len(), report.new_damage.len()), (1, 0));
    database.close().unwrap();
    assert_eq!(told(dir.path()).len(), 2, "it is told of once");
    assert!(names(dir.path()).len() as u64 >= 2 * MESSAGES - 1);
    assert_eq!(check(dir.path(), false).unwrap().damage.len(), 1, "and still named");
}

#[test]
fn a_missing_segment_is_named_by_its_frames_and_the_rest_goes_on() {
    let dir = stopped();
    let files = segments(dir.path());
    let missing = frames(&files[2]);
    let (first, last) = (missing[0].2, missing[missing.len() - 1].2);
    let kept: Vec<String> = names(dir.path());
    fs::remove_file(&files[2]).unwrap();
    let checked = check(dir.path(), false).unwrap();
    let [damage] = &checked.damage[..] else { panic!("{checked:?}") };
    assert_eq!((damage.first, damage.last, damage.reason), (first, last, DamageReason::Missing));
    // A message that was accepted there and changed later is known by that change.
    assert!(!checked.touched.ids.is_empty(), "{checked:?}");
    assert!(checked.touched.ids.iter().all(|id| kept.contains(id)));
    for start in 1..=2 {
        let (database, report) = open(dir.path());
        assert_eq!(report.recovery.damage.len(), 1);
        assert_eq!(report.new_damage.len(), usize::from(start == 1), "it is told of once");
        database.close().unwrap();
        let _ = fs::remove_dir_all(dir.path().join("checkpoints"));
    }
    assert!(names(dir.path()).len() < kept.len());
}

#[test]
fn a_truncated_segment_keeps_what_is_whole() {
    let dir = stopped();
    let file = segments(dir.path()).remove(1);
    let places = frames(&file);
    let (cut, whole) = (places[6].0 + 50, 6);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..cut]).unwrap();
    let checked = check(dir.path(), false).unwrap();
    let (first, last) = (places[whole].2, places[places.len() - 1].2);
    let frames: Vec<_> = checked.damage.iter().filter(|one| one.first <= one.last).collect();
    assert_eq!(frames.len(), 1, "{checked:?}");
    assert_eq!((frames[0].first, frames[0].last), (first, last));
    let (database, report) = open(dir.path());
    assert_eq!((report.new_damage[0].first, report.new_damage[0].last), (first, last));
    assert!(database.reader().frame(places[whole - 1].2).is_ok());
    assert!(database.reader().frame(first).is_err());
    database.close().unwrap();
    let again = check(dir.path(), false).unwrap();
    assert!(again.damage.iter().any(|one| (one.first, one.last) == (first, last)), "{again:?}");
}

#[test]
fn a_segment_of_another_history_is_set_aside_under_its_own_name() {
    let dir = stopped();
    // The same store goes on twice, from here.
    let twin = tempfile::tempdir().unwrap();
    copy(dir.path(), twin.path());
    for (dir, prefix) in [(dir.path(), "mine"), (twin.path(), "twin")] {
        let (database, _) = open(dir);
        fill(&database, prefix);
        database.close().unwrap();
    }
    let foreign = segments(twin.path()).pop().unwrap();
    let number = segments(dir.path()).len() + 20;
    let name = format!("segment-{number:010}.log");
    let mut bytes = fs::read(&foreign).unwrap();
    renumber(&mut bytes, number as u64);
    fs::write(dir.path().join("journal").join(&name), &bytes).unwrap();
    let (before, checked) = (names(dir.path()), check(dir.path(), false).unwrap());
    assert!(!checked.is_sound());
    let (database, report) = open(dir.path());
    assert_eq!(report.new_damage[0].reason, DamageReason::Chain);
    database.close().unwrap();
    assert_eq!(fs::read(dir.path().join("journal/quarantine").join(&name)).unwrap(), bytes);
    assert!(told(dir.path()).contains(&name));
    assert_eq!(names(dir.path()), before);
    assert!(names(dir.path()).iter().all(|id| !id.starts_with("twin")));
}

#[test]
fn content_that_is_not_what_was_accepted_is_named_when_asked_for() {
    let dir = stopped();
    let file = segments(dir.path()).remove(1);
    let mut bytes = fs::read(&file).unwrap();
    let has_body = |(start, ..): &&(usize, usize, u64)| bytes[start + 52..start + 56] != [0; 4];
    let (start, end, sequence) = *frames(&file).iter().find(has_body).unwrap();
    // The last bytes of a frame that has a body are the body, and padding.
    bytes[end - 20] ^= 1;
    let sum =
        crc32c::crc32c_append(crc32c::crc32c(&bytes[start..start + 92]), &bytes[start + 96..end]);
    bytes[start + 92..start + 96].copy_from_slice(&sum.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    assert!(check(dir.path(), false).unwrap().is_sound());
    let checked = check(dir.path(), true).unwrap();
    let [(entry, id)] = &checked.bad_bodies[..] else { panic!("{checked:?}") };
    assert_eq!((entry.sequence, id), (sequence, &subject(dir.path(), sequence)));
    assert_eq!(checked.bodies, MESSAGES);
}

/// Gives a sealed segment another number, in its header and its footer.
fn renumber(bytes: &mut [u8], number: u64) {
    put_number(bytes, number, (48, 0, 124));
    let tail = bytes.len() - 40;
    let footer = u64::from_le_bytes(bytes[tail + 16..tail + 24].try_into().unwrap());
    let footer = usize::try_from(footer).unwrap();
    put_number(bytes, number, (footer + 40, footer, footer + 268));
}

fn put_number(bytes: &mut [u8], number: u64, (at, from, sum_at): (usize, usize, usize)) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[from..sum_at]);
    bytes[sum_at..sum_at + 4].copy_from_slice(&sum.to_le_bytes());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}
