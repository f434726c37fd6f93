//! Which outbound message goes next, for each destination: derived from the unfinished messages,
//! never on disk. It sends nothing and reads no clock; the caller says what time it is.
//!
//! A message with an ordering key is eligible only as the head of its lane. Among the eligible
//! ones that are due the order is priority, then earliest deadline, then age.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::messages::Live;
use crate::record::{EntryId, Millis, Status};

type Rank = (u8, Millis, EntryId);
type Lane = (Arc<str>, Arc<str>);

/// All destinations.
#[derive(Clone, Debug, Default)]
pub struct Queues(HashMap<Arc<str>, Queue>);

#[derive(Clone, Debug, Default)]
struct Queue {
    /// By place in the lane, see [`Live::lane_at`].
    lanes: HashMap<Lane, BTreeMap<EntryId, EntryId>>,
    items: HashMap<EntryId, Item>,
    ready: BTreeSet<Rank>,
    waiting: BTreeSet<(Millis, EntryId)>,
    in_flight: HashSet<EntryId>,
}

#[derive(Clone, Debug)]
struct Item {
    lane: Option<Lane>,
    lane_at: EntryId,
    rank: Rank,
    due_at: Millis,
    is_held: bool,
}

impl Queues {
    /// Enters an unfinished outbound message; others are left alone.
    pub(crate) fn insert(&mut self, live: &Live) {
        if live.head.destination.is_empty() || live.status == Status::Failed {
            return;
        }
        let queue = self.0.entry(live.head.destination.as_str().into()).or_default();
        queue.insert(live);
    }

    /// Takes a change of a message over.
    pub(crate) fn update(&mut self, live: &Live) {
        let destination = live.head.destination.as_str();
        if destination.is_empty() {
            return;
        }
        let queue = self.0.entry(destination.into()).or_default();
        match live.status {
            // The attempt's start is recorded without being waited for: the message is out already.
            Status::Sending if queue.in_flight.contains(&live.entry) => {}
            Status::Pending | Status::Sending | Status::Held => {
                queue.remove(live.entry, true);
                queue.insert(live);
            }
            _ => queue.remove(live.entry, false),
        }
        if queue.items.is_empty() {
            self.0.remove(destination);
        }
    }

    /// Takes up to `limit` messages that are due at `now` out for sending. They stay out until a
    /// change of theirs is applied, or until [`Queues::release`].
    pub fn take(&mut self, destination: &str, now: Millis, limit: usize) -> Vec<EntryId> {
        let Some(queue) = self.0.get_mut(destination) else { return Vec::new() };
        queue.wake(now);
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some((.., entry)) = queue.ready.pop_first() else { break };
            queue.in_flight.insert(entry);
            taken.push(entry);
        }
        taken
    }

    /// When the next waiting message of this destination is due; `None` when none waits.
    pub fn next_due(&self, destination: &str) -> Option<Millis> {
        let queue = self.0.get(destination)?;
        if !queue.ready.is_empty() {
            return Some(0);
        }
        queue.waiting.first().map(|(due_at, _)| *due_at)
    }

    /// Puts messages back that were taken and not sent.
    pub fn release(&mut self, destination: &str, entries: &[EntryId]) {
        let Some(queue) = self.0.get_mut(destination) else { return };
        for entry in entries {
            if queue.in_flight.remove(entry) {
                queue.offer(*entry);
            }
        }
    }

    /// A link returned: what waits becomes due, spread evenly from `now` over `spread`
    /// milliseconds. The due times on disk stay as they are.
    pub fn pull_in(&mut self, destination: &str, now: Millis, spread: Millis) {
        let Some(queue) = self.0.get_mut(destination) else { return };
        let waiting = std::mem::take(&mut queue.waiting);
        let count = waiting.len().max(1) as u64;
        for (step, (due_at, entry)) in waiting.into_iter().enumerate() {
            let ramp = now + spread * (step as u64) / count;
            let due_at = due_at.min(ramp);
            if let Some(item) = queue.items.get_mut(&entry) {
                item.due_at = due_at;
            }
            queue.waiting.insert((due_at, entry));
        }
    }

    /// The destinations that have messages.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// Messages of this destination that are taken and unanswered.
    pub fn in_flight(&self, destination: &str) -> usize {
        self.0.get(destination).map_or(0, |queue| queue.in_flight.len())
    }
}

impl Queue {
    fn insert(&mut self, live: &Live) {
        let head = &live.head;
        let lane = (!head.lane.is_empty())
            .then(|| (Arc::from(head.sender.as_str()), Arc::from(head.lane.as_str())));
        let rank = (head.priority, head.deadline.unwrap_or(Millis::MAX), live.entry);
        if let Some(lane) = &lane {
            let lane = self.lanes.entry(lane.clone()).or_default();
            lane.insert(live.lane_at, live.entry);
            // Whoever was the head until now is so no longer.
            let mut first = lane.iter();
            let is_head = first.next().is_some_and(|(at, _)| *at == live.lane_at);
            if is_head && let Some(was) = first.next().and_then(|(_, entry)| self.items.get(entry))
            {
                self.ready.remove(&was.rank);
                self.waiting.remove(&(was.due_at, was.rank.2));
            }
        }
        let is_held = live.status == Status::Held;
        let (lane_at, due_at) = (live.lane_at, live.next_attempt_at);
        let item = Item { lane, lane_at, rank, due_at, is_held };
        self.items.insert(live.entry, item);
        self.offer(live.entry);
    }

    /// `keep_lane`: it comes back at once, so its lane must not go on without it.
    fn remove(&mut self, entry: EntryId, keep_lane: bool) {
        let Some(item) = self.items.remove(&entry) else { return };
        self.ready.remove(&item.rank);
        self.waiting.remove(&(item.due_at, entry));
        self.in_flight.remove(&entry);
        if keep_lane {
            return;
        }
        let Some(lane) = item.lane else { return };
        let Some(entries) = self.lanes.get_mut(&lane) else { return };
        entries.remove(&item.lane_at);
        let next = entries.values().next().copied();
        if entries.is_empty() {
            self.lanes.remove(&lane);
        }
        if let Some(next) = next {
            self.offer(next);
        }
    }

    /// Makes an entry eligible if nothing in its lane is before it.
    fn offer(&mut self, entry: EntryId) {
        let Some(item) = self.items.get(&entry) else { return };
        let lane = item.lane.as_ref().and_then(|lane| self.lanes.get(lane));
        let head = lane.and_then(|lane| lane.values().next());
        if item.is_held
            || self.in_flight.contains(&entry)
            || head.is_some_and(|head| *head != entry)
        {
            return;
        }
        self.waiting.insert((item.due_at, entry));
    }

    fn wake(&mut self, now: Millis) {
        while let Some((due_at, entry)) = self.waiting.first().copied() {
            if due_at > now {
                break;
            }
            self.waiting.pop_first();
            if let Some(item) = self.items.get(&entry) {
                self.ready.insert(item.rank);
            }
        }
    }
}

/// How many messages of each destination wait, for a picture of the whole.
pub fn waiting(queues: &Queues) -> BTreeMap<Arc<str>, usize> {
    queues.0.iter().map(|(name, queue)| (Arc::clone(name), queue.items.len())).collect()
}
