//! Payloads of capability discovery: `capability_query` and `capability_response`. Who can do what
//! is decided elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Payload, wire};
use crate::protocol::MessageType;

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryType {
    /// Whether tasks of `task_type` are taken.
    SupportsTaskType,
    /// Whether `skill` is among the skills.
    SupportsSkill,
    /// Whether `model` can be used.
    SupportsModel,
    /// Everything.
    List,
}

/// A question about what agents can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CapabilityQuery {
    /// What is asked.
    pub query_type: QueryType,
    /// The task type in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_type: Option<String>,
    /// The skill in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// The model in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl Payload for CapabilityQuery {
    const MESSAGE_TYPE: MessageType = MessageType::CapabilityQuery;
}

/// The answer to a query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CapabilityResponse {
    /// Whether somebody can.
    pub supported: bool,
    /// The agent types that can.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub agent_types: Vec<String>,
    /// How sure that is, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// What a task is expected to cost, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_cost: Option<f64>,
    /// The agents that can, when the server answers for a namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<Value>>,
}

impl Payload for CapabilityResponse {
    const MESSAGE_TYPE: MessageType = MessageType::CapabilityResponse;
}
