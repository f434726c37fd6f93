//! What a whole store does: durable enqueues by producers that wait for each answer, then a large
//! backlog accepted, opened again after a kill and after a clean stop, listed, and delivered. It
//! measures one run and judges nothing.
//!
//! Run in a directory on the disk that counts:
//! `cargo run --release -p loki-storage --example store_rate -- 1000000`. The files lie under
//! `target/store-rate` and are removed.

use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use storage::database::Database;
use storage::event::Event;
use storage::record::{Direction, EntryId, MessageHead, Reason, Status};
use storage::store::Store;
use storage::transaction::{Act, Body, Change};
use storage::view::Filter;

const BODY: [u8; 512] = [7; 512];
const BATCH: u64 = 1_000;
const RUN: Duration = Duration::from_secs(2);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |word| word.parse())?;
    let dir = Path::new("target/store-rate");
    for producers in [1, 64, 1024] {
        let _ = fs::remove_dir_all(dir);
        say(&format!("{producers} producers: {} enqueues/s", producing(dir, producers)?))?;
    }
    let _ = fs::remove_dir_all(dir);
    backlog(dir, count)?;
    Ok(fs::remove_dir_all(dir)?)
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// A measurement reads the clock.
#[derive(Clone, Copy)]
struct Watch(Instant);

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
impl Watch {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

fn open(dir: &Path) -> Outcome<Database> {
    let start = Watch::start();
    let clock = Box::new(move || 1_000 + u64::try_from(start.elapsed().as_millis()).unwrap_or(0));
    Ok(Database::open(dir, clock, Box::new(|_| {}))?.0)
}

fn head(number: u64) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: format!("0190b5c8-0000-7000-8000-{number:012x}"),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "openclaw-server".into(),
        destination: "openclaw-server".into(),
        sender: "loki-12345".into(),
        lane: String::new(),
        priority: 2,
        created_at: 1_000,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 512,
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: 0,
    }
}

fn accept(store: &Store, numbers: std::ops::Range<u64>) -> Outcome<()> {
    let bodies: Vec<Body> = numbers.clone().map(|_| Body::new(&BODY)).collect();
    let done = store.commit(move |transaction| -> Result<(), ()> {
        for (number, body) in numbers.zip(bodies) {
            let head = head(number);
            if transaction.find(&head.key()).is_none() {
                let act = Act::new(Event::MessageQueued, "loki", "default", &head.message_id);
                transaction.accept(act, head, body);
            }
        }
        Ok(())
    });
    done.wait()?.map_err(|()| "refused".into())
}

/// Enqueues a second by so many threads, each of which waits for its answer.
fn producing(dir: &Path, producers: u64) -> Outcome<u64> {
    let database = open(dir)?;
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let elapsed = thread::scope(|scope| {
        for producer in 0..producers {
            let (store, done, stop) = (database.store(), &done, &stop);
            scope.spawn(move || {
                let mut number = producer << 32;
                while !stop.load(Ordering::Relaxed) && accept(store, number..number + 1).is_ok() {
                    number += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let start = Watch::start();
        thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        start.elapsed()
    });
    database.close()?;
    let millis = u64::try_from(elapsed.as_millis())?.max(1);
    Ok(done.load(Ordering::Relaxed) * 1_000 / millis)
}

fn rate(count: u64, since: Watch) -> u64 {
    count * 1_000_000 / u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}

fn backlog(dir: &Path, count: u64) -> Outcome<()> {
    let database = open(dir)?;
    let step = (count / 10).max(BATCH);
    let start = Watch::start();
    let mut last = Watch::start();
    for number in (0..count).step_by(usize::try_from(BATCH)?) {
        while let Some(room) = database.store().room() {
            room.wait()?;
        }
        accept(database.store(), number..number + BATCH)?;
        if (number + BATCH).is_multiple_of(step) {
            let (lag, here) = (database.view().lag(), rate(step, last));
            let behind = lag.published - lag.applied;
            say(&format!("{}: {here} accepted/s, {behind} frames behind", number + BATCH))?;
            last = Watch::start();
        }
    }
    say(&format!("{count} accepted: {}/s", rate(count, start)))?;
    database.view().settle()?;
    say(&format!("with all rows written: {}/s, {}", rate(count, start), memory()?))?;
    drop(database);
    let database = reopen(dir, "after a kill")?;
    database.close()?;
    let database = reopen(dir, "after a clean stop")?;
    deliver(&database, count)?;
    let start = Watch::start();
    database.close()?;
    say(&format!("closed in {:?}", start.elapsed()))?;
    Ok(())
}

fn reopen(dir: &Path, how: &str) -> Outcome<Database> {
    let start = Watch::start();
    let database = open(dir)?;
    let opened = start.elapsed();
    let start = Watch::start();
    let taken = database.store().queues(|queues| queues.take("openclaw-server", 2_000, 1));
    let first = start.elapsed();
    database.store().queues(|queues| queues.release("openclaw-server", &taken));
    let start = Watch::start();
    let page = database.view().list(&Filter { limit: 50, ..Filter::default() })?;
    let listed = start.elapsed();
    let rows = page.rows.len();
    say(&format!(
        "open {how} {opened:?}, first message {first:?}, list of {rows} {listed:?}, {}",
        memory()?
    ))?;
    Ok(database)
}

fn deliver(database: &Database, count: u64) -> Outcome<()> {
    let store = database.store();
    let start = Watch::start();
    for _ in (0..count).step_by(usize::try_from(BATCH)?) {
        let limit = usize::try_from(BATCH)?;
        let taken = store.queues(|queues| queues.take("openclaw-server", 1 << 40, limit));
        settle(store, taken)?;
    }
    say(&format!("{count} delivered: {}/s", rate(count, start)))?;
    database.view().settle()?;
    say(&format!("with all rows written: {}/s, {}", rate(count, start), memory()?))?;
    Ok(())
}

fn settle(store: &Store, entries: Vec<EntryId>) -> Outcome<()> {
    let done = store.commit(move |transaction| -> Result<(), ()> {
        for entry in entries {
            let live = transaction.live(entry).ok_or(())?;
            let act = Act::new(Event::MessageDelivered, "loki", "default", &live.head.message_id);
            let change = Change { status: Status::Delivered, attempts: 1, ..Change::of(&live) };
            transaction.change(act, &live, change);
        }
        Ok(())
    });
    done.wait()?.map_err(|()| "gone".into())
}

/// What the system says that this process has in memory.
fn memory() -> io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(format!("{} MiB in memory", kib.unwrap_or(0) / 1024))
}
