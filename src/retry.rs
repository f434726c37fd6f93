//! Retry as data: a policy, and the delay it gives for a stored attempt count. Sends nothing.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// Exponential backoff with full jitter.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The bound of the first delay.
    pub initial_interval: Duration,
    /// What the bound grows by after each attempt.
    pub multiplier: f64,
    /// The largest bound.
    pub max_interval: Duration,
    /// A message older than this fails with reason `max_age`.
    pub max_age: Duration,
    /// A message that was tried this often fails with reason `max_attempts`; 0 is no limit.
    pub max_attempts: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            initial_interval: Duration::from_millis(500),
            multiplier: 2.0,
            max_interval: Duration::from_mins(5),
            max_age: Duration::from_hours(7 * 24),
            max_attempts: 0,
        }
    }
}

/// After this many attempts every bound is the largest one, whatever the policy.
const STEPS_MAX: u32 = 64;

impl Policy {
    /// The bound of the delay after `attempts` attempts (1 or more). The delay itself is drawn
    /// uniformly from zero to this bound (full jitter).
    pub fn bound(&self, attempts: u32) -> Duration {
        let mut interval = ExponentialBackoff {
            current_interval: self.initial_interval,
            initial_interval: self.initial_interval,
            randomization_factor: 0.0,
            multiplier: self.multiplier,
            max_interval: self.max_interval,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        let mut bound = self.initial_interval;
        for _ in 0..attempts.clamp(1, STEPS_MAX) {
            bound = interval.next_backoff().unwrap_or(self.max_interval);
        }
        bound.min(self.max_interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_largest() {
        let policy = Policy::default();
        let bounds: Vec<u128> = [1, 2, 3, 10, 11, 1_000_000]
            .map(|attempts| policy.bound(attempts).as_millis())
            .to_vec();
        assert_eq!(bounds, [500, 1_000, 2_000, 256_000, 300_000, 300_000]);
    }
}
