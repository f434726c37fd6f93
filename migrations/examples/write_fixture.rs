//! Writes the stores that `fixtures` keeps of a format, with the program of that format: run once
//! before a format changes, and never again for it. `cargo run -p loki-migrations --example
//! write_fixture -- FOLDER` makes `FOLDER/clean` and `FOLDER/killed`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage::database::{Database, Setup};
use storage::event::Event;
use storage::journal::Options;
use storage::record::{Direction, EntityKey, EntryId, Kind, Level, MessageHead, Reason, Status};
use storage::transaction::{Act, Body, Change, Transaction};

/// Messages that a store gets; every third of them stays pending, every tenth fails.
const MESSAGES: u64 = 90;
/// Small segments, so that a small store has several.
const SEGMENT_BYTES: u64 = 16 << 10;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let folder = std::env::args().nth(1).ok_or("name the folder")?;
    let folder = PathBuf::from(folder);
    let clean = folder.join("clean");
    write(&clean)?.close()?;
    let killed = folder.join("killed");
    drop(write(&killed)?);
    for store in [&clean, &killed] {
        // The rows are derived, and the spares are zeros: both are made again.
        fs::remove_dir_all(store.join("messages"))?;
        fs::remove_file(store.join("journal").join("lock"))?;
        remove_spares(&store.join("journal"))?;
    }
    Ok(())
}

fn write(dir: &Path) -> Outcome<Database> {
    let time = Arc::new(AtomicU64::new(1_760_000_000_000));
    let now = Box::new(move || time.fetch_add(1_000, Ordering::Relaxed));
    let journal = Options { segment_bytes: SEGMENT_BYTES, ..Options::new(1_760_000_000_000) };
    let setup = Setup { journal, boot: "a boot".into(), now, fatal: Box::new(|_| {}) };
    let (database, _) = Database::open_with(dir, setup)?;
    for number in 0..MESSAGES {
        let done = database
            .store()
            .commit(move |transaction| -> Result<EntryId, ()> { Ok(accept(transaction, number)) });
        let entry = done.wait()?.map_err(|()| "refused")?;
        let done = database.store().commit(move |transaction| -> Result<(), ()> {
            finish(transaction, number, entry);
            Ok(())
        });
        done.wait()?.map_err(|()| "refused")?;
    }
    Ok(database)
}

fn accept(transaction: &mut Transaction<'_>, number: u64) -> EntryId {
    let id = format!("message-{number:03}");
    let actor = format!("agent-{}", number % 3);
    if number.is_multiple_of(7) {
        let act = Act::new(Event::MessageDuplicate, &actor, "default", &id).level(Level::Warning);
        transaction.note(act.details(r#"{"cause":"it came twice"}"#.into()));
    }
    let key = EntityKey::new(Kind::State, &["default", &format!("key/{}", number % 5)]);
    let act = Act::new(Event::StateSync, &actor, "default", "key");
    transaction.put(act, key, number.to_string().into_bytes());
    let act = Act::new(Event::MessageQueued, &actor, "default", &id);
    transaction.accept(act, head(&id, &actor), Body::new(format!("body {number}").as_bytes()))
}

fn finish(transaction: &mut Transaction<'_>, number: u64, entry: EntryId) {
    let id = format!("message-{number:03}");
    let Some(live) = transaction.live(entry) else { return };
    if number.is_multiple_of(10) {
        let act = Act::new(Event::MessageFailed, "server", "default", &id).level(Level::Error);
        let change = Change {
            status: Status::Failed,
            reason: Reason::Permanent,
            attempts: 2,
            error: "the peer refused it".into(),
            ..Change::of(&live)
        };
        transaction.change(act, &live, change);
    } else if !number.is_multiple_of(3) {
        let act = Act::new(Event::MessageDelivered, "server", "default", &id);
        let change = Change { status: Status::Delivered, attempts: 1, ..Change::of(&live) };
        transaction.change(act, &live, change);
    }
}

fn head(id: &str, sender: &str) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "openclaw-server".into(),
        destination: "openclaw-server".into(),
        sender: sender.into(),
        lane: String::new(),
        priority: 2,
        created_at: 1_760_000_000_000,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 7,
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: 0,
    }
}

fn remove_spares(journal: &Path) -> Outcome<()> {
    for entry in fs::read_dir(journal)? {
        let path = entry?.path();
        if path.is_file() && fs::read(&path)?.iter().all(|byte| *byte == 0) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
