//! Members of messages that only pass through here: kept as the exact text in which they came, and
//! added to what goes on. It knows no store.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::{Envelope, Fields, RELAYED_BYTES_MAX, Refusal, parse_one_within};

/// Members of an object by name, each with its exact text.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// The envelope member that holds the sender's own id of a message that was relayed under another.
const ORIGINAL_ID: &str = "original_id";

/// The envelope fields of the protocol; everything else is somebody's addition.
const ENVELOPE: [&str; 12] = [
    "message_type",
    "agent_id",
    "payload",
    "protocol_version",
    "namespace",
    "timestamp",
    "message_id",
    "correlation_id",
    "to",
    "expires_at",
    "ordering_key",
    "traceparent",
];

/// The fields of an offer that the server writes itself.
const OFFER: [&str; 10] = [
    "task_id",
    "task_type",
    "description",
    "files",
    "priority",
    "deadline",
    "target_agent",
    "attempt",
    "offered_by",
    "namespace",
];

/// The members of an offer that go on as they are: those that this version does not know, and
/// `requirements`, which may have some inside.
pub fn of_offer(payload: &[u8]) -> Members {
    let mut members = read(payload);
    members.retain(|name, value| !OFFER.contains(&name.as_str()) && value.get() != "null");
    members
}

/// The members of an envelope that this version does not know.
pub fn of_envelope(envelope: &Envelope) -> Members {
    let mut members = read(envelope.raw());
    members.retain(|name, _| !ENVELOPE.contains(&name.as_str()));
    members
}

fn read(object: &[u8]) -> Members {
    // What was taken is a valid object with unique keys.
    serde_json::from_slice(object).unwrap_or_default()
}

/// The message with these members added behind its own.
///
/// # Errors
/// When it becomes larger than what an agent must take.
pub fn added(envelope: &Envelope, members: &Members) -> Result<Envelope, Refusal> {
    if members.is_empty() {
        return Ok(envelope.clone());
    }
    let mut text = String::from_utf8_lossy(envelope.raw()).into_owned();
    // A message has at least its type, so what is added follows a comma.
    text.truncate(text.len().saturating_sub(1));
    for (name, value) in members {
        text.push(',');
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    parse_one_within(text, RELAYED_BYTES_MAX).map_err(|rejected| rejected.refusal)
}

/// The message under another id, with its own as `original_id`, unless it has a member of that
/// name already.
///
/// # Errors
/// As [`added()`].
pub fn renamed(envelope: &Envelope, fresh: &str) -> Result<Envelope, Refusal> {
    let own = envelope.message_id().unwrap_or_default();
    let renamed = envelope.with_fields(&Fields { message_id: Some(fresh), ..Fields::default() })?;
    if of_envelope(envelope).contains_key(ORIGINAL_ID) {
        return Ok(renamed);
    }
    let own = serde_json::value::to_raw_value(own).unwrap_or_default();
    added(&renamed, &Members::from([(ORIGINAL_ID.to_owned(), own)]))
}

/// The `original_id` of a message, if it has one.
pub fn original_id(message: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Relayed {
        original_id: Option<String>,
    }
    serde_json::from_slice::<Relayed>(message).ok()?.original_id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parse_one;

    #[test]
    fn a_renamed_message_keeps_every_other_byte_and_its_own_id() {
        let text = r#"{ "message_type":"note","message_id":"m", "x": 1.50,"payload":{"n": 1e2} }"#;
        let renamed = renamed(&parse_one(text).unwrap(), "fresh").unwrap();
        let wanted = text.replace("\"m\"", "\"fresh\"").replace("} }", "} ,\"original_id\":\"m\"}");
        assert_eq!(renamed.raw(), &wanted);
        assert_eq!(original_id(renamed.raw()).as_deref(), Some("m"));
    }

    #[test]
    fn what_passes_through_is_what_nobody_here_knows() {
        let offer =
            br#"{"task_id":"t","task_type":"x","files":null,"n": 1.50,"requirements":null}"#;
        let members = of_offer(offer);
        assert_eq!(members.len(), 1);
        assert_eq!(members["n"].get(), "1.50");
        let envelope = parse_one(r#"{"message_type":"x","to":"b","y":{ "z" :1}}"#).unwrap();
        assert_eq!(of_envelope(&envelope)["y"].get(), r#"{ "z" :1}"#);
    }
}
