//! A power cut after segments were written anew.

use std::sync::Arc;

use powercut::Disk;
use storage::database::{Database, Report, Setup, Sizes};
use storage::event::Event;
use storage::journal::{Options, ReadError, Syncer};
use storage::messages::BodyPlace;
use storage::record::Status;
use storage::retention::{Keep, Retention};
use storage::transaction::{Act, Body, Change};
use storage::view::Filter;

use super::super::life::head;
use super::{claim, kept, nothing, text};

const SIZES: Sizes = Sizes { segment_bytes: 64 << 10, reserve_bytes: 128 << 10 };

const MESSAGES: u64 = 100;

const BODY_BYTES: usize = 2_000;

/// Everything that is finished is dead.
const NOTHING: Keep = Keep { age: 0, bytes: u64::MAX };

fn open(root: &std::path::Path, syncer: &Arc<Syncer>) -> Result<(Database, Report), String> {
    let journal = Options { syncer: Arc::clone(syncer), ..SIZES.options(1) };
    let setup = Setup::new(journal, Box::new(|| 1), Box::new(|_: &str| {}));
    Database::open_with(&root.join("store"), setup).map_err(text)
}

/// Messages that are delivered as soon as they are accepted, each in frames of its own.
fn deliver(database: &Database) -> Result<(), String> {
    for number in 0..MESSAGES {
        let id = format!("m-{number}");
        let accepted = database.store().commit(move |tx| -> Result<_, ()> {
            let act = Act::new(Event::MessageQueued, "loki", "default", &id);
            Ok(tx.accept(act, head(&id), Body::new(&[7; BODY_BYTES])))
        });
        let entry = accepted.wait().map_err(text)?.map_err(|()| String::from("refused"))?;
        let delivered = database.store().commit(move |tx| -> Result<(), ()> {
            let live = tx.live(entry).ok_or(())?;
            let act = Act::new(Event::MessageDelivered, "loki", "default", "m");
            tx.change(act, &live, Change { status: Status::Delivered, ..Change::of(&live) });
            Ok(())
        });
        delivered.wait().map_err(text)?.map_err(|()| String::from("not there"))?;
    }
    Ok(())
}

/// Where the bodies of all messages lie.
fn bodies(database: &Database) -> Result<Vec<BodyPlace>, String> {
    let rows = database.view().list(&Filter::default()).map_err(text)?.rows;
    Ok(rows.iter().map(|row| row.body).collect())
}

fn gone(database: &Database, bodies: &[BodyPlace]) -> usize {
    let is_gone =
        |body: &&BodyPlace| matches!(database.store().body(**body), Err(ReadError::NoBody { .. }));
    bodies.iter().filter(is_gone).count()
}

pub fn what_was_compacted_is_whole_and_stays_so(syncer: &Arc<Syncer>) -> Result<(), String> {
    let disk = Disk::mount(None).map_err(text)?;
    let (database, _) = open(disk.path(), syncer)?;
    deliver(&database)?;
    let places = bodies(&database)?;
    database.set_retention(Retention::uniform(NOTHING));
    let freed = database.upkeep().compact().ok_or("the store has stopped")?;
    let before = gone(&database, &places);
    claim(freed.segments > 0 && before > 0, || "no body is gone".into())?;
    let image = kept(&disk, nothing)?;
    let (again, report) = open(image.path(), &Arc::default())?;
    let damage = &report.recovery.damage;
    claim(damage.is_empty(), || format!("a compacted segment is damaged: {damage:?}"))?;
    let after = gone(&again, &places);
    claim(after == before, || format!("of {before} bodies that were gone {after} are"))
}
