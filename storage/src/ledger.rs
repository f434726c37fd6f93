//! Entities with versions: tasks, agents, sessions, shared state. A persistent map, so that a
//! snapshot costs nothing and the committer can look ahead of what is published. It does not know
//! what a value means.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::record::{EntityKey, EntityWrite, Kind};

/// A value and how often it was written since it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// 1 after the first write.
    pub version: u64,
    /// The bytes; what they mean is the owner's affair.
    pub value: Arc<[u8]>,
}

/// All entities. Cloning takes a snapshot in constant time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger(OrdMap<EntityKey, Entity>);

impl Ledger {
    /// The entity of this key.
    pub fn get(&self, key: &EntityKey) -> Option<&Entity> {
        self.0.get(key)
    }

    /// The version of this key; 0 when it does not exist.
    pub fn version(&self, key: &EntityKey) -> u64 {
        self.get(key).map_or(0, |entity| entity.version)
    }

    /// The entities of a kind whose name begins with `prefix`, in the order of their names.
    pub fn scan<'a>(
        &'a self,
        kind: Kind,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a EntityKey, &'a Entity)> {
        let first = EntityKey { kind, name: prefix.into() };
        self.0
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |(key, _)| key.kind == kind && key.name.starts_with(prefix))
    }

    /// The entities of a kind from the name after `after` on.
    pub fn scan_after<'a>(
        &'a self,
        kind: Kind,
        after: &str,
    ) -> impl Iterator<Item = (&'a EntityKey, &'a Entity)> {
        let first = EntityKey { kind, name: after.into() };
        self.0
            .range((Bound::Excluded(first), Bound::Unbounded))
            .take_while(move |(key, _)| key.kind == kind)
    }

    /// The entities of a range of keys, in order.
    pub(crate) fn range(
        &self,
        range: (Bound<EntityKey>, Bound<EntityKey>),
    ) -> impl Iterator<Item = (&EntityKey, &Entity)> {
        self.0.range(range)
    }

    /// Every entity, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&EntityKey, &Entity)> {
        self.0.iter()
    }

    /// How many entities there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies a guarded write; `false` when it was computed from another version (superseded).
    pub fn apply(&mut self, write: &EntityWrite) -> bool {
        if self.version(&write.key) != write.expected_version {
            return false;
        }
        match &write.value {
            Some(value) => {
                let version = write.expected_version + 1;
                let entity = Entity { version, value: Arc::clone(value) };
                self.0.insert(write.key.clone(), entity);
            }
            None => {
                self.0.remove(&write.key);
            }
        }
        true
    }

    /// Puts an entity back as a checkpoint recorded it.
    pub(crate) fn restore(&mut self, key: EntityKey, entity: Entity) {
        self.0.insert(key, entity);
    }
}
