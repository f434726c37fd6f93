//! What a whole HTTP response means that is not a success: the verdicts of section 3 of the
//! protocol. It reads no socket.

use jiff::fmt::rfc2822;

use crate::clock::Millis;
use crate::protocol::{ErrorCode, Refusal};

/// What a response means for everything that was in its request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The request was refused: for good or for now, as the refusal says.
    Refused(Refusal),
    /// Nothing of ours is let in: a state of the link, not of a message.
    Barred(String),
    /// Another program took the session over; why.
    Replaced(String),
}

/// Judges a response by its status, its body and its `Retry-After`.
pub fn judge(status: u16, body: &[u8], retry_after: Option<u64>) -> Verdict {
    let problem = Refusal::from_problem(body);
    let said = || problem.as_ref().map_or_else(|| format!("HTTP {status}"), ToString::to_string);
    match (status, &problem) {
        (409, Some(refusal)) if refusal.code == ErrorCode::SessionReplaced => {
            return Verdict::Replaced(refusal.to_string());
        }
        (401 | 403, _) => return Verdict::Barred(format!("not let in: {}", said())),
        (404 | 405, None) => {
            return Verdict::Barred(format!("this is no server of the protocol: HTTP {status}"));
        }
        _ => {}
    }
    let mut refusal = problem.unwrap_or_else(|| {
        let code = if is_transient(status) { ErrorCode::Unavailable } else { permanent(status) };
        Refusal::new(code, format!("answered with HTTP {status}"))
    });
    // A code that we do not know says nothing where the status does.
    if refusal.code == ErrorCode::Unrecognized && !says_retryable(body) {
        refusal.retryable = is_transient(status);
    }
    if refusal.retryable {
        refusal.retry_after_seconds = refusal.retry_after_seconds.max(retry_after);
    }
    Verdict::Refused(refusal)
}

fn says_retryable(body: &[u8]) -> bool {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body.get("retryable").is_some_and(serde_json::Value::is_boolean)
}

/// A status that may be another one later.
fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 421 | 425 | 429) || status >= 500
}

fn permanent(status: u16) -> ErrorCode {
    match status {
        413 => ErrorCode::TooLarge,
        _ => ErrorCode::Unrecognized,
    }
}

/// The seconds that a `Retry-After` asks for: a number, or the time until a date.
pub fn retry_after(value: &str, now: Millis) -> Option<u64> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(seconds);
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(value.trim()).ok()?;
    let at = u64::try_from(at.as_millisecond()).ok()?;
    Some(at.saturating_sub(now).div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is tried again, or that the link is at fault.
    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Refused(refusal) if refusal.retryable => "transient",
            Verdict::Refused(_) => "permanent",
            Verdict::Barred(_) => "barred",
            Verdict::Replaced(_) => "replaced",
        }
    }

    fn problem(code: ErrorCode, retryable: Option<bool>) -> Vec<u8> {
        let mut problem = Refusal::new(code, "no").problem();
        problem.retryable = retryable;
        serde_json::to_vec(&problem).unwrap()
    }

    #[test]
    fn each_response_has_its_verdict() {
        let page = b"<html>a proxy's page</html>".as_slice();
        let plain = [
            (&[408, 421, 425, 429, 500, 502, 503, 504, 507][..], "transient"),
            (&[401, 403, 404, 405], "barred"),
            (&[400, 409, 413, 415, 422], "permanent"),
        ];
        for (statuses, expected) in plain {
            for status in statuses {
                assert_eq!(word(&judge(*status, page, None)), expected, "{status}");
            }
        }
        let foreign = br#"{"code":"teapot"}"#;
        assert_eq!(word(&judge(503, foreign, None)), "transient");
        assert_eq!(word(&judge(418, foreign, None)), "permanent");
        let with_body = [
            (400, ErrorCode::Malformed, None, "permanent"),
            // The body decides where it says so.
            (400, ErrorCode::Malformed, Some(true), "transient"),
            (503, ErrorCode::Unavailable, Some(false), "permanent"),
            (404, ErrorCode::UnknownAgent, None, "transient"),
            (404, ErrorCode::UnknownTask, None, "permanent"),
            (409, ErrorCode::SessionReplaced, None, "replaced"),
            (409, ErrorCode::IdConflict, None, "permanent"),
            // Wrong credentials say nothing of the messages that were shown with them.
            (401, ErrorCode::Unauthorized, Some(false), "barred"),
            (403, ErrorCode::Forbidden, Some(false), "barred"),
        ];
        for (status, code, retryable, expected) in with_body {
            let verdict = judge(status, &problem(code, retryable), None);
            assert_eq!(word(&verdict), expected, "{status} {code:?} {retryable:?}");
        }
    }

    #[test]
    fn the_longer_wait_wins() {
        let wait = |body: &[u8], header| match judge(503, body, header) {
            Verdict::Refused(refusal) => refusal.retry_after_seconds,
            other => panic!("{other:?}"),
        };
        let busy = Refusal::new(ErrorCode::Unavailable, "wait").retry_after(5).problem();
        let busy = serde_json::to_vec(&busy).unwrap();
        assert_eq!(wait(b"", None), None);
        assert_eq!(wait(b"", Some(7)), Some(7));
        assert_eq!(wait(&busy, Some(7)), Some(7));
        assert_eq!(wait(&busy, Some(3)), Some(5));
    }

    #[test]
    fn a_retry_after_is_a_number_or_a_date() {
        let now = 1_771_165_800_000;
        assert_eq!(retry_after("120", now), Some(120));
        assert_eq!(retry_after("Sun, 15 Feb 2026 14:30:30 GMT", now), Some(30));
        assert_eq!(retry_after("Sun, 15 Feb 2026 14:29:00 GMT", now), Some(0));
        assert_eq!(retry_after("soon", now), None);
    }
}
