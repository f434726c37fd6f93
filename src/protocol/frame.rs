//! What arrives at once: one message, an array of them, or lines. Each element is judged on its
//! own, so that a bad one is refused by its index and the others go on.

use bytes::Bytes;

use super::envelope::{as_text, check_size, malformed, read};
use super::json;
use super::{Envelope, ErrorCode, FRAME_MESSAGES_MAX, MESSAGE_BYTES_MAX, Refusal};

/// A message that was refused, with its id where it had a readable one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{refusal}")]
pub struct Rejected {
    /// The id that the sender gave the message.
    pub message_id: Option<String>,
    /// Why.
    pub refusal: Refusal,
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self { message_id: None, refusal }
    }
}

/// The messages of one frame or body, in order; the position is the `index` of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Whether they came as an array or as lines. A single message that is refused is the
    /// response's own error over HTTP; one of a batch is not.
    pub is_batch: bool,
    /// One result for each element.
    pub messages: Vec<Result<Envelope, Rejected>>,
}

/// Reads a frame of at most [`MESSAGE_BYTES_MAX`]: one message or an array of them.
///
/// # Errors
///
/// `too_large` or `malformed` when the frame as a whole cannot be read.
pub fn parse_frame(bytes: impl Into<Bytes>) -> Result<Frame, Refusal> {
    parse_frame_within(bytes, MESSAGE_BYTES_MAX)
}

/// Reads a frame of at most `limit` bytes, as an agent does with those of its server.
///
/// # Errors
///
/// As [`parse_frame`].
pub fn parse_frame_within(bytes: impl Into<Bytes>, limit: usize) -> Result<Frame, Refusal> {
    let bytes = bytes.into();
    check_size(bytes.len(), limit)?;
    if bytes.trim_ascii_start().first() != Some(&b'[') {
        return Ok(Frame { is_batch: false, messages: vec![read(&bytes)] });
    }
    let text = as_text(&bytes)?;
    let elements = json::elements(text).map_err(|error| malformed(&error))?;
    check_count(elements.len())?;
    let message = |element: &str| read(&bytes.slice_ref(element.as_bytes()));
    let messages = elements.into_iter().map(|element| message(element.get())).collect();
    Ok(Frame { is_batch: true, messages })
}

/// Reads newline-delimited JSON of at most [`MESSAGE_BYTES_MAX`]. Empty lines are skipped.
///
/// # Errors
///
/// `too_large`; a line that cannot be read is refused alone.
pub fn parse_ndjson(bytes: impl Into<Bytes>) -> Result<Frame, Refusal> {
    let bytes = bytes.into();
    check_size(bytes.len(), MESSAGE_BYTES_MAX)?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    check_count(lines.clone().count())?;
    let messages = lines.map(|line| read(&bytes.slice_ref(line))).collect();
    Ok(Frame { is_batch: true, messages })
}

fn check_count(count: usize) -> Result<(), Refusal> {
    if count <= FRAME_MESSAGES_MAX {
        return Ok(());
    }
    let detail = format!("send at most {FRAME_MESSAGES_MAX} messages at once; these were {count}");
    Err(Refusal::new(ErrorCode::TooLarge, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"message_type":"heartbeat","message_id":"m-1"}"#;

    fn outcome(frame: &Frame) -> Vec<&str> {
        let name = |message: &Result<Envelope, Rejected>| match message {
            Ok(_) => "ok",
            Err(rejected) => rejected.refusal.code.as_str(),
        };
        frame.messages.iter().map(name).collect()
    }

    #[test]
    fn a_bad_element_of_an_array_is_refused_alone() {
        let bad = r#"{"message_type":"heartbeat","message_id":"m-2","to":7}"#;
        let twice = r#"{"message_type":"heartbeat","payload":{"a":[{"b":1,"b":2}]}}"#;
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let frame = parse_frame(format!(" [{GOOD}, {bad},{twice},7,{deep},{GOOD}] ")).unwrap();
        assert!(frame.is_batch);
        let wanted = ["ok", "invalid_field", "malformed", "malformed", "malformed", "ok"];
        assert_eq!(outcome(&frame), wanted);
        let rejected = frame.messages[1].as_ref().unwrap_err();
        assert_eq!(rejected.message_id.as_deref(), Some("m-2"));
        assert_eq!(frame.messages[5].as_ref().unwrap().raw(), GOOD);
    }

    #[test]
    fn a_frame_is_one_message_or_an_array() {
        let frame = parse_frame(GOOD).unwrap();
        assert!(!frame.is_batch);
        assert_eq!(outcome(&frame), ["ok"]);
        assert_eq!(outcome(&parse_frame("[]").unwrap()), [""; 0]);
        for text in ["", "7", "{", "{}{}", "null"] {
            let frame = parse_frame(text).unwrap();
            assert!(!frame.is_batch && outcome(&frame)[0] == "malformed", "{text}");
        }
        for text in ["[", "[{}", "[{}]]", "[{},]", "[\u{feff}]"] {
            assert_eq!(parse_frame(text).unwrap_err().code, ErrorCode::Malformed, "{text}");
        }
        let bytes = Bytes::from_static(b"[\"\xff\"]");
        assert_eq!(parse_frame(bytes).unwrap_err().code, ErrorCode::Malformed);
    }

    #[test]
    fn lines_are_judged_one_by_one() {
        let text = [GOOD.as_bytes(), b"\r\n\n{\"x\":\"\xff\"}\n[]\n", GOOD.as_bytes()].concat();
        let frame = parse_ndjson(text).unwrap();
        assert_eq!(outcome(&frame), ["ok", "malformed", "malformed", "ok"]);
        assert_eq!(outcome(&parse_ndjson("\n \n").unwrap()), [""; 0]);
    }

    #[test]
    fn bytes_and_messages_have_a_limit() {
        let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
        assert_eq!(outcome(&parse_frame(padded(MESSAGE_BYTES_MAX)).unwrap()), ["ok"]);
        let refusal = parse_frame(padded(MESSAGE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(refusal.detail, "send at most 1048576 bytes at once; this was 1048577 bytes");
        let refusal = parse_ndjson(padded(MESSAGE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::TooLarge);
        let zeros = |count: usize| format!("[0{}]", ",0".repeat(count - 1));
        assert_eq!(parse_frame(zeros(10_000)).unwrap().messages.len(), 10_000);
        assert_eq!(parse_frame(zeros(10_001)).unwrap_err().code, ErrorCode::TooLarge);
    }
}
