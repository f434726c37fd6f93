//! What came of each message: how often it was sent, and how late it arrived. It draws nothing.

use std::fmt;

use loki_openclaw::clock::Millis;

/// The attempts and delays of many messages.
pub struct Figures {
    name: String,
    attempts: Vec<u64>,
    delays: Vec<Millis>,
    lost: usize,
}

impl Figures {
    /// What the columns are.
    pub const HEAD: &str = "| how | arrived | lost | attempts mean | p50 | p99 | max \
                            | delay p50 s | p90 | p99 | max |";

    /// None yet.
    pub fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, attempts: Vec::new(), delays: Vec::new(), lost: 0 }
    }

    /// One message; without a delay it never arrived.
    pub fn add(&mut self, attempts: u64, delay: Option<Millis>) {
        self.attempts.push(attempts);
        match delay {
            Some(delay) => self.delays.push(delay),
            None => self.lost += 1,
        }
    }

    /// How many never arrived.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// Attempts a message.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn mean_attempts(&self) -> f64 {
        self.attempts.iter().sum::<u64>() as f64 / self.attempts.len().max(1) as f64
    }
}

/// The value below which so many of a thousand lie.
fn quantile(values: &[u64], thousandths: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * thousandths / 1_000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0)
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = [500, 990, 1_000].map(|at| quantile(&self.attempts, at));
        let delays = [500, 900, 990, 1_000].map(|at| quantile(&self.delays, at));
        let delays = delays.map(|delay| format!("{}.{}", delay / 1_000, delay % 1_000 / 100));
        write!(
            formatter,
            "| {} | {} | {} | {:.2} | {} | {} | {} | {} |",
            self.name,
            self.delays.len(),
            self.lost,
            self.mean_attempts(),
            attempts[0],
            attempts[1],
            attempts[2],
            delays.join(" | "),
        )
    }
}
