//! Texts for people that are kept up to a limit: a longer one loses its end and says so. A message
//! is never refused for their length.

/// The text, with its end cut off when it has more than `most` bytes, and how many it had.
pub fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let mark = format!("… (cut, of {} bytes)", text.len());
    let end = text.floor_char_boundary(most.saturating_sub(mark.len()));
    let mut kept = text;
    kept.truncate(end);
    kept + &mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_longer_text_is_cut_and_says_of_how_many_bytes() {
        assert_eq!(cut("x".repeat(100), 100), "x".repeat(100));
        let kept = cut("é".repeat(1_000), 101);
        assert!(kept.len() <= 101 && kept.ends_with("é… (cut, of 2000 bytes)"), "{kept}");
    }
}
