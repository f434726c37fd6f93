//! The state of a destination, apart from its messages: a pure machine that says how much may
//! leave for it. It sends nothing and reads no clock.
//!
//! ```text
//!              ten failures in a row, or barred
//!   closed ─────────────────────────────────────► open until a time
//!     ▲                                             │ that time
//!     └──── a message is taken ──── probing ◄───────┘
//!                                      └── it fails: open again, for longer
//! ```

use std::time::Duration;

use crate::clock::Millis;
use crate::retry::Policy;

/// Failures in a row that open the circuit, section 3 of the protocol.
const FAILURES_MAX: u32 = 10;

/// The longest bound of the wait before a destination that cannot be reached is tried again. All
/// messages wait for that one try, which costs nobody anything while nobody is there.
const LINK_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// What was learned of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It took a message, or refused one for the message's own fault.
    Answered,
    /// It could not take a message, or did not answer.
    Failed,
    /// A link to it was opened.
    Linked,
    /// No link to it could be opened.
    Unreachable,
    /// It lets us open no link, and will not before a person has done something.
    Unwelcome,
    /// It lets no message of ours in, whatever it says.
    Barred,
}

/// How much may leave for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As much as the window takes.
    All,
    /// One message, whose outcome decides.
    Probe,
    /// Nothing before this time.
    NothingUntil(Millis),
    /// Nothing before the probe that is out is answered.
    Nothing,
}

/// A destination's circuit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    /// Messages in a row that it did not take.
    attempts: u32,
    /// Times in a row that no link could be opened.
    connects: u32,
    /// Times in a row that it was opened or stayed open: what the wait grows with.
    trips: u32,
    /// Open, until then.
    until: Option<Millis>,
    /// It was opened for want of a link, so that a link closes it.
    for_link: bool,
}

impl Circuit {
    /// The bound of the wait that begins when the next sign is this failure. `after` wants a delay
    /// drawn from zero to it.
    pub fn bound(&self, sign: Sign, policy: &Policy) -> Millis {
        let step = self.trips.max(self.connects).saturating_add(1);
        let bound = policy.bound(step);
        let bound = if sign == Sign::Unreachable { bound.min(LINK_INTERVAL_MAX) } else { bound };
        u64::try_from(bound.as_millis()).unwrap_or(u64::MAX)
    }

    /// The bound of the wait before a link is tried again while the circuit is closed.
    pub fn link_bound(&self, policy: &Policy) -> Millis {
        let bound = policy.bound(self.connects).min(LINK_INTERVAL_MAX);
        u64::try_from(bound.as_millis()).unwrap_or(u64::MAX)
    }

    /// The circuit after a sign at `now`; `delay` is how long it stays open if that opens it.
    #[must_use]
    pub fn after(mut self, sign: Sign, now: Millis, delay: Millis) -> Self {
        match sign {
            Sign::Answered => return Self::default(),
            Sign::Linked if self.until.is_none() || self.for_link => {
                self.connects = 0;
                if self.for_link {
                    (self.until, self.trips, self.for_link) = (None, 0, false);
                }
                return self;
            }
            Sign::Linked => return self,
            Sign::Failed => {
                self.attempts = self.attempts.saturating_add(1);
                // What was out when it opened says nothing new.
                let is_late = self.until.is_some_and(|until| now < until);
                if self.attempts < FAILURES_MAX || is_late {
                    return self;
                }
                self.for_link = false;
            }
            Sign::Unreachable => {
                self.connects = self.connects.saturating_add(1);
                if self.connects < FAILURES_MAX && self.until.is_none() {
                    return self;
                }
                self.for_link |= self.until.is_none();
            }
            Sign::Unwelcome => {
                self.connects = self.connects.saturating_add(1);
                self.for_link |= self.until.is_none();
            }
            Sign::Barred => self.for_link = false,
        }
        self.trips = self.trips.saturating_add(1);
        self.until = Some(now.saturating_add(delay));
        self
    }

    /// A time that lies further away than the policy ever waits comes from a clock that jumped: it
    /// counts as reached. To be called before anything else is asked at `now`.
    pub fn follow(&mut self, now: Millis, policy: &Policy) {
        let furthest = u64::try_from(policy.max_interval.as_millis()).unwrap_or(u64::MAX);
        if self.until.is_some_and(|until| until.saturating_sub(now) > furthest) {
            self.until = Some(now);
        }
    }

    /// How much may leave at `now`, with `in_flight` messages out.
    pub fn admits(&self, now: Millis, in_flight: usize) -> Admission {
        match self.until {
            None => Admission::All,
            Some(until) if now < until => Admission::NothingUntil(until),
            Some(_) if in_flight == 0 => Admission::Probe,
            Some(_) => Admission::Nothing,
        }
    }

    /// Until when it is open; `None` when it is closed.
    pub fn until(&self) -> Option<Millis> {
        self.until
    }

    /// `closed`, `open`, or `probing` when one message decides.
    pub fn as_str(&self, now: Millis) -> &'static str {
        match self.until {
            None => "closed",
            Some(until) if now < until => "open",
            Some(_) => "probing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sign::{Answered, Barred, Failed, Linked, Unreachable, Unwelcome};
    use super::*;

    /// A sign, how often, and when.
    type Given = (Sign, usize, Millis);

    /// The circuit after signs, each with a delay of 100.
    fn after(signs: &[Given]) -> Circuit {
        let mut circuit = Circuit::default();
        for (sign, times, now) in signs {
            for _ in 0..*times {
                circuit = circuit.after(*sign, *now, 100);
            }
        }
        circuit
    }

    #[test]
    fn ten_failures_open_it_and_one_answer_closes_it() {
        let open = Admission::NothingUntil(100);
        let (again, later) = (Admission::NothingUntil(220), Admission::NothingUntil(320));
        #[rustfmt::skip]
        let cases: &[(&[Given], Millis, usize, Admission)] = &[
            (&[], 0, 5, Admission::All),
            (&[(Failed, 9, 0)], 0, 5, Admission::All),
            (&[(Failed, 10, 0)], 99, 0, open),
            (&[(Failed, 10, 0)], 100, 0, Admission::Probe),
            (&[(Failed, 10, 0)], 100, 1, Admission::Nothing),
            (&[(Failed, 9, 0), (Answered, 1, 0), (Failed, 9, 0)], 0, 0, Admission::All),
            (&[(Failed, 10, 0), (Answered, 1, 120)], 120, 3, Admission::All),
            // What else was out when it opened does not make it wait longer.
            (&[(Failed, 40, 0)], 0, 0, open),
            // A probe that fails opens it again.
            (&[(Failed, 10, 0), (Failed, 1, 120)], 120, 0, again),
            // A link shows that something listens, not that messages are taken.
            (&[(Failed, 10, 0), (Linked, 1, 50)], 50, 0, open),
            (&[(Unreachable, 9, 0)], 0, 0, Admission::All),
            (&[(Unreachable, 10, 0)], 0, 0, open),
            (&[(Unreachable, 10, 0), (Linked, 1, 50)], 50, 0, Admission::All),
            (&[(Unreachable, 9, 0), (Linked, 1, 0), (Unreachable, 9, 0)], 0, 0, Admission::All),
            (&[(Barred, 1, 0)], 0, 0, open),
            (&[(Barred, 1, 0), (Linked, 1, 50)], 50, 0, open),
            (&[(Barred, 1, 0), (Answered, 1, 120)], 120, 0, Admission::All),
            (&[(Unwelcome, 1, 0)], 0, 0, open),
            (&[(Unwelcome, 1, 0), (Linked, 1, 50)], 50, 0, Admission::All),
            (&[(Unwelcome, 1, 0), (Unwelcome, 1, 120), (Unwelcome, 1, 220)], 220, 0, later),
        ];
        for (signs, now, in_flight, expected) in cases {
            let admitted = after(signs).admits(*now, *in_flight);
            assert_eq!(admitted, *expected, "{signs:?} at {now}");
        }
    }

    #[test]
    fn the_wait_grows_with_each_failed_probe_and_is_small_again_after_an_answer() {
        let policy = Policy::default();
        let mut circuit = after(&[(Failed, 9, 0)]);
        let mut bounds = Vec::new();
        for probe in 0..4_u64 {
            bounds.push(circuit.bound(Failed, &policy));
            circuit = circuit.after(Failed, probe * 1_000, 100);
        }
        assert_eq!(bounds, [500, 1_000, 2_000, 4_000]);
        assert_eq!(circuit.after(Answered, 9_000, 0).bound(Failed, &policy), 500);
        assert_eq!(after(&[(Unreachable, 3, 0)]).bound(Unreachable, &policy), 4_000);
    }

    #[test]
    fn a_server_that_is_away_is_looked_for_again_within_seconds() {
        let policy = Policy::default();
        let away = after(&[(Unreachable, 40, 100)]);
        assert_eq!((away.bound(Unreachable, &policy), away.link_bound(&policy)), (10_000, 10_000));
        // One that is there and does not want us is left in peace.
        assert_eq!(away.bound(Unwelcome, &policy), 300_000);
        let hasty = Policy { max_interval: Duration::from_secs(2), ..policy };
        assert_eq!(away.bound(Unreachable, &hasty), 2_000);
    }

    #[test]
    fn a_clock_that_jumped_back_does_not_keep_it_open() {
        let policy = Policy::default();
        let mut circuit = after(&[(Barred, 1, 10_000_000)]);
        let names = [0, 10_000_100].map(|now| circuit.as_str(now));
        assert_eq!(names, ["open", "probing"]);
        // As long as the policy waits at the most is not far.
        circuit.follow(9_700_100, &policy);
        assert_eq!(circuit.admits(9_700_100, 0), Admission::NothingUntil(10_000_100));
        for now in [9_700_099, 1_000] {
            circuit.follow(now, &policy);
            assert_eq!(circuit.admits(now, 0), Admission::Probe, "{now}");
        }
        // And the probe that fails opens it as any other does.
        let again = (0..FAILURES_MAX).fold(circuit, |it, _| it.after(Failed, 1_100, 100));
        assert_eq!(again.admits(1_100, 0), Admission::NothingUntil(1_200));
    }
}
