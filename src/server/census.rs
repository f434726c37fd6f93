//! Tasks and agents by status, waiting tasks that nobody has looked at yet, and which entities are
//! to be retired when. Derived from the store's frames, never on disk. It retires nothing itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use storage::record::{EntityKey, Fact, Kind};
use storage::store::{Published, Store};

use super::model::{IDEMPOTENCY_MILLIS, Presence, Remembered, TaskStatus, decode};
use crate::clock::Millis;

/// The census of a server. Clones share it.
#[derive(Debug, Clone)]
pub struct Census {
    retention: Millis,
    inner: Arc<Mutex<Inner>>,
}

/// Names of entities by something that each has one of.
#[derive(Debug)]
struct Groups<G> {
    of: HashMap<Arc<str>, G>,
    names: BTreeMap<G, BTreeSet<Arc<str>>>,
}

#[derive(Debug, Default)]
struct Inner {
    tasks: Groups<TaskStatus>,
    agents: Groups<Presence>,
    unseen: BTreeSet<Arc<str>>,
    retires_at: HashMap<EntityKey, Millis>,
    retiring: BTreeSet<(Millis, EntityKey)>,
}

impl<G> Default for Groups<G> {
    fn default() -> Self {
        Self { of: HashMap::new(), names: BTreeMap::new() }
    }
}

impl<G: Copy + Ord> Groups<G> {
    fn put(&mut self, name: &Arc<str>, group: Option<G>) {
        let before = match group {
            Some(group) => self.of.insert(Arc::clone(name), group),
            None => self.of.remove(name),
        };
        if let Some(names) = before.and_then(|before| self.names.get_mut(&before)) {
            names.remove(name);
        }
        if let Some(group) = group {
            self.names.entry(group).or_default().insert(Arc::clone(name));
        }
    }

    /// Up to `limit` names of a group behind one, in order.
    fn behind(&self, group: G, after: &str, limit: usize) -> Vec<Arc<str>> {
        let Some(names) = self.names.get(&group) else { return Vec::new() };
        let range = (Bound::Excluded(after), Bound::Unbounded);
        names.range::<str, _>(range).take(limit).cloned().collect()
    }

    fn counts(&self) -> Vec<(G, usize)> {
        self.names.iter().map(|(group, names)| (*group, names.len())).collect()
    }
}

/// What the census reads of a task, an agent, or a key of the shared state.
#[derive(Deserialize)]
struct Glance<S> {
    status: S,
    #[serde(default)]
    updated_at: Millis,
}

#[derive(Deserialize)]
struct Cell {
    deleted: bool,
    updated_at: Millis,
}

impl Glance<TaskStatus> {
    fn retires_at(&self, retention: Millis) -> Option<Millis> {
        self.status.is_terminal().then(|| self.updated_at.saturating_add(retention))
    }
}

impl Glance<Presence> {
    fn retires_at(&self, retention: Millis) -> Option<Millis> {
        (self.status != Presence::Online).then(|| self.updated_at.saturating_add(retention))
    }
}

/// From when on an entity with this value is kept no longer, if that is to be.
pub fn retires_at(kind: Kind, value: &[u8], retention: Millis) -> Option<Millis> {
    match kind {
        Kind::Task => decode::<Glance<TaskStatus>>(value)?.retires_at(retention),
        Kind::Agent => decode::<Glance<Presence>>(value)?.retires_at(retention),
        Kind::State => {
            let cell = decode::<Cell>(value).filter(|cell| cell.deleted)?;
            Some(cell.updated_at.saturating_add(retention))
        }
        Kind::Idempotency => {
            let known = decode::<Remembered>(value)?;
            Some(known.at.saturating_add(IDEMPOTENCY_MILLIS))
        }
        _ => None,
    }
}

impl Census {
    /// An empty one; what has ended or gone is retired after `retention` milliseconds.
    pub fn new(retention: Millis) -> Self {
        Self { retention, inner: Arc::default() }
    }

    /// Enters what is there. Frames that are published meanwhile are heard after it.
    pub fn fill(&self, store: &Store) {
        let mut inner = self.inner.lock();
        for (key, entity) in store.ledger().iter() {
            inner.put(key, Some(&entity.value), self.retention);
        }
    }

    /// Hears what a durable frame says.
    pub fn hear(&self, published: &Published) {
        let mut inner = self.inner.lock();
        for (_, record, _) in published.entries.iter() {
            if let Fact::Put(write) = &record.fact {
                inner.put(&write.key, write.value.as_deref(), self.retention);
            }
        }
    }

    /// How many tasks have which status.
    pub fn tasks(&self) -> Vec<(TaskStatus, usize)> {
        self.inner.lock().tasks.counts()
    }

    /// How many agents are there, lost, or offline.
    pub fn agents(&self) -> Vec<(Presence, usize)> {
        self.inner.lock().agents.counts()
    }

    /// Up to `limit` names of tasks with a status behind `after`, in order.
    pub fn with_status(&self, status: TaskStatus, after: &str, limit: usize) -> Vec<Arc<str>> {
        self.inner.lock().tasks.behind(status, after, limit)
    }

    /// The same of agents.
    pub fn with_presence(&self, presence: Presence, after: &str, limit: usize) -> Vec<Arc<str>> {
        self.inner.lock().agents.behind(presence, after, limit)
    }

    /// Up to `limit` namespaces that have a task which did not end.
    pub fn namespaces(&self, limit: usize) -> BTreeSet<String> {
        let inner = self.inner.lock();
        let mut found = BTreeSet::new();
        for status in TaskStatus::ALL.into_iter().filter(|status| !status.is_terminal()) {
            let mut after = String::new();
            while found.len() < limit {
                let first = inner.tasks.behind(status, &after, 1);
                let Some((namespace, _)) = first.first().and_then(|name| name.split_once('\0'))
                else {
                    break;
                };
                // Behind all names of this namespace, and before those of any other.
                after = format!("{namespace}\u{1}");
                found.insert(namespace.to_owned());
            }
        }
        found
    }

    /// Waiting tasks that were entered since this was asked last, by their place.
    pub fn unseen(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.inner.lock().unseen).into_iter().collect()
    }

    /// Up to `limit` entities whose time is over at `now`.
    pub fn retiring(&self, now: Millis, limit: usize) -> Vec<EntityKey> {
        let inner = self.inner.lock();
        let over = inner.retiring.iter().take_while(|(at, _)| *at <= now);
        over.take(limit).map(|(_, key)| key.clone()).collect()
    }

    /// An entity is still needed: look again at `at`.
    pub fn postpone(&self, key: &EntityKey, at: Millis) {
        self.inner.lock().retire(key, Some(at));
    }
}

impl Inner {
    fn put(&mut self, key: &EntityKey, value: Option<&[u8]>, retention: Millis) {
        let retires_at = match key.kind {
            Kind::Task => {
                let task = value.and_then(decode::<Glance<TaskStatus>>);
                self.tasks.put(&key.name, task.as_ref().map(|task| task.status));
                task.and_then(|task| task.retires_at(retention))
            }
            Kind::Agent => {
                let agent = value.and_then(decode::<Glance<Presence>>);
                self.agents.put(&key.name, agent.as_ref().map(|agent| agent.status));
                agent.and_then(|agent| agent.retires_at(retention))
            }
            Kind::State | Kind::Idempotency => {
                value.and_then(|value| retires_at(key.kind, value, retention))
            }
            Kind::Waiting => {
                if value.is_some() {
                    self.unseen.insert(Arc::clone(&key.name));
                } else {
                    self.unseen.remove(&key.name);
                }
                return;
            }
            _ => return,
        };
        self.retire(key, retires_at);
    }

    fn retire(&mut self, key: &EntityKey, at: Option<Millis>) {
        let before = match at {
            Some(at) => self.retires_at.insert(key.clone(), at),
            None => self.retires_at.remove(key),
        };
        if let Some(before) = before {
            self.retiring.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.retiring.insert((at, key.clone()));
        }
    }
}
