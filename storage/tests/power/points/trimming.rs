//! A power cut while the oldest segments are removed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use powercut::{Disk, Unsynced};
use storage::database::{Database, Setup, Sizes};
use storage::event::Event;
use storage::journal::{Options, Syncer};
use storage::record::{EntryId, Status};
use storage::retention::{Keep, Retention};
use storage::transaction::{Act, Body, Change};

use super::super::life::head;
use super::{claim, kept, text};

const SIZES: Sizes = Sizes { segment_bytes: 16 << 10, reserve_bytes: 32 << 10 };

const MESSAGES: u64 = 60;

/// Everything that is finished is old.
const NOTHING: Keep = Keep { age: 0, bytes: u64::MAX };

fn open(root: &Path, syncer: &Arc<Syncer>, clock: &Arc<AtomicU64>) -> Result<Database, String> {
    let time = clock.load(Ordering::SeqCst);
    let clock = Arc::clone(clock);
    let journal = Options { syncer: Arc::clone(syncer), ..SIZES.options(time) };
    let now = Box::new(move || clock.load(Ordering::SeqCst));
    let setup = Setup::new(journal, now, Box::new(|_: &str| {}));
    let (database, report) = Database::open_with(&root.join("store"), setup).map_err(text)?;
    let damage = report.recovery.damage;
    claim(damage.is_empty(), || format!("damage: {damage:?}"))?;
    database.set_dedup_window(Duration::ZERO);
    database.set_audit_retention(Duration::ZERO);
    database.set_retention(Retention::uniform(NOTHING));
    Ok(database)
}

fn accept(database: &Database, id: &str) -> Result<EntryId, String> {
    let id = id.to_owned();
    let accepted = database.store().commit(move |tx| -> Result<_, ()> {
        let act = Act::new(Event::MessageQueued, "loki", "default", &id);
        Ok(tx.accept(act, head(&id), Body::new(&[7; 800])))
    });
    accepted.wait().map_err(text)?.map_err(|()| String::from("refused"))
}

/// Messages that are delivered as soon as they are accepted, each at a time of its own.
fn deliver(database: &Database, clock: &AtomicU64) -> Result<(), String> {
    for number in 0..MESSAGES {
        let entry = accept(database, &format!("m-{number}"))?;
        let delivered = database.store().commit(move |tx| -> Result<(), ()> {
            let live = tx.live(entry).ok_or(())?;
            let act = Act::new(Event::MessageDelivered, "loki", "default", "m");
            tx.change(act, &live, Change { status: Status::Delivered, ..Change::of(&live) });
            Ok(())
        });
        delivered.wait().map_err(text)?.map_err(|()| String::from("not there"))?;
        clock.fetch_add(1_000, Ordering::SeqCst);
    }
    Ok(())
}

pub fn what_is_kept_has_no_hole(syncer: &Arc<Syncer>) -> Result<(), String> {
    let clock = Arc::new(AtomicU64::new(1));
    let disk = Disk::mount(None).map_err(text)?;
    let database = open(disk.path(), syncer, &clock)?;
    let waits = accept(&database, "waits")?;
    deliver(&database, &clock)?;
    database.tidy(1_000).map_err(text)?;
    // It is carried forward, and then what is left is written down.
    for _ in 0..2 {
        database.view().settle().map_err(text)?;
        database.trim();
    }
    database.close().map_err(text)?;
    // Two checkpoints after what is to go.
    open(disk.path(), syncer, &clock)?.close().map_err(text)?;
    let database = open(disk.path(), syncer, &clock)?;
    let oldest = database.reader().segments().pop().map(|one| one.path().to_path_buf());
    let oldest = oldest.as_deref().and_then(Path::file_name).ok_or("no segment")?;
    database.trim();
    let first = database.reader().first_sequence();
    claim(first > 1, || "nothing was removed".into())?;
    let all_but_the_first = |_: &Path, change: Unsynced<'_>| match change {
        Unsynced::Removed(name) => name != oldest,
        _ => true,
    };
    let image = kept(&disk, all_but_the_first)?;
    let database = open(image.path(), &Arc::default(), &clock)?;
    let live = database.store().live(waits).ok_or("what waited is gone")?;
    claim(live.head.message_id == "waits", || format!("it is {live:?}"))?;
    claim(live.body.sequence >= first, || "it lies in what was dropped".into())?;
    let body = database.store().body(live.body).map_err(text)?;
    claim(body == [7; 800], || "its body is another".into())?;
    database.close().map_err(text)
}
