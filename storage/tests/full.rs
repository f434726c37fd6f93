//! A store on a disk that is full (JOURNAL rule 23), a real one of a few MiB: what was accepted
//! goes on to its end, what is new is refused, and both change when there is room again. It mounts
//! small file systems, and says so when it may not.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use storage::database::{Database, Sizes};
use storage::event::Event;
use storage::inspect::{AuditFilter, audit};
use storage::messages::Messages;
use storage::record::{Direction, MessageHead, MessageKey, Reason, Status};
use storage::store::{CommitError, Store};
use storage::transaction::{Act, Body, Change};
use storage::view::Filter;

const SIZES: Sizes = Sizes { segment_bytes: 64 << 10, reserve_bytes: 128 << 10 };

/// Messages that wait when the disk gets full: what they still write is ten times the reserve.
const MESSAGES: usize = 2_000;

/// A small file system. Dropped, it is unmounted.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(folder);
        let mounted = mount.output().is_ok_and(|it| it.status.success());
        if !mounted {
            let text = b"skipped: this user may not mount a small file system\n";
            let _ = std::io::stderr().write_all(text);
        }
        mounted.then(|| Self(folder.to_owned()))
    }

    fn fill(&self) {
        let mut file = File::create(self.0.join("fill")).expect("a file");
        while file.write_all(&[0; 4_096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("fill")).expect("removed");
    }

    fn open(&self) -> Database {
        let dir = self.0.join("store");
        let opened = Database::open_sized(&dir, SIZES, Box::new(|| 1_000), Box::new(|_| {}));
        opened.expect("opens").0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn head(id: &str) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "openclaw-server".into(),
        destination: "server".into(),
        sender: "loki-one".into(),
        lane: String::new(),
        priority: 2,
        created_at: 1_000,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 4,
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: 1_000,
    }
}

/// A name as long as those that the programs give.
fn name(number: usize) -> String {
    format!("0199a0b2-7c3d-7abc-8def-{number:012}")
}

fn accept(store: &Store, number: usize, body: usize) -> Result<(), CommitError> {
    if let Some(full) = store.full() {
        return Err(full);
    }
    let done = store.commit(move |tx| -> Result<(), std::convert::Infallible> {
        let id = name(number);
        let act = Act::new(Event::MessageQueued, "loki-one", "default", &id);
        tx.accept(act, head(&id), Body::new(&vec![7; body]));
        Ok(())
    });
    done.wait().map(|_| ())
}

/// One change in a frame of its own, as when one message after the other is delivered.
fn change(store: &Store, number: usize, status: Status) -> Result<(), CommitError> {
    let done = store.commit(move |tx| -> Result<(), ()> {
        let id = name(number);
        let key = MessageKey {
            direction: Direction::Outbound,
            namespace: "default",
            peer: "openclaw-server",
            message_id: &id,
        };
        let live = tx.live(tx.find(&key).ok_or(())?.entry).ok_or(())?;
        let event =
            if status == Status::Sending { Event::MessageSent } else { Event::MessageDelivered };
        let change = Change { status, attempts: 1, ..Change::of(&live) };
        tx.change(Act::new(event, "loki-one", "default", &id), &live, change);
        Ok(())
    });
    done.wait()?.expect("it is not finished");
    Ok(())
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if is_so() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("waited for {what}");
}

fn events(database: &Database, event: Event) -> usize {
    let events = vec![event.name().to_owned()];
    let filter = AuditFilter { events, ..AuditFilter::default() };
    audit(database.reader(), &filter).expect("the audit log is read").entries.len()
}

#[test]
fn what_was_accepted_is_finished_on_a_full_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(folder.path()) else { return };
    let database = disk.open();
    let store = database.store().clone();
    for number in 0..MESSAGES {
        accept(&store, number, 20).expect("there is room");
    }
    // What it is owed is made beside the commits.
    let before =
        |owed: usize| fs::read_dir(folder.path().join("store/journal")).unwrap().count() > owed;
    wait("the segments that are owed", || before(20));
    disk.fill();
    let mut accepted = MESSAGES;
    let refusal = loop {
        match accept(&store, accepted, 2_000) {
            Ok(()) => accepted += 1,
            Err(refusal) => break refusal,
        }
        assert!(accepted < MESSAGES + 1_000, "nothing is refused");
    };
    assert!(matches!(refusal, CommitError::Full(_)), "{refusal}");
    assert!(refusal.to_string().contains("No space left on device"), "{refusal}");
    for number in 0..accepted {
        change(&store, number, Status::Sending).expect("an attempt is written");
        change(&store, number, Status::Delivered).expect("its end is written");
    }
    assert!(store.is_full(), "and still nothing new is taken");
    assert_eq!(store.messages(Messages::live_len), 0);
    assert_eq!(events(&database, Event::StoreFull), 1);
    disk.free();
    wait("room", || accept(&store, accepted, 20).is_ok());
    wait("the audit log to say so", || events(&database, Event::StoreRoom) == 1);
    // The rows are there as well, made again if sled found no room.
    let rows = || database.view().list(&Filter::default()).is_ok_and(|page| !page.rows.is_empty());
    wait("the rows", rows);
    database.close().expect("closes");
    let database = disk.open();
    assert_eq!(database.store().messages(Messages::live_len), 1);
    database.close().expect("closes");
}

#[test]
fn a_store_is_opened_on_a_full_disk_also_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(folder.path()) else { return };
    let database = disk.open();
    for number in 0..100 {
        accept(database.store(), number, 200).expect("there is room");
    }
    wait("the reserve", || database.space().reserve() == (128 << 10, 128 << 10));
    disk.fill();
    drop(database);
    let database = disk.open();
    let store = database.store().clone();
    assert_eq!(store.messages(Messages::live_len), 100);
    change(&store, 7, Status::Sending).expect("an attempt is written");
    change(&store, 7, Status::Delivered).expect("its end is written");
    wait("it to be noticed", || store.is_full());
    assert!(database.reader().frames(1).all(|frame| frame.is_ok()));
    drop(database);
    disk.free();
    let database = disk.open();
    wait("room", || accept(database.store(), 100, 20).is_ok());
    assert_eq!(database.store().messages(Messages::live_len), 100);
    database.close().expect("closes");
}
