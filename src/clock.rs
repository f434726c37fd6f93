//! The one place that reads the system's clocks and its randomness. Everything else is given a
//! [`Clock`], so that a test can decide what time it is and which numbers are drawn.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use uuid::Uuid;

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = u64;

/// A source of time and chance. Cheap to clone; clones of a simulated clock share their time.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

enum Source {
    System { started: Instant },
    Simulated { time: AtomicU64, jumped: AtomicI64, state: AtomicU64 },
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]
    pub fn system() -> Self {
        Self(Arc::new(Source::System { started: Instant::now() }))
    }

    /// A clock that stands still at `now` until [`Clock::advance`], and draws from `seed`.
    pub fn simulated(now: Millis, seed: u64) -> Self {
        let state = AtomicU64::new(seed | 1);
        let (time, jumped) = (AtomicU64::new(now), AtomicI64::new(0));
        Self(Arc::new(Source::Simulated { time, jumped, state }))
    }

    /// Wall time in milliseconds since the Unix epoch. It may jump.
    #[expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]
    pub fn now(&self) -> Millis {
        match &*self.0 {
            Source::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            Source::Simulated { time, jumped, .. } => {
                let jumped = jumped.load(Ordering::SeqCst);
                time.load(Ordering::SeqCst).saturating_add_signed(jumped)
            }
        }
    }

    /// Time since this clock was made, in milliseconds. It never jumps: leases run on it.
    #[expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]
    pub fn monotonic(&self) -> Millis {
        match &*self.0 {
            Source::System { started } => {
                u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
            }
            Source::Simulated { time, .. } => time.load(Ordering::SeqCst),
        }
    }

    /// Moves a simulated clock forward; the machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Simulated { time, .. } = &*self.0 {
            time.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Moves the wall time of a simulated clock by `millis`, as an operator may; the time that
    /// never jumps goes on as before.
    pub fn jump(&self, millis: i64) {
        if let Source::Simulated { jumped, .. } = &*self.0 {
            jumped.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// A number drawn uniformly from 0 to `bound`, both included: the jitter of a retry.
    pub fn draw(&self, bound: u64) -> u64 {
        let random = match &*self.0 {
            Source::System { .. } => u128_low(fresh_uuid().as_u128()),
            Source::Simulated { state, .. } => next_random(state),
        };
        match bound.checked_add(1) {
            Some(range) => random % range,
            None => random,
        }
    }

    /// A new message id: `UUIDv7` of this clock's time.
    pub fn message_id(&self) -> String {
        match &*self.0 {
            Source::System { .. } => time_ordered_uuid().to_string(),
            Source::Simulated { state, .. } => {
                let random = u128::from(next_random(state)) << 64 | u128::from(next_random(state));
                uuid::Builder::from_unix_timestamp_millis(
                    self.now(),
                    &random.to_be_bytes()[..10].try_into().unwrap_or([0; 10]),
                )
                .into_uuid()
                .to_string()
            }
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Clock({})", self.now())
    }
}

#[expect(clippy::disallowed_methods, reason = "this module is where chance is drawn")]
fn fresh_uuid() -> Uuid {
    Uuid::new_v4()
}

#[expect(clippy::disallowed_methods, reason = "this module is where chance is drawn")]
fn time_ordered_uuid() -> Uuid {
    Uuid::now_v7()
}

fn u128_low(value: u128) -> u64 {
    // Bits 0 to 61 of a version 4 UUID are random; the two above them are its variant.
    u64::try_from(value & u128::from(u64::MAX >> 2)).unwrap_or_default()
}

/// `SplitMix64`, <https://prng.di.unimi.it/splitmix64.c>: small, and the same on every machine.
fn next_random(state: &AtomicU64) -> u64 {
    let mut value = state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// RFC 3339 in UTC with milliseconds, as every timestamp of ours is written.
pub fn rfc3339(at: Millis) -> String {
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX);
    format!("{at:.3}")
}

/// Reads an RFC 3339 timestamp; `None` when it is not one or lies before 1970.
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    let at: Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_utc_with_milliseconds_and_read_back() {
        assert_eq!(rfc3339(1_771_165_800_000), "2026-02-15T14:30:00.000Z");
        assert_eq!(parse_rfc3339("2026-02-15T14:30:00Z"), Some(1_771_165_800_000));
        assert_eq!(parse_rfc3339("2026-02-15T15:30:00.25+01:00"), Some(1_771_165_800_250));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn a_jump_moves_the_wall_time_alone() {
        let clock = Clock::simulated(1_000, 7);
        clock.jump(-400);
        clock.advance(Duration::from_millis(5));
        assert_eq!((clock.now(), clock.monotonic()), (605, 1_005));
    }

    #[test]
    fn a_simulated_clock_draws_the_same_numbers_from_the_same_seed() {
        let draws = |seed| {
            let clock = Clock::simulated(5, seed);
            (0..4).map(|_| clock.draw(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        assert!(draws(7).iter().all(|&drawn| drawn <= 1_000));
    }
}
