//! Random histories through the whole store, over clean stops and crashes, with the rows in sled
//! and the checkpoints removed on the way: the state is the replay of the journal, by one digest,
//! and the rows are its messages.
//!
//! `LOKI_HISTORIES=10000` runs so many, from `LOKI_HISTORIES_FIRST` on; a failure names its seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use powercut::Chance;
use storage::database::{Database, Report, Setup};
use storage::event::Event;
use storage::fold::State;
use storage::inspect::replay;
use storage::journal::{Options, SyncFault, SyncPoint, Syncer};
use storage::record::{
    Direction, EntityKey, EntryId, Kind, MessageHead, MessageKey, Millis, Reason, Status,
};
use storage::transaction::{Act, Body, Change};
use storage::view::Filter;

/// Histories of the short form.
const HISTORIES: u64 = 25;

const SESSIONS: u64 = 3;
const DECISIONS: u64 = 12;
const SEGMENT_BYTES: u64 = 16 << 10;

/// What each message must be, by id.
type Model = BTreeMap<String, Status>;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn head(id: &str, lane: u64) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: "server".into(),
        sender: "loki".into(),
        lane: if lane == 0 { String::new() } else { format!("lane-{lane}") },
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

/// Nothing is cut here, so that nothing has to reach the disk.
fn unsynced() -> Arc<Syncer> {
    let syncer = Syncer::default();
    for point in SyncPoint::ALL {
        syncer.set_fault(*point, SyncFault::Skip);
    }
    Arc::new(syncer)
}

fn open(dir: &Path, time: Millis) -> (Database, Report) {
    let mut options = Options::new(time);
    (options.segment_bytes, options.reserve_bytes) = (SEGMENT_BYTES, 0);
    options.syncer = unsynced();
    let mut setup = Setup::new(options, Box::new(move || time), Box::new(|_| {}));
    setup.boot = "boot".into();
    Database::open_with(dir, setup).expect("opens")
}

/// One decision with a few changes.
fn decide(database: &Database, chance: &mut Chance, model: &mut Model) {
    let mut accepted = Vec::new();
    let mut changed = Vec::new();
    for _ in 0..=chance.below(3) {
        let known = chance.below(model.len() as u64 + 1);
        match model.iter().nth(usize::try_from(known).expect("few")) {
            Some((id, status)) if !status.is_finished() => {
                let to = Status::ALL[usize::try_from(chance.below(9)).expect("few")];
                changed.push((id.clone(), to));
            }
            _ => accepted.push((format!("m-{:08x}", chance.draw() >> 32), chance.below(3))),
        }
    }
    for (id, _) in &accepted {
        model.insert(id.clone(), Status::Pending);
    }
    // A message that one decision changes twice keeps the first change that finished it.
    for (id, to) in &changed {
        let status = model.get_mut(id).expect("known");
        if !status.is_finished() {
            *status = *to;
        }
    }
    let counter = chance.below(4).to_string();
    let value = chance.draw().to_le_bytes().to_vec();
    let done = database.store().commit(move |transaction| -> Result<(), ()> {
        let act = |event| Act::new(event, "loki", "default", "random");
        for (id, lane) in &accepted {
            transaction.accept(act(Event::MessageQueued), head(id, *lane), Body::new(b"body"));
        }
        for (id, to) in changed {
            let key = MessageKey {
                direction: Direction::Outbound,
                namespace: "default",
                peer: "server",
                message_id: &id,
            };
            let entry: EntryId = transaction.find(&key).ok_or(())?.entry;
            let Some(live) = transaction.live(entry) else { continue };
            if !live.status.is_finished() {
                let wanted = Change { status: to, ..Change::of(&live) };
                transaction.change(act(Event::MessageRetry), &live, wanted);
            }
        }
        transaction.put(act(Event::StateSync), EntityKey::new(Kind::State, &[&counter]), value);
        Ok(())
    });
    done.wait().expect("durable").expect("decided");
}

/// Removes what is derived, or some of it.
fn forget(dir: &Path, chance: &mut Chance) {
    if chance.below(3) == 0 {
        fs::remove_dir_all(dir.join("messages")).expect("removed");
    }
    match chance.below(4) {
        0 => drop(fs::remove_dir_all(dir.join("checkpoints"))),
        1 => {
            if let Some(newest) = storage::checkpoint::candidates(&dir.join("checkpoints")).first()
            {
                fs::remove_file(newest).expect("removed");
            }
        }
        _ => {}
    }
}

fn check(database: &Database, model: &Model, seed: u64) {
    let live = database.store().state(State::digest);
    let whole = replay(database.reader(), u64::MAX).digest();
    assert_eq!(live, whole, "seed {seed}: the state is not the replay of the journal");
    database.view().settle().expect("settles");
    let mut rows = Model::new();
    let mut filter = Filter::default();
    loop {
        let page = database.view().list(&filter).expect("lists");
        rows.extend(page.rows.into_iter().map(|row| (row.message_id, row.status)));
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    assert_eq!(rows, *model, "seed {seed}: the rows are not the messages");
}

fn run(seed: u64) -> u64 {
    let dir = tempfile::tempdir().expect("a folder");
    let mut chance = Chance::new(seed);
    let mut model = Model::new();
    let mut from_checkpoints = 0;
    for session in 0..SESSIONS {
        let (database, report) = open(dir.path(), 1_000 + session);
        from_checkpoints += u64::from(report.checkpoint.is_some());
        for status in model.values_mut().filter(|status| **status == Status::Sending) {
            // What was being sent when the store stopped waits again.
            *status = Status::Pending;
        }
        check(&database, &model, seed);
        for _ in 0..chance.below(DECISIONS) {
            decide(&database, &mut chance, &mut model);
        }
        check(&database, &model, seed);
        if chance.flip() {
            database.close().expect("closes");
        } else {
            drop(database);
        }
        forget(dir.path(), &mut chance);
    }
    from_checkpoints
}

#[test]
fn any_history_is_one_state_whatever_is_removed_that_can_be_made_again() {
    let first = setting("LOKI_HISTORIES_FIRST", 1);
    let count = setting("LOKI_HISTORIES", HISTORIES);
    let from_checkpoints: u64 = (first..first + count).map(run).sum();
    assert!(from_checkpoints > 0, "no history was ever continued from a checkpoint");
}
