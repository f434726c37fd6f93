//! The committer overlaps deciding with syncing and answers in order; admission slows down and is
//! let go; a lane, a failed sync and a record that is too large keep their promises.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use storage::commit::Commit;
use storage::event::Event;
use storage::fold::State;
use storage::journal::{
    AppendError, Appended, Entry, Head, Identity, Log, MemoryLog, Position, ReadLog, Syncing,
};
use storage::record::{EntityKey, Kind};
use storage::store::{CommitError, Store};
use storage::transaction::{Act, Transaction};

/// How long something may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A log whose syncs tell that they began, and wait for a word of how they are to end.
struct Slow {
    log: MemoryLog,
    begun: Sender<u64>,
    ends: Arc<Mutex<Receiver<bool>>>,
}

struct SlowSync {
    through: Position,
    begun: Sender<u64>,
    ends: Arc<Mutex<Receiver<bool>>>,
}

impl Syncing for SlowSync {
    fn run(self: Box<Self>) -> Result<Position, AppendError> {
        self.begun.send(self.through.sequence).expect("somebody listens");
        let ends = self.ends.lock().expect("not poisoned");
        match ends.recv_timeout(PATIENCE) {
            Ok(true) => Ok(self.through),
            _ => Err(AppendError::Sync {
                path: "memory".into(),
                source: std::io::Error::other("as the test asked"),
            }),
        }
    }
}

impl Log for Slow {
    fn append(&mut self, time: u64, entries: &[Entry<'_>]) -> Result<Appended, AppendError> {
        self.log.append(time, entries)
    }

    fn begin_sync(&mut self) -> Box<dyn Syncing> {
        let (begun, ends) = (self.begun.clone(), Arc::clone(&self.ends));
        Box::new(SlowSync { through: self.log.appended().position, begun, ends })
    }

    fn finish_sync(
        &mut self,
        done: Result<Position, AppendError>,
    ) -> Result<Position, AppendError> {
        self.log.finish_sync(done)
    }

    fn next_sequence(&self) -> u64 {
        self.log.next_sequence()
    }

    fn appended(&self) -> Head {
        self.log.appended()
    }

    fn reader(&self) -> Arc<dyn ReadLog> {
        Log::reader(&self.log)
    }
}

struct Rig {
    store: Store,
    begun: Receiver<u64>,
    ends: Sender<bool>,
    failed: Arc<AtomicBool>,
}

fn rig() -> Rig {
    let (told, begun) = channel();
    let (ends, waits) = channel();
    let log = MemoryLog::new(Identity { journal: [1; 16], key: [2; 16] });
    let log = Slow { log, begun: told, ends: Arc::new(Mutex::new(waits)) };
    let failed = Arc::new(AtomicBool::new(false));
    let fatal = Arc::clone(&failed);
    let fatal = Box::new(move |_: &str| fatal.store(true, Ordering::SeqCst));
    let store = Store::start(Box::new(log), State::new([2; 16]), Box::new(|| 1_000), fatal);
    Rig { store: store.expect("starts"), begun, ends, failed }
}

fn key(name: &str) -> EntityKey {
    EntityKey::new(Kind::State, &[name])
}

/// Writes an entity in a decision; what it saw of `sees` comes back, and `tells` when it ran.
fn write(
    store: &Store,
    name: &'static str,
    sees: &'static str,
    tells: &Sender<&'static str>,
) -> Commit<Result<bool, ()>> {
    let tells = tells.clone();
    store.commit(move |transaction: &mut Transaction<'_>| {
        let there = transaction.get(&key(sees)).is_some();
        let act = Act::new(Event::StateSync, "test", "default", name);
        transaction.put(act, key(name), name.as_bytes().to_vec());
        // Nobody listens any more when the test is over.
        let _ = tells.send(name);
        Ok(there)
    })
}

#[test]
fn the_next_frame_is_decided_while_the_last_one_is_synced_and_answered_after_it() {
    let Rig { store, begun, ends, .. } = rig();
    let (tells, ran) = channel();
    // A lone decision is synced by the committer itself; while that waits two more arrive, which
    // make a frame that is handed over.
    let first = write(&store, "first", "none", &tells);
    assert_eq!(begun.recv_timeout(PATIENCE), Ok(1));
    let second = write(&store, "second", "first", &tells);
    let third = write(&store, "third", "second", &tells);
    ends.send(true).expect("waits");
    assert_eq!(first.wait(), Ok(Ok(false)));
    assert_eq!(begun.recv_timeout(PATIENCE), Ok(2));
    // The second frame is being synced: a decision runs now, and sees what is not durable.
    let fourth = write(&store, "fourth", "third", &tells);
    for name in ["first", "second", "third", "fourth"] {
        assert_eq!(ran.recv_timeout(PATIENCE), Ok(name));
    }
    assert!(store.ledger().get(&key("second")).is_none(), "seen before it was durable");
    assert!(begun.try_recv().is_err(), "two frames at the disk at once");
    ends.send(true).expect("waits");
    assert_eq!((second.wait(), third.wait()), (Ok(Ok(true)), Ok(Ok(true))));
    assert_eq!(begun.recv_timeout(PATIENCE), Ok(3));
    assert!(store.ledger().get(&key("fourth")).is_none());
    ends.send(true).expect("waits");
    assert_eq!(fourth.wait(), Ok(Ok(true)));
    store.stop();
}

#[test]
fn a_failed_sync_stops_everything_that_was_decided_on_top_of_it() {
    let Rig { store, begun, ends, failed } = rig();
    let (tells, ran) = channel();
    let first = write(&store, "first", "none", &tells);
    assert_eq!(begun.recv_timeout(PATIENCE), Ok(1));
    let second = write(&store, "second", "first", &tells);
    let third = write(&store, "third", "first", &tells);
    ends.send(true).expect("waits");
    assert_eq!(first.wait(), Ok(Ok(false)));
    assert_eq!(begun.recv_timeout(PATIENCE), Ok(2));
    let fourth = write(&store, "fourth", "third", &tells);
    while ran.recv_timeout(PATIENCE) != Ok("fourth") {}
    ends.send(false).expect("waits");
    for answer in [second, third, fourth] {
        assert_eq!(answer.wait(), Err(CommitError::Stopped));
    }
    assert!(failed.load(Ordering::SeqCst));
    assert!(store.ledger().get(&key("second")).is_none());
    assert_eq!(write(&store, "late", "first", &tells).wait(), Err(CommitError::Stopped));
}

#[test]
fn who_asks_for_room_waits_until_there_is_some_and_others_go_on() {
    let log = MemoryLog::new(Identity { journal: [1; 16], key: [2; 16] });
    let store =
        Store::start(Box::new(log), State::new([2; 16]), Box::new(|| 1_000), Box::new(|_| {}))
            .expect("starts");
    let (tells, _ran) = channel();
    assert!(store.room().is_none());
    let behind = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&behind);
    store.throttle(Box::new(move || asked.load(Ordering::SeqCst)));
    let room = store.room().expect("no room");
    store.relieve();
    assert_eq!(write(&store, "goes on", "none", &tells).wait(), Ok(Ok(false)));
    let (waited, let_go) = channel();
    let waiting = std::thread::Builder::new().spawn(move || waited.send(room.wait()));
    let waiting = waiting.expect("a thread");
    assert!(let_go.try_recv().is_err());
    behind.store(false, Ordering::SeqCst);
    store.relieve();
    assert_eq!(let_go.recv_timeout(PATIENCE), Ok(Ok(())));
    waiting.join().expect("ends").expect("told");
    assert!(store.room().is_none());
    // Whoever still waits when the store stops is told so.
    behind.store(true, Ordering::SeqCst);
    let room = store.room().expect("no room");
    store.stop();
    assert_eq!(room.wait(), Err(CommitError::Stopped));
}

#[test]
fn a_decision_that_fits_no_frame_is_refused_alone() {
    let log = MemoryLog::new(Identity { journal: [1; 16], key: [2; 16] });
    let store =
        Store::start(Box::new(log), State::new([2; 16]), Box::new(|| 1_000), Box::new(|_| {}))
            .expect("starts");
    let (tells, ran) = channel();
    // Both wait behind a decision that takes a while, so that they meet in one frame.
    let (go, held) = channel::<()>();
    let gate =
        store.commit(move |_| -> Result<(), ()> { held.recv_timeout(PATIENCE).map_err(|_| ()) });
    let large = store.commit(|transaction: &mut Transaction<'_>| -> Result<(), ()> {
        for part in 0..3_u8 {
            let act = Act::new(Event::StateSync, "test", "default", "large");
            transaction.put(act, key(&part.to_string()), vec![part; 3 << 20]);
        }
        Ok(())
    });
    let small = write(&store, "small", "0", &tells);
    go.send(()).expect("waits");
    gate.wait().expect("durable").expect("held");
    let refused = large.wait();
    assert!(matches!(&refused, Err(CommitError::Refused(why)) if why.contains("one frame")));
    assert_eq!(small.wait(), Ok(Ok(false)), "it must not see what was refused");
    assert_eq!(ran.recv_timeout(PATIENCE), Ok("small"));
    store.stop();
}
