//! A message as a bridge sends it, for a store of this process.

use storage::record::{Direction, MessageHead, Reason, Status};

/// The head of the message with this number.
pub fn head(number: u64) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: format!("0190b5c8-0000-7000-{:04x}-{:012x}", number >> 48, number << 16 >> 16),
        message_type: "state_sync".into(),
        namespace: "default".into(),
        peer: "openclaw-server".into(),
        destination: "openclaw-server".into(),
        sender: "loki-12345".into(),
        lane: String::new(),
        priority: 2,
        created_at: 1_000,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 512,
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: 0,
    }
}
