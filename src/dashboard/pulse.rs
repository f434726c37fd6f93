//! What happens to messages between two samples, heard from the durable frames: how many, and how
//! long a delivery takes from acceptance to acknowledgement. Bounded whatever the load.

use parking_lot::Mutex;
use storage::event::Event;
use storage::record::{Direction, EntryId, Fact, Millis, Status};
use storage::store::Published;

/// Messages whose acceptance is remembered. A newer one may take the place of an older one: times
/// are then those of some messages, which is enough for a chart.
const REMEMBERED: usize = 4_096;

/// Delivery times of one sample at the most; later ones take the places of earlier ones.
const TIMES_MAX: usize = 1_024;

/// What happened since the last sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beats {
    /// Messages accepted for sending.
    pub queued: u64,
    /// Messages that the next hop has.
    pub delivered: u64,
    /// Messages that arrived.
    pub received: u64,
    /// Attempts that failed and are made again.
    pub retried: u64,
    /// Messages that were given up.
    pub failed: u64,
    /// How long deliveries took, in milliseconds.
    pub times: Vec<Millis>,
}

impl Beats {
    /// The time that this share of the deliveries did not exceed.
    pub fn time(&self, percent: usize) -> Option<Millis> {
        let mut times = self.times.clone();
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        times.get((last * percent).div_ceil(100)).copied()
    }
}

#[derive(Default)]
struct Inner {
    beats: Beats,
    accepted: Vec<Option<(EntryId, Millis)>>,
}

/// Counts what it hears.
#[derive(Default)]
pub(super) struct Pulse(Mutex<Inner>);

impl Pulse {
    /// Hears a durable frame.
    pub fn hear(&self, published: &Published) {
        let mut inner = self.0.lock();
        for (entry, record, _) in published.entries.iter() {
            match &record.fact {
                Fact::Accept(head) if head.direction == Direction::Outbound => {
                    inner.beats.queued += 1;
                    inner.remember(*entry, published.time);
                }
                Fact::Accept(_) => inner.beats.received += 1,
                Fact::Change(change) => match change.status {
                    Status::Delivered => {
                        inner.beats.delivered += 1;
                        inner.delivered(change.message, published.time);
                    }
                    Status::Failed => inner.beats.failed += 1,
                    Status::Pending if record.event == Event::MessageRetry => {
                        inner.beats.retried += 1;
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// What happened since it was taken last.
    pub fn take(&self) -> Beats {
        std::mem::take(&mut self.0.lock().beats)
    }
}

impl Inner {
    fn remember(&mut self, entry: EntryId, time: Millis) {
        if self.accepted.is_empty() {
            self.accepted = vec![None; REMEMBERED];
        }
        if let Some(slot) = self.accepted.get_mut(slot(entry)) {
            *slot = Some((entry, time));
        }
    }

    fn delivered(&mut self, message: EntryId, time: Millis) {
        let Some(slot) = self.accepted.get_mut(slot(message)) else { return };
        let Some((_, accepted)) = slot.take_if(|(entry, _)| *entry == message) else { return };
        let took = time.saturating_sub(accepted);
        let count = self.beats.times.len();
        if count < TIMES_MAX {
            self.beats.times.push(took);
        } else if let Some(place) = self.beats.times.get_mut(slot_of(self.beats.delivered)) {
            *place = took;
        }
    }
}

/// Neighbours in a frame and in the journal have different places.
fn slot(entry: EntryId) -> usize {
    let mixed = entry.sequence.wrapping_mul(61).wrapping_add(u64::from(entry.index));
    usize::try_from(mixed % REMEMBERED as u64).unwrap_or(0)
}

fn slot_of(number: u64) -> usize {
    usize::try_from(number % TIMES_MAX as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_share_that_is_asked_for() {
        let beats = Beats { times: (1..=100).rev().collect(), ..Beats::default() };
        assert_eq!(
            (beats.time(50), beats.time(99), beats.time(100)),
            (Some(51), Some(100), Some(100))
        );
        assert_eq!(Beats::default().time(50), None);
        let one = Beats { times: vec![7], ..Beats::default() };
        assert_eq!((one.time(50), one.time(99)), (Some(7), Some(7)));
    }

    #[test]
    fn a_time_needs_the_acceptance_of_the_same_message() {
        let mut inner = Inner::default();
        let (first, second) = (
            EntryId { sequence: 1, index: 0 },
            EntryId { sequence: 1 + REMEMBERED as u64, index: 0 },
        );
        assert_eq!(slot(first), slot(second), "both have one place");
        inner.remember(first, 1_000);
        inner.remember(second, 2_000);
        inner.delivered(first, 9_000);
        assert_eq!(inner.beats.times, [] as [u64; 0], "the newer one took its place");
        inner.delivered(second, 2_030);
        inner.delivered(second, 5_000);
        assert_eq!(inner.beats.times, [30], "and counts once");
    }
}
