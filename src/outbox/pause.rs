//! Which destinations a person has paused: an entity of the store, so that it outlives a restart.
//! It decides and reads; that nothing leaves meanwhile is the pump's affair.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use storage::event::Event;
use storage::ledger::Ledger;
use storage::record::{EntityKey, Kind, Level};
use storage::transaction::{Act, Transaction};

use crate::clock::Millis;

/// What the names of pauses begin with.
const NAME: &str = "pause";

/// Who has paused something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The person.
    pub by: String,
    /// When.
    pub since: Millis,
}

/// What is paused of one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pauses {
    /// All of it.
    pub all: Option<Pause>,
    /// What is for these agents.
    pub peers: BTreeMap<String, Pause>,
}

impl Pauses {
    /// The pauses of a destination.
    pub fn of(ledger: &Ledger, destination: &str) -> Self {
        let mut pauses = Self::default();
        let prefix = format!("{NAME}\0{destination}\0");
        for (key, entity) in ledger.scan(Kind::Circuit, &prefix) {
            let Ok(pause) = serde_json::from_slice::<Pause>(&entity.value) else { continue };
            match &key.name[prefix.len()..] {
                "" => pauses.all = Some(pause),
                peer => {
                    pauses.peers.insert(peer.to_owned(), pause);
                }
            }
        }
        pauses
    }

    /// Why nothing leaves for this agent; `None` when it does.
    pub fn holds(&self, peer: &str) -> Option<&Pause> {
        self.all.as_ref().or_else(|| self.peers.get(peer))
    }

    /// Nothing is paused.
    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.peers.is_empty()
    }

    /// Something that `before` held may leave now.
    pub fn releases(&self, before: &Self) -> bool {
        let is_gone = |peer: &String| self.holds(peer).is_none();
        before.all.is_some() && self.all.is_none() || before.peers.keys().any(is_gone)
    }
}

fn key(destination: &str, peer: Option<&str>) -> EntityKey {
    EntityKey::new(Kind::Circuit, &[NAME, destination, peer.unwrap_or_default()])
}

fn act(event: Event, actor: &str, namespace: &str, (destination, peer): Target<'_>) -> Act {
    let details = serde_json::json!({ "destination": destination, "to": peer });
    let act = Act::new(event, actor, namespace, peer.unwrap_or(destination));
    act.level(Level::Warning).details(details.to_string())
}

/// A destination, and whom of those that are reached by it; `None`: all.
pub type Target<'a> = (&'a str, Option<&'a str>);

/// Pauses a target; `false` when it was paused already, which stays as it is.
pub fn pause(
    transaction: &mut Transaction<'_>,
    actor: &str,
    namespace: &str,
    target: Target<'_>,
) -> bool {
    let key = key(target.0, target.1);
    if transaction.get(&key).is_some() {
        return false;
    }
    let pause = Pause { by: actor.to_owned(), since: transaction.now() };
    // It is made of strings and numbers.
    let value = serde_json::to_vec(&pause).unwrap_or_default();
    transaction.put(act(Event::MessageHeld, actor, namespace, target), key, value);
    true
}

/// Ends the pause of a target, and those of all agents when it names none. Returns how many ended.
pub fn resume(
    transaction: &mut Transaction<'_>,
    actor: &str,
    namespace: &str,
    (destination, peer): Target<'_>,
) -> usize {
    let mut targets: Vec<Option<String>> = vec![peer.map(str::to_owned)];
    if peer.is_none() {
        let pauses = Pauses::of(transaction.ledger(), destination);
        targets.extend(pauses.peers.into_keys().map(Some));
    }
    let mut ended = 0;
    for peer in targets {
        let target = (destination, peer.as_deref());
        let key = key(target.0, target.1);
        if transaction.get(&key).is_some() {
            transaction.remove(act(Event::MessageReleased, actor, namespace, target), key);
            ended += 1;
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_all_holds_everybody_and_one_of_an_agent_only_that() {
        let pause = || Pause { by: "ada".into(), since: 1 };
        let none = Pauses::default();
        let bob = Pauses { peers: [("bob".to_owned(), pause())].into(), ..Pauses::default() };
        let all = Pauses { all: Some(pause()), ..bob.clone() };
        let held = |pauses: &Pauses| ["bob", "eve"].map(|peer| pauses.holds(peer).is_some());
        assert_eq!(
            [held(&none), held(&bob), held(&all)],
            [[false, false], [true, false], [true, true],]
        );
        assert!(bob.releases(&all) && none.releases(&bob) && none.releases(&all));
        assert!(!all.releases(&bob) && !bob.releases(&bob) && !bob.releases(&none));
    }
}
