//! Messages through their whole life in a store of this process, over weeks of simulated time: what
//! stays on the disk and in memory when all of them have ended. Live are the entries, which are the
//! audit log, and the bodies that are kept; compaction drops the others on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage::database::Database;
use storage::event::Event;
use storage::record::{EntryId, Status};
use storage::retention::{Keep, Retention};
use storage::store::Store;
use storage::transaction::{Act, Body, Change};

use crate::support::message::head;
use crate::support::{self, MESSAGE_BYTES, Outcome, Report, Scale, Watch, figure};

/// Messages of one decision.
const BATCH: u64 = 1_000;

/// Simulated time that all of it takes: four windows in which ids are remembered.
const SPAN_MILLIS: u64 = 32 * 24 * 60 * 60 * 1_000;

/// For how long bodies are kept: as long as ids are remembered.
const KEPT_MILLIS: u64 = SPAN_MILLIS / 4;

/// Finished ids that stay in memory, as in the programs.
const RESIDENT_MAX: usize = 1_000_000;

/// Frames that are read to learn how many bytes an entry has.
const SAMPLE_FRAMES: usize = 20;

/// Between two rounds of what the programs do every minute lies this part of all messages.
const ROUNDS: u64 = 20;

/// Runs the benchmark, or its short form.
///
/// # Errors
/// When something that is measured does not work.
pub fn measure(short: bool) -> Outcome<Report> {
    let messages = Scale::of(short).number("LOKI_BENCH_MESSAGES", 1_000_000, 4_000);
    let messages = messages.next_multiple_of(BATCH * 2);
    let folder = support::folder()?;
    let time = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&time);
    let now = Box::new(move || clock.load(Ordering::Relaxed));
    let database = Database::open(folder.path(), now, Box::new(support::say))?.0;
    database.set_retention(Retention::uniform(Keep { age: KEPT_MILLIS, bytes: u64::MAX }));
    let mut ended = Vec::new();
    let watch = Watch::start();
    let round = (messages / ROUNDS).next_multiple_of(BATCH);
    for first in (0..messages).step_by(usize::try_from(BATCH)?) {
        time.fetch_add(SPAN_MILLIS * BATCH / messages, Ordering::Relaxed);
        live(database.store(), first)?;
        ended.push(time.load(Ordering::Relaxed));
        if (first + BATCH).is_multiple_of(round) {
            database.tidy(RESIDENT_MAX)?;
            database.view().settle()?;
            database.upkeep().compact().ok_or("the store has stopped")?;
        }
    }
    let burst = watch.elapsed();
    database.view().settle()?;
    let sustained = watch.elapsed();
    let memory = support::resident_kib(None);
    let entry_bytes = entry_bytes(&database)?;
    let end = time.load(Ordering::Relaxed);
    let is_kept = |time: &&u64| **time + KEPT_MILLIS > end;
    let kept = BATCH * ended.iter().filter(is_kept).count() as u64;
    let ids = database.store().messages(|all| (all.live_len(), all.finished_len()));
    database.close()?;
    let on_disk = |name: &str| figure(support::disk_bytes(&folder.path().join(name)));
    let journal = on_disk("journal");
    let live = entry_bytes * figure(2 * messages) + figure(kept * MESSAGE_BYTES as u64);
    let mut report = Report::new("churn");
    report.row(
        &format!("{messages} messages"),
        vec![
            ("lives/s", figure(support::rate(messages, burst))),
            ("sustained/s", figure(support::rate(messages, sustained))),
            ("journal MB", journal / 1e6),
            ("journal bytes a message", journal / figure(messages)),
            ("journal bytes for each live byte", journal / live),
            ("sled bytes a message", on_disk("messages") / figure(messages)),
            ("checkpoint bytes a message", on_disk("checkpoints") / figure(messages)),
            ("bodies kept", figure(kept)),
            ("ids in memory", figure(ids.1 as u64)),
            ("MiB in memory", figure(memory) / 1_024.0),
        ],
    );
    report.note(format!(
        "Bodies of {MESSAGE_BYTES} bytes; at the end {} messages are unfinished. The journal's \
         bytes have the reserve and the spares in them. Wanted: at most 2 for each live byte.",
        ids.0
    ));
    Ok(report)
}

/// A batch is accepted, and delivered.
fn live(store: &Store, first: u64) -> Outcome<()> {
    while let Some(room) = store.room() {
        room.wait()?;
    }
    let bodies: Vec<Body> = (0..BATCH).map(|_| Body::new(&[7; MESSAGE_BYTES])).collect();
    let accepted = store.commit(move |transaction| {
        let mut entries = Vec::new();
        for (number, body) in (first..).zip(bodies) {
            let head = head(number);
            let act = Act::new(Event::MessageQueued, "loki-12345", "default", &head.message_id);
            entries.push(transaction.accept(act, head, body));
        }
        Ok::<Vec<EntryId>, &str>(entries)
    });
    let entries = accepted.wait()??;
    let delivered = store.commit(move |transaction| {
        for entry in entries {
            let live = transaction.live(entry).ok_or("an accepted message is gone")?;
            let act = Act::new(Event::MessageDelivered, "loki", "default", &live.head.message_id);
            let change = Change { status: Status::Delivered, attempts: 1, ..Change::of(&live) };
            transaction.change(act, &live, change);
        }
        Ok::<(), &str>(())
    });
    delivered.wait()??;
    Ok(())
}

/// Bytes of an entry without its body, on the average of the newest frames.
fn entry_bytes(database: &Database) -> Outcome<f64> {
    let reader = database.reader();
    let head = database.store().state(|state| state.sequence);
    let from = head.saturating_sub(SAMPLE_FRAMES as u64);
    let (mut bytes, mut entries) = (0, 0);
    for frame in reader.frames(from) {
        for entry in frame?.entries {
            bytes += entry.head.len() as u64;
            entries += 1;
        }
    }
    Ok(figure(bytes) / figure(entries.max(1)))
}
