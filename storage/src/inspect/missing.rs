//! What is missing from every answer of a store: what its journal records as damaged, what opening
//! found and what reading found since, also while the program runs. It looks for nothing by itself.

use super::audit::sentence;
use crate::journal::{Damage, Reader};
use crate::trim;

/// Sentences of one answer. A person reads no more, and `loki store check` names all.
const TOLD_MAX: usize = 20;

/// What is known to be missing. It reads a footer only where that records damage, so that each
/// answer can ask.
pub fn missing(reader: &Reader) -> Vec<Damage> {
    let mut missing: Vec<Damage> = Vec::new();
    let recorded = reader.segments().into_iter().rev().flat_map(|one| {
        // One whose footer cannot be read is noted by that.
        one.damage().unwrap_or_default()
    });
    let trimmed = reader.beginning(|| trim::damage(reader)).unwrap_or_default();
    let all: Vec<Damage> = trimmed.into_iter().chain(recorded).collect();
    for one in all.into_iter().chain(reader.found()) {
        add(&mut missing, one);
    }
    missing
}

/// Adds what is not named yet.
pub(super) fn add(missing: &mut Vec<Damage>, one: Damage) {
    if !missing.iter().any(|known| known.covers(&one)) {
        missing.push(one);
    }
}

/// The same for people, a sentence each, and in the last one how many are not told.
pub fn told(missing: &[Damage]) -> Vec<String> {
    let mut told: Vec<String> = missing.iter().take(TOLD_MAX).map(sentence).collect();
    let left = missing.len().saturating_sub(TOLD_MAX);
    if left > 0 {
        told.push(format!("{left} more places; `loki store check` names all"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::DamageReason;

    #[test]
    fn more_places_than_a_person_reads_are_counted() {
        let place = |sequence: u64| Damage {
            segment: "1.log".into(),
            offset: sequence * 100,
            len: 0,
            first: sequence,
            last: sequence,
            reason: DamageReason::Frame,
        };
        let (one, many) = (told(&[place(7)]), told(&(0..23).map(place).collect::<Vec<_>>()));
        let sentence = "1.log at byte 700: frame does not pass its checksum; frame 7 is missing";
        assert_eq!(one, [sentence]);
        assert_eq!(many.len(), TOLD_MAX + 1);
        assert_eq!(many[TOLD_MAX], "3 more places; `loki store check` names all");
    }
}
