//! `openclaw.store` of the bridge and `store` of the server: how much room the store takes on the
//! disk, and what it keeps. Opens nothing.

use std::time::Duration;

use super::check::{self, Rule};
use super::field::{Field, Raw, Refused, assign};

/// The smallest segment: one message of the largest size fits.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// The largest segment, which the journal's format sets.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The smallest reserve: on a smaller one nothing could be tidied up.
const RESERVE_BYTES_MIN: u64 = 1 << 20;

/// Larger than any disk that this is meant for; it keeps sums far from overflowing.
const BYTES_MAX: u64 = 1 << 50;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// The units of a size and their bytes.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A value for each status of messages that are finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByStatus<T> {
    /// Outbound: the next hop has it.
    pub delivered: Option<T>,
    /// Outbound: its time had passed.
    pub expired: Option<T>,
    /// Inbound: applied.
    pub processed: Option<T>,
    /// Inbound: not applicable.
    pub rejected: Option<T>,
}

impl<T: Copy> ByStatus<T> {
    /// The values, in the order of the fields.
    pub fn all(&self) -> [Option<T>; 4] {
        [self.delivered, self.expired, self.processed, self.rejected]
    }
}

/// The files of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreRules {
    /// A segment of the journal; the next one is always made beforehand.
    pub segment_size: Size,
    /// What is kept free for what must go on when the disk is full.
    pub reserve: Size,
    /// How long the bodies of finished messages are kept, where that is not the usual `retention`.
    pub max_age: ByStatus<Duration>,
    /// How many bytes of them are kept; none: no limit.
    pub max_size: ByStatus<Size>,
}

impl Default for StoreRules {
    fn default() -> Self {
        let (max_age, max_size) = (ByStatus::default(), ByStatus::default());
        Self { segment_size: Size(16 << 20), reserve: Size(64 << 20), max_age, max_size }
    }
}

impl StoreRules {
    /// What must hold; the keys are those of the program, the ages in the order of [`ByStatus`].
    pub(super) fn rules(
        &self,
        [segment_size, reserve]: [&'static str; 2],
        ages: [&'static str; 4],
    ) -> Vec<Rule> {
        let within = |size: Size, min, max| (min..=max).contains(&size.0);
        let segment = within(self.segment_size, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let held = within(self.reserve, RESERVE_BYTES_MIN, BYTES_MAX);
        let mut rules =
            vec![(segment_size, segment, "1MiB to 1GiB"), (reserve, held, "1MiB or more")];
        let given = ages.into_iter().zip(self.max_age.all());
        rules.extend(given.map(|(key, age)| check::bounded(key, age.unwrap_or_default())));
        rules
    }
}

impl Field for Size {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        let read = raw.integer().map(Self).or_else(|| raw.word().and_then(parse));
        assign(self, read, "whole bytes, or a whole number with KiB, MiB or GiB")
    }

    fn show(&self) -> Option<String> {
        let fits = |unit: u64| self.0 >= unit && self.0.is_multiple_of(unit);
        let unit = UNITS.iter().find(|(_, unit)| fits(*unit));
        Some(match unit {
            Some((name, unit)) => format!("{}{name}", self.0 / unit),
            None => self.0.to_string(),
        })
    }
}

fn parse(text: &str) -> Option<Size> {
    let (count, unit) =
        UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))?;
    let count: u64 = count.trim_end().parse().ok()?;
    count.checked_mul(unit).map(Size)
}
