//! The names of the message types. What their payloads hold is in [`super::payload`].

use std::fmt;

/// The type of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// An agent presents itself.
    Register,
    /// A sign of life, never stored.
    Heartbeat,
    /// A task, offered to an agent or shared by one.
    TaskOffer,
    /// The agent takes the offer.
    TaskAccept,
    /// The agent declines the offer.
    TaskReject,
    /// Progress, a question, or a part of the result.
    TaskUpdate,
    /// The end of a task, good or bad.
    TaskComplete,
    /// The task is no longer wanted.
    TaskCancel,
    /// The answer to a task that asked for input.
    TaskInput,
    /// A change of the shared state.
    StateSync,
    /// A question about what agents can do.
    CapabilityQuery,
    /// Its answer.
    CapabilityResponse,
    /// Messages are on stable storage.
    Ack,
    /// Messages were refused.
    Nack,
    /// A type that this version does not know. It is relayed when it has a recipient.
    Other(String),
}

impl MessageType {
    /// Every type that this version knows.
    pub const KNOWN: [Self; 14] = [
        Self::Register,
        Self::Heartbeat,
        Self::TaskOffer,
        Self::TaskAccept,
        Self::TaskReject,
        Self::TaskUpdate,
        Self::TaskComplete,
        Self::TaskCancel,
        Self::TaskInput,
        Self::StateSync,
        Self::CapabilityQuery,
        Self::CapabilityResponse,
        Self::Ack,
        Self::Nack,
    ];

    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Register => "register",
            Self::Heartbeat => "heartbeat",
            Self::TaskOffer => "task_offer",
            Self::TaskAccept => "task_accept",
            Self::TaskReject => "task_reject",
            Self::TaskUpdate => "task_update",
            Self::TaskComplete => "task_complete",
            Self::TaskCancel => "task_cancel",
            Self::TaskInput => "task_input",
            Self::StateSync => "state_sync",
            Self::CapabilityQuery => "capability_query",
            Self::CapabilityResponse => "capability_response",
            Self::Ack => "ack",
            Self::Nack => "nack",
            Self::Other(name) => name,
        }
    }

    /// Whether this version knows the payload.
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Whether it is an `ack` or a `nack`, which nobody acknowledges.
    pub fn is_receipt(&self) -> bool {
        matches!(self, Self::Ack | Self::Nack)
    }

    /// Whether the message is about one task, and so ordered by `task_id` unless it says otherwise.
    pub fn is_task(&self) -> bool {
        self.as_str().starts_with("task_")
    }

    /// Whether the message is kept until it is answered: all but heartbeats and receipts.
    pub fn is_durable(&self) -> bool {
        !self.is_receipt() && *self != Self::Heartbeat
    }

    /// Whether content of this type may be sealed; the types that a server must read may not.
    pub fn is_sealable(&self) -> bool {
        self.is_task() || matches!(self, Self::StateSync | Self::Other(_))
    }
}

impl From<&str> for MessageType {
    fn from(name: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == name);
        known.unwrap_or_else(|| Self::Other(name.to_owned()))
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_unknown_ones_are_kept() {
        for known in MessageType::KNOWN {
            assert_eq!(MessageType::from(known.as_str()), known);
            assert!(known.is_known());
        }
        let other = MessageType::from("task_review");
        assert_eq!(other, MessageType::Other("task_review".to_owned()));
        assert!(other.is_task() && !other.is_known() && other.is_durable());
    }

    #[test]
    fn only_heartbeats_and_receipts_are_not_kept() {
        let kept = MessageType::KNOWN.into_iter().filter(MessageType::is_durable).count();
        assert_eq!(kept, 11);
        assert!(!MessageType::Register.is_sealable() && MessageType::TaskOffer.is_sealable());
    }
}
