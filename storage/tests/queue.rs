//! The queues against a model that looks through everything: which messages go next, whatever was
//! taken, put back, put off, held, failed and retried before, and after a checkpoint was read.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use proptest::prelude::*;
use storage::checkpoint::{self, Loaded, Writer};
use storage::event::Event;
use storage::fold::State;
use storage::messages::BodyPlace;
use storage::queue::{PASSED_MAX, waiting};
use storage::record::{
    Direction, EntryId, Fact, Level, MessageChange, MessageHead, Millis, Reason, Record, Status,
};

const KEY: [u8; 16] = [7; 16];
const NAMES: [&str; 2] = ["north", "south"];

#[derive(Clone, Debug)]
enum Op {
    Accept { to: usize, lane: u8, priority: u8, deadline: Option<Millis>, later: Millis },
    Take { to: usize, limit: usize },
    Release { to: usize, count: usize },
    Change { target: usize, status: Status, later: Millis },
    Wait(Millis),
}

fn op() -> impl Strategy<Value = Op> {
    let status = prop_oneof![
        Just(Status::Pending),
        Just(Status::Sending),
        Just(Status::Delivered),
        Just(Status::Failed),
        Just(Status::Held),
    ];
    let deadline = proptest::option::weighted(0.3, 1..5_u64);
    let later = prop_oneof![3 => Just(0_u64), 1 => 1..40_u64];
    prop_oneof![
        5 => (0..2_usize, 0..4_u8, 0..5_u8, deadline, later.clone()).prop_map(
            |(to, lane, priority, deadline, later)| {
                Op::Accept { to, lane, priority, deadline, later }
            },
        ),
        3 => (0..2_usize, 1..4_usize).prop_map(|(to, limit)| Op::Take { to, limit }),
        1 => (0..2_usize, 0..3_usize).prop_map(|(to, count)| Op::Release { to, count }),
        4 => (any::<usize>(), status, later)
            .prop_map(|(target, status, later)| Op::Change { target, status, later }),
        1 => (1..30_u64).prop_map(Op::Wait),
    ]
}

fn head(number: u64, (to, lane): (&str, &str), priority: u8, due_at: Millis) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: format!("m-{number}"),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: to.into(),
        sender: "loki".into(),
        lane: lane.into(),
        priority,
        created_at: 1,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 1,
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at,
    }
}

fn apply(state: &mut State, entry: EntryId, time: Millis, fact: Fact) {
    let record = Record {
        event: Event::ConfigLoad,
        level: Level::Info,
        actor: "test".into(),
        namespace: "default".into(),
        resource: "test".into(),
        details: String::new(),
        fact,
    };
    state.apply(entry, time, &record, BodyPlace::default());
}

fn changed(state: &mut State, message: EntryId, at: (EntryId, Millis), to: (Status, Millis)) {
    let change = MessageChange {
        message,
        fingerprint: 0,
        status: to.0,
        reason: Reason::None,
        attempts: 0,
        next_attempt_at: to.1,
        maybe_delivered: false,
        error: String::new(),
    };
    apply(state, at.0, at.1, Fact::Change(change));
}

/// One message as the model keeps it.
#[derive(Clone, Debug)]
struct Message {
    entry: EntryId,
    lane_at: EntryId,
    to: usize,
    lane: u8,
    priority: usize,
    deadline: Millis,
    due_at: Millis,
    status: Status,
    is_out: bool,
}

/// Everything, looked through again for each answer.
#[derive(Clone, Debug, Default)]
struct Model {
    messages: BTreeMap<EntryId, Message>,
    passed: [[u32; 4]; 2],
}

impl Model {
    fn queued(&self, to: usize) -> impl Iterator<Item = &Message> {
        self.messages.values().filter(move |one| one.to == to && one.status != Status::Failed)
    }

    /// Those that may go, by priority, the first of each priority first.
    fn ready(&self, to: usize, now: Millis) -> [Vec<(Millis, EntryId)>; 4] {
        let mut classes: [Vec<(Millis, EntryId)>; 4] = Default::default();
        for one in self.queued(to) {
            // One of a lane at a time, and the first of it first.
            let is_before = |it: &Message| it.is_out || it.lane_at < one.lane_at;
            let is_behind =
                one.lane != 0 && self.queued(to).any(|it| it.lane == one.lane && is_before(it));
            if !is_behind && !one.is_out && one.status != Status::Held && one.due_at <= now {
                classes[one.priority.min(3)].push((one.deadline, one.entry));
            }
        }
        for class in &mut classes {
            class.sort_unstable();
        }
        classes
    }

    fn take(&mut self, to: usize, now: Millis, limit: usize) -> Vec<EntryId> {
        let mut taken = Vec::new();
        while taken.len() < limit {
            let classes = self.ready(to, now);
            let filled = |class: &usize| !classes[*class].is_empty();
            let Some(most_urgent) = (0..4).find(filled) else { break };
            let passed = |class: &usize| filled(class) && self.passed[to][*class] >= PASSED_MAX;
            let turn = (0..4).rev().find(passed).unwrap_or(most_urgent);
            let entry = classes[turn][0].1;
            self.passed[to][turn] = 0;
            for class in (turn + 1..4).filter(filled) {
                self.passed[to][class] += 1;
            }
            self.messages.get_mut(&entry).expect("there").is_out = true;
            taken.push(entry);
        }
        taken
    }

    fn change(&mut self, entry: EntryId, at: EntryId, (status, due_at): (Status, Millis)) {
        let Some(one) = self.messages.get_mut(&entry) else { return };
        let to = one.to;
        if one.status == Status::Failed && status == Status::Pending {
            one.lane_at = at;
        }
        one.is_out &= status == Status::Sending;
        (one.status, one.due_at) = (status, due_at);
        if status == Status::Delivered {
            self.messages.remove(&entry);
        }
        self.forget(to);
    }

    /// A queue without messages remembers nothing.
    fn forget(&mut self, to: usize) {
        if self.queued(to).next().is_none() {
            self.passed[to] = [0; 4];
        }
    }
}

struct World {
    state: State,
    model: Model,
    now: Millis,
    sequence: u64,
}

impl World {
    fn carry_out(&mut self, op: &Op) -> Result<(), TestCaseError> {
        self.sequence += 1;
        let at = EntryId { sequence: self.sequence, index: 0 };
        match *op {
            Op::Accept { to, lane, priority, deadline, later } => {
                let due_at = self.now + later;
                let name = if lane == 0 { String::new() } else { format!("lane-{lane}") };
                let mut head = head(self.sequence, (NAMES[to], &name), priority, due_at);
                head.deadline = deadline;
                apply(&mut self.state, at, self.now, Fact::Accept(Arc::new(head)));
                let deadline = deadline.unwrap_or(Millis::MAX);
                let (priority, status) = (usize::from(priority), Status::Pending);
                let (entry, lane_at, is_out) = (at, at, false);
                let one = Message {
                    entry,
                    lane_at,
                    to,
                    lane,
                    priority,
                    deadline,
                    due_at,
                    status,
                    is_out,
                };
                self.model.messages.insert(at, one);
            }
            Op::Take { to, limit } => {
                let taken = self.state.messages.queues().take(NAMES[to], self.now, limit);
                prop_assert_eq!(taken, self.model.take(to, self.now, limit));
            }
            Op::Release { to, count } => {
                let out = self.model.queued(to).filter(|one| one.is_out).take(count);
                let out: Vec<EntryId> = out.map(|one| one.entry).collect();
                self.state.messages.queues().release(NAMES[to], &out);
                for entry in out {
                    self.model.messages.get_mut(&entry).expect("there").is_out = false;
                }
            }
            Op::Change { target, status, later } => {
                let count = self.model.messages.len().max(1);
                let Some(entry) = self.model.messages.keys().nth(target % count).copied() else {
                    return Ok(());
                };
                let to = (status, self.now + later);
                changed(&mut self.state, entry, (at, self.now), to);
                self.model.change(entry, at, to);
            }
            Op::Wait(time) => self.now += time,
        }
        Ok(())
    }

    fn agree(&mut self) -> Result<(), TestCaseError> {
        let queues = self.state.messages.queues();
        for (to, name) in NAMES.iter().enumerate() {
            let count = self.model.queued(to).count();
            let out = self.model.queued(to).filter(|one| one.is_out).count();
            prop_assert_eq!((queues.len(name), queues.in_flight(name)), (count, out));
            prop_assert_eq!(waiting(&queues).get(*name).copied().unwrap_or(0), count);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, ..ProptestConfig::with_cases(128)
    })]

    #[test]
    fn what_goes_next_is_what_a_model_says(ops in prop::collection::vec(op(), 1..120)) {
        let (state, model) = (State::new(KEY), Model::default());
        let mut world = World { state, model, now: 1_000, sequence: 0 };
        for op in &ops {
            world.carry_out(op)?;
            world.agree()?;
        }
        // A state that was read from a checkpoint has nothing out, and otherwise goes on alike.
        let folder = tempfile::tempdir().expect("folder");
        let mut writer = Writer::begin(folder.path(), [1; 16]);
        writer.write(&RwLock::new(world.state), &|_| Some([2; 32])).expect("written");
        let path = checkpoint::candidates(folder.path()).remove(0);
        let loaded = Loaded::read(&path, KEY).expect("reads");
        world.state = loaded.finish(folder.path()).expect("whole").0;
        world.model.passed = Default::default();
        for one in world.model.messages.values_mut() {
            one.is_out = false;
        }
        world.agree()?;
        world.now += 100;
        for to in [0, 1] {
            world.carry_out(&Op::Take { to, limit: 1_000 })?;
        }
        world.agree()?;
    }
}

fn filled(classes: &[(u8, usize)]) -> State {
    let mut state = State::new(KEY);
    let mut sequence = 0;
    for (priority, count) in classes {
        for _ in 0..*count {
            sequence += 1;
            let head = head(sequence, ("north", ""), *priority, 1);
            let entry = EntryId { sequence, index: 0 };
            apply(&mut state, entry, 5, Fact::Accept(Arc::new(head)));
        }
    }
    state
}

fn priorities(state: &mut State, count: usize) -> Vec<u8> {
    let taken = state.messages.queues().take("north", 5, count);
    taken.iter().map(|entry| state.messages.live(*entry).expect("there").priority).collect()
}

#[test]
fn the_urgent_go_first_and_the_least_urgent_are_not_starved() {
    let mut state = filled(&[(3, 5), (2, 5), (0, 200)]);
    let taken = priorities(&mut state, 100);
    let of = |wanted| taken.iter().copied().filter(move |one: &u8| *one == wanted).count();
    assert_eq!(taken[..16], [0; 16], "what is urgent passes what waits longer");
    assert_eq!(&taken[16..18], [3, 2], "and those that were passed over go then");
    assert_eq!((of(0), of(2), of(3)), (90, 5, 5), "{taken:?}");
}

#[test]
fn a_destination_does_not_wait_for_another_and_nothing_is_taken_twice() {
    let mut state = filled(&[(0, 2_000)]);
    let head = head(9_999, ("south", ""), 3, 1);
    let entry = EntryId { sequence: 9_999, index: 0 };
    apply(&mut state, entry, 5, Fact::Accept(Arc::new(head)));
    let first = state.messages.queues().take("north", 5, 1_500);
    assert_eq!(state.messages.queues().take("south", 5, 10), [entry]);
    let rest = state.messages.queues().take("north", 5, 1_500);
    assert_eq!((first.len(), rest.len()), (1_500, 500));
    assert!(rest.iter().all(|entry| !first.contains(entry)));
}

#[test]
fn what_waits_is_pulled_in_over_a_ramp_when_a_link_returns() {
    let mut state = State::new(KEY);
    for sequence in 1..=10 {
        let head = head(sequence, ("north", ""), 2, 1_000 + sequence);
        apply(&mut state, EntryId { sequence, index: 0 }, 5, Fact::Accept(Arc::new(head)));
    }
    let mut queues = state.messages.queues();
    assert_eq!((queues.next_due("north"), queues.take("north", 500, 10)), (Some(1_001), vec![]));
    queues.pull_in("north", 100, 100);
    assert_eq!(queues.next_due("north"), Some(100));
    assert_eq!(queues.take("north", 145, 10).len(), 5);
    // One that is changed meanwhile waits for its own time again.
    let sixth = EntryId { sequence: 6, index: 0 };
    changed(&mut state, sixth, (EntryId { sequence: 11, index: 0 }, 150), (Status::Pending, 700));
    let mut queues = state.messages.queues();
    assert_eq!(queues.take("north", 699, 10).len(), 4);
    assert_eq!(queues.take("north", 700, 10), [sixth]);
}
