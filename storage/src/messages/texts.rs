//! Texts that many messages share, each kept once behind a small number: destinations, types and
//! errors. Which number a text has is decided by the order of events and is never on disk.

use std::collections::HashMap;
use std::sync::Arc;

/// The number of the empty text, which needs no room.
pub(crate) const EMPTY: u32 = 0;

/// The texts, each with how often it is used.
#[derive(Clone, Debug)]
pub(crate) struct Texts {
    numbers: HashMap<Arc<str>, u32>,
    used: Vec<(Arc<str>, u32)>,
    free: Vec<u32>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { numbers: HashMap::new(), used: vec![("".into(), 1)], free: Vec::new() }
    }
}

impl Texts {
    /// The number of a text, which is used once more.
    pub(crate) fn take(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return EMPTY;
        }
        if let Some(number) = self.numbers.get(text) {
            self.used[*number as usize].1 += 1;
            return *number;
        }
        let text: Arc<str> = text.into();
        let number = if let Some(number) = self.free.pop() {
            self.used[number as usize] = (Arc::clone(&text), 1);
            number
        } else {
            self.used.push((Arc::clone(&text), 1));
            u32::try_from(self.used.len() - 1).unwrap_or(u32::MAX)
        };
        self.numbers.insert(text, number);
        number
    }

    /// It is used once less; the last use takes the text along.
    pub(crate) fn drop(&mut self, number: u32) {
        if number == EMPTY {
            return;
        }
        let Some((text, uses)) = self.used.get_mut(number as usize) else { return };
        *uses -= 1;
        if *uses == 0 {
            let text = std::mem::replace(text, "".into());
            self.numbers.remove(&text);
            self.free.push(number);
        }
    }

    pub(crate) fn get(&self, number: u32) -> &Arc<str> {
        let (text, _) = self.used.get(number as usize).unwrap_or(&self.used[0]);
        text
    }

    /// The number of a text that is used.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        if text.is_empty() { Some(EMPTY) } else { self.numbers.get(text).copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::{EMPTY, Texts};

    #[test]
    fn a_text_is_kept_once_and_only_while_it_is_used() {
        let mut texts = Texts::default();
        let (one, other) = (texts.take("one"), texts.take("other"));
        assert_eq!((texts.take("one"), texts.take("")), (one, EMPTY));
        texts.drop(one);
        assert_eq!((&**texts.get(one), texts.find("one")), ("one", Some(one)));
        texts.drop(one);
        assert_eq!(texts.find("one"), None);
        assert_eq!(texts.take("third"), one, "the place is used again");
        assert_eq!((&**texts.get(one), &**texts.get(other)), ("third", "other"));
        texts.drop(EMPTY);
        assert_eq!(&**texts.get(EMPTY), "");
    }
}
