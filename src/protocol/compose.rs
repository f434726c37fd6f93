//! Writing messages: whole ones from typed parts, and changes of single fields that leave every
//! other byte of a received message as it was.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::envelope::{Envelope, check_size, read};
use super::json;
use super::{MESSAGE_BYTES_MAX, MessageType, PROTOCOL_VERSION, Refusal};
use crate::clock::{Millis, rfc3339};

/// Values for envelope fields, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The idempotency key.
    pub message_id: Option<&'a str>,
    /// The sender.
    pub agent_id: Option<&'a str>,
    /// The namespace.
    pub namespace: Option<&'a str>,
    /// The time of the message.
    pub timestamp: Option<Millis>,
    /// The recipient.
    pub to: Option<&'a str>,
    /// The message that this one answers.
    pub correlation_id: Option<&'a str>,
    /// The end of its usefulness.
    pub expires_at: Option<Millis>,
    /// The lane.
    pub ordering_key: Option<&'a str>,
    /// The W3C trace context.
    pub traceparent: Option<&'a str>,
}

impl Fields<'_> {
    /// Names and JSON texts of the fields that have a value.
    fn texts(&self) -> Vec<(&'static str, String)> {
        let time = |at: Option<Millis>| at.map(rfc3339);
        let text = |text: Option<&str>| text.map(str::to_owned);
        let fields = [
            ("message_id", text(self.message_id)),
            ("agent_id", text(self.agent_id)),
            ("namespace", text(self.namespace)),
            ("timestamp", time(self.timestamp)),
            ("to", text(self.to)),
            ("correlation_id", text(self.correlation_id)),
            ("expires_at", time(self.expires_at)),
            ("ordering_key", text(self.ordering_key)),
            ("traceparent", text(self.traceparent)),
        ];
        let quoted = |text: String| serde_json::Value::from(text).to_string();
        fields
            .into_iter()
            .filter_map(|(name, text)| text.map(|text| (name, quoted(text))))
            .collect()
    }
}

/// Builds a message of ours. Nothing is filled in: ids and times are the caller's.
#[derive(Debug, Clone)]
pub struct EnvelopeBuilder<'a> {
    message_type: MessageType,
    fields: Fields<'a>,
    payload: Option<Result<Box<RawValue>, Refusal>>,
}

impl<'a> EnvelopeBuilder<'a> {
    /// A message of `message_type` with these fields and an empty payload.
    pub fn new(message_type: MessageType, fields: Fields<'a>) -> Self {
        Self { message_type, fields, payload: None }
    }

    /// The payload: a typed one, a value, or raw JSON text.
    #[must_use]
    pub fn payload(mut self, payload: &impl Serialize) -> Self {
        let refused = |_| Refusal::invalid("payload", "an object that json can express");
        self.payload = Some(to_raw_value(payload).map_err(refused));
        self
    }

    /// Writes the message and reads it back.
    ///
    /// # Errors
    ///
    /// What [`super::parse_one`] would refuse: a message that is too large, or a bad identifier.
    pub fn build(self) -> Result<Envelope, Refusal> {
        read(&Bytes::from(self.text()?)).map_err(|rejected| rejected.refusal)
    }

    /// Writes the message and does not read it back: for fields that are known to be valid.
    ///
    /// # Errors
    ///
    /// When it is too large, or its payload is no JSON.
    pub fn text(self) -> Result<String, Refusal> {
        let payload = self.payload.transpose()?;
        let message_type = serde_json::Value::from(self.message_type.as_str());
        let mut text =
            format!(r#"{{"protocol_version":"{PROTOCOL_VERSION}","message_type":{message_type}"#);
        for (name, value) in self.fields.texts() {
            push_member(&mut text, name, &value);
        }
        push_member(&mut text, "payload", payload.as_ref().map_or("{}", |payload| payload.get()));
        text.push('}');
        check_size(text.len(), MESSAGE_BYTES_MAX)?;
        Ok(text)
    }
}

fn push_member(text: &mut String, name: &str, value: &str) {
    text.push_str(",\"");
    text.push_str(name);
    text.push_str("\":");
    text.push_str(value);
}

impl Envelope {
    /// Writes a message of ours from its type, fields and payload.
    ///
    /// # Errors
    ///
    /// As [`EnvelopeBuilder::build`].
    pub fn compose(
        message_type: MessageType,
        fields: Fields<'_>,
        payload: &impl Serialize,
    ) -> Result<Self, Refusal> {
        EnvelopeBuilder::new(message_type, fields).payload(payload).build()
    }

    /// The message with those of `fields` that it leaves out (or has as `null`) filled in; every
    /// other byte stays. It may grow beyond [`MESSAGE_BYTES_MAX`], as what was received within
    /// the limit must not be refused for what the receiver adds.
    ///
    /// # Errors
    ///
    /// `invalid_field` when a filled-in value is not valid.
    pub fn fill_missing(&self, fields: &Fields<'_>) -> Result<Self, Refusal> {
        if self.has_all(fields) {
            return Ok(self.clone());
        }
        self.edited(fields, false)
    }

    /// The message with `fields` set, replacing what it has; every other byte stays. A relay
    /// addresses a message with it.
    ///
    /// # Errors
    ///
    /// `invalid_field` when a new value is not valid.
    pub fn with_fields(&self, fields: &Fields<'_>) -> Result<Self, Refusal> {
        if self.has_these(fields) {
            return Ok(self.clone());
        }
        self.edited(fields, true)
    }

    /// Whether each of these fields has a value already, whatever it is.
    fn has_all(&self, fields: &Fields<'_>) -> bool {
        let texts = self.texts_beside(fields);
        texts.iter().all(|(own, wanted)| wanted.is_none() || own.is_some())
            && (fields.timestamp.is_none() || self.timestamp().is_some())
            && (fields.expires_at.is_none() || self.expires_at().is_some())
    }

    /// Whether each of these fields has this value already. A time can be written in several ways,
    /// so it is not compared.
    fn has_these(&self, fields: &Fields<'_>) -> bool {
        let texts = self.texts_beside(fields);
        texts.iter().all(|(own, wanted)| wanted.is_none() || own == wanted)
            && fields.timestamp.is_none()
            && fields.expires_at.is_none()
    }

    /// The text fields, each beside its new value.
    fn texts_beside<'f>(&'f self, fields: &Fields<'f>) -> [(Option<&'f str>, Option<&'f str>); 7] {
        [
            (self.message_id(), fields.message_id),
            (self.agent_id(), fields.agent_id),
            (self.given_namespace(), fields.namespace),
            (self.to(), fields.to),
            (self.correlation_id(), fields.correlation_id),
            (self.ordering_key(), fields.ordering_key),
            (self.traceparent(), fields.traceparent),
        ]
    }

    fn edited(&self, fields: &Fields<'_>, overwrite: bool) -> Result<Self, Refusal> {
        let text = super::envelope::as_text(self.raw())?;
        let members = json::members(text).map_err(|error| super::envelope::malformed(&error))?;
        let mut added = String::new();
        let mut replaced = Vec::new();
        for (name, value) in fields.texts() {
            match members.iter().find(|member| member.key == name) {
                None => push_member(&mut added, name, &value),
                Some(member) if overwrite || member.is_null() => {
                    let start = json::offset(text.as_bytes(), member.value.get());
                    replaced.push((start, member.value.get().len(), value));
                }
                Some(_) => {}
            }
        }
        if added.is_empty() && replaced.is_empty() {
            return Ok(self.clone());
        }
        replaced.sort_unstable_by_key(|(start, ..)| *start);
        let mut edited = String::with_capacity(text.len() + added.len() + 256);
        let mut copied = 0;
        for (start, length, value) in replaced {
            edited.push_str(&text[copied..start]);
            edited.push_str(&value);
            copied = start + length;
        }
        // A message has at least its type, so what is added follows a comma.
        edited.push_str(&text[copied..text.len() - 1]);
        edited.push_str(&added);
        edited.push('}');
        read(&Bytes::from(edited)).map_err(|rejected| rejected.refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parse_one;

    #[test]
    fn a_message_is_written_in_one_order() {
        let fields = Fields {
            message_id: Some("m-1"),
            agent_id: Some("loki-1"),
            namespace: Some("default"),
            timestamp: Some(1_771_165_800_000),
            to: Some("b"),
            correlation_id: Some("m-0"),
            expires_at: Some(1_771_165_801_500),
            ordering_key: Some("k \"1\""),
            traceparent: None,
        };
        let payload = serde_json::json!({"task_id": "t-1"});
        let envelope = Envelope::compose(MessageType::TaskInput, fields, &payload).unwrap();
        let wanted = concat!(
            r#"{"protocol_version":"1.0","message_type":"task_input","message_id":"m-1","#,
            r#""agent_id":"loki-1","namespace":"default","timestamp":"2026-02-15T14:30:00.000Z","#,
            r#""to":"b","correlation_id":"m-0","expires_at":"2026-02-15T14:30:01.500Z","#,
            r#""ordering_key":"k \"1\"","payload":{"task_id":"t-1"}}"#
        );
        assert_eq!(envelope.raw(), wanted);
        assert_eq!(parse_one(wanted).unwrap(), envelope);
        assert_eq!(envelope.lane_key(), Some("k \"1\""));
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let compose = |fields: Fields<'_>, payload: &serde_json::Value| {
            let refusal = Envelope::compose(MessageType::StateSync, fields, payload).unwrap_err();
            (refusal.code.as_str(), refusal.field)
        };
        let none = serde_json::json!({});
        let bad_to = Fields { to: Some("a b"), ..Fields::default() };
        assert_eq!(compose(bad_to, &none), ("invalid_field", Some("to".to_owned())));
        let list = serde_json::json!([1]);
        let refused = compose(Fields::default(), &list);
        assert_eq!(refused, ("invalid_field", Some("payload".to_owned())));
        let large = serde_json::json!({"a": "x".repeat(MESSAGE_BYTES_MAX)});
        assert_eq!(compose(Fields::default(), &large), ("too_large", None));
    }

    #[test]
    fn what_a_message_says_already_is_not_written_again() {
        let text = r#"{"message_type":"note", "to" : "b","timestamp":"2026-02-15T14:30:00Z"}"#;
        let envelope = parse_one(text).unwrap();
        let to = |to| Fields { to: Some(to), ..Fields::default() };
        let same = envelope.with_fields(&to("b")).unwrap();
        assert_eq!(same.raw().as_ptr(), envelope.raw().as_ptr());
        assert_eq!(envelope.with_fields(&to("c")).unwrap().to(), Some("c"));
        let later = Fields { timestamp: Some(1_771_165_801_000), ..to("b") };
        assert_eq!(envelope.with_fields(&later).unwrap().timestamp(), Some(1_771_165_801_000));
        assert_eq!(envelope.fill_missing(&later).unwrap(), envelope);
        let added = envelope.fill_missing(&Fields { message_id: Some("m"), ..later }).unwrap();
        assert_eq!((added.message_id(), added.timestamp()), (Some("m"), envelope.timestamp()));
    }

    #[test]
    fn filling_in_changes_nothing_else() {
        let text = r#"{ "x": 1.50, "agent_id" : null,"message_type":"task_offer", "to":"c" }"#;
        let envelope = parse_one(text).unwrap();
        let fields = Fields {
            agent_id: Some("a"),
            message_id: Some("m"),
            to: Some("d"),
            ..Fields::default()
        };
        let filled = envelope.fill_missing(&fields).unwrap();
        let wanted = concat!(
            r#"{ "x": 1.50, "agent_id" : "a","message_type":"task_offer", "to":"c" "#,
            r#","message_id":"m"}"#
        );
        assert_eq!(filled.raw(), wanted);
        assert_eq!((filled.agent_id(), filled.to()), (Some("a"), Some("c")));
        let addressed = filled.with_fields(&Fields { to: Some("dd"), ..Fields::default() });
        assert_eq!(addressed.unwrap().raw(), &wanted.replace("\"c\"", "\"dd\""));
        assert_eq!(filled.fill_missing(&fields).unwrap(), filled);
    }

    #[test]
    fn filling_in_may_pass_the_limit_of_what_is_received() {
        let text = r#"{"message_type":"x","y":""}"#;
        let padding = "y".repeat(MESSAGE_BYTES_MAX - text.len());
        let text = text.replace(r#"y":""#, &format!(r#"y":"{padding}"#));
        let envelope = parse_one(text).unwrap();
        assert_eq!(envelope.raw().len(), MESSAGE_BYTES_MAX);
        let filled = envelope.fill_missing(&Fields { to: Some("b"), ..Fields::default() }).unwrap();
        assert!(filled.raw().len() > MESSAGE_BYTES_MAX);
        assert_eq!(parse_one(filled.raw().clone()).unwrap_err().refusal.code.as_str(), "too_large");
    }
}
