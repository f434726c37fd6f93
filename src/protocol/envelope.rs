//! One message: its original bytes and the envelope fields read from them. Payloads stay text
//! here; what they must hold is in [`super::payload`].

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::frame::Rejected;
use super::identifier::{self, Version, is_identifier, is_ordering_key};
use super::json::{self, Member};
use super::{
    DEFAULT_NAMESPACE, ErrorCode, MESSAGE_BYTES_MAX, MessageType, PROTOCOL_VERSION, Refusal,
    SERVER_AGENT_ID,
};
use crate::clock::Millis;

/// A message whose envelope is valid. Its bytes are those that came in, so that unknown fields go
/// on unchanged; [`Envelope::fill_missing`] and [`Envelope::with_fields`] change only the fields
/// that they name.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    raw: Bytes,
    payload: Bytes,
    message_type: MessageType,
    agent_id: Option<String>,
    protocol_version: Option<String>,
    namespace: Option<String>,
    timestamp: Option<Millis>,
    message_id: Option<String>,
    correlation_id: Option<String>,
    to: Option<String>,
    expires_at: Option<Millis>,
    ordering_key: Option<String>,
    traceparent: Option<String>,
    task_id: Option<String>,
}

/// Members of a payload that decide how a message travels; `null` is absence.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Routing<'a> {
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    deadline: Option<&'a RawValue>,
    #[serde(borrow)]
    sealed: Option<&'a RawValue>,
}

impl Routing<'_> {
    /// The word for how urgent it is, where it is one.
    pub fn priority(&self) -> Option<Cow<'_, str>> {
        json::text(self.priority?)
    }

    /// The text of the time by which it must be done, where it is one.
    pub fn deadline(&self) -> Option<Cow<'_, str>> {
        json::text(self.deadline?)
    }

    /// Its content is sealed.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }
}

/// Reads one message of at most [`MESSAGE_BYTES_MAX`].
///
/// # Errors
///
/// `too_large`, `malformed`, `unsupported_version`, or the first envelope field that is missing or
/// invalid, with the message id where it could be read.
pub fn parse_one(bytes: impl Into<Bytes>) -> Result<Envelope, Rejected> {
    parse_one_within(bytes, MESSAGE_BYTES_MAX)
}

/// Reads one message of at most `limit` bytes: what the server relayed, or what a store kept.
///
/// # Errors
///
/// As [`parse_one`].
pub fn parse_one_within(bytes: impl Into<Bytes>, limit: usize) -> Result<Envelope, Rejected> {
    let bytes = bytes.into();
    check_size(bytes.len(), limit)?;
    read(&bytes)
}

/// Refuses more bytes than the limit.
pub(super) fn check_size(length: usize, limit: usize) -> Result<(), Refusal> {
    if length <= limit {
        return Ok(());
    }
    let detail = format!("send at most {limit} bytes at once; this was {length} bytes");
    Err(Refusal::new(ErrorCode::TooLarge, detail))
}

/// Reads one message of any size.
pub(super) fn read(bytes: &Bytes) -> Result<Envelope, Rejected> {
    let bytes = bytes.slice_ref(bytes.trim_ascii());
    let text = as_text(&bytes)?;
    json::check(text).map_err(|error| malformed(&error))?;
    let members = json::members(text)
        .map_err(|_| Refusal::new(ErrorCode::Malformed, "send each message as one json object"))?;
    read_members(&bytes, &members).map_err(|refusal| Rejected {
        message_id: json::find(&members, "message_id")
            .and_then(|member| json::text(member.value))
            .filter(|id| is_identifier(id))
            .map(Cow::into_owned),
        refusal,
    })
}

/// The bytes as text.
pub(super) fn as_text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|error| {
        let detail = format!("send utf-8; the byte at {} is not", error.valid_up_to());
        Refusal::new(ErrorCode::Malformed, detail)
    })
}

/// The refusal for text that is not strict JSON. The reader's error names a place, never content.
pub(super) fn malformed(error: &serde_json::Error) -> Refusal {
    Refusal::new(ErrorCode::Malformed, format!("send valid json with unique keys; {error}"))
}

fn read_members(bytes: &Bytes, members: &[Member<'_>]) -> Result<Envelope, Refusal> {
    let protocol_version = text(members, "protocol_version")?;
    check_version(protocol_version.as_deref())?;
    let message_type =
        identifier(members, "message_type")?.ok_or_else(|| Refusal::missing("message_type"))?;
    let message_type = MessageType::from(message_type.as_str());
    let payload = payload_text(members)?;
    let task_id = if message_type.is_task() { task_id(payload) } else { None };
    let ordering_key = text(members, "ordering_key")?;
    if ordering_key.as_deref().is_some_and(|key| !is_ordering_key(key)) {
        let wanted = "1 to 128 bytes without control characters";
        return Err(Refusal::invalid("ordering_key", wanted));
    }
    Ok(Envelope {
        raw: bytes.clone(),
        payload: payload
            .map_or(Bytes::from_static(b"{}"), |payload| bytes.slice_ref(payload.get().as_bytes())),
        message_type,
        agent_id: identifier(members, "agent_id")?,
        protocol_version,
        namespace: identifier(members, "namespace")?,
        timestamp: time(members, "timestamp")?,
        message_id: identifier(members, "message_id")?,
        correlation_id: identifier(members, "correlation_id")?,
        to: identifier(members, "to")?,
        expires_at: time(members, "expires_at")?,
        ordering_key,
        // An invalid trace context is ignored, as the W3C asks, and forwarded all the same.
        traceparent: text(members, "traceparent")?.filter(|it| identifier::is_traceparent(it)),
        task_id,
    })
}

fn check_version(version: Option<&str>) -> Result<(), Refusal> {
    match version.map(identifier::judge_version) {
        None | Some(Version::Readable) => Ok(()),
        Some(Version::Unsupported) => {
            let detail = "use version 1 of the protocol; this end reads no other";
            Err(Refusal::new(ErrorCode::UnsupportedVersion, detail).at("protocol_version"))
        }
        Some(Version::Invalid) => {
            Err(Refusal::invalid("protocol_version", "a version such as \"1.0\""))
        }
    }
}

fn payload_text<'a>(members: &[Member<'a>]) -> Result<Option<&'a RawValue>, Refusal> {
    match json::find(members, "payload").map(|member| member.value) {
        Some(value) if !value.get().starts_with('{') => {
            Err(Refusal::invalid("payload", "an object"))
        }
        payload => Ok(payload),
    }
}

/// The `task_id` of a payload where it is a valid one; validation says so where it is not.
fn task_id(payload: Option<&RawValue>) -> Option<String> {
    let members = json::members(payload?.get()).ok()?;
    let id = json::text(json::find(&members, "task_id")?.value)?;
    is_identifier(&id).then(|| id.into_owned())
}

fn text(members: &[Member<'_>], name: &str) -> Result<Option<String>, Refusal> {
    let Some(member) = json::find(members, name) else { return Ok(None) };
    let text = json::text(member.value).ok_or_else(|| Refusal::invalid(name, "a string"))?;
    Ok(Some(text.into_owned()))
}

fn identifier(members: &[Member<'_>], name: &str) -> Result<Option<String>, Refusal> {
    let found = text(members, name)?;
    if found.as_deref().is_some_and(|text| !is_identifier(text)) {
        return Err(Refusal::invalid(name, "1 to 128 of the characters A-Z a-z 0-9 . _ : -"));
    }
    Ok(found)
}

fn time(members: &[Member<'_>], name: &str) -> Result<Option<Millis>, Refusal> {
    let Some(found) = text(members, name)? else { return Ok(None) };
    let time = identifier::parse_time(&found);
    time.map(Some).ok_or_else(|| Refusal::invalid(name, identifier::TIME_WANTED))
}

impl Envelope {
    /// The message's exact bytes: one JSON object without surrounding white space.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The payload's exact bytes, `{}` when there is none.
    pub fn payload_raw(&self) -> &Bytes {
        &self.payload
    }

    /// The payload as a value. Numbers beyond 64 bits lose precision here, never in the bytes.
    pub fn payload_value(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }

    /// Those members of the payload that decide how a message travels, without reading the others.
    pub fn routing(&self) -> Routing<'_> {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }

    /// The type.
    pub fn message_type(&self) -> &MessageType {
        &self.message_type
    }

    /// The sender, where the message names it.
    pub fn agent_id(&self) -> Option<&str> {
        self.agent_id.as_deref()
    }

    /// The version, [`PROTOCOL_VERSION`] when the message has none.
    pub fn protocol_version(&self) -> &str {
        self.protocol_version.as_deref().unwrap_or(PROTOCOL_VERSION)
    }

    /// The namespace, [`DEFAULT_NAMESPACE`] when the message has none.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// The namespace, where the message names it.
    pub fn given_namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The sender's time of the message.
    pub fn timestamp(&self) -> Option<Millis> {
        self.timestamp
    }

    /// The idempotency key.
    pub fn message_id(&self) -> Option<&str> {
        self.message_id.as_deref()
    }

    /// The id of the message that this one answers.
    pub fn correlation_id(&self) -> Option<&str> {
        self.correlation_id.as_deref()
    }

    /// The recipient as written.
    pub fn to(&self) -> Option<&str> {
        self.to.as_deref()
    }

    /// The agent that the message is for; `None` when it is for the server itself.
    pub fn recipient(&self) -> Option<&str> {
        self.to().filter(|to| *to != SERVER_AGENT_ID)
    }

    /// After this time no new delivery starts.
    pub fn expires_at(&self) -> Option<Millis> {
        self.expires_at
    }

    /// Whether that time has come.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The ordering key as written.
    pub fn ordering_key(&self) -> Option<&str> {
        self.ordering_key.as_deref()
    }

    /// The W3C trace context, where it is valid.
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// The `task_id` in the payload of a `task_*` message.
    pub fn task_id(&self) -> Option<&str> {
        self.task_id.as_deref()
    }

    /// Messages of one sender to one recipient with the same lane key are applied in order: the
    /// ordering key, or the task of a `task_*` message. `None`: in no order.
    pub fn lane_key(&self) -> Option<&str> {
        self.ordering_key().or(self.task_id())
    }

    /// The sender of a message that an agent sent.
    ///
    /// # Errors
    ///
    /// `missing_field` without an `agent_id`, `invalid_field` when it is the server's.
    pub fn sending_agent(&self) -> Result<&str, Refusal> {
        match self.agent_id() {
            None => Err(Refusal::missing("agent_id")),
            Some(SERVER_AGENT_ID) => {
                Err(Refusal::invalid("agent_id", "another name; this one is the server's"))
            }
            Some(agent_id) => Ok(agent_id),
        }
    }

    /// A digest of what a message id stands for: type, recipient and content, whatever the white
    /// space and the order of keys. Sealed content is compared by its `origin`, because sealing the
    /// same text again gives other bytes.
    pub fn body_digest(&self) -> [u8; 32] {
        let payload = self.payload_value();
        let content = payload.get("sealed").and_then(|sealed| sealed.get("origin"));
        let parts = [
            self.message_type.as_str(),
            self.recipient().unwrap_or(SERVER_AGENT_ID),
            self.lane_key().unwrap_or_default(),
            // The text of a value has its keys sorted.
            &content.unwrap_or(&payload).to_string(),
        ];
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}
