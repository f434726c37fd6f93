//! The life of one store on one disk: it is opened, used by several producers, and loses its power,
//! and then again with what the disk kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use powercut::{Chance, Cut, Disk, Events};
use storage::database::{Database, Report, Setup};
use storage::event::Event;
use storage::journal::{Options, ReadError, Syncer, check};
use storage::record::{Direction, MessageHead, Reason, Status};
use storage::retention::{Keep, Retention};
use storage::store::Store;
use storage::transaction::{Act, Body, Change};
use tempfile::TempDir;

use super::model::{self, Message, Told, counter, key};

/// How often the same data loses its power.
const CUTS: u64 = 4;

const PRODUCERS: usize = 3;

/// Decisions of a producer in one session.
const STEPS: u64 = 24;

/// Small, so that segments are changed often.
const SEGMENT_BYTES: u64 = 48 << 10;

/// What was seen, by name.
pub type Seen = BTreeMap<&'static str, u64>;

/// A store, what was told about it, and the chance that its seed gives.
pub struct Life {
    chance: Chance,
    syncer: Arc<Syncer>,
    told: Vec<Told>,
    clock: Arc<AtomicU64>,
    /// What a session without a cut did, so that cuts are spread over one.
    usual: Events,
    seen: Seen,
    /// How often the machine was started.
    boots: u64,
    /// The last session stopped cleanly.
    clean: bool,
}

impl Life {
    pub fn new(seed: u64, syncer: Arc<Syncer>) -> Self {
        Self {
            chance: Chance::new(seed),
            syncer,
            told: vec![Told::default(); PRODUCERS],
            clock: Arc::new(AtomicU64::new(1_000)),
            usual: Events { syncs: 90, changes: 260 },
            seen: Seen::new(),
            boots: 1,
            clean: false,
        }
    }

    /// Lives until the last cut; what is wrong is an error.
    pub fn run(mut self) -> Result<Seen, String> {
        let mut image = tempfile::tempdir().map_err(|error| error.to_string())?;
        for _ in 0..CUTS {
            image = self.session(image.path())?;
            self.examine(image.path())?;
        }
        Ok(self.seen)
    }

    fn note(&mut self, what: &'static str, count: u64) {
        *self.seen.entry(what).or_default() += count;
    }

    fn open(&self, dir: &Path) -> Result<(Database, Report), String> {
        let clock = Arc::clone(&self.clock);
        let now = Box::new(move || clock.load(Ordering::Relaxed));
        let mut options = Options::new(now());
        options.segment_bytes = SEGMENT_BYTES;
        options.reserve_bytes = 2 * SEGMENT_BYTES;
        options.syncer = Arc::clone(&self.syncer);
        let (boot, fatal) = (format!("boot-{}", self.boots), Box::new(|_: &str| {}));
        let setup = Setup { journal: options, boot, now, fatal };
        let opened = Database::open_with(&dir.join("store"), setup);
        opened.map_err(|error| error.to_string())
    }

    /// From an image to a cut; gives what the disk kept.
    fn session(&mut self, from: &Path) -> Result<TempDir, String> {
        let disk = Disk::mount(Some(from)).map_err(|error| error.to_string())?;
        let stops = self.chance.below(3) == 0;
        if !stops {
            disk.schedule(self.draw(self.usual, Events::default()));
        }
        let mut how = "cut while opening";
        if let Ok((database, _)) = self.open(disk.path()) {
            let keep = Keep { age: 0, bytes: u64::MAX };
            database.set_retention(Retention::uniform(keep));
            self.produce(&database);
            self.compact(&database, &disk);
            how = "cut while running";
            if stops && self.chance.below(3) > 0 {
                how = "cut while stopping";
                let stopping = Events { syncs: 14, changes: 40 };
                disk.schedule(self.draw(stopping, disk.events()));
            }
            if stops {
                let closed = database.close();
                if closed.is_ok() && !disk.is_dead() {
                    how = "stopped cleanly";
                }
            }
        }
        self.note(how, 1);
        self.clean = how == "stopped cleanly";
        self.boots += 1;
        disk.cut();
        let image = tempfile::tempdir().map_err(|error| error.to_string())?;
        disk.image(&mut self.chance, image.path()).map_err(|error| error.to_string())?;
        Ok(image)
    }

    /// A cut among so many events after some.
    fn draw(&mut self, among: Events, after: Events) -> Cut {
        let done = self.chance.flip();
        if self.chance.flip() {
            Cut::Sync(after.syncs + 1 + self.chance.below(among.syncs), done)
        } else {
            Cut::Change(after.changes + 1 + self.chance.below(among.changes), done)
        }
    }

    /// Drops what is dead, and remembers which bodies are gone for good.
    fn compact(&mut self, database: &Database, disk: &Disk) {
        let settled = database.view().settle();
        let Some(freed) = settled.ok().and_then(|()| database.upkeep().compact()) else { return };
        *self.seen.entry("compacted").or_default() += freed.segments;
        let store = database.store();
        if disk.is_dead() {
            return;
        }
        for (id, message) in self.told.iter_mut().flat_map(|told| &mut told.messages) {
            let known = store.messages(|messages| messages.find(&key(id)));
            let body = known.map(|known| store.body(known.body));
            if matches!(body, Some(Err(ReadError::NoBody { .. }))) {
                message.is_body_gone = true;
            }
        }
    }

    fn produce(&mut self, database: &Database) {
        let store = database.store();
        let upkeep = database.upkeep();
        let seeds: Vec<u64> = (0..PRODUCERS).map(|_| self.chance.draw()).collect();
        let clock = &self.clock;
        thread::scope(|scope| {
            scope.spawn(move || upkeep.compact());
            for ((number, told), seed) in self.told.iter_mut().enumerate().zip(seeds) {
                scope.spawn(move || {
                    let mut producer = Producer { number, told, store, chance: Chance::new(seed) };
                    for _ in 0..STEPS {
                        clock.fetch_add(7, Ordering::Relaxed);
                        if producer.step().is_none() {
                            break;
                        }
                    }
                });
            }
        });
    }

    /// Opens what the disk kept, on a disk that works, and compares.
    fn examine(&mut self, image: &Path) -> Result<(), String> {
        // The journal as it is, before anything is recovered, must be free of damage as well.
        let look = storage::inspect::Inspect::open(&image.join("store"));
        if let Ok(look) = look
            && !look.damage().is_empty()
        {
            return Err(format!("a look finds damage: {:?}", look.damage()));
        }
        let copy = tempfile::tempdir().map_err(|error| error.to_string())?;
        copy_folder(image, copy.path()).map_err(|error| error.to_string())?;
        let (database, report) = self.open(copy.path())?;
        if !report.recovery.damage.is_empty() || !report.unreadable.is_empty() {
            return Err(format!("damage after a cut: {report:?}"));
        }
        if !report.checkpoint_errors.is_empty() {
            return Err(format!("a checkpoint of no use: {:?}", report.checkpoint_errors));
        }
        let quick = report.recovery.clean && report.replayed == 0 && report.rebuild.is_none();
        if self.clean && !quick {
            return Err(format!("a clean stop was not one: {report:?}"));
        }
        let acknowledged = model::check(&database, &mut self.told)?;
        self.note("acknowledged", acknowledged);
        database.close().map_err(|error| error.to_string())?;
        let journal = copy.path().join("store/journal");
        let checked = check(&journal, storage::database::index_of);
        let checked = checked.map_err(|error| error.to_string())?;
        if !checked.damage.is_empty() {
            return Err(format!("the check of the journal finds {:?}", checked.damage));
        }
        Ok(())
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// One that writes, waits for each answer and remembers it.
struct Producer<'a> {
    number: usize,
    told: &'a mut Told,
    store: &'a Store,
    chance: Chance,
}

impl Producer<'_> {
    /// `None`: the store has stopped.
    fn step(&mut self) -> Option<()> {
        let unfinished = self.told.messages.iter().find(|(_, message)| {
            message.acknowledged == Some(Status::Pending) && message.asked.is_empty()
        });
        let unfinished = unfinished.map(|(id, _)| id.clone());
        match (self.chance.below(3), unfinished) {
            (0, Some(id)) => self.change(&id),
            (1, _) => self.count(),
            _ => self.accept(),
        }
    }

    fn accept(&mut self) -> Option<()> {
        let id = format!("{}-{:016x}", self.number, self.chance.draw());
        let size = match self.chance.below(8) {
            0 => self.chance.below(60_000),
            _ => self.chance.below(1_500),
        };
        let body: Vec<u8> = (0..size).map(|_| self.chance.draw().to_le_bytes()[0]).collect();
        let asked = vec![Status::Pending];
        let message = Message { body: body.clone(), asked, ..Message::default() };
        self.told.messages.insert(id.clone(), message);
        let head = head(&id);
        let done = self.store.commit(move |transaction| -> Result<(), ()> {
            let act = Act::new(Event::MessageQueued, "loki", "default", &head.message_id);
            transaction.accept(act, head, Body::new(&body));
            Ok(())
        });
        done.wait().ok()?.ok()?;
        let message = self.told.messages.get_mut(&id)?;
        message.acknowledged = message.asked.pop();
        Some(())
    }

    fn change(&mut self, id: &str) -> Option<()> {
        let status = if self.chance.flip() { Status::Delivered } else { Status::Failed };
        self.told.messages.get_mut(id)?.asked.push(status);
        let wanted = id.to_owned();
        let done = self.store.commit(move |transaction| -> Result<(), ()> {
            let known = transaction.find(&key(&wanted)).ok_or(())?;
            let live = transaction.live(known.entry).ok_or(())?;
            let act = Act::new(Event::MessageDelivered, "loki", "default", &wanted);
            transaction.change(act, &live, Change { status, attempts: 1, ..Change::of(&live) });
            Ok(())
        });
        done.wait().ok()?.ok()?;
        let message = self.told.messages.get_mut(id)?;
        message.acknowledged = message.asked.pop();
        Some(())
    }

    fn count(&mut self) -> Option<()> {
        self.told.counter.1 += 1;
        let (key, value) = (counter(self.number), self.told.counter.1.to_le_bytes().to_vec());
        let done = self.store.commit(move |transaction| -> Result<(), ()> {
            let act = Act::new(Event::StateSync, "loki", "default", "counter");
            transaction.put(act, key, value);
            Ok(())
        });
        done.wait().ok()?.ok()?;
        self.told.counter.0 = self.told.counter.1;
        Some(())
    }
}

pub fn head(id: &str) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: "server".into(),
        sender: "loki".into(),
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
