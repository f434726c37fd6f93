//! Whether the rows are those of the fold (JOURNAL rule 15), for those who ask. The thread that
//! writes rows compares them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::View;
use crate::messages::Counts;

/// Between two looks at whether an answer can still come, and how many there are: rows without
/// number are counted in that time.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const LOOKS: u32 = 600;

/// A comparison of the rows with the fold that somebody waits for.
#[derive(Default)]
pub(crate) struct Comparison {
    /// The thread that compares has ended.
    pub(crate) ended: bool,
    /// One more is asked for, and not answered.
    pub(crate) is_asked: bool,
    /// What it found.
    pub(crate) found: Option<Compared>,
}

/// How many messages stand where after one and the same frame.
pub(crate) struct Compared {
    /// By the rows.
    pub(crate) rows: Counts,
    /// By the fold.
    pub(crate) fold: Counts,
}

/// What the fold says of the messages, for the rows to be compared with (JOURNAL rule 15).
pub struct Audit {
    /// The frame of the counts.
    pub sequence: u64,
    /// How many messages stand where.
    pub counts: Counts,
    /// The newest frame of the fold, and its counts there.
    pub now: Box<dyn Fn() -> (u64, Counts) + Send>,
    /// Opening found damage: what it took is missing from the rows and perhaps not from the fold.
    pub is_damaged: bool,
    /// Told when the rows disagree, with the reason; they are then rebuilt.
    pub disagree: Box<dyn Fn(&str) + Send>,
    /// Whether the disk has room; until then rows that could not be written are not made again.
    pub has_room: Box<dyn Fn() -> bool + Send>,
}

impl View {
    /// Whether the rows up to a frame are those of the journal, as far as that can be known: all of
    /// them are there, and they were compared with the fold.
    pub(crate) fn is_whole(&self, sequence: u64) -> bool {
        let lag = self.lag();
        self.shared.compared.load(Ordering::Acquire) && !lag.catching_up && lag.applied >= sequence
    }

    /// Waits until the rows were compared with the fold, or cannot be.
    pub(crate) fn compared(&self) {
        let (mut comparison, compared) = (self.shared.comparison.lock(), &self.shared.compared);
        while !compared.load(Ordering::Acquire) && !comparison.ended {
            self.shared.comparing.wait(&mut comparison);
        }
    }

    /// Whether the rows were the fold's when the store was opened, and no damage was known: then
    /// they are for as long as they are not made again.
    pub(crate) fn is_sound(&self) -> bool {
        self.shared.is_sound.load(Ordering::Acquire)
    }

    /// What damage does, for a test.
    #[cfg(test)]
    pub(crate) fn distrust(&self) {
        self.compared();
        self.shared.is_sound.store(false, Ordering::Release);
    }

    /// Counts the rows at one frame of the fold, which reads all of them; lists are not complete
    /// meanwhile. `None` when that cannot be done just now.
    pub(crate) fn compare(&self) -> Option<Compared> {
        let mut comparison = self.shared.comparison.lock();
        comparison.is_asked = !comparison.ended;
        comparison.found = None;
        self.shared.feed.compare();
        for _ in 0..LOOKS {
            if !comparison.is_asked || self.shared.feed.is_out_of_work() {
                break;
            }
            self.shared.comparing.wait_for(&mut comparison, LOOK_INTERVAL);
        }
        // An answer that comes later is to an earlier question, and as good.
        comparison.is_asked = false;
        comparison.found.take()
    }
}
