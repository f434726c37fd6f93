//! A link that is up now and then, and what is on its way over it. What is on its way when the link
//! goes down is lost, and some of the rest.

use std::fmt;

use loki_openclaw::clock::{Clock, Millis};
use loki_openclaw::transport::feed::Outgoing;

pub const SECOND: Millis = 1_000;
pub const MINUTE: Millis = 60 * SECOND;

/// How long the link is up, and how long it is down, at most: a tenth of the time.
const UP_MAX: Millis = 12 * SECOND;
const DOWN_MAX: Millis = 108 * SECOND;

/// How long something is on its way.
const WAY_MIN: Millis = 30;
const WAY_MORE_MAX: Millis = 270;

/// One of so many is lost although the link is up.
const LOST_EVERY: u64 = 50;

/// Something on its way, over the connection with a number.
struct Packet<T> {
    at: Millis,
    connection: u64,
    what: T,
}

/// The link and what is on it.
pub struct Link {
    /// From when to when it is up.
    bursts: Vec<(Millis, Millis)>,
    end: Millis,
    up: Vec<Packet<Vec<Outgoing>>>,
    down: Vec<Packet<Vec<String>>>,
}

impl Link {
    /// With its weather until a time; from then on it is up.
    pub fn new(end: Millis, chance: &Clock) -> Self {
        let mut bursts = Vec::new();
        let mut at = 0;
        while at < end {
            let from = at + 1 + chance.draw(DOWN_MAX);
            at = from + 1 + chance.draw(UP_MAX);
            bursts.push((from, at.min(end)));
        }
        bursts.retain(|(from, to)| from < to);
        bursts.push((end, Millis::MAX));
        Self { bursts, end, up: Vec::new(), down: Vec::new() }
    }

    fn burst(&self, now: Millis) -> Option<(Millis, Millis)> {
        let after = self.bursts.partition_point(|(from, _)| *from <= now);
        let burst = self.bursts.get(after.checked_sub(1)?).copied();
        burst.filter(|(_, to)| now < *to)
    }

    /// Whether it is up now.
    pub fn is_up(&self, now: Millis) -> bool {
        self.burst(now).is_some()
    }

    /// When it goes up or down next.
    pub fn next_change(&self, now: Millis) -> Millis {
        let ended = self.bursts.partition_point(|(_, to)| *to <= now);
        let next = self.bursts.get(ended).copied();
        next.map_or(Millis::MAX, |(from, to)| if from > now { from } else { to })
    }

    /// Something leaves; `None` when it never arrives.
    fn leave<T>(&self, what: T, connection: u64, now: Millis, chance: &Clock) -> Option<Packet<T>> {
        let at = now + WAY_MIN + chance.draw(WAY_MORE_MAX);
        let is_lost = chance.draw(LOST_EVERY - 1) == 0;
        let (_, to) = self.burst(now)?;
        (!is_lost && at < to).then_some(Packet { at, connection, what })
    }

    /// Messages leave for the receiver; over a broken connection they go nowhere.
    pub fn up(&mut self, what: Vec<Outgoing>, over: Option<u64>, now: Millis, chance: &Clock) {
        let packet = over.and_then(|connection| self.leave(what, connection, now, chance));
        self.up.extend(packet);
    }

    /// Acknowledgements leave for the sender.
    pub fn down(&mut self, what: Vec<String>, over: Option<u64>, now: Millis, chance: &Clock) {
        let packet = over.and_then(|connection| self.leave(what, connection, now, chance));
        self.down.extend(packet);
    }

    /// What has arrived at the receiver.
    pub fn arrived_up(&mut self, now: Millis, over: Option<u64>) -> Vec<Vec<Outgoing>> {
        arrived(&mut self.up, now, over)
    }

    /// What has arrived at the sender.
    pub fn arrived_down(&mut self, now: Millis, over: Option<u64>) -> Vec<Vec<String>> {
        arrived(&mut self.down, now, over)
    }

    /// Whether a message that leaves now arrives, and its acknowledgement comes back.
    pub fn carries(&self, now: Millis, chance: &Clock) -> bool {
        let there = self.leave((), 0, now, chance);
        there.is_some_and(|there| self.leave((), 0, there.at, chance).is_some())
    }
}

/// Takes out what has arrived, in order; what another connection carried is gone.
fn arrived<T>(packets: &mut Vec<Packet<T>>, now: Millis, over: Option<u64>) -> Vec<T> {
    packets.retain(|packet| Some(packet.connection) == over);
    packets.sort_by_key(|packet| packet.at);
    let count = packets.partition_point(|packet| packet.at <= now);
    packets.drain(..count).map(|packet| packet.what).collect()
}

impl fmt::Display for Link {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bursts = &self.bursts[..self.bursts.len() - 1];
        let up: Millis = bursts.iter().map(|(from, to)| to - from).sum();
        let share = up as f64 * 100.0 / self.end.max(1) as f64;
        write!(formatter, "{share:.1} % of the time in {} bursts", bursts.len())
    }
}
