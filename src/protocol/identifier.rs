//! Identifiers, times and versions as the envelope writes them. It does not know which field a
//! text came from.

use crate::clock::{self, Millis};

/// Characters of a trace parent: 55 in the version of today.
const TRACEPARENT_LENGTH_MAX: usize = 128;

/// Characters of an identifier.
pub(super) const IDENTIFIER_LENGTH_MAX: usize = 128;

/// What a time must be, as a refusal says it.
pub(super) const TIME_WANTED: &str = "an rfc 3339 time such as 2026-02-15T14:30:00Z";

/// Whether `text` is 1 to 128 of `A-Z a-z 0-9 . _ : -`.
pub fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= IDENTIFIER_LENGTH_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

/// Whether `text` may be an ordering key: 1 to 128 bytes without control characters.
pub(super) fn is_ordering_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= IDENTIFIER_LENGTH_MAX && !text.chars().any(char::is_control)
}

/// Reads an RFC 3339 time of 1970 or later, in any offset. Unlike the date library behind it, it
/// takes no other notation.
pub fn parse_time(text: &str) -> Option<Millis> {
    if has_rfc3339_shape(text.as_bytes()) { clock::parse_rfc3339(text) } else { None }
}

fn has_rfc3339_shape(text: &[u8]) -> bool {
    // RFC 3339, section 5.6; its note allows lower case letters.
    const START: &[u8] = b"0000-00-00T00:00:00";
    let Some((start, rest)) = text.split_at_checked(START.len()) else { return false };
    let rest = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    let offset = match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', offset @ ..] => matches_pattern(offset, b"00:00"),
        _ => false,
    };
    offset && matches_pattern(start, START)
}

/// Whether every `0` of `pattern` is a digit in `text` and every other character is itself.
fn matches_pattern(text: &[u8], pattern: &[u8]) -> bool {
    text.len() == pattern.len()
        && text.iter().zip(pattern).all(|(byte, wanted)| match wanted {
            b'0' => byte.is_ascii_digit(),
            _ => byte.eq_ignore_ascii_case(wanted),
        })
}

/// What a `protocol_version` asks of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A `1.x`.
    Readable,
    /// Another major version.
    Unsupported,
    /// Not a version.
    Invalid,
}

/// Judges a `protocol_version`: dot-separated numbers, of which the first decides.
pub(super) fn judge_version(text: &str) -> Version {
    let is_number = |part: &str| {
        (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts = text.split('.').take(4);
    if parts.clone().count() > 3 || !parts.clone().all(is_number) {
        return Version::Invalid;
    }
    match text.split('.').next() {
        Some("1") => Version::Readable,
        _ => Version::Unsupported,
    }
}

/// Whether `text` is a W3C trace parent, <https://www.w3.org/TR/trace-context/#traceparent-header>.
pub fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.len() == length && part.bytes().all(lower)
    };
    let some = |part: &str| part.bytes().any(|byte| byte != b'0');
    if text.len() > TRACEPARENT_LENGTH_MAX {
        return false;
    }
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let [version, trace, span, flags, rest @ ..] = parts.as_slice() else { return false };
    // What a later version may add is of such letters too, so that it may stand anywhere as it is.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let more = rest.iter().all(|rest| rest.bytes().all(plain));
    let known =
        hex(version, 2) && *version != "ff" && (rest.is_empty() || *version != "00") && more;
    known && hex(trace, 32) && some(trace) && hex(span, 16) && some(span) && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_a_small_alphabet_and_a_length() {
        for good in ["a", "loki-12345", "A.b_c:d-9", &"x".repeat(128)] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(129)] {
            assert!(!is_identifier(bad), "{bad}");
        }
        assert!(is_ordering_key("repo/main branch") && !is_ordering_key("a\tb"));
    }

    #[test]
    fn only_rfc_3339_is_a_time() {
        let at = Some(1_771_165_800_000);
        let good = ["2026-02-15T14:30:00Z", "2026-02-15t16:30:00.000+02:00"];
        for text in good {
            assert_eq!(parse_time(text), at, "{text}");
        }
        let bad = [
            "2026-02-15",
            "2026-02-15 14:30:00Z",
            "2026-02-15T14:30Z",
            "2026-02-15T14:30:00",
            "2026-02-15T14:30:00.Z",
            "2026-02-15T14:30:00+0200",
            "2026-02-15T14:30:00Z[UTC]",
            "2026-13-15T14:30:00Z",
            "1969-12-31T23:59:59Z",
            "",
        ];
        for text in bad {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn the_major_version_decides() {
        let judged = |text| judge_version(text);
        for text in ["1.0", "1.7", "1", "1.0.3"] {
            assert_eq!(judged(text), Version::Readable, "{text}");
        }
        for text in ["2.0", "0.9", "10.1"] {
            assert_eq!(judged(text), Version::Unsupported, "{text}");
        }
        for text in ["", "one", "1.", ".1", "1.0.0.0", "1.x", "v1.0"] {
            assert_eq!(judged(text), Version::Invalid, "{text}");
        }
    }

    #[test]
    fn a_trace_parent_is_checked_as_the_w3c_writes_it() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good) && is_traceparent(&good.replacen("00", "01", 1)));
        for bad in [&good[1..], &format!("{good}-x"), &good.to_uppercase(), "00-0-0-01", ""] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        let later = good.replacen("00", "01", 1);
        assert!(is_traceparent(&format!("{later}-more-7f")));
        let long = "x".repeat(100);
        for more in [r#"","x":"y"#, "\"", "\0", " ", "é", &long] {
            assert!(!is_traceparent(&format!("{later}-{more}")), "{more}");
        }
    }
}
