//! One message among many is found by its id, and what that reads does not grow with the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage::database::{Database, Setup};
use storage::event::Event;
use storage::inspect::{self, Inspect};
use storage::journal::Options;
use storage::record::{Direction, MessageHead, Reason, Status};
use storage::store::Store;
use storage::transaction::{Act, Body, Change};
use storage::view::{Filter, Row};

const START: u64 = 1_790_000_000_000;
const MESSAGES: u64 = 3_000;
const SEGMENT_BYTES: u64 = 128 << 10;

/// The id of a message that was made at a time: most tell it, as ours do.
fn id(number: u64) -> String {
    match number % 10 {
        0 => format!("order-{number}"),
        // Another message of the same id.
        1 => id(number + 2),
        _ => {
            let time = format!("{:012x}", START + number * 1_000);
            format!("{}-{}-7000-8000-{number:012x}", &time[..8], &time[8..])
        }
    }
}

fn head(number: u64) -> MessageHead {
    let direction = if number % 10 == 1 { Direction::Inbound } else { Direction::Outbound };
    MessageHead {
        direction,
        message_id: id(number),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: "server".into(),
        sender: "loki".into(),
        lane: String::new(),
        priority: 2,
        created_at: START + number * 1_000,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 300,
        digest: [0; 32],
        status: if number % 10 == 1 { Status::Received } else { Status::Pending },
        reason: Reason::None,
        due_at: 0,
    }
}

/// Accepts messages, and delivers most of those that were accepted a hundred before.
fn fill(store: &Store, clock: &AtomicU64) {
    let mut entries = Vec::new();
    for first in (0..MESSAGES).step_by(20) {
        clock.store(START + first * 1_000, Ordering::SeqCst);
        let older: Vec<_> = entries.iter().rev().skip(100).take(20).copied().collect();
        let done = store.commit(move |transaction| -> Result<Vec<_>, ()> {
            let accepted = (first..first + 20).map(|number| {
                let act = Act::new(Event::MessageQueued, "loki", "default", &id(number));
                transaction.accept(act, head(number), Body::new(&[7; 300]))
            });
            let accepted = accepted.collect();
            for entry in older {
                let live = transaction.live(entry).ok_or(())?;
                if live.head.direction == Direction::Outbound && entry.index % 4 != 0 {
                    let id = live.head.message_id.clone();
                    let act = Act::new(Event::MessageDelivered, "server", "default", &id);
                    let change = Change { status: Status::Delivered, ..Change::of(&live) };
                    transaction.change(act, &live, change);
                }
            }
            Ok(accepted)
        });
        entries.extend(done.wait().expect("durable").expect("decided"));
    }
}

/// Bytes that this process has read; `None` where the system does not tell.
fn read_so_far() -> Option<u64> {
    let told = fs::read_to_string("/proc/self/io").ok()?;
    told.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

fn journal_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("journal")).expect("the journal");
    files.map(|file| file.expect("a file").metadata().expect("a size").len()).sum()
}

#[test]
fn one_message_is_found_without_reading_the_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(AtomicU64::new(START));
    let mut options = Options::new(START);
    (options.segment_bytes, options.reserve_bytes) = (SEGMENT_BYTES, 0);
    let wall = Arc::clone(&clock);
    let now = Box::new(move || wall.load(Ordering::SeqCst));
    let setup = Setup::new(options, now, Box::new(|_| {}));
    let (database, _) = Database::open_with(dir.path(), setup).expect("opens");
    fill(database.store(), &clock);
    let running: Vec<Row> = inspect::find(database.reader(), &id(MESSAGES - 1));
    assert_eq!(running, database.view().get(&id(MESSAGES - 1)).expect("reads"));
    database.close().expect("closes");

    let look = Inspect::open(dir.path()).expect("opens");
    let mut known: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    look.each(&Filter { status: Status::ALL.to_vec(), ..Filter::default() }, &mut |row| {
        known.entry(row.message_id.clone()).or_default().push(row.clone());
    });
    assert_eq!(known.values().map(Vec::len).sum::<usize>() as u64, MESSAGES);
    for number in (0..MESSAGES).step_by(37).chain([9, 11, 1_009, 1_011]) {
        let id = id(number);
        assert_eq!(look.get(&id), known[&id], "{number}");
    }
    assert_eq!(known[&id(1_011)].len(), 2, "two messages have this id");
    let other = id(1_007).replace("7000", "7001");
    assert!(look.get(&other).is_empty() && look.get("order-7").is_empty());

    let segments = look.reader().segments().len();
    let asked = look.reader().accepting(Some(START + MESSAGES / 2 * 1_000)).len();
    assert!(segments > 10 && asked <= 2, "{asked} of {segments} segments");
    let Some(before) = read_so_far() else { return };
    let fresh = Inspect::open(dir.path()).expect("opens");
    let opened = read_so_far().expect("as before") - before;
    assert_eq!(fresh.get(&id(1_504)).len(), 1);
    let read = read_so_far().expect("as before") - before - opened;
    let all = journal_bytes(dir.path());
    assert!(read * 5 < all, "read {read} of {all} bytes, and {opened} to open");
}
