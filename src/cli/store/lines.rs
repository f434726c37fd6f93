//! The lines of an export: messages with where they stand, entities, and entries of the audit log,
//! each a JSON object. It reads and writes no store.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::event::Event;
use storage::record::{Direction, Kind, Level, MessageHead, Reason, Status};

use crate::clock::{Millis, parse_rfc3339, rfc3339};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// A message.
    Message(Box<Message>),
    /// An entity: a task, an agent, a key of the shared state, what a store keeps for itself.
    Entity(Entity),
    /// An entry of the audit log.
    Audit(Audit),
}

/// A message, and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "these are the names of the protocol")]
pub struct Message {
    pub message_id: String,
    pub direction: String,
    pub message_type: String,
    pub namespace: String,
    pub peer: String,
    pub destination: String,
    pub sender: String,
    pub lane: String,
    pub priority: u8,
    pub created_at: String,
    pub deadline: Option<String>,
    pub expires_at: Option<String>,
    pub task_id: Option<String>,
    pub correlation_id: Option<String>,
    pub retry_of: Option<String>,
    pub sealed: bool,
    pub status: String,
    pub reason: Option<String>,
    pub attempts: u32,
    pub next_attempt_at: Option<String>,
    pub maybe_delivered: bool,
    pub error: Option<String>,
    /// `None` when it was dropped, or cannot be read.
    pub body: Option<Content>,
}

/// An entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    pub kind: String,
    /// The parts of its name.
    pub name: Vec<String>,
    pub value: Content,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub seq: String,
    pub timestamp: String,
    pub event: String,
    pub level: String,
    pub actor: String,
    pub namespace: String,
    pub resource: String,
    pub details: Value,
}

/// Bytes: as text where they are, in base64 elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// UTF-8.
    Text(String),
    /// Standard base64.
    Base64(String),
}

impl Content {
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.as_bytes().to_vec()),
            Self::Base64(text) => {
                STANDARD.decode(text).map_err(|_| "it has content that is no base64".to_owned())
            }
        }
    }
}

const KINDS: [(Kind, &str); 10] = [
    (Kind::Meta, "meta"),
    (Kind::Agent, "agent"),
    (Kind::Session, "session"),
    (Kind::Task, "task"),
    (Kind::Waiting, "waiting"),
    (Kind::Lease, "lease"),
    (Kind::State, "state"),
    (Kind::Circuit, "circuit"),
    (Kind::Token, "token"),
    (Kind::Idempotency, "idempotency"),
];

const LEVELS: [(Level, &str); 4] = [
    (Level::Debug, "debug"),
    (Level::Info, "info"),
    (Level::Warning, "warning"),
    (Level::Error, "error"),
];

const REASONS: [Reason; 5] =
    [Reason::Permanent, Reason::MaxAge, Reason::MaxAttempts, Reason::Undeliverable, Reason::Sealed];

/// The word of a kind of entity; a kind that this version does not export has none.
pub fn kind_word(kind: Kind) -> Option<&'static str> {
    KINDS.iter().find(|(one, _)| *one == kind).map(|(_, word)| *word)
}

pub fn level_word(level: Level) -> &'static str {
    LEVELS.iter().find(|(one, _)| *one == level).map_or("info", |(_, word)| word)
}

fn word<T: Copy>(table: &[(T, &str)], what: &str, word: &str) -> Result<T, String> {
    let found = table.iter().find(|(_, known)| *known == word);
    found.map(|(one, _)| *one).ok_or_else(|| format!("{word:?} is no {what}"))
}

fn time(text: &str) -> Result<Millis, String> {
    parse_rfc3339(text).ok_or_else(|| format!("{text:?} is no RFC 3339 time"))
}

fn maybe(text: Option<&String>) -> Result<Option<Millis>, String> {
    text.map(|text| time(text)).transpose()
}

/// What is to be written for a message, checked.
pub struct Ready {
    pub head: MessageHead,
    pub body: Vec<u8>,
    pub status: Status,
    pub reason: Reason,
    pub next_attempt_at: Millis,
    pub error: String,
}

impl Message {
    /// The message of an acceptance.
    pub fn of(head: &MessageHead) -> Self {
        let at = |time: Option<Millis>| time.map(rfc3339);
        Self {
            message_id: head.message_id.clone(),
            direction: head.direction.as_str().to_owned(),
            message_type: head.message_type.clone(),
            namespace: head.namespace.clone(),
            peer: head.peer.clone(),
            destination: head.destination.clone(),
            sender: head.sender.clone(),
            lane: head.lane.clone(),
            priority: head.priority,
            created_at: rfc3339(head.created_at),
            deadline: at(head.deadline),
            expires_at: at(head.expires_at),
            task_id: head.task_id.clone(),
            correlation_id: head.correlation_id.clone(),
            retry_of: head.retry_of.clone(),
            sealed: head.sealed,
            status: head.status.as_str().to_owned(),
            reason: head.reason.as_str().map(str::to_owned),
            attempts: 0,
            next_attempt_at: None,
            maybe_delivered: false,
            error: None,
            body: None,
        }
    }

    /// Checks every field.
    pub fn ready(&self) -> Result<Ready, String> {
        let directions = [Direction::Outbound, Direction::Inbound].map(|one| (one, one.as_str()));
        let direction = word(&directions, "direction", &self.direction)?;
        let status = Status::parse(&self.status);
        let status = status.ok_or_else(|| format!("{:?} is no status", self.status))?;
        let first = match direction {
            Direction::Outbound => Status::Pending,
            Direction::Inbound => Status::Received,
        };
        let reason = |word: &String| {
            let found = REASONS.into_iter().find(|one| one.as_str() == Some(word));
            found.ok_or_else(|| format!("{word:?} is no reason"))
        };
        let body = self.body.as_ref().map(Content::bytes).transpose()?.unwrap_or_default();
        let next_attempt_at = maybe(self.next_attempt_at.as_ref())?.unwrap_or_default();
        let head = MessageHead {
            direction,
            message_id: self.message_id.clone(),
            message_type: self.message_type.clone(),
            namespace: self.namespace.clone(),
            peer: self.peer.clone(),
            destination: self.destination.clone(),
            sender: self.sender.clone(),
            lane: self.lane.clone(),
            priority: self.priority.min(3),
            created_at: time(&self.created_at)?,
            deadline: maybe(self.deadline.as_ref())?,
            expires_at: maybe(self.expires_at.as_ref())?,
            task_id: self.task_id.clone(),
            correlation_id: self.correlation_id.clone(),
            retry_of: self.retry_of.clone(),
            sealed: self.sealed,
            size: u32::try_from(body.len()).map_err(|_| "its content is too large".to_owned())?,
            digest: [0; 32],
            status: first,
            reason: Reason::None,
            due_at: next_attempt_at,
        };
        let reason = self.reason.as_ref().map_or(Ok(Reason::None), reason)?;
        let is_open = matches!(status, Status::Pending | Status::Sending | Status::Held);
        if self.body.is_none() && is_open {
            // What cannot be sent is for a person to see.
            let (status, reason) = (Status::Failed, Reason::Permanent);
            let error = "its content was lost before it was exported".to_owned();
            return Ok(Ready { head, body, status, reason, next_attempt_at: 0, error });
        }
        let error = self.error.clone().unwrap_or_default();
        Ok(Ready { head, body, status, reason, next_attempt_at, error })
    }
}

impl Entity {
    pub fn kind(&self) -> Result<Kind, String> {
        word(&KINDS, "kind of entity", &self.kind)
    }
}

impl Audit {
    pub fn event(&self) -> Result<Event, String> {
        Event::parse(&self.event).ok_or_else(|| format!("{:?} is no event", self.event))
    }

    pub fn level(&self) -> Result<Level, String> {
        word(&LEVELS, "level", &self.level)
    }
}

impl Line {
    /// Reads and checks a line; an error says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let line: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match &line {
            Self::Message(message) => drop(message.ready()?),
            Self::Entity(entity) => {
                entity.kind()?;
                entity.value.bytes()?;
            }
            Self::Audit(audit) => {
                time(&audit.timestamp)?;
                audit.event()?;
                audit.level()?;
            }
        }
        Ok(line)
    }

    /// About how many bytes of journal it takes.
    pub fn size(&self) -> usize {
        const REST: usize = 1_000;
        let content = |content: &Content| match content {
            Content::Text(text) | Content::Base64(text) => text.len(),
        };
        REST + match self {
            Self::Message(message) => message.body.as_ref().map_or(0, content),
            Self::Entity(entity) => content(&entity.value),
            Self::Audit(audit) => audit.details.to_string().len(),
        }
    }
}
