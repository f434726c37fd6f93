//! Durable enqueues into a store of this process by 1, 64 and 1,024 producers, each of which waits
//! for its answer before it goes on, beside the floor of the disk. A producer is a task, as in the
//! programs. *Burst* ends with the last answer, *sustained* when every row is in sled.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::message::head;
use crate::support::{self, MESSAGE_BYTES, Outcome, Report, Scale, Watch, figure, floor, percent};
use storage::database::Database;
use storage::event::Event;
use storage::store::Store;
use storage::transaction::{Act, Body};
use tokio::task::JoinSet;

/// The numbers of producers, and the share of the floor that each is meant to reach, in percent.
const PRODUCERS: [(u64, f64); 3] = [(1, 80.0), (64, 60.0), (1_024, 30.0)];

/// Messages that the store has seen before the clock starts, so that nothing is measured cold.
const WARM_UP_MESSAGES: u64 = 2;

/// The answers that one producer got, and how long each took in microseconds.
type Times = Vec<u64>;

/// Runs the benchmark, or its short form.
///
/// # Errors
/// When something that is measured does not work.
pub fn measure(short: bool) -> Outcome<Report> {
    let scale = Scale::of(short);
    let run = Duration::from_millis(scale.number("LOKI_BENCH_MILLIS", 5_000, 100));
    let mut report = Report::new("enqueue");
    let floor_run = Duration::from_millis(scale.pick(2_000, 50));
    let sync_micros = floor::sync_micros(support::folder()?.path(), floor_run)?;
    for (producers, wanted) in PRODUCERS {
        let floor = floor::measure(support::folder()?.path(), producers, floor_run)?;
        let folder = support::folder()?;
        let done = producing(folder.path(), producers, run)?;
        let mut times = done.times;
        let answers = times.len() as u64;
        let burst = support::rate(answers, done.burst);
        let p99 = support::percentile(&mut times, 99);
        let figures = vec![
            ("floor/s", figure(floor.rate)),
            ("burst/s", figure(burst)),
            ("% of floor", percent(burst, floor.rate)),
            ("wanted %", wanted),
            ("sustained/s", figure(support::rate(answers, done.sustained))),
            ("p50 us", figure(support::percentile(&mut times, 50))),
            ("p99 us", figure(p99)),
            ("floor p99 us", figure(floor.p99_micros)),
            ("p99 in fdatasyncs", figure(p99) / sync_micros.max(1.0)),
            ("CPU us a message", figure(done.processor) / figure(answers.max(1))),
        ];
        report.row(&format!("{producers} producers"), figures);
    }
    report.note(format!(
        "Messages of {MESSAGE_BYTES} bytes. A write of one with its fdatasync takes \
         {sync_micros} us here."
    ));
    Ok(report)
}

struct Done {
    times: Times,
    burst: Duration,
    sustained: Duration,
    processor: u64,
}

fn producing(dir: &Path, producers: u64, run: Duration) -> Outcome<Done> {
    let begun = Watch::start();
    let clock = Box::new(move || 1_000 + begun.micros() / 1_000);
    let database = Database::open(dir, clock, Box::new(support::say))?.0;
    let store = database.store().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let done: Outcome<Done> = runtime.block_on(async {
        for number in 0..WARM_UP_MESSAGES {
            accept(&store, u64::MAX - number).await?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let before = support::processor_micros(None);
        let begun = Watch::start();
        let mut tasks = JoinSet::new();
        for producer in 0..producers {
            tasks.spawn(produce(store.clone(), producer << 32, Arc::clone(&stop)));
        }
        tokio::time::sleep(run).await;
        stop.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            times.extend(ended??);
        }
        let burst = begun.elapsed();
        database.view().settle()?;
        let sustained = begun.elapsed();
        let processor = support::processor_micros(None) - before;
        Ok(Done { times, burst, sustained, processor })
    });
    database.close()?;
    done
}

async fn produce(store: Store, first: u64, stop: Arc<AtomicBool>) -> Outcome<Times> {
    let mut times = Vec::new();
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        while let Some(room) = store.room() {
            room.await?;
        }
        let one = Watch::start();
        accept(&store, number).await?;
        times.push(one.micros());
        number += 1;
    }
    Ok(times)
}

/// Accepts one message, unless its id is known.
async fn accept(store: &Store, number: u64) -> Outcome<()> {
    let body = Body::new(&[7; MESSAGE_BYTES]);
    let head = head(number);
    let accepted = store.commit(move |transaction| {
        if transaction.find(&head.key()).is_some() {
            return Err("the id is known");
        }
        let act = Act::new(Event::MessageQueued, "loki-12345", "default", &head.message_id);
        Ok(transaction.accept(act, head, body))
    });
    accepted.await??;
    Ok(())
}
