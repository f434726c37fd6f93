//! Which outbound message goes next, for each destination: derived from the unfinished messages,
//! never on disk. It sends nothing and reads no clock; the caller says what time it is.
//!
//! A message with an ordering key is eligible only as the head of its lane. Among the eligible
//! ones that are due the order is priority, then earliest deadline, then age. So that a busy
//! destination's less urgent messages go too, one that was passed over [`PASSED_MAX`] times goes.
//!
//! What came in order, has no deadline and may go costs nothing here: it is a list through the
//! slots of the messages. The rest is sorted, at about 60 bytes a message.

pub(crate) mod lanes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::messages::slot::{Item, NEVER, NONE, Place, Slot};
use crate::messages::slots::Slots;
use crate::messages::texts;
use crate::record::{EntryId, Millis, Status};
use crate::slab::Keyed as _;
use lanes::List;

/// Priorities: 0 is the most urgent.
const PRIORITIES: usize = 4;

/// How many more urgent messages go before one that is less urgent and waits.
pub const PASSED_MAX: u32 = 16;

/// The queues of all destinations, by the number of the destination's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Core(HashMap<u32, Queue>);

#[derive(Clone, Debug, Default)]
struct Queue {
    classes: [Class; PRIORITIES],
    /// By due time.
    waiting: BTreeSet<(Millis, u32)>,
    /// Due times that are not those of the messages, see [`Queues::pull_in`].
    pulled: HashMap<u32, Millis>,
    out: usize,
    len: usize,
}

/// The eligible messages of one priority that are due.
#[derive(Clone, Debug, Default)]
struct Class {
    /// Those without a deadline that came in the order of their entries.
    list: List,
    /// The others.
    sorted: BTreeSet<(Millis, EntryId, u32)>,
    /// How many went before one of these since the last of these went.
    passed: u32,
}

impl Class {
    fn is_empty(&self) -> bool {
        self.list.first == NONE && self.sorted.is_empty()
    }
}

/// All destinations, with the messages that they are made of.
#[derive(Debug)]
pub struct Queues<'a> {
    core: &'a mut Core,
    slots: &'a mut Slots,
}

impl<'a> Queues<'a> {
    pub(crate) fn new(core: &'a mut Core, slots: &'a mut Slots) -> Self {
        Self { core, slots }
    }

    /// Takes up to `limit` messages that are due at `now` out for sending. They stay out until a
    /// change of theirs is applied, or until [`Queues::release`].
    pub fn take(&mut self, destination: &str, now: Millis, limit: usize) -> Vec<EntryId> {
        let Some(name) = self.slots.texts.find(destination) else { return Vec::new() };
        self.wake(name, now);
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some(id) = self.next(name) else { break };
            let Some(slot) = self.slots.slab.get_mut(id) else { break };
            slot.set_place(Place::Out);
            taken.push(slot.entry());
        }
        taken
    }

    /// When the next waiting message of this destination is due; `None` when none waits.
    pub fn next_due(&self, destination: &str) -> Option<Millis> {
        let queue = self.queue(destination)?;
        if queue.classes.iter().any(|class| !class.is_empty()) {
            return Some(0);
        }
        queue.waiting.first().map(|(due_at, _)| *due_at)
    }

    /// Puts messages back that were taken and not sent.
    pub fn release(&mut self, _destination: &str, entries: &[EntryId]) {
        for entry in entries {
            let Some(id) = self.slots.slab.find(*entry) else { continue };
            if self.place(id) == Place::Out {
                self.withdraw(id);
                self.come_back(id);
            }
        }
    }

    /// Puts messages back that were taken and not sent, as due at another time, until
    /// [`Queues::pull_in`]. The due times on disk stay as they are.
    pub fn postpone(&mut self, _destination: &str, entries: &[EntryId], until: Millis) {
        for entry in entries {
            let Some(id) = self.slots.slab.find(*entry) else { continue };
            if self.place(id) != Place::Out {
                continue;
            }
            self.withdraw(id);
            let Some(name) = self.slots.slab.get(id).map(Slot::destination) else { continue };
            let Some(queue) = self.core.0.get_mut(&name) else { continue };
            queue.waiting.insert((until, id));
            queue.pulled.insert(id, until);
            self.set(id, Place::Waiting);
        }
    }

    /// A link returned: what waits becomes due, spread evenly from `now` over `spread`
    /// milliseconds. The due times on disk stay as they are.
    pub fn pull_in(&mut self, destination: &str, now: Millis, spread: Millis) {
        let name = self.slots.texts.find(destination);
        let Some(queue) = name.and_then(|name| self.core.0.get_mut(&name)) else { return };
        let count = queue.waiting.len().max(1) as u64;
        let waiting = std::mem::take(&mut queue.waiting);
        let waiting = waiting.into_iter().enumerate().map(|(step, (due_at, id))| {
            let ramp = now.saturating_add(spread.saturating_mul(step as u64) / count);
            if ramp < due_at {
                queue.pulled.insert(id, ramp);
            }
            (due_at.min(ramp), id)
        });
        queue.waiting = waiting.collect();
    }

    /// The destinations that have messages.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<str>> {
        self.core.0.keys().map(|name| self.slots.texts.get(*name))
    }

    /// Messages of this destination that are taken and unanswered.
    pub fn in_flight(&self, destination: &str) -> usize {
        self.queue(destination).map_or(0, |queue| queue.out)
    }

    /// Messages of this destination that are in its queue, whatever they wait for.
    pub fn len(&self, destination: &str) -> usize {
        self.queue(destination).map_or(0, |queue| queue.len)
    }

    /// Nothing is in the queue of this destination.
    pub fn is_empty(&self, destination: &str) -> bool {
        self.len(destination) == 0
    }

    /// Enters a message that is in no queue, if it is one that leaves.
    pub(crate) fn enter(&mut self, id: u32) {
        let Some(slot) = self.slots.slab.get(id) else { return };
        let (name, lane) = (slot.destination(), slot.lane());
        if name == texts::EMPTY || slot.status() == Status::Failed {
            return;
        }
        self.core.0.entry(name).or_default().len += 1;
        let current = match self.slots.lanes.get_mut(lane) {
            Some(lane) if lane.current == NONE => {
                lane.current = id;
                return self.offer(id);
            }
            Some(lane) => lane.current,
            None => return self.offer(id),
        };
        if self.lane_at(id) < self.lane_at(current) {
            // Whoever was the head until now is so no longer, unless it has left already.
            if self.place(current) != Place::Out {
                self.withdraw(current);
                self.set(current, Place::Behind);
                if let Some(lane) = self.slots.lanes.get_mut(lane) {
                    lane.current = id;
                    lane.list.insert(&mut self.slots.slab, NONE, current);
                }
                return self.offer(id);
            }
        }
        self.stand_behind(lane, id);
    }

    /// Takes a message out of its queue, and lets its lane go on without it.
    pub(crate) fn leave(&mut self, id: u32) {
        let place = self.place(id);
        let Some(slot) = self.slots.slab.get(id) else { return };
        let (name, lane) = (slot.destination(), slot.lane());
        match place {
            Place::Nowhere => return,
            Place::Behind => {
                if let Some(lane) = self.slots.lanes.get_mut(lane) {
                    lane.list.remove(&mut self.slots.slab, id);
                }
            }
            _ => {
                self.withdraw(id);
                self.go_on(lane, id);
            }
        }
        self.set(id, Place::Nowhere);
        if let Some(queue) = self.core.0.get_mut(&name) {
            queue.len -= 1;
            if queue.len == 0 {
                self.core.0.remove(&name);
            }
        }
    }

    /// A message of a queue is about to change and stays in it. [`Queues::offer_again`] follows.
    pub(crate) fn before_change(&mut self, id: u32, status: Status) -> Place {
        let place = self.place(id);
        // The attempt's start is recorded without being waited for: the message is out already.
        let is_out = place == Place::Out && status == Status::Sending;
        if !is_out && !matches!(place, Place::Nowhere | Place::Behind) {
            self.withdraw(id);
        }
        place
    }

    /// It has changed.
    pub(crate) fn after_change(&mut self, id: u32, before: Place) {
        match (before, self.place(id)) {
            (Place::Nowhere, _) => self.enter(id),
            (Place::Behind, _) | (_, Place::Out) => {}
            _ => self.come_back(id),
        }
    }

    /// The head of a lane was out and may go again, unless somebody came before it meanwhile.
    fn come_back(&mut self, id: u32) {
        let number = self.slots.slab.get(id).map_or(NONE, Slot::lane);
        let first = self.slots.lanes.get_mut(number).map_or(NONE, |lane| lane.list.first);
        if first == NONE || self.lane_at(first) > self.lane_at(id) {
            return self.offer(id);
        }
        if let Some(lane) = self.slots.lanes.get_mut(number) {
            lane.list.remove(&mut self.slots.slab, first);
            lane.current = first;
        }
        self.stand_behind(number, id);
        self.offer(first);
    }

    /// The next message of a lane may go.
    fn go_on(&mut self, lane: u32, was: u32) {
        let Some(lane) = self.slots.lanes.get_mut(lane).filter(|lane| lane.current == was) else {
            return;
        };
        let next = lane.list.first;
        lane.current = next;
        if next != NONE {
            lane.list.remove(&mut self.slots.slab, next);
            self.offer(next);
        }
    }

    fn stand_behind(&mut self, lane: u32, id: u32) {
        let at = self.lane_at(id);
        let last = self.slots.lanes.get_mut(lane).map_or(NONE, |lane| lane.list.last);
        let mut before = last;
        while before != NONE && self.lane_at(before) > at {
            before = self.slots.slab.get(before).map_or(NONE, |slot| slot.before);
        }
        if let Some(lane) = self.slots.lanes.get_mut(lane) {
            lane.list.insert(&mut self.slots.slab, before, id);
        }
        self.set(id, Place::Behind);
    }

    /// Lets a message go that nothing in its lane is before, when it is due.
    fn offer(&mut self, id: u32) {
        let Some(item) = self.item(id) else { return };
        let Some(queue) = self.core.0.get_mut(&item.destination) else { return };
        if item.status == Status::Held {
            self.set(id, Place::Held);
        } else if item.next_attempt_at <= item.updated_at {
            // It was due when that was recorded.
            self.ready(id, &item);
        } else {
            queue.waiting.insert((item.next_attempt_at, id));
            self.set(id, Place::Waiting);
        }
    }

    fn ready(&mut self, id: u32, item: &Item) {
        let Some(queue) = self.core.0.get_mut(&item.destination) else { return };
        let class = &mut queue.classes[class_of(item.priority)];
        let last = self.slots.slab.get(class.list.last).map(Slot::entry);
        if item.deadline == NEVER && last.is_none_or(|last| last < item.entry) {
            let last = class.list.last;
            class.list.insert(&mut self.slots.slab, last, id);
            self.set(id, Place::Listed);
        } else {
            class.sorted.insert((item.deadline, item.entry, id));
            self.set(id, Place::Sorted);
        }
    }

    /// Takes a message out of where it may go, waits, or is out. It stays in its lane.
    fn withdraw(&mut self, id: u32) {
        let Some(item) = self.item(id) else { return };
        let place = self.place(id);
        let Some(queue) = self.core.0.get_mut(&item.destination) else { return };
        let class = &mut queue.classes[class_of(item.priority)];
        match place {
            Place::Listed => class.list.remove(&mut self.slots.slab, id),
            Place::Sorted => {
                class.sorted.remove(&(item.deadline, item.entry, id));
            }
            Place::Waiting => {
                let due_at = queue.pulled.remove(&id).unwrap_or(item.next_attempt_at);
                queue.waiting.remove(&(due_at, id));
            }
            Place::Out => queue.out -= 1,
            Place::Nowhere | Place::Behind | Place::Held => {}
        }
        self.set(id, Place::Held);
    }

    fn wake(&mut self, name: u32, now: Millis) {
        while let Some(queue) = self.core.0.get_mut(&name) {
            let Some((_, id)) = queue.waiting.first().copied().filter(|(due, _)| *due <= now)
            else {
                return;
            };
            queue.waiting.pop_first();
            queue.pulled.remove(&id);
            if let Some(item) = self.item(id) {
                self.ready(id, &item);
            }
        }
    }

    /// The message that goes next, taken out of those that may go.
    fn next(&mut self, name: u32) -> Option<u32> {
        let queue = self.core.0.get_mut(&name)?;
        let (first, class) = queue.turn()?;
        let listed = class.list.first;
        let age = self.slots.slab.get(listed).map(|slot| (NEVER, slot.entry()));
        let sorted = class.sorted.first().copied();
        let takes_sorted =
            sorted.is_some_and(|(at, entry, _)| age.is_none_or(|age| (at, entry) < age));
        let id = if let Some((.., id)) = sorted.filter(|_| takes_sorted) {
            class.sorted.pop_first();
            id
        } else {
            class.list.remove(&mut self.slots.slab, listed);
            listed
        };
        class.passed = 0;
        for less_urgent in queue.classes.iter_mut().skip(first + 1) {
            if !less_urgent.is_empty() {
                less_urgent.passed += 1;
            }
        }
        queue.out += 1;
        Some(id)
    }

    fn queue(&self, destination: &str) -> Option<&Queue> {
        self.core.0.get(&self.slots.texts.find(destination)?)
    }

    fn item(&self, id: u32) -> Option<Item> {
        self.slots.item(id)
    }

    fn place(&self, id: u32) -> Place {
        self.slots.slab.get(id).map_or(Place::Nowhere, Slot::place)
    }

    fn set(&mut self, id: u32, place: Place) {
        if let Some(slot) = self.slots.slab.get_mut(id) {
            slot.set_place(place);
        }
    }

    fn lane_at(&self, id: u32) -> EntryId {
        self.item(id).map_or_else(EntryId::default, |item| item.lane_at)
    }
}

impl Queue {
    /// Whose turn it is: the most urgent class that has something, unless a less urgent one was
    /// passed over too often.
    fn turn(&mut self) -> Option<(usize, &mut Class)> {
        let most_urgent = self.classes.iter().position(|class| !class.is_empty())?;
        let passed = |class: &Class| !class.is_empty() && class.passed >= PASSED_MAX;
        let turn = self.classes.iter().rposition(passed).unwrap_or(most_urgent);
        Some((turn, &mut self.classes[turn]))
    }
}

/// The first message of the lane that an unfinished one is in, perhaps itself; `None` when it has
/// no lane or is in no queue.
pub(crate) fn lane_head(slots: &Slots, entry: EntryId) -> Option<EntryId> {
    let slot = slots.slab.get(slots.slab.find(entry)?)?;
    slots.slab.get(slots.lanes.current(slot.lane())).map(Slot::entry)
}

fn class_of(priority: u8) -> usize {
    usize::from(priority).min(PRIORITIES - 1)
}

/// How many messages of each destination wait, for a picture of the whole.
pub fn waiting(queues: &Queues<'_>) -> BTreeMap<Arc<str>, usize> {
    let queues = queues.core.0.iter().map(|(name, queue)| {
        let name = queues.slots.texts.get(*name);
        (Arc::clone(name), queue.len)
    });
    queues.collect()
}
