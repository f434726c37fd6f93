//! When the ids that a segment accepted were made, as they say themselves. An id is looked for only
//! in segments whose range has its time, so that a new one costs the same however many there are.
//!
//! A footer keeps it in the 32 bits that count the items of its filter, which has none:
//!
//! ```text
//! bits  0..15   0 no id has a time, else 1 + whole seconds, rounded up, that the latest one lies
//!               after the latest record; 32767 no bound
//! bits 15..30   the same for the earliest id, before the earliest record
//! bit  30       1; a footer without it was written when this was not kept
//! bit  31       there are ids without a time
//! ```

use super::{Made, Wanted};

const FIELD_BITS: u32 = 15;
/// A distance that does not fit.
const UNBOUNDED: u32 = (1 << FIELD_BITS) - 1;
const KNOWN: u32 = 1 << 30;
const UNTIMED: u32 = 1 << 31;
const SECOND: u64 = 1_000;

/// The ids that were accepted, by their own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct IdTimes {
    /// Earliest and latest, milliseconds.
    span: Option<(u64, u64)>,
    has_untimed: bool,
}

impl IdTimes {
    pub(super) fn add(&mut self, made: Made) {
        match made {
            Made::Elsewhere => {}
            Made::Unknown => self.has_untimed = true,
            Made::At(time) => {
                let (low, high) = self.span.unwrap_or((time, time));
                self.span = Some((low.min(time), high.max(time)));
            }
        }
    }

    /// The form of a footer, beside the record times that are in it anyway.
    pub(super) fn pack(self, (earliest, latest): (u64, u64)) -> u32 {
        let (behind, ahead) = self.span.map_or((0, 0), |(low, high)| {
            (distance(earliest.saturating_sub(low)), distance(high.saturating_sub(latest)))
        });
        let untimed = if self.has_untimed { UNTIMED } else { 0 };
        untimed | KNOWN | behind << FIELD_BITS | ahead
    }
}

/// Rounded up, so that what it bounds is never outside.
fn distance(millis: u64) -> u32 {
    let seconds = u32::try_from(millis.div_ceil(SECOND)).unwrap_or(UNBOUNDED);
    seconds.saturating_add(1).min(UNBOUNDED)
}

/// A sealed segment as look-ups see it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Zone {
    /// Its latest record.
    latest: u64,
    /// Earliest and latest time of its ids; the first is above the last when none has a time.
    span: (u64, u64),
    has_untimed: bool,
}

impl Zone {
    /// What a footer says, whose records lie between two times.
    pub(super) fn unpack(packed: u32, (earliest, latest): (u64, u64)) -> Self {
        if packed & KNOWN == 0 {
            return Self { latest, span: (0, u64::MAX), has_untimed: true };
        }
        let (ahead, behind) = (packed & UNBOUNDED, packed >> FIELD_BITS & UNBOUNDED);
        let millis = |field: u32| u64::from(field - 1) * SECOND;
        let low = match behind {
            0 => u64::MAX,
            UNBOUNDED => 0,
            field => earliest.saturating_sub(millis(field)),
        };
        let high = match ahead {
            0 => 0,
            UNBOUNDED => u64::MAX,
            field => latest.saturating_add(millis(field)),
        };
        Self { latest, span: (low, high), has_untimed: packed & UNTIMED != 0 }
    }

    /// Whether the segment may have accepted an id; a "no" is right.
    pub(super) fn may_accept(&self, wanted: &Wanted) -> bool {
        self.is_within(wanted)
            && wanted
                .made_at
                .map_or(self.has_untimed, |time| (self.span.0..=self.span.1).contains(&time))
    }

    /// Whether it has records of the time that is looked at.
    pub(super) fn is_within(&self, wanted: &Wanted) -> bool {
        self.latest >= wanted.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: (u64, u64) = (1_000_000, 2_000_000);

    fn zone(made: &[Made]) -> Zone {
        let mut times = IdTimes::default();
        for one in made {
            times.add(*one);
        }
        Zone::unpack(times.pack(RECORDS), RECORDS)
    }

    fn asks(zone: &Zone, made_at: Option<u64>) -> bool {
        zone.may_accept(&Wanted { id: 0, made_at, since: 0 })
    }

    #[test]
    fn whatever_was_accepted_is_asked_for() {
        for time in [0, 1, 999_999, 1_000_000, 1_500_000, 2_000_001, 2_000_999, u64::MAX] {
            let zone = zone(&[Made::At(time), Made::Elsewhere]);
            assert!(asks(&zone, Some(time)), "{time}");
            assert!(!asks(&zone, None));
        }
    }

    #[test]
    fn times_beyond_those_of_the_ids_are_not() {
        let zone = zone(&[Made::At(999_500), Made::At(2_000_500)]);
        assert!(asks(&zone, Some(999_000)) && asks(&zone, Some(2_001_000)));
        assert!(!asks(&zone, Some(998_999)) && !asks(&zone, Some(2_001_001)));
    }

    #[test]
    fn a_segment_without_ids_of_a_kind_has_none_of_it() {
        assert!(!asks(&zone(&[]), Some(1_500_000)) && !asks(&zone(&[]), None));
        let untimed = zone(&[Made::Unknown]);
        assert!(!asks(&untimed, Some(1_500_000)) && asks(&untimed, None));
    }

    #[test]
    fn an_older_footer_is_always_asked() {
        let zone = Zone::unpack(0, RECORDS);
        assert!(asks(&zone, None) && asks(&zone, Some(0)) && asks(&zone, Some(u64::MAX)));
    }

    #[test]
    fn records_before_the_time_that_is_looked_at_are_left_out() {
        let zone = zone(&[Made::Unknown]);
        let wanted = |since| Wanted { id: 0, made_at: None, since };
        assert!(zone.may_accept(&wanted(RECORDS.1)) && !zone.may_accept(&wanted(RECORDS.1 + 1)));
    }
}
