//! The past of the charts: a sample every two seconds for half an hour, and one a minute for a day.
//! In memory only: a restart begins anew.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::Gauges;
use super::pulse::Beats;
use crate::clock::Millis;

/// Samples of the last half hour.
const FINE_MAX: usize = 900;

/// Minutes of the last day.
const COARSE_MAX: usize = 1_440;

/// What a coarse sample stands for.
const COARSE_MILLIS: Millis = 60_000;

/// One point of every chart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    at: Millis,
    millis: Millis,
    beats: [u64; 5],
    gauges: Gauges,
    /// Milliseconds of the time in which the link was up.
    up_millis: Millis,
    median: Option<Millis>,
    slowest: Option<Millis>,
}

impl Sample {
    /// What stands at which place of a point. Counts are those of `seconds`; `up` is the share of
    /// that time; `p50` and `p99` are delivery times in milliseconds.
    pub const COLUMNS: [&str; 15] = [
        "at",
        "seconds",
        "queued",
        "delivered",
        "received",
        "retried",
        "failures",
        "up",
        "link_ms",
        "waiting",
        "failed",
        "oldest_seconds",
        "agents",
        "p50",
        "p99",
    ];

    /// What was so at `at` and happened in the `millis` before.
    pub fn of(at: Millis, millis: Millis, beats: &Beats, gauges: Gauges) -> Self {
        let (median, slowest) = (beats.time(50), beats.time(99));
        let up_millis = if gauges.is_up { millis } else { 0 };
        let Beats { queued, delivered, received, retried, failed, .. } = *beats;
        let beats = [queued, delivered, received, retried, failed];
        Self { at, millis, beats, gauges, up_millis, median, slowest }
    }

    /// Two samples, one after the other, as one: counts add up, the worse of everything else stays.
    fn and(&self, later: &Self) -> Self {
        let mut beats = self.beats;
        for (sum, more) in beats.iter_mut().zip(later.beats) {
            *sum += more;
        }
        let (one, other) = (&self.gauges, &later.gauges);
        Self {
            at: later.at,
            millis: self.millis + later.millis,
            beats,
            gauges: Gauges {
                is_up: other.is_up,
                link_ms: one.link_ms.max(other.link_ms),
                waiting: one.waiting.max(other.waiting),
                failed: one.failed.max(other.failed),
                oldest_seconds: one.oldest_seconds.max(other.oldest_seconds),
                agents: other.agents,
            },
            up_millis: self.up_millis + later.up_millis,
            median: self.median.max(later.median),
            slowest: self.slowest.max(later.slowest),
        }
    }

    /// The point, in the order of [`Self::COLUMNS`].
    pub fn point(&self) -> Value {
        let [queued, delivered, received, retried, failures] = self.beats;
        let share = if self.millis == 0 {
            f64::from(u8::from(self.gauges.is_up))
        } else {
            ratio(self.up_millis, self.millis)
        };
        let gauges = &self.gauges;
        json!([
            self.at,
            ratio(self.millis, 1_000),
            queued,
            delivered,
            received,
            retried,
            failures,
            share,
            gauges.link_ms,
            gauges.waiting,
            gauges.failed,
            gauges.oldest_seconds,
            gauges.agents,
            self.median,
            self.slowest,
        ])
    }
}

/// Three decimals are more than a chart shows.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes are small")]
fn ratio(part: u64, whole: u64) -> f64 {
    (part as f64 / whole as f64 * 1_000.0).round() / 1_000.0
}

/// The samples.
#[derive(Default)]
pub(super) struct Series {
    fine: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
    minute: Option<Sample>,
}

impl Series {
    /// Adds the newest sample.
    pub fn add(&mut self, sample: Sample) {
        let minute = match self.minute.take() {
            Some(minute) => minute.and(&sample),
            None => sample.clone(),
        };
        if minute.millis >= COARSE_MILLIS {
            push(&mut self.coarse, minute, COARSE_MAX);
        } else {
            self.minute = Some(minute);
        }
        push(&mut self.fine, sample, FINE_MAX);
    }

    /// The points of the last half hour, or of the last day, oldest first.
    pub fn points(&self, is_day: bool) -> Vec<Value> {
        let minute = self.minute.iter().filter(|_| is_day);
        let kept = if is_day { &self.coarse } else { &self.fine };
        kept.iter().chain(minute).map(Sample::point).collect()
    }
}

fn push(kept: &mut VecDeque<Sample>, sample: Sample, most: usize) {
    if kept.len() == most {
        kept.pop_front();
    }
    kept.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u64, is_up: bool) -> Sample {
        let beats = Beats { delivered: 3, times: vec![number], ..Beats::default() };
        let gauges = Gauges { is_up, waiting: number, ..Gauges::default() };
        Sample::of(number * 2_000, 2_000, &beats, gauges)
    }

    #[test]
    fn a_minute_has_the_sums_and_the_worst_of_its_samples() {
        let mut series = Series::default();
        (1..=30).for_each(|number| series.add(sample(number, number > 15)));
        let day = series.points(true);
        let expected = json!([60_000, 60.0, 0, 90, 0, 0, 0, 0.5, null, 30, 0, 0, 0, 30, 30]);
        assert_eq!(day, [expected]);
        assert_eq!(Sample::COLUMNS.len(), day[0].as_array().expect("a point").len());
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut series = Series::default();
        (1..=30 * 1_500).for_each(|number| series.add(sample(number, true)));
        let (fine, coarse) = (series.points(false), series.points(true));
        assert_eq!((fine.len(), coarse.len()), (FINE_MAX, COARSE_MAX));
        assert_eq!(fine[FINE_MAX - 1][0], 30 * 1_500 * 2_000, "the newest stays");
    }
}
