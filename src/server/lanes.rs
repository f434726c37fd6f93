//! Lanes of one connection in which a message was refused that will come again: what follows it
//! must not overtake it. It judges no message.

use std::collections::{HashMap, HashSet};

/// Refused messages that are remembered at the most. A sender that pipelines more refused ones than
/// this on one connection loses their order, not the messages.
const REFUSED_MAX: usize = 10_000;

/// The blocked lanes, each with the messages that were refused in it.
#[derive(Debug, Clone, Default)]
pub struct Lanes {
    refused: HashMap<String, HashSet<String>>,
    count: usize,
}

impl Lanes {
    /// Whether a message may be judged. In a blocked lane that is one that was refused before: its
    /// sender knows of the refusal and keeps the order from there on, also when it has given up the
    /// one that was refused first.
    pub fn is_open(&self, lane: &str, message: &str) -> bool {
        self.refused.get(lane).is_none_or(|refused| refused.contains(message))
    }

    /// A message of this lane was refused and will come again.
    pub fn block(&mut self, lane: &str, message: &str) {
        if self.count >= REFUSED_MAX {
            self.refused.clear();
            self.count = 0;
        }
        let refused = self.refused.entry(lane.to_owned()).or_default();
        self.count += usize::from(refused.insert(message.to_owned()));
    }

    /// A message of this lane was taken, or refused for good.
    pub fn open(&mut self, lane: &str) {
        let refused = self.refused.remove(lane).unwrap_or_default();
        self.count = self.count.saturating_sub(refused.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_opens_for_what_was_refused_in_it() {
        let mut lanes = Lanes::default();
        assert!(lanes.is_open("k", "1"));
        lanes.block("k", "1");
        lanes.block("k", "2");
        let open = ["1", "2", "3"].map(|message| lanes.is_open("k", message));
        assert_eq!(open, [true, true, false]);
        assert!(lanes.is_open("other", "3"));
        lanes.open("k");
        assert!(lanes.is_open("k", "3") && lanes.count == 0);
    }

    #[test]
    fn the_memory_of_refusals_is_bounded() {
        let mut lanes = Lanes::default();
        for number in 0..=REFUSED_MAX {
            lanes.block("k", &number.to_string());
        }
        assert_eq!(lanes.count, 1);
    }
}
