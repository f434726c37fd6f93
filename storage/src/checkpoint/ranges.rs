//! Which stretches of an ordered set of keys changed since they were last written aside. Pure: it
//! holds keys and flags, and reads nothing.

/// A partition of all keys into stretches. The first has no lower end and the last no upper one.
#[derive(Clone, Debug)]
pub struct Ranges<K> {
    /// Where each stretch but the first begins.
    starts: Vec<K>,
    /// For each stretch whether it changed; there is one more than there are starts.
    changed: Vec<bool>,
}

impl<K> Default for Ranges<K> {
    fn default() -> Self {
        Self { starts: Vec::new(), changed: vec![true] }
    }
}

impl<K: Ord + Clone> Ranges<K> {
    /// Stretches that begin here (the first begins before all keys), none of them changed.
    pub(crate) fn unchanged(starts: Vec<K>) -> Self {
        let changed = vec![false; starts.len() + 1];
        Self { starts, changed }
    }

    /// A key changed.
    pub(crate) fn touch(&mut self, key: &K) {
        let at = self.at(key);
        self.changed[at] = true;
    }

    /// The stretch that begins at `start` (`None`: the first): whether it changed, and where it
    /// ends (`None`: never).
    pub(crate) fn look(&self, start: Option<&K>) -> (bool, Option<&K>) {
        let at = start.map_or(0, |start| self.at(start));
        (self.changed[at], self.starts.get(at))
    }

    /// Makes one unchanged stretch from `start` up to `end`. What it takes only a part of changes,
    /// as that is not written aside by itself.
    pub(crate) fn cut(&mut self, start: Option<&K>, end: Option<&K>) {
        let first = start.map_or(0, |start| self.at(start));
        let inside = |key: &&K| end.is_none_or(|end| *key < end);
        let last = first + self.starts[first..].iter().take_while(inside).count();
        // `last` is the stretch in which the new one ends; its rest stands alone if there is one.
        let rest = end.filter(|end| self.starts.get(last) != Some(end)).cloned();
        self.starts.splice(first..last, rest.iter().cloned());
        let flags = std::iter::once(false).chain(rest.map(|_| true));
        self.changed.splice(first..=last, flags);
    }

    fn at(&self, key: &K) -> usize {
        self.starts.partition_point(|start| start <= key)
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;

    fn all(ranges: &Ranges<u32>) -> Vec<(Option<u32>, bool)> {
        let starts = std::iter::once(None).chain(ranges.starts.iter().copied().map(Some));
        starts.zip(ranges.changed.iter().copied()).collect()
    }

    #[test]
    fn a_cut_is_unchanged_and_what_it_splits_changes() {
        let mut ranges = Ranges::default();
        assert_eq!(all(&ranges), [(None, true)]);
        ranges.cut(None, Some(&10));
        ranges.cut(Some(&10), Some(&20));
        ranges.cut(Some(&20), None);
        assert_eq!(all(&ranges), [(None, false), (Some(10), false), (Some(20), false)]);
        ranges.touch(&10);
        assert_eq!(ranges.look(Some(&10)), (true, Some(&20)));
        assert_eq!(ranges.look(None), (false, Some(&10)));
        // It takes a changed stretch and a part of the unchanged one behind it.
        ranges.cut(Some(&10), Some(&25));
        assert_eq!(all(&ranges), [(None, false), (Some(10), false), (Some(25), true)]);
        ranges.touch(&9);
        ranges.cut(None, Some(&25));
        assert_eq!(all(&ranges), [(None, false), (Some(25), true)]);
        ranges.touch(&1_000);
        ranges.cut(Some(&25), None);
        assert_eq!(all(&ranges), [(None, false), (Some(25), false)]);
        assert_eq!(ranges.look(Some(&25)), (false, None));
    }
}
