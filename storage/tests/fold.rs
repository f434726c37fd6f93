//! The fold is a function: random histories give one digest, replayed whole or from a checkpoint at
//! any cut; its counts are those of a model, and a write from another version is superseded.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use proptest::prelude::*;
use storage::checkpoint::{self, Access, Loaded, Writer};
use storage::database::Database;
use storage::event::Event;
use storage::fold::State;
use storage::inspect::replay;
use storage::messages::BodyPlace;
use storage::record::{
    Carried, Direction, EntityKey, EntityWrite, EntryId, Fact, Kind, Level, MessageChange,
    MessageHead, Millis, Prune, Reason, Record, Status, Trim,
};
use storage::transaction::{Act, Body, Change};

const KEY: [u8; 16] = [7; 16];
const JOURNAL: [u8; 16] = [1; 16];

#[derive(Clone, Debug)]
enum Op {
    Accept { id: u8, inbound: bool },
    Change { target: usize, status: usize },
    Prune { target: usize, shred: bool },
    Put { name: u8, version: u64, value: Option<u8> },
    Forget { back: Millis },
    Evict { back: u64 },
    Trim { inbound: bool, link: u8, status: usize, count: u64 },
    Carry { target: usize },
    Note,
}

type Step = (EntryId, Millis, Record, BodyPlace);

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..8_u8, any::<bool>()).prop_map(|(id, inbound)| Op::Accept { id, inbound }),
        6 => (0..16_usize, 0..9_usize).prop_map(|(target, status)| Op::Change { target, status }),
        1 => (0..16_usize, any::<bool>())
            .prop_map(|(target, shred)| Op::Prune { target, shred }),
        4 => (0..3_u8, 0..4_u64, proptest::option::of(any::<u8>()))
            .prop_map(|(name, version, value)| Op::Put { name, version, value }),
        1 => (0..9_u64).prop_map(|back| Op::Forget { back }),
        1 => (0..6_u64).prop_map(|back| Op::Evict { back }),
        1 => (any::<bool>(), 0..2_u8, 0..10_usize, 1..3_u64)
            .prop_map(|(inbound, link, status, count)| Op::Trim { inbound, link, status, count }),
        2 => (0..16_usize).prop_map(|target| Op::Carry { target }),
        1 => Just(Op::Note),
    ]
}

fn frames() -> impl Strategy<Value = Vec<Vec<Op>>> {
    prop::collection::vec(prop::collection::vec(op(), 1..5), 1..16)
}

fn head(id: u8, inbound: bool, time: Millis) -> MessageHead {
    MessageHead {
        direction: if inbound { Direction::Inbound } else { Direction::Outbound },
        message_id: format!("message-{id}"),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: if inbound { String::new() } else { format!("link-{}", id % 2) },
        sender: "loki".into(),
        lane: if id.is_multiple_of(3) { "lane".into() } else { String::new() },
        priority: id % 4,
        created_at: time,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 1,
        digest: [id; 32],
        status: if inbound { Status::Received } else { Status::Pending },
        reason: Reason::None,
        due_at: time,
    }
}

fn change(message: EntryId, status: Status) -> MessageChange {
    MessageChange {
        message,
        fingerprint: 0,
        status,
        reason: Reason::None,
        attempts: message.index,
        next_attempt_at: 0,
        maybe_delivered: status == Status::Pending,
        error: status.as_str().into(),
    }
}

/// The records of a history, framed as `frames` says.
fn steps(frames: &[Vec<Op>]) -> Vec<Step> {
    let mut accepted: Vec<EntryId> = Vec::new();
    let mut steps = Vec::new();
    let mut count = 0;
    for (sequence, frame) in (1..).zip(frames) {
        for (index, op) in (0..).zip(frame) {
            count += 1;
            let (entry, time) = (EntryId { sequence, index }, 1_000 + count);
            let mut body = BodyPlace::default();
            let fact = match op {
                Op::Accept { id, inbound } => {
                    accepted.push(entry);
                    Fact::Accept(Arc::new(head(*id, *inbound, time)))
                }
                Op::Change { target, status } if !accepted.is_empty() => {
                    let target = accepted[target % accepted.len()];
                    Fact::Change(change(target, Status::ALL[*status]))
                }
                Op::Prune { target, shred } if !accepted.is_empty() => {
                    let target = accepted[target % accepted.len()];
                    Fact::Prune(Prune { change: change(target, Status::Pruned), shred: *shred })
                }
                Op::Put { name, version, value } => Fact::Put(EntityWrite {
                    key: EntityKey::new(Kind::State, &[&name.to_string()]),
                    expected_version: *version,
                    value: value.map(|byte| Arc::from([byte])),
                }),
                Op::Forget { back } => Fact::Forget(time - back),
                Op::Evict { back } => {
                    Fact::Evict(EntryId { sequence: sequence.saturating_sub(*back), index: 0 })
                }
                Op::Trim { inbound, link, status, count } if Status::ALL[*status].is_finished() => {
                    let of = head(*link, *inbound, time);
                    let status = Status::ALL[*status];
                    let finished = vec![(of.destination.into(), of.direction, status, *count)];
                    Fact::Trim(Trim { through: 0, hash: [0; 32], finished })
                }
                Op::Carry { target } if !accepted.is_empty() => {
                    let target = accepted[target % accepted.len()];
                    // Only where it lies now is new; that it stands otherwise is not heard.
                    let state = change(target, Status::Delivered);
                    let head = Arc::new(head(0, false, time));
                    body = BodyPlace { sequence, offset: index, length: 7 };
                    Fact::Carry(Box::new(Carried { head, state, updated_at: time }))
                }
                _ => Fact::Note,
            };
            steps.push((entry, time, record(fact), body));
        }
    }
    steps
}

fn record(fact: Fact) -> Record {
    Record {
        event: Event::ConfigLoad,
        level: Level::Info,
        actor: "test".into(),
        namespace: "default".into(),
        resource: "test".into(),
        details: String::new(),
        fact,
    }
}

fn fold<'a>(mut state: State, steps: impl IntoIterator<Item = &'a Step>) -> State {
    for (entry, time, record, body) in steps {
        state.apply(*entry, *time, record, *body);
    }
    state
}

/// Writes a checkpoint of a state that nobody changes meanwhile.
fn write(writer: &mut Writer, state: &State) -> std::path::PathBuf {
    let state = RwLock::new(state.clone());
    writer.write(&state, &|_| Some([2; 32])).expect("written").path
}

/// The newest checkpoint, with the frames after it.
fn read<'a>(folder: &Path, rest: impl IntoIterator<Item = &'a Step>) -> State {
    let path = checkpoint::candidates(folder).remove(0);
    resume(Loaded::read(&path, KEY).expect("reads"), folder, rest)
}

fn resume<'a>(
    mut loaded: Loaded,
    folder: &Path,
    rest: impl IntoIterator<Item = &'a Step>,
) -> State {
    let first = loaded.stamp().first.0;
    let mut frames: BTreeMap<u64, Vec<&Step>> = BTreeMap::new();
    for step in rest.into_iter().filter(|step| step.0.sequence > first) {
        frames.entry(step.0.sequence).or_default().push(step);
    }
    for (sequence, frame) in frames {
        for (entry, time, record, body) in frame {
            loaded.apply(*entry, *time, record, *body);
        }
        loaded.end_frame(sequence).expect("adds up");
    }
    loaded.finish(folder).expect("whole").0
}

/// A state that goes on by a frame each time that somebody looks at it.
struct Moving {
    state: RwLock<State>,
    rest: RefCell<Vec<Vec<Step>>>,
}

impl Access for Moving {
    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let result = work(&mut self.state.write());
        for (entry, time, record, body) in self.rest.borrow_mut().pop().unwrap_or_default() {
            self.state.write().apply(entry, time, &record, body);
        }
        result
    }
}

/// What a state says without the places of its entries, which batching decides.
fn meaning(state: &State) -> impl PartialEq + std::fmt::Debug + use<> {
    let live: BTreeSet<_> =
        state.messages.iter().map(|live| (live.direction, live.created_at, live.status)).collect();
    let finished: BTreeMap<_, _> =
        state.messages.finished().map(|(key, one)| (key, (one.status, one.accepted_at))).collect();
    (live, finished, state.messages.counts().clone(), state.ledger.clone(), state.superseded)
}

/// Counts by a model that keeps every message for ever.
fn model_counts(steps: &[Step]) -> BTreeMap<(String, Direction, Status), u64> {
    struct Message {
        head: Arc<MessageHead>,
        entry: EntryId,
        status: Status,
        forgotten: bool,
        trimmed: bool,
    }
    let mut messages: Vec<Message> = Vec::new();
    let (mut forgotten, mut evicted) = (0, EntryId::default());
    for (entry, _, record, _) in steps {
        match &record.fact {
            Fact::Accept(head) => {
                let known = |one: &Message| !one.forgotten && one.head.key() == head.key();
                if !messages.iter().any(known) {
                    let (head, status) = (Arc::clone(head), head.status);
                    messages.push(Message {
                        head,
                        entry: *entry,
                        status,
                        forgotten: false,
                        trimmed: false,
                    });
                }
            }
            Fact::Change(change) | Fact::Prune(Prune { change, .. }) => {
                for one in messages.iter_mut().filter(|one| one.entry == change.message) {
                    if !one.status.is_finished() {
                        one.status = change.status;
                    }
                }
            }
            Fact::Forget(before) => forgotten = forgotten.max(*before),
            Fact::Evict(through) => evicted = evicted.max(*through),
            Fact::Trim(trim) => {
                for (destination, direction, status, count) in &trim.finished {
                    let is_one = |one: &&mut Message| {
                        let key = (one.head.destination.as_str(), one.head.direction, one.status);
                        !one.trimmed && key == (&**destination, *direction, *status)
                    };
                    let goes = messages.iter_mut().filter(is_one);
                    let goes = goes.take(usize::try_from(*count).expect("a few"));
                    goes.for_each(|one| one.trimmed = true);
                }
            }
            Fact::Put(_) | Fact::Note | Fact::Carry(_) => {}
        }
        for one in messages.iter_mut().filter(|one| one.status.is_finished()) {
            one.forgotten |= one.head.due_at < forgotten || one.entry <= evicted;
        }
    }
    let mut counts = BTreeMap::new();
    for one in messages.into_iter().filter(|one| !one.trimmed) {
        let key = (one.head.destination.clone(), one.head.direction, one.status);
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

/// `LOKI_FOLD_CASES=10000` asks for so many histories of each kind.
fn cases(count: u32) -> ProptestConfig {
    let asked = std::env::var("LOKI_FOLD_CASES").ok().and_then(|text| text.parse().ok());
    let count = asked.unwrap_or(count);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(count) }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_checkpoint_at_any_cut_and_the_rest_are_the_whole(frames in frames()) {
        let folder = tempfile::tempdir().expect("folder");
        let steps = steps(&frames);
        let whole = fold(State::new(KEY), &steps);
        for cut in 0..=frames.len() as u64 {
            let (before, after): (Vec<_>, Vec<_>) =
                steps.iter().partition(|step| step.0.sequence <= cut);
            let part = fold(State::new(KEY), before);
            write(&mut Writer::begin(folder.path(), JOURNAL), &part);
            prop_assert_eq!(read(folder.path(), []).digest(), part.digest());
            prop_assert_eq!(read(folder.path(), after).digest(), whole.digest());
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]

    /// Three checkpoints one after the other by one writer, with chunks of a few items, while a
    /// frame is applied between any two of them: each gives, with the frames after it, the whole.
    #[test]
    fn a_checkpoint_of_a_moving_state_and_the_frames_after_it_are_the_whole(
        frames in prop::collection::vec(prop::collection::vec(op(), 1..6), 1..40),
        items in 1..6_usize,
        early in 0..8_usize,
    ) {
        let folder = tempfile::tempdir().expect("folder");
        let steps = steps(&frames);
        let whole = fold(State::new(KEY), &steps);
        let mut by_frame: Vec<Vec<Step>> = (1..=frames.len() as u64)
            .map(|at| steps.iter().filter(|step| step.0.sequence == at).cloned().collect())
            .collect();
        let rest = by_frame.split_off(early.min(by_frame.len()));
        let state = RwLock::new(fold(State::new(KEY), by_frame.iter().flatten()));
        let moving = Moving { state, rest: RefCell::new(rest.into_iter().rev().collect()) };
        let mut writer = Writer::begin(folder.path(), JOURNAL).chunk_items(items);
        for _ in 0..3 {
            let written = writer.write(&moving, &|_| Some([2; 32])).expect("written");
            prop_assert!(written.first <= written.last);
            prop_assert_eq!(read(folder.path(), &steps).digest(), whole.digest());
        }
        // All is still now: a writer that goes on from what it read has nothing to write.
        while !moving.rest.borrow().is_empty() {
            moving.with(|_| ());
        }
        writer.write(&moving, &|_| Some([2; 32])).expect("written");
        let path = checkpoint::candidates(folder.path()).remove(0);
        let loaded = Loaded::read(&path, KEY).expect("reads");
        let (state, writer) = loaded.finish(folder.path()).expect("whole");
        let mut writer = writer.chunk_items(items);
        let again = writer.write(&RwLock::new(state), &|_| Some([2; 32])).expect("written");
        prop_assert_eq!(again.bytes, 0);
        prop_assert_eq!(read(folder.path(), []).digest(), whole.digest());
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_replay_gives_the_same_digest_and_other_batches_the_same_meaning(frames in frames()) {
        // An eviction names an entry, and so depends on the batches.
        let stays = |op: &Op| !matches!(op, Op::Evict { .. });
        let frames: Vec<Vec<Op>> =
            frames.into_iter().map(|ops| ops.into_iter().filter(stays).collect()).collect();
        let whole = fold(State::new(KEY), &steps(&frames));
        prop_assert_eq!(fold(State::new(KEY), &steps(&frames)).digest(), whole.digest());
        let one = vec![frames.concat()];
        let single: Vec<Vec<Op>> = frames.concat().into_iter().map(|op| vec![op]).collect();
        for other in [one, single] {
            let other = fold(State::new(KEY), &steps(&other));
            prop_assert_eq!(meaning(&other), meaning(&whole));
        }
    }

    #[test]
    fn counts_are_those_of_a_model(frames in frames()) {
        let steps = steps(&frames);
        let state = fold(State::new(KEY), &steps);
        let counts: BTreeMap<_, _> = state
            .messages
            .counts()
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|((name, direction, status), count)| {
                ((name.to_string(), *direction, *status), *count)
            })
            .collect();
        prop_assert_eq!(counts, model_counts(&steps));
    }
}

#[test]
fn a_write_that_was_computed_from_another_version_is_superseded() {
    let key = EntityKey::new(Kind::Task, &["default", "t1"]);
    let write = |version, value: &[u8]| {
        record(Fact::Put(EntityWrite {
            key: key.clone(),
            expected_version: version,
            value: Some(value.into()),
        }))
    };
    let mut state = State::new(KEY);
    let writes = [write(0, b"first"), write(0, b"late"), write(1, b"second"), write(1, b"late")];
    for (sequence, record) in (1..).zip(&writes) {
        let entry = EntryId { sequence, index: 0 };
        state.apply(entry, 1_000, record, BodyPlace::default());
    }
    let entity = state.ledger.get(&key).expect("there");
    assert_eq!((entity.version, &*entity.value), (2, &b"second"[..]));
    assert_eq!(state.superseded, 2);
}

#[test]
fn damage_of_a_manifest_or_a_chunk_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let steps = steps(&[vec![Op::Accept { id: 1, inbound: false }]]);
    let path = write(&mut Writer::begin(folder.path(), JOURNAL), &fold(State::new(KEY), &steps));
    let chunks = folder.path().join(format!("{:020}.chunks", 1));
    for file in [&path, &chunks] {
        let whole = std::fs::read(file).expect("reads");
        let mut bytes = whole.clone();
        bytes[30] ^= 1;
        std::fs::write(file, bytes).expect("written");
        let error = Loaded::read(&path, KEY).err().expect("refused").to_string();
        assert!(error.contains(&*file.file_name().expect("name").to_string_lossy()), "{error}");
        std::fs::write(file, whole).expect("written");
    }
    assert!(Loaded::read(&path, KEY).is_ok());
}

/// Decides at random through the real store, with stops of both kinds, and replays its journal.
#[test]
fn the_live_state_is_the_replay_of_the_journal_over_stops_and_crashes() {
    let dir = tempfile::tempdir().expect("folder");
    for round in 0..6_u8 {
        let (database, _) =
            Database::open(dir.path(), Box::new(|| 9_000), Box::new(|_| {})).expect("opens");
        for step in 0..20_u8 {
            let id = round * 20 + step;
            decide(&database, id).expect("decided");
        }
        let live = database.store().state(State::digest);
        let state = replay(database.reader(), u64::MAX);
        assert_eq!(state.digest(), live, "round {round}");
        if round % 2 == 0 {
            database.close().expect("closes");
        }
    }
}

fn decide(database: &Database, id: u8) -> Result<(), Box<dyn std::error::Error>> {
    let done = database.store().commit(move |transaction| -> Result<EntryId, ()> {
        let act = Act::new(Event::MessageQueued, "test", "default", "id");
        let key = EntityKey::new(Kind::State, &[&(id % 5).to_string()]);
        transaction.put(act.clone(), key, vec![id]);
        Ok(transaction.accept(act, head(id, id.is_multiple_of(4), 9_000), Body::new(b"body")))
    });
    let entry = done.wait()?.map_err(|()| "refused")?;
    let wanted = Status::ALL[usize::from(id) % Status::ALL.len()];
    let done = database.store().commit(move |transaction| -> Result<(), ()> {
        let live = transaction.live(entry).ok_or(())?.clone();
        let act = Act::new(Event::MessageRetry, "test", "default", "id");
        transaction.change(act, &live, Change { status: wanted, ..Change::of(&live) });
        Ok(())
    });
    done.wait()?.map_err(|()| "gone".into())
}
