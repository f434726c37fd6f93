//! Two writers of one journal in memory, which interleave at random, lag behind, are fenced off,
//! crash, and are not told what became of what they appended: nothing is offered, completed or
//! applied twice, and nobody is told that it was.
//!
//! `LOKI_WRITERS_SEEDS=10000` runs so many seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use powercut::Chance;
use storage::codec;
use storage::database::index_of;
use storage::event::Event;
use storage::fold::State;
use storage::journal::{
    AppendError, Entry, Frame, Identity, Log as _, MemoryLog, MemoryReader, Outcome, ReadLog as _,
};
use storage::messages::BodyPlace;
use storage::record::{
    Direction, EntityKey, EntityWrite, EntryId, Fact, Kind, Level, MessageHead, MessageKey, Reason,
    Record, Status,
};

const IDENTITY: Identity = Identity { journal: [1; 16], key: [7; 16] };
const TASKS: u64 = 6;
const STEPS: u64 = 300;

/// A task is one byte more with each step: nothing, offered, completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Offer,
    Complete,
}

/// What a writer wants, and knows by when it finds it in the journal.
#[derive(Clone, Debug)]
struct Proposal {
    name: String,
    task: u64,
    step: Step,
    /// Where it is; `None`: that is not known.
    at: Option<u64>,
}

/// What somebody was told: that this step of this task was done by this proposal.
type Told = BTreeMap<(u64, Step), BTreeSet<String>>;

struct Writer {
    number: usize,
    log: MemoryLog,
    state: State,
    /// The last frame that it folded.
    folded: u64,
    count: u64,
    waiting: Option<Proposal>,
}

fn key(task: u64) -> EntityKey {
    EntityKey::new(Kind::Task, &["default", &format!("t{task}")])
}

/// The message with which a task is completed; both writers may be given it.
fn message(task: u64) -> MessageHead {
    MessageHead {
        direction: Direction::Inbound,
        message_id: format!("done-{task}"),
        message_type: "task_complete".into(),
        namespace: "default".into(),
        peer: "agent".into(),
        destination: String::new(),
        sender: "agent".into(),
        lane: String::new(),
        priority: 2,
        created_at: 1_000,
        deadline: None,
        expires_at: None,
        task_id: Some(format!("t{task}")),
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 0,
        digest: [0; 32],
        status: Status::Processed,
        reason: Reason::None,
        due_at: 1_000,
    }
}

fn record(name: &str, fact: Fact) -> Record {
    Record {
        event: Event::TaskCreate,
        level: Level::Info,
        actor: "writer".into(),
        namespace: "default".into(),
        resource: "task".into(),
        details: name.to_owned(),
        fact,
    }
}

fn records(frame: &Frame) -> impl Iterator<Item = (EntryId, Record)> {
    frame.entries.iter().map(|one| {
        let entry = EntryId { sequence: frame.position.sequence, index: one.index };
        (entry, codec::decode(&one.head).expect("a record"))
    })
}

/// Folds a frame; says which proposals changed the entity that they wrote.
fn fold(state: &mut State, frame: &Frame) -> Vec<(String, u64, bool)> {
    let mut done = Vec::new();
    for (entry, record) in records(frame) {
        let written = match &record.fact {
            Fact::Put(write) => Some(write.key.clone()),
            _ => None,
        };
        let version = |state: &State| written.as_ref().map_or(0, |key| state.ledger.version(key));
        let before = version(state);
        state.apply(entry, frame.time, &record, BodyPlace::default());
        if written.is_some() {
            done.push((record.details.clone(), entry.sequence, version(state) > before));
        }
    }
    state.sequence = frame.position.sequence;
    done
}

impl Writer {
    fn new(number: usize, log: MemoryLog) -> Self {
        let state = State::new(IDENTITY.key);
        Self { number, log, state, folded: 0, count: 0, waiting: None }
    }

    /// Starts again with nothing but the journal, in an epoch of its own.
    fn restart(&mut self) {
        self.log.new_epoch();
        (self.state, self.folded, self.waiting) = (State::new(IDENTITY.key), 0, None);
    }

    /// Folds up to so many frames, and answers who waits for one of them.
    fn follow(&mut self, reader: &MemoryReader, frames: usize, told: &mut Told) {
        for frame in reader.frames(self.folded + 1).take(frames) {
            let frame = frame.expect("memory reads");
            self.folded = frame.position.sequence;
            for (name, _, applied) in fold(&mut self.state, &frame) {
                let Some(waiting) = self.waiting.take_if(|waiting| waiting.name == name) else {
                    continue;
                };
                if applied {
                    told.entry((waiting.task, waiting.step)).or_default().insert(waiting.name);
                }
            }
        }
        // An unknown one that is not there when everything is folded was not appended.
        let head = reader.head().position.sequence;
        self.waiting.take_if(|waiting| waiting.at.is_none() && self.folded >= head);
    }

    /// What a task needs next, by what this writer has folded, which may be long ago.
    fn propose(&mut self, task: u64) -> Option<(Proposal, Vec<Record>)> {
        let key = key(task);
        let version = self.state.ledger.version(&key);
        let step = match version {
            0 => Step::Offer,
            1 => Step::Complete,
            _ => return None,
        };
        self.count += 1;
        let name = format!("{}-{}", self.number, self.count);
        let value = Some(Arc::from(name.as_bytes()));
        let write = Fact::Put(EntityWrite { key, expected_version: version, value });
        let mut records = vec![record(&name, write)];
        if step == Step::Complete {
            records.insert(0, record(&name, Fact::Accept(Arc::new(message(task)))));
        }
        Some((Proposal { name, task, step, at: None }, records))
    }

    /// Appends what it wants, perhaps without being told what became of it.
    fn write(&mut self, chance: &mut Chance) {
        let Some((mut proposal, records)) = self.propose(chance.below(TASKS)) else { return };
        match chance.below(6) {
            0 => self.log.set_next(Outcome::UnknownKept),
            1 => self.log.set_next(Outcome::UnknownLost),
            _ => {}
        }
        let heads: Vec<Vec<u8>> =
            records.iter().map(|record| codec::encode(record).expect("encoded")).collect();
        let entries: Vec<Entry<'_>> = heads
            .iter()
            .map(|head| Entry { head, body: None, index: index_of(head, &IDENTITY) })
            .collect();
        match self.log.append(1_000, &entries) {
            Ok(appended) => proposal.at = Some(appended.position.sequence),
            Err(AppendError::Unknown) => {}
            Err(AppendError::Fenced { .. }) => return self.restart(),
            Err(error) => panic!("{error}"),
        }
        self.waiting = Some(proposal);
        if chance.below(8) == 0 {
            // The power goes before the sync: what was appended is gone, and who waits is told so.
            self.log.crash();
            return self.restart();
        }
        if self.log.sync().is_err() {
            self.restart();
        }
    }
}

/// What the journal says in the end: which proposal did each step, by a fold of its own.
fn judge(reader: &MemoryReader) -> (State, Told) {
    let mut state = State::new(IDENTITY.key);
    let mut done = Told::new();
    for frame in reader.frames(1) {
        let frame = frame.expect("memory reads");
        let before: Vec<u64> = (0..TASKS).map(|task| state.ledger.version(&key(task))).collect();
        let applied = fold(&mut state, &frame);
        for (task, before) in (0..TASKS).zip(before) {
            let after = state.ledger.version(&key(task));
            assert!(after - before <= 1, "one frame is one step");
            if after > before {
                let step = if after == 1 { Step::Offer } else { Step::Complete };
                let names = applied.iter().filter(|(_, _, applied)| *applied);
                done.entry((task, step)).or_default().extend(names.map(|one| one.0.clone()));
            }
        }
    }
    (state, done)
}

fn run(seed: u64) -> (u64, u64) {
    let mut chance = Chance::new(seed);
    let log = MemoryLog::new(IDENTITY);
    let reader = log.reader();
    let mut writers = [Writer::new(0, log.writer()), Writer::new(1, log)];
    let mut told = Told::new();
    for _ in 0..STEPS {
        let writer = &mut writers[usize::from(chance.flip())];
        match chance.below(8) {
            0..4 => {
                let frames = usize::try_from(chance.below(4)).expect("few");
                writer.follow(&reader, frames, &mut told);
            }
            4 if chance.below(10) == 0 => writer.restart(),
            _ if writer.waiting.is_none() => writer.write(&mut chance),
            _ => writer.follow(&reader, usize::MAX, &mut told),
        }
    }
    let (state, done) = judge(&reader);
    for (step, names) in &done {
        assert_eq!(names.len(), 1, "seed {seed}: {step:?} was done by {names:?}");
    }
    for (step, names) in &told {
        assert_eq!(Some(names), done.get(step), "seed {seed}: who was told of {step:?}");
    }
    for task in 0..TASKS {
        let head = message(task);
        let known: Option<_> = state.messages.find(&MessageKey { ..head.key() });
        let completed = done.contains_key(&(task, Step::Complete));
        assert_eq!(known.is_some(), completed, "seed {seed}: message and effect are one");
    }
    for writer in &mut writers {
        writer.follow(&reader, usize::MAX, &mut told);
        assert_eq!(writer.state.digest(), state.digest(), "seed {seed}: one digest");
    }
    (done.len() as u64, state.superseded)
}

#[test]
fn two_writers_do_nothing_twice_and_tell_nobody_that_they_did() {
    let asked = std::env::var("LOKI_WRITERS_SEEDS").ok().and_then(|text| text.parse().ok());
    let (mut steps, mut superseded) = (0, 0);
    for seed in 1..=asked.unwrap_or(200) {
        let (done, late) = run(seed);
        steps += done;
        superseded += late;
    }
    assert!(steps > 0 && superseded > 0, "{steps} steps, {superseded} that came too late");
}
