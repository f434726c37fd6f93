//! How much of what is in the audit log: entries by event, level and actor over a period.

use std::collections::{BTreeMap, HashMap};

use crate::event::Event;
use crate::inspect::audit::damage_of;
use crate::inspect::{AuditFilter, Glance};
use crate::journal::{ReadError, Reader};
use crate::record::{Level, Millis};

/// Actors that a summary names; a server may have had any number of agents.
pub const ACTORS_MAX: usize = 1_000;

/// Actors that are counted before the rare ones are put together: each takes a name and a number.
const ACTORS_COUNTED_MAX: usize = 100_000;

/// What a filter asks for, counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditSummary {
    /// All of them.
    pub entries: u64,
    /// The times of the oldest and the newest.
    pub times: Option<(Millis, Millis)>,
    /// By event, the most frequent first.
    pub events: Vec<(Event, u64)>,
    /// By level, the gravest first; only those that there are.
    pub levels: Vec<(Level, u64)>,
    /// By actor, the most frequent first; at most [`ACTORS_MAX`].
    pub actors: Vec<(String, u64)>,
    /// Entries by actors that are not named.
    pub other_actors: u64,
    /// What is damaged, a sentence each; its entries are not counted.
    pub damage: Vec<String>,
}

/// Counts what a filter asks for, its place and its limit apart. It reads every entry of the
/// period.
///
/// # Errors
/// When a segment cannot be read.
pub fn summary(reader: &Reader, filter: &AuditFilter) -> Result<AuditSummary, ReadError> {
    let mut count = Count::default();
    let mut damage = Vec::new();
    for segment in reader.segments().iter().filter(|one| filter.may_have(one)) {
        damage.extend(damage_of(reader, segment)?);
        let unread = segment.heads(|at, time, head| {
            if let Some(one) = Glance::read(at, time, head).filter(|one| filter.shows(one)) {
                count.add(&one);
            }
        });
        damage.extend(unread.iter().map(ToString::to_string));
    }
    Ok(count.finish(damage))
}

/// The counters while entries are read.
#[derive(Default)]
struct Count {
    entries: u64,
    times: Option<(Millis, Millis)>,
    events: BTreeMap<Event, u64>,
    levels: BTreeMap<Level, u64>,
    actors: HashMap<String, u64>,
    other_actors: u64,
}

impl Count {
    fn add(&mut self, one: &Glance<'_>) {
        self.entries += 1;
        let (first, last) = self.times.unwrap_or((one.time, one.time));
        self.times = Some((first.min(one.time), last.max(one.time)));
        *self.events.entry(one.event).or_default() += 1;
        *self.levels.entry(one.level).or_default() += 1;
        if let Some(count) = self.actors.get_mut(one.actor) {
            *count += 1;
        } else if self.actors.len() < ACTORS_COUNTED_MAX {
            self.actors.insert(one.actor.to_owned(), 1);
        } else {
            self.other_actors += 1;
        }
    }

    fn finish(self, damage: Vec<String>) -> AuditSummary {
        let mut events: Vec<_> = self.events.into_iter().collect();
        // The order of names is the same in every answer.
        events.sort_by_key(|(event, count)| (u64::MAX - count, event.name()));
        let mut actors: Vec<_> = self.actors.into_iter().collect();
        actors.sort_by(|(one, many), (other, more)| more.cmp(many).then_with(|| one.cmp(other)));
        let rest = actors.split_off(actors.len().min(ACTORS_MAX));
        let rest: u64 = rest.iter().map(|(_, count)| count).sum();
        AuditSummary {
            entries: self.entries,
            times: self.times,
            events,
            levels: self.levels.into_iter().rev().collect(),
            actors,
            other_actors: self.other_actors + rest,
            damage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EntryId;

    #[test]
    fn the_rare_ones_of_many_actors_are_put_together() {
        let mut count = Count::default();
        let mut add = |actor: &str| {
            let entry = EntryId::default();
            let (event, level) = (Event::TaskStart, Level::Info);
            let (namespace, resource, details) = ("", "", "");
            let one = Glance { entry, time: 5, event, level, actor, namespace, resource, details };
            count.add(&one);
        };
        for number in 0..ACTORS_COUNTED_MAX + 10 {
            add(&format!("agent-{number:06}"));
        }
        add("agent-000777");
        let summary = count.finish(Vec::new());
        assert_eq!(summary.actors.len(), ACTORS_MAX);
        assert_eq!(summary.actors[0], ("agent-000777".to_owned(), 2));
        let named: u64 = summary.actors.iter().map(|(_, count)| count).sum();
        assert_eq!(named + summary.other_actors, summary.entries);
        assert_eq!(summary.times, Some((5, 5)));
    }
}
