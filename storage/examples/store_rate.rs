//! What a whole store does: durable enqueues by producers that wait for each answer, then a large
//! backlog accepted, opened again after a kill and after a clean stop, listed, and delivered. It
//! measures one run and judges nothing.
//!
//! Each step of the backlog is a process of its own, so that its memory is that of the step. A word
//! after the number chooses what the messages are: `plain`, `lanes` (each has an ordering key of
//! its own) or `late` (none is due for a day).
//!
//! Run in a directory on the disk that counts:
//! `cargo run --release -p loki-storage --example store_rate -- 1000000`. The files lie under
//! `target/store-rate` and are removed.

use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
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
const DAY: u64 = 24 * 60 * 60 * 1_000;
const RUN: Duration = Duration::from_secs(2);

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What the messages of the backlog are.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    Plain,
    Lanes,
    Late,
}

impl Load {
    fn parse(word: Option<&str>) -> Outcome<Self> {
        match word {
            None | Some("plain") => Ok(Self::Plain),
            Some("lanes") => Ok(Self::Lanes),
            Some("late") => Ok(Self::Late),
            Some(other) => Err(format!("{other} is none of plain, lanes, late").into()),
        }
    }
}

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| words.get(at).map(String::as_str);
    let count: u64 = word(0).map_or(Ok(1_000_000), str::parse)?;
    let load = Load::parse(word(1))?;
    let dir = Path::new("target/store-rate");
    match word(2) {
        None => {}
        Some("fill") => fill(dir, count, load)?,
        Some("deliver") => deliver(dir, count)?,
        Some(how) => look(dir, how, count)?,
    }
    if words.len() > 2 {
        return Ok(());
    }
    for producers in [1, 64, 1024] {
        let _ = fs::remove_dir_all(dir);
        say(&format!("{producers} producers: {} enqueues/s", producing(dir, producers)?))?;
    }
    let _ = fs::remove_dir_all(dir);
    let (count, load) = (count.to_string(), word(1).unwrap_or("plain"));
    for step in ["fill", "after a kill", "after a clean stop", "deliver"] {
        let this = std::env::current_exe()?;
        let ended = Command::new(this).args([&count, load, step]).status()?;
        // The first step ends as by a kill.
        if step != "fill" && !ended.success() {
            return Err(format!("{step}: {ended}").into());
        }
    }
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

fn head(number: u64, load: Load) -> MessageHead {
    let lane = if load == Load::Lanes { format!("task-{number}") } else { String::new() };
    MessageHead {
        direction: Direction::Outbound,
        message_id: format!("0190b5c8-0000-7000-8000-{number:012x}"),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "openclaw-server".into(),
        destination: "openclaw-server".into(),
        sender: "loki-12345".into(),
        lane,
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
        due_at: if load == Load::Late { DAY } else { 0 },
    }
}

fn accept(store: &Store, numbers: std::ops::Range<u64>, load: Load) -> Outcome<()> {
    let bodies: Vec<Body> = numbers.clone().map(|_| Body::new(&BODY)).collect();
    let done = store.commit(move |transaction| -> Result<(), ()> {
        for (number, body) in numbers.zip(bodies) {
            let head = head(number, load);
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
                while !stop.load(Ordering::Relaxed)
                    && accept(store, number..number + 1, Load::Plain).is_ok()
                {
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

/// Accepts the backlog, and ends as by a kill.
fn fill(dir: &Path, count: u64, load: Load) -> Outcome<()> {
    let database = open(dir)?;
    let step = (count / 10).max(BATCH);
    let start = Watch::start();
    let mut last = Watch::start();
    for number in (0..count).step_by(usize::try_from(BATCH)?) {
        while let Some(room) = database.store().room() {
            room.wait()?;
        }
        accept(database.store(), number..number + BATCH, load)?;
        if (number + BATCH).is_multiple_of(step) {
            let (lag, here) = (database.view().lag(), rate(step, last));
            let behind = lag.published - lag.applied;
            say(&format!("{}: {here} accepted/s, {behind} frames behind", number + BATCH))?;
            last = Watch::start();
        }
    }
    say(&format!("{count} accepted: {}/s", rate(count, start)))?;
    database.view().settle()?;
    say(&format!("with all rows written: {}/s, {} MiB", rate(count, start), memory()? >> 20))?;
    std::process::abort()
}

/// Opens the store in a process that did nothing else, looks at it as a program does, and closes
/// it.
fn look(dir: &Path, how: &str, count: u64) -> Outcome<()> {
    let before = memory()?;
    let start = Watch::start();
    let database = open(dir)?;
    let opened = start.elapsed();
    let resident = memory()?;
    let store = database.store();
    let start = Watch::start();
    let taken = store.queues(|queues| queues.take("openclaw-server", 2_000, 64));
    let lives = store.lives(&taken);
    let bodies: Result<Vec<_>, _> = lives.iter().map(|live| store.body(live.body)).collect();
    let (first, found) = (start.elapsed(), bodies?.len());
    store.queues(|queues| queues.release("openclaw-server", &taken));
    let start = Watch::start();
    let rows = database.view().list(&Filter { limit: 50, ..Filter::default() })?.rows.len();
    let listed = start.elapsed();
    let start = Watch::start();
    let oldest = store.messages(|messages| {
        let waits = |status| matches!(status, Status::Pending | Status::Sending);
        let oldest = messages.iter().find(|one| waits(one.status)).map(|one| one.created_at);
        (messages.counts().values().sum::<u64>(), oldest)
    });
    let counted = start.elapsed();
    let each = resident.saturating_sub(before) / oldest.0.max(1);
    say(&format!(
        "open {how} {opened:?}, {} MiB ({each} bytes a message), first {found} heads with bodies \
         {first:?}, list of {rows} {listed:?}, counts and oldest of {} {counted:?}",
        resident >> 20,
        oldest.0,
    ))?;
    if oldest.0 != count {
        return Err(format!("{count} were accepted").into());
    }
    let again = (0..20).map(|_| {
        let start = Watch::start();
        database.view().list(&Filter { limit: 50, ..Filter::default() }).map(|_| start.elapsed())
    });
    let slowest = again.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or_default();
    database.view().settle()?;
    say(&format!(
        "  slowest of 20 lists {slowest:?}, {} MiB when all rows are written",
        memory()? >> 20
    ))?;
    Ok(database.close()?)
}

fn deliver(dir: &Path, count: u64) -> Outcome<()> {
    let database = open(dir)?;
    let store = database.store();
    let start = Watch::start();
    for _ in (0..count).step_by(usize::try_from(BATCH)?) {
        let limit = usize::try_from(BATCH)?;
        let taken = store.queues(|queues| queues.take("openclaw-server", 1 << 40, limit));
        settle(store, taken)?;
    }
    say(&format!("{count} delivered: {}/s", rate(count, start)))?;
    database.view().settle()?;
    say(&format!("with all rows written: {}/s, {} MiB", rate(count, start), memory()? >> 20))?;
    let start = Watch::start();
    database.close()?;
    say(&format!("closed in {:?}", start.elapsed()))?;
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

/// Bytes that the system says that this process has in memory.
fn memory() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}
