//! A time as a person gives it on the command line. It reads no clock by itself but the one that it
//! is given.

use crate::clock::{Clock, Millis, parse_rfc3339, rfc3339};

/// Reads an argument: an RFC 3339 time, or how long ago it was. The result is RFC 3339.
pub fn read(text: &str) -> Result<String, String> {
    since(text, Clock::system().now()).map(rfc3339).ok_or_else(|| {
        "give a time such as 2026-02-15T14:30:00Z, or how long ago it was: 90s, 15m, 2h, 3d".into()
    })
}

fn since(text: &str, now: Millis) -> Option<Millis> {
    if let Some(at) = parse_rfc3339(text) {
        return Some(at);
    }
    let unit: u64 = match text.chars().next_back()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok()?;
    now.checked_sub(count.checked_mul(unit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_given_as_such_or_by_its_age() {
        let now = parse_rfc3339("2026-02-15T14:30:00Z").unwrap();
        let told = [
            ("2026-02-15T14:00:00Z", Some("2026-02-15T14:00:00.000Z")),
            ("90s", Some("2026-02-15T14:28:30.000Z")),
            ("2h", Some("2026-02-15T12:30:00.000Z")),
            ("3d", Some("2026-02-12T14:30:00.000Z")),
            ("3", None),
            ("-3d", None),
            ("d", None),
            ("", None),
            ("99999999d", None),
            ("yesterday", None),
            ("é", None),
        ];
        for (text, at) in told {
            assert_eq!(since(text, now).map(rfc3339).as_deref(), at, "{text}");
        }
    }
}
