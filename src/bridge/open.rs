//! The tasks that are not over, and those that hold a slot, without those that ended: what a change
//! costs does not grow with what was done before. It decides nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use storage::ledger::Ledger;
use storage::store::Store;

use super::board::{News, Place};
use super::task::{self, LocalTask};

/// The tasks that are not over, each read again when it changes.
pub struct Open {
    news: News,
    namespace: String,
    tasks: BTreeMap<Place, LocalTask>,
    places: HashMap<Arc<str>, Place>,
}

impl Open {
    /// Those that the news tells of, in a namespace. Nothing is read yet.
    pub fn new(news: News, namespace: &str) -> Self {
        let (tasks, places) = (BTreeMap::new(), HashMap::new());
        Self { news, namespace: namespace.to_owned(), tasks, places }
    }

    /// Reads what has changed, and gives it back as it is now.
    pub fn read(&mut self, store: &Store) -> Vec<LocalTask> {
        let changed = self.news.take();
        // After the news, so that it has all that they tell.
        let ledger = store.ledger();
        let mut read = Vec::with_capacity(changed.len());
        for task_id in changed {
            if let Some(place) = self.places.remove(&task_id) {
                self.tasks.remove(&place);
            }
            let Some(task) = task::get(&ledger, &self.namespace, &task_id) else { continue };
            if !task.status.is_terminal() {
                let place = Place::written(&task);
                self.tasks.insert(place.clone(), task.clone());
                self.places.insert(task_id, place);
            }
            read.push(task);
        }
        read
    }

    /// Our own in their order, then those of others by age.
    pub fn tasks(&self) -> impl Iterator<Item = &LocalTask> {
        self.tasks.values()
    }
}

/// The tasks that hold a slot, as decisions see them, which look ahead of what is published. It has
/// all that do and some that did, and asks what a decision sees which is which.
#[derive(Default)]
pub(super) struct Slots(Mutex<HashSet<Arc<str>>>);

impl Slots {
    /// Those that are held at the start.
    pub(super) fn new(held: Vec<Arc<str>>) -> Self {
        Self(Mutex::new(held.into_iter().collect()))
    }

    /// A decision was made by which this task may hold one, whether or not it becomes durable.
    pub(super) fn note(&self, task: &LocalTask) {
        if task.holds_slot() {
            self.0.lock().insert(task.task_id.as_str().into());
        }
    }

    /// How many are held. Only a decision may ask, with the entities that it sees: those that it
    /// does not see hold one only after a later decision.
    pub(super) fn held(&self, ledger: &Ledger, namespace: &str) -> usize {
        let mut slots = self.0.lock();
        slots.retain(|id| task::get(ledger, namespace, id).is_some_and(|task| task.holds_slot()));
        slots.len()
    }
}
