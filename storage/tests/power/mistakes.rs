//! The likeliest mistake of a durable store: acting on what is not durable. A repeated message is
//! acknowledged because it is known, so that it must not be known from the page cache alone.

use std::sync::Arc;

use powercut::Disk;
use storage::database::{Database, OpenError, Setup};
use storage::event::Event;
use storage::journal::{Options, SyncFault, SyncPoint, Syncer};
use storage::transaction::{Act, Body};

use super::life::head;
use super::model::key;
use super::{say, unavailable};

fn open(disk: &std::path::Path, boot: &str, syncer: &Arc<Syncer>) -> Result<Database, OpenError> {
    let mut options = Options::new(1);
    (options.segment_bytes, options.reserve_bytes) = (1 << 20, 0);
    options.syncer = Arc::clone(syncer);
    let mut setup = Setup::new(options, Box::new(|| 1), Box::new(|_| {}));
    setup.boot = boot.into();
    Ok(Database::open_with(&disk.join("store"), setup)?.0)
}

/// Sends a message; `Ok(true)` when it is new, and `Ok(false)` when it is known already. Either is
/// an acknowledgement.
fn send(database: &Database, id: &'static str) -> Result<bool, String> {
    let done = database.store().commit(move |transaction| -> Result<bool, ()> {
        if transaction.find(&key(id)).is_some() {
            return Ok(false);
        }
        let act = Act::new(Event::MessageReceived, "loki", "default", id);
        transaction.accept(act, head(id), Body::new(b"body"));
        Ok(true)
    });
    done.wait().map_err(|error| error.to_string())?.map_err(|()| "refused".to_owned())
}

fn has(database: &Database, id: &str) -> bool {
    database.store().messages(|messages| messages.find(&key(id)).is_some())
}

/// Killed between write and sync, started again, sent the same id again, and without power the
/// moment that this is acknowledged. Says whether the message is there.
fn outlives_the_cut(syncer: &Arc<Syncer>) -> bool {
    let disk = Disk::mount(None).expect("a disk");
    let before = Arc::<Syncer>::default();
    let database = open(disk.path(), "one", &before).expect("opens");
    before.set_fault(SyncPoint::Commit, SyncFault::Fail);
    send(&database, "m").expect_err("nobody was told");
    drop(database);
    let database = open(disk.path(), "one", syncer).expect("opens");
    assert_eq!(send(&database, "m"), Ok(false), "it was found in the page cache");
    let image = tempfile::tempdir().expect("a folder");
    disk.image_if(|_, _| false, image.path()).expect("an image");
    drop(database);
    open(image.path(), "two", &Arc::default()).is_ok_and(|database| has(&database, "m"))
}

#[test]
fn what_is_acknowledged_as_known_is_durable() {
    if unavailable() {
        return;
    }
    assert!(outlives_the_cut(&Arc::default()), "it was acknowledged and is gone");
    let without = Arc::<Syncer>::default();
    without.set_fault(SyncPoint::Recovered, SyncFault::Skip);
    assert!(!outlives_the_cut(&without), "the test does not see a message that is lost");
    say("a message that is known from the page cache alone would be lost");
}

/// The same within one run: a repetition that is decided while the first is still being synced is
/// acknowledged only with it.
#[test]
fn a_repetition_is_acknowledged_no_earlier_than_what_it_repeats() {
    if unavailable() {
        return;
    }
    let disk = Disk::mount(None).expect("a disk");
    let syncer = Arc::<Syncer>::default();
    let database = open(disk.path(), "one", &syncer).expect("opens");
    syncer.set_fault(SyncPoint::Commit, SyncFault::Fail);
    let answers = std::thread::scope(|scope| {
        let senders = [(); 8].map(|()| scope.spawn(|| send(&database, "m")));
        senders.map(|sender| sender.join().expect("answered"))
    });
    assert!(answers.iter().all(Result::is_err), "acknowledged without a sync: {answers:?}");
    drop(database);
    let image = tempfile::tempdir().expect("a folder");
    disk.image_if(|_, _| false, image.path()).expect("an image");
    let database = open(image.path(), "two", &Arc::default()).expect("opens");
    assert!(!has(&database, "m"));
}
