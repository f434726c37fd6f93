//! `openclaw.store` of the bridge and `store` of the server: how much room the store takes on the
//! disk. Opens nothing.

use super::check::Rule;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// The units of a size and their bytes.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// The files of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreRules {
    /// A segment of the journal; the next one is always made beforehand.
    pub segment_size: Size,
    /// What is kept free for what must go on when the disk is full.
    pub reserve: Size,
}

impl Default for StoreRules {
    fn default() -> Self {
        Self { segment_size: Size(16 << 20), reserve: Size(64 << 20) }
    }
}

impl StoreRules {
    /// What must hold; the keys are those of the program.
    pub(super) fn rules(&self, [segment_size, reserve]: [&'static str; 2]) -> [Rule; 2] {
        let within = |size: Size, min, max| (min..=max).contains(&size.0);
        [
            (
                segment_size,
                within(self.segment_size, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
                "1MiB to 1GiB",
            ),
            (reserve, within(self.reserve, RESERVE_BYTES_MIN, BYTES_MAX), "1MiB or more"),
        ]
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
