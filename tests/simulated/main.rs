//! Simulated hours of a link that is up for a tenth of the time, in bursts of seconds, through the
//! real outbox, circuit, retry and inbox, on two real stores: everything arrives, is applied once,
//! and in the order of its key. Time, chance and the link are simulated; no socket is opened.
//!
//! `LOKI_SIMULATED_HOURS=24` runs a day, `LOKI_SIMULATED_SEED` another one; `--no-capture` shows
//! the figures, beside those of a fixed retry over the same link.

mod figures;
mod link;
mod sides;

use figures::Figures;
use link::{Link, MINUTE, SECOND};
use loki_openclaw::clock::{Clock, Millis};
use sides::{Receiver, Sender};

const START: Millis = 1_771_165_800_000;

/// Between two messages, at most.
const BETWEEN_MAX: Millis = 20 * SECOND;

/// Of so many messages one has no ordering key.
const LANES: u64 = 8;

/// After the hours the link stays up for so long at the most.
const CALM: Millis = 20 * MINUTE;

/// How often both sides look while they are connected.
const TICK: Millis = 25;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[expect(clippy::print_stderr, reason = "the figures are for whoever runs it")]
fn say(what: &str) {
    eprintln!("{what}");
}

/// One that was sent.
struct Message {
    id: String,
    lane: u64,
    created: Millis,
}

/// The whole: both sides, the link between them, and what is to be sent.
struct World {
    clock: Clock,
    chance: Clock,
    link: Link,
    sender: Sender,
    receiver: Receiver,
    messages: Vec<Message>,
    next_message: Millis,
    end: Millis,
}

impl World {
    fn new(hours: u64, seed: u64) -> Self {
        let clock = Clock::simulated(START, seed);
        let chance = Clock::simulated(0, seed.wrapping_mul(31) + 7);
        let end = hours * 60 * MINUTE;
        let link = Link::new(end, &chance);
        let (sender, receiver) = (Sender::new(&clock), Receiver::new(&clock));
        Self { clock, chance, link, sender, receiver, messages: Vec::new(), next_message: 0, end }
    }

    fn now(&self) -> Millis {
        self.clock.now() - START
    }

    async fn advance(&mut self, to: Millis) {
        let step = std::time::Duration::from_millis(to.saturating_sub(self.now()).max(1));
        self.clock.advance(step);
        tokio::time::advance(step).await;
    }

    fn write(&mut self) {
        while self.next_message <= self.now() && self.next_message < self.end {
            let (number, lane) = (self.messages.len(), self.chance.draw(LANES - 1));
            let id = format!("message-{number:06}");
            self.sender.stage(&id, lane, &self.clock);
            self.messages.push(Message { id, lane, created: self.now() });
            self.next_message = self.now() + 1 + self.chance.draw(BETWEEN_MAX);
        }
    }

    /// What happens at this moment.
    async fn step(&mut self) {
        let now = self.now();
        self.write();
        let is_up = self.link.is_up(now);
        self.sender.link_is(is_up, now, &self.chance).await;
        self.sender.connect(is_up, now, &self.chance);
        for batch in self.link.arrived_up(now, self.sender.connection()) {
            let acknowledged = self.receiver.admit(batch, now);
            self.link.down(acknowledged, self.sender.connection(), now, &self.chance);
        }
        for ids in self.link.arrived_down(now, self.sender.connection()) {
            self.sender.acknowledged(&ids).await;
        }
        self.sender.overdue(now).await;
        if let Some(batch) = self.sender.take(now).await {
            self.link.up(batch, self.sender.connection(), now, &self.chance);
        }
    }

    /// When something may happen next.
    fn next(&self) -> Millis {
        let now = self.now();
        if self.sender.is_connected() {
            return now + TICK;
        }
        let write = if self.next_message < self.end { self.next_message } else { Millis::MAX };
        write.min(self.sender.next_connect()).min(self.link.next_change(now)).max(now + 1)
    }

    async fn run(&mut self) {
        while self.now() < self.end + CALM {
            self.step().await;
            if self.now() >= self.end
                && self.receiver.count() == self.messages.len()
                && self.sender.is_done()
            {
                return;
            }
            let next = self.next();
            self.advance(next).await;
        }
    }

    fn check(&self) {
        let arrived = self.receiver.arrived();
        for message in &self.messages {
            let times = arrived.get(&message.id).map_or(0, |one| one.times_applied);
            assert_eq!(times, 1, "{} was applied {times} times", message.id);
        }
        for lane in 1..LANES {
            let wanted = self.messages.iter().filter(|one| one.lane == lane).map(|one| &one.id);
            let wanted: Vec<_> = wanted.collect();
            let got: Vec<_> = self.receiver.order(lane).iter().collect();
            assert_eq!(got, wanted, "the order of lane {lane}");
        }
        assert!(self.sender.is_done(), "the sender does not know that all have arrived");
    }

    fn figures(&self) -> Figures {
        let arrived = self.receiver.arrived();
        let mut figures = Figures::new("this outbox");
        for message in &self.messages {
            let delay = arrived.get(&message.id).map(|one| one.at - message.created);
            figures.add(self.sender.attempts(&message.id), delay);
        }
        figures
    }

    /// A message that is sent again after a fixed time until it is acknowledged, whatever the link.
    fn fixed(&self, interval: Millis, attempts_max: u64) -> Figures {
        let limit = if attempts_max == u64::MAX {
            String::new()
        } else {
            format!(", {attempts_max} attempts")
        };
        let mut figures = Figures::new(&format!("each {} s{limit}", interval / SECOND));
        for message in &self.messages {
            let mut at = message.created;
            let mut attempts = 1;
            let delay = loop {
                if self.link.carries(at, &self.chance) {
                    break Some(at - message.created);
                }
                if attempts >= attempts_max {
                    break None;
                }
                (at, attempts) = (at + interval, attempts + 1);
            };
            figures.add(attempts, delay);
        }
        figures
    }
}

#[test]
fn everything_arrives_over_a_link_that_is_up_for_a_tenth_of_the_time() {
    let hours = setting("LOKI_SIMULATED_HOURS", 1);
    let seed = setting("LOKI_SIMULATED_SEED", 1);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let mut world = World::new(hours, seed);
    runtime.block_on(world.run());
    world.check();
    let (ours, fixed) = (world.figures(), world.fixed(30 * SECOND, u64::MAX));
    say(&format!(
        "{hours} simulated hours, seed {seed}: the link is up {}, {} messages, {} connects",
        world.link,
        world.messages.len(),
        world.sender.connects(),
    ));
    say(Figures::HEAD);
    for figures in [&ours, &fixed, &world.fixed(30 * SECOND, 5)] {
        say(&figures.to_string());
    }
    assert_eq!(ours.lost(), 0);
    assert!(ours.mean_attempts() * 2.0 < fixed.mean_attempts(), "no better than a fixed retry");
}
