//! Payloads that open and keep a session: `register`, its answer, and `heartbeat`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Payload;
use super::wire;
use crate::clock::Millis;
use crate::protocol::MessageType;

/// An agent presents itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// Name of the software, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whose models it uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What it can do: task types and skills.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub capabilities: Vec<String>,
    /// The agent types that it declares.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub agent_types: Vec<String>,
    /// How many tasks it runs at once; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_tasks: Option<u32>,
    /// The models that it can use.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub supported_models: Vec<String>,
    /// One start of the agent: the same instance comes back, another one replaces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The heartbeat interval that it wishes for, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "wire::amount::serialize")]
    pub heartbeat_interval: Option<f64>,
    /// The tasks that it still runs. Absent: it does not say, which is not the same as none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Vec<RunningTask>>,
    /// Every message that it sent before this time is finished.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::time")]
    pub settled_before: Option<Millis>,
    /// The end of its journal, opaque to the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_head: Option<Value>,
    /// The ends of its journal that the receiver can have seen last, as its own store remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_shown: Option<Value>,
    /// The end of the server's journal that it saw last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_head: Option<Value>,
}

impl Register {
    /// How many tasks the agent runs at once.
    pub fn slots(&self) -> u32 {
        self.max_concurrent_tasks.unwrap_or(1)
    }
}

impl Payload for Register {
    const MESSAGE_TYPE: MessageType = MessageType::Register;
}

/// A task in the hands of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTask {
    /// The task.
    pub task_id: String,
    /// Which grant of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// The payload of the `ack` that answers a `register`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RegisterAck {
    /// The registered message, where it had an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The session that was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The heartbeat interval to keep, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "wire::amount::serialize")]
    pub heartbeat_interval: Option<f64>,
    /// How many unacknowledged messages may be under way, each way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// How long message ids are remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedup_window_seconds: Option<u64>,
    /// The server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::time")]
    pub server_time: Option<Millis>,
    /// The end of the server's journal, opaque to the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_head: Option<Value>,
    /// The end of the agent's journal that the server saw before this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_head: Option<Value>,
    /// Whether the server's journal has the end that the agent says it saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_head_known: Option<bool>,
}

/// What an agent says it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentStatus {
    /// Nothing.
    Idle,
    /// Tasks.
    Busy,
    /// Finishing what it has, taking nothing new.
    Draining,
}

/// A sign of life.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// What the agent is doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<AgentStatus>,
    /// The tasks that it runs. Absent: it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Vec<RunningTask>>,
    /// Every message that it sent before this time is finished.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::time")]
    pub settled_before: Option<Millis>,
    /// Processor use, where 100 is one core.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "wire::amount::serialize")]
    pub cpu_percent: Option<f64>,
    /// Memory in use, in megabytes.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "wire::amount::serialize")]
    pub memory_mb: Option<f64>,
    /// Model tokens used in this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// The end of the agent's journal, opaque to the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_head: Option<Value>,
    /// The end of the server's journal that the agent has seen and keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_head: Option<Value>,
}

impl Payload for Heartbeat {
    const MESSAGE_TYPE: MessageType = MessageType::Heartbeat;
}
