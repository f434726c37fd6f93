//! Writes the bridge's messages and looks up what became of them. It stores and sends nothing.

use std::sync::Arc;

use storage::record::{Direction, MessageKey, Status};
use storage::store::Store;
use storage::transaction::Transaction;

use crate::clock::Clock;
use crate::protocol::payload::Payload;
use crate::protocol::{Envelope, ErrorCode, Fields, Refusal, SERVER_AGENT_ID};

/// The only queue of the bridge: the link to its server.
pub const DESTINATION: &str = SERVER_AGENT_ID;

/// Who writes, and where.
#[derive(Clone, Debug)]
pub struct Author {
    /// The agent.
    pub agent_id: Arc<str>,
    /// The namespace.
    pub namespace: Arc<str>,
    /// Time and ids.
    pub clock: Clock,
}

impl Author {
    /// Writes a message to the server, or to the agent `to` through it, in the trace
    /// `traceparent`.
    ///
    /// # Errors
    /// When it is too large, or a field is not valid.
    pub fn write<P: Payload>(
        &self,
        message_id: &str,
        to: Option<&str>,
        correlation_id: Option<&str>,
        traceparent: Option<&str>,
        payload: &P,
    ) -> Result<Envelope, Refusal> {
        let fields = Fields {
            message_id: Some(message_id),
            agent_id: Some(&self.agent_id),
            namespace: Some(&self.namespace),
            timestamp: Some(self.clock.now()),
            to,
            correlation_id,
            traceparent,
            ..Fields::default()
        };
        Envelope::compose(P::MESSAGE_TYPE, fields, payload)
    }
}

/// The status of a message of ours to the server; `None` when it is not known any more.
pub fn sent_status(tx: &Transaction<'_>, namespace: &str, message_id: &str) -> Option<Status> {
    let direction = Direction::Outbound;
    tx.find(&MessageKey { direction, namespace, peer: SERVER_AGENT_ID, message_id })
        .map(|known| known.status)
}

/// The same as it is published and in memory, for who decides nothing; `None` also when only the
/// journal knows.
pub fn published_status(store: &Store, namespace: &str, message_id: &str) -> Option<Status> {
    let direction = Direction::Outbound;
    let key = MessageKey { direction, namespace, peer: SERVER_AGENT_ID, message_id };
    store.messages(|messages| messages.find(&key)).map(|known| known.status)
}

/// The refusal for a message that came too late for its task.
pub fn unknown_task(task_id: &str) -> Refusal {
    let detail = format!("the task {task_id} is not one that this agent has");
    Refusal::new(ErrorCode::UnknownTask, detail).at("payload.task_id")
}
