//! The bridge's tasks in the orders in which they are listed, and how many stand where. Derived
//! from the store's frames, never on disk, so that a page or a count looks at no task that it does
//! not show.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::Deserialize;
use storage::ledger::Ledger;
use storage::record::{EntityKey, Fact, Kind};
use storage::store::Published;

use super::task::{LocalTask, Origin, TaskStatus};
use crate::clock::Millis;

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Our own in the order of the PRD, then those of others by age. A task keeps its place,
    /// whatever becomes of it.
    #[default]
    Written,
    /// Those first that ended, began or came last.
    Recent,
}

/// Where a task stands in an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    rank: [u64; 3],
    task_id: Arc<str>,
}

impl Place {
    /// That of a task in the order in which tasks were written.
    pub fn written(task: &LocalTask) -> Self {
        let rank = [u64::from(task.origin == Origin::Offered), task.position, task.created_at];
        Self { rank, task_id: task.task_id.as_str().into() }
    }

    /// Its task.
    pub fn task_id(&self) -> &str {
        &self.task_id
    }

    /// The place that its text names; `None` for another text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '.');
        let mut number = || parts.next()?.parse().ok();
        let rank = [number()?, number()?, number()?];
        Some(Self { rank, task_id: parts.next()?.into() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third] = self.rank;
        write!(to, "{first}.{second}.{third}.{}", self.task_id)
    }
}

/// What the board reads of a task.
#[derive(Deserialize)]
struct Glance {
    origin: Origin,
    status: TaskStatus,
    agent: Option<String>,
    #[serde(default)]
    position: u64,
    created_at: Millis,
    started_at: Option<Millis>,
    finished_at: Option<Millis>,
}

impl Glance {
    fn rank(&self, order: Order) -> [u64; 3] {
        let moved = self.finished_at.or(self.started_at).unwrap_or(self.created_at);
        match order {
            Order::Written => {
                [u64::from(self.origin == Origin::Offered), self.position, self.created_at]
            }
            Order::Recent => [u64::MAX - moved, 0, 0],
        }
    }
}

/// How many tasks stand where.
pub type Counts = BTreeMap<TaskStatus, u64>;

/// The board of one bridge.
#[derive(Default)]
pub struct Board {
    prefix: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: HashMap<Arc<str>, Glance>,
    /// The tasks in each order, all and those of each status.
    lists: BTreeMap<(Order, Option<TaskStatus>), BTreeSet<Place>>,
    counts: Counts,
    agents: BTreeMap<String, Counts>,
    /// Who follows what changes.
    followers: Vec<Weak<Changed>>,
}

type Changed = Mutex<BTreeSet<Arc<str>>>;

/// The tasks that changed since this was asked last; at first those that are not over. The board
/// tells it as long as it is there.
pub struct News(Arc<Changed>);

impl News {
    /// Takes them. The store's entities are at least as new as what this tells.
    pub fn take(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Board {
    /// An empty one, for the tasks of a namespace.
    pub fn new(namespace: &str) -> Self {
        Self { prefix: format!("{namespace}\0"), inner: Mutex::default() }
    }

    /// Enters what is there. Frames that are published meanwhile are heard after it.
    pub fn fill(&self, ledger: impl FnOnce() -> Ledger) {
        let mut inner = self.inner.lock();
        for (key, entity) in ledger().scan(Kind::Task, &self.prefix) {
            self.put(&mut inner, key, Some(&entity.value));
        }
    }

    /// Hears what a durable frame says.
    pub fn hear(&self, published: &Published) {
        for (_, record, _) in published.entries.iter() {
            if let Fact::Put(write) = &record.fact
                && write.key.kind == Kind::Task
            {
                self.put(&mut self.inner.lock(), &write.key, write.value.as_deref());
            }
        }
    }

    fn put(&self, inner: &mut Inner, key: &EntityKey, value: Option<&[u8]>) {
        let Some(task_id) = key.name.strip_prefix(&*self.prefix) else { return };
        let now = value.and_then(|value| serde_json::from_slice(value).ok());
        inner.enter(&task_id.into(), now);
    }

    /// What changes from now on, and what is not over now.
    pub fn news(&self) -> News {
        let mut inner = self.inner.lock();
        let open = TaskStatus::ALL.into_iter().filter(|status| !status.is_terminal());
        let open = open.flat_map(|status| inner.of_status(status)).collect();
        let changed = Arc::new(Mutex::new(open));
        inner.followers.push(Arc::downgrade(&changed));
        News(changed)
    }

    /// The tasks with a status, in the order in which they were written.
    pub fn of_status(&self, status: TaskStatus) -> Vec<Arc<str>> {
        self.inner.lock().of_status(status).collect()
    }

    /// Whether there is a task with this id that is not over.
    pub fn is_open(&self, task_id: &str) -> bool {
        self.inner.lock().known.get(task_id).is_some_and(|task| !task.status.is_terminal())
    }

    /// The tasks that hold a slot of this agent.
    pub fn holders(&self) -> Vec<Arc<str>> {
        let inner = self.inner.lock();
        let held = TaskStatus::HOLDING.into_iter().flat_map(|status| inner.of_status(status));
        let here =
            |id: &Arc<str>| inner.known.get(id).is_some_and(|it| it.origin != Origin::Shared);
        held.filter(here).collect()
    }

    /// How many tasks stand where.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let named = |(status, count): (&TaskStatus, &u64)| (status.as_str().to_owned(), *count);
        self.inner.lock().counts.iter().map(named).collect()
    }

    /// The same by who does them: those up to `most` who have the most.
    pub fn agents(&self, most: usize) -> Vec<(String, Counts)> {
        let mut agents: Vec<_> = self.inner.lock().agents.clone().into_iter().collect();
        agents.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.values().sum::<u64>()));
        agents.truncate(most);
        agents
    }

    /// Up to `limit` places behind one, and whether there are more.
    pub fn page(
        &self,
        order: Order,
        status: Option<TaskStatus>,
        after: Option<Place>,
        limit: usize,
    ) -> (Vec<Place>, bool) {
        let inner = self.inner.lock();
        let Some(list) = inner.lists.get(&(order, status)) else { return (Vec::new(), false) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut places: Vec<Place> =
            list.range((from, Bound::Unbounded)).take(limit + 1).cloned().collect();
        let more = places.len() > limit;
        places.truncate(limit);
        (places, more)
    }
}

impl Inner {
    fn of_status(&self, status: TaskStatus) -> impl Iterator<Item = Arc<str>> {
        let list = self.lists.get(&(Order::Written, Some(status)));
        list.into_iter().flatten().map(|place| Arc::clone(&place.task_id))
    }

    fn enter(&mut self, task_id: &Arc<str>, now: Option<Glance>) {
        if let Some(before) = self.known.remove(task_id) {
            self.list(task_id, &before, false);
        }
        if let Some(now) = now {
            self.list(task_id, &now, true);
            self.known.insert(Arc::clone(task_id), now);
        }
        self.followers.retain(|follower| {
            let changed = follower.upgrade();
            changed.is_some_and(|changed| {
                changed.lock().insert(Arc::clone(task_id));
                true
            })
        });
    }

    fn list(&mut self, task_id: &Arc<str>, glance: &Glance, is_there: bool) {
        for order in [Order::Written, Order::Recent] {
            let place = Place { rank: glance.rank(order), task_id: Arc::clone(task_id) };
            for status in [None, Some(glance.status)] {
                let list = self.lists.entry((order, status)).or_default();
                if is_there {
                    list.insert(place.clone());
                } else {
                    list.remove(&place);
                }
            }
        }
        count(&mut self.counts, glance.status, is_there);
        if let Some(agent) = &glance.agent {
            let counts = self.agents.entry(agent.clone()).or_default();
            count(counts, glance.status, is_there);
            if counts.is_empty() {
                self.agents.remove(agent);
            }
        }
    }
}

fn count(counts: &mut Counts, status: TaskStatus, is_there: bool) {
    let number = counts.entry(status).or_default();
    *number = if is_there { *number + 1 } else { number.saturating_sub(1) };
    if *number == 0 {
        counts.remove(&status);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn enter(board: &Board, task_id: &str, value: Option<&serde_json::Value>) {
        let key = EntityKey::new(Kind::Task, &["default", task_id]);
        let value = value.map(|value| value.to_string().into_bytes());
        board.put(&mut board.inner.lock(), &key, value.as_deref());
    }

    fn task(origin: &str, status: &str, position: u64, created_at: u64) -> serde_json::Value {
        json!({"origin": origin, "status": status, "agent": "eng-qa", "position": position,
            "created_at": created_at, "started_at": null, "finished_at": null})
    }

    fn ids(board: &Board, order: Order, status: Option<TaskStatus>) -> Vec<String> {
        let (places, _) = board.page(order, status, None, 100);
        places.iter().map(|place| place.task_id().to_owned()).collect()
    }

    #[test]
    fn a_task_keeps_its_place_while_it_moves() {
        let board = Board::new("default");
        enter(&board, "far", Some(&task("offered", "accepted", 0, 1)));
        enter(&board, "two", Some(&task("local", "pending", 2, 5)));
        enter(&board, "one", Some(&task("local", "pending", 1, 5)));
        let written = ["one", "two", "far"];
        assert_eq!(ids(&board, Order::Written, None), written);
        let (first, more) = board.page(Order::Written, None, None, 1);
        assert!(more);
        let mut moved = task("local", "completed", 1, 5);
        moved["finished_at"] = 9.into();
        enter(&board, "one", Some(&moved));
        assert_eq!(ids(&board, Order::Written, None), written);
        assert_eq!(ids(&board, Order::Recent, None), ["one", "two", "far"]);
        let cursor = Place::parse(&first[0].to_string());
        let (rest, more) = board.page(Order::Written, None, cursor, 2);
        let rest: Vec<&str> = rest.iter().map(Place::task_id).collect();
        assert_eq!((rest, more), (vec!["two", "far"], false));
    }

    #[test]
    fn counts_follow_and_what_is_gone_leaves_nothing() {
        let board = Board::new("default");
        enter(&board, "one", Some(&task("local", "pending", 1, 5)));
        enter(&board, "two", Some(&task("local", "pending", 2, 6)));
        enter(&board, "two", Some(&task("local", "failed", 2, 6)));
        let counts = board.counts();
        assert_eq!(counts, BTreeMap::from([("failed".into(), 1), ("pending".into(), 1)]));
        assert_eq!(ids(&board, Order::Written, Some(TaskStatus::Failed)), ["two"]);
        let of_agent = Counts::from([(TaskStatus::Pending, 1), (TaskStatus::Failed, 1)]);
        assert_eq!(board.agents(9), [("eng-qa".to_owned(), of_agent)]);
        assert_eq!(board.agents(0), []);
        enter(&board, "one", None);
        enter(&board, "two", None);
        assert!(board.counts().is_empty() && board.agents(9).is_empty());
        assert_eq!(ids(&board, Order::Recent, None), [""; 0]);
    }

    #[test]
    fn a_place_is_read_back_with_any_task_id() {
        for text in ["0.3.17.a.b-4.2", "1.0.0.x"] {
            assert_eq!(Place::parse(text).map(|place| place.to_string()).as_deref(), Some(text));
        }
        for text in ["", "x", "1.2.3", "1.2.x.id", "-1.0.0.id"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
