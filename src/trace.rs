//! The W3C trace that messages and tasks belong to, in what is recorded of them. It makes none: a
//! trace is what a caller gave, and goes on as it came.

use std::borrow::Cow;

use axum::http::HeaderMap;
use serde::Deserialize;
use storage::journal::ReadError;
use storage::messages::{BodyPlace, Live};
use storage::store::Store;
use storage::transaction::{Act, Transaction};

use crate::protocol::is_traceparent;

/// The variable by which a program is told the trace that it belongs to, and by which an agent's
/// command is told that of its task.
pub const VARIABLE: &str = "TRACEPARENT";

/// The HTTP header of a request that belongs to a trace, <https://www.w3.org/TR/trace-context/>.
pub const HEADER: &str = "traceparent";

/// The member of that name, as it stands in an envelope and in the details of an entry.
const MEMBER: &str = r#""traceparent""#;

/// The act with the trace among its details.
#[must_use]
pub fn traced(mut act: Act, trace: Option<&str>) -> Act {
    // One that is valid has nothing in it that JSON escapes.
    let Some(trace) = trace.filter(|trace| is_traceparent(trace)) else { return act };
    let before = act.details.strip_suffix('}').unwrap_or("{");
    let comma = if before.trim_end().ends_with('{') { "" } else { "," };
    act.details = format!("{before}{comma}{MEMBER}:\"{trace}\"}}");
    act
}

/// The trace that an object names: an envelope, or the details of an entry. To look for the name
/// first costs next to nothing, and most messages belong to no trace.
pub fn of_object(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Traced<'a> {
        #[serde(borrow)]
        traceparent: Option<Cow<'a, str>>,
    }
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.contains(MEMBER))?;
    let trace = serde_json::from_str::<Traced<'_>>(text).ok()?.traceparent?;
    is_traceparent(&trace).then(|| trace.into_owned())
}

/// The trace that a request belongs to; one that is not valid is ignored, as the W3C asks.
pub fn of_headers(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(HEADER)?.to_str().ok()?;
    is_traceparent(given).then_some(given)
}

/// The trace of a body that was read, if it could be.
pub fn of_body(body: Result<Vec<u8>, ReadError>) -> Option<String> {
    body.ok().and_then(|bytes| of_object(&bytes))
}

/// Bytes of a body that is read for its trace while a decision runs, which everybody waits for.
const READ_BYTES_MAX: u32 = 16 << 10;

/// The trace of a message, read from its body if that is not large: for what happens to few of
/// them.
pub fn of_message(transaction: &Transaction<'_>, store: &Store, live: &Live) -> Option<String> {
    match transaction.staged_body(live.entry) {
        Some(bytes) => of_object(bytes),
        None if live.body == BodyPlace::default() => None,
        None if live.body.length > READ_BYTES_MAX => None,
        None => of_body(store.body(live.body)),
    }
}

#[cfg(test)]
mod tests {
    use storage::event::Event;

    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn details_get_a_trace_beside_what_they_have() {
        let told = |details: &str, trace: &str| {
            let act = Act::new(Event::MessageSent, "a", "n", "m").details(details.to_owned());
            traced(act, Some(trace)).details
        };
        let member = format!(r#""traceparent":"{TRACE}""#);
        assert_eq!(told("", TRACE), format!("{{{member}}}"));
        assert_eq!(told("{}", TRACE), format!("{{{member}}}"));
        assert_eq!(told(r#"{"attempt":1}"#, TRACE), format!(r#"{{"attempt":1,{member}}}"#));
        assert_eq!(of_object(told(r#"{"a":{}}"#, TRACE).as_bytes()).as_deref(), Some(TRACE));
        assert_eq!(told(r#"{"attempt":1}"#, r#"00-","x":"y"#), r#"{"attempt":1}"#);
    }

    #[test]
    fn only_a_valid_trace_of_the_object_itself_counts() {
        let cases = [
            (format!(r#"{{"a":1,"traceparent":"{TRACE}"}}"#), Some(TRACE)),
            (format!(r#"{{"payload":{{"traceparent":"{TRACE}"}}}}"#), None),
            (r#"{"traceparent":"00-1-2-3"}"#.to_owned(), None),
            (r#"{"traceparent":null}"#.to_owned(), None),
            (r#"{"traceparent":7}"#.to_owned(), None),
            (String::new(), None),
        ];
        for (text, trace) in cases {
            assert_eq!(of_object(text.as_bytes()).as_deref(), trace, "{text}");
        }
    }
}
