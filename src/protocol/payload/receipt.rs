//! Payloads that answer messages: `ack` and `nack`. Which messages an answer covers, and why one
//! was refused; not what was decided on.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Payload, wire};
use crate::protocol::{MessageType, Refusal};

/// Messages are on stable storage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The messages, when there are several.
    #[serde(default, deserialize_with = "wire::or_default", skip_serializing_if = "Vec::is_empty")]
    pub message_ids: Vec<String>,
    /// The message, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Position in its frame of a message that had no id; `message_id` is the assigned one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// The end of the sender's journal, in the answer to a heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_head: Option<Value>,
    /// The end of the receiver's journal that the sender keeps, in the answer to a heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_head: Option<Value>,
}

/// Ends of the journals of two peers, as the one tells the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// That of the one who tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_head: Option<Value>,
    /// That of the one who is told, as the other one keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_head: Option<Value>,
}

impl Heads {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.journal_head.is_none() && self.peer_head.is_none()
    }
}

impl Ack {
    /// An answer to the messages with these ids.
    pub fn of(message_ids: Vec<String>) -> Self {
        Self { message_ids, ..Self::default() }
    }

    /// Every id that it names.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.message_ids.iter().chain(&self.message_id).map(String::as_str)
    }
}

impl Payload for Ack {
    const MESSAGE_TYPE: MessageType = MessageType::Ack;
}

/// Messages were refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nack {
    /// The messages, when there are several.
    #[serde(default, deserialize_with = "wire::or_default", skip_serializing_if = "Vec::is_empty")]
    pub message_ids: Vec<String>,
    /// The message, when there is one. Both are absent when no id could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Position in its frame of a message that had no readable id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Why.
    pub error: NackError,
}

impl Nack {
    /// The refusal of one message.
    pub fn of(message_id: Option<String>, refusal: &Refusal) -> Self {
        Self { message_ids: Vec::new(), message_id, index: None, error: refusal.into() }
    }

    /// Every id that it names.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.message_ids.iter().chain(&self.message_id).map(String::as_str)
    }

    /// The refusal.
    pub fn refusal(&self) -> Refusal {
        self.error.clone().into()
    }
}

impl Payload for Nack {
    const MESSAGE_TYPE: MessageType = MessageType::Nack;
}

/// The `error` of a `nack`, and of a result in an HTTP answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NackError {
    /// The error code.
    pub code: String,
    /// What is wrong and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Path of the field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Whether the same message may succeed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// The earliest moment for that, in seconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// What is there instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Value>,
}

impl From<&Refusal> for NackError {
    fn from(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code.as_str().to_owned(),
            message: Some(refusal.detail.clone()),
            field: refusal.field.clone(),
            retryable: Some(refusal.retryable),
            retry_after_seconds: refusal.retry_after_seconds,
            current: refusal.current.as_deref().cloned(),
        }
    }
}

impl From<NackError> for Refusal {
    fn from(error: NackError) -> Self {
        let mut refusal = Self::from_parts(&error.code, error.message, error.retryable);
        refusal.field = error.field;
        refusal.retry_after_seconds = error.retry_after_seconds;
        refusal.current = error.current.map(Box::new);
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ErrorCode;

    #[test]
    fn a_refusal_survives_a_nack() {
        let refusals = [
            Refusal::missing("payload.task_id"),
            Refusal::new(ErrorCode::RateLimited, "send less").retry_after(30),
            Refusal::new(ErrorCode::StateConflict, "read it again")
                .with_current(serde_json::json!({"value": null, "version": 4})),
            Refusal::new(ErrorCode::Unavailable, "never again").with_retryable(false),
        ];
        for refusal in refusals {
            let nack = Nack::of(Some("m-1".to_owned()), &refusal);
            let text = serde_json::to_string(&nack).unwrap();
            let read: Nack = serde_json::from_str(&text).unwrap();
            assert_eq!(read.refusal(), refusal);
            assert_eq!(read.ids().collect::<Vec<_>>(), ["m-1"]);
        }
    }

    #[test]
    fn a_receipt_names_ids_in_one_list() {
        let ack: Ack =
            serde_json::from_str(r#"{"message_ids":["a","b"],"message_id":"c"}"#).unwrap();
        assert_eq!(ack.ids().collect::<Vec<_>>(), ["a", "b", "c"]);
        let text = serde_json::to_string(&Ack::of(vec!["a".to_owned()])).unwrap();
        assert_eq!(text, r#"{"message_ids":["a"]}"#);
    }
}
