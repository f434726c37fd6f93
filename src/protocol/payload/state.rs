//! The payload of `state_sync`: a flat object, or a list of entries. Versions and conflicts are
//! judged elsewhere.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Payload, wire};
use crate::protocol::MessageType;

/// A change of the shared state.
#[derive(Debug, Clone)]
pub enum StateSync {
    /// One object, kept under `session/<agent_id>` of its sender.
    Flat(Box<RawValue>),
    /// Single keys.
    Entries(Vec<StateEntry>),
}

/// The change of one key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateEntry {
    /// The key; slashes are allowed.
    pub key: String,
    /// Its new value, which may be `null`.
    #[serde(default, deserialize_with = "wire::present", skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
    /// Whether the key goes away instead.
    #[serde(
        default,
        deserialize_with = "wire::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub deleted: bool,
    /// The version that the writer knew, or that the receiver gets to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Listed<T> {
    entries: T,
}

impl Serialize for StateSync {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Flat(object) => object.serialize(serializer),
            Self::Entries(entries) => Listed { entries }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StateSync {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Box::<RawValue>::deserialize(deserializer)?;
        let listed: Listed<Option<Vec<StateEntry>>> =
            serde_json::from_str(object.get()).map_err(D::Error::custom)?;
        Ok(listed.entries.map_or(Self::Flat(object), Self::Entries))
    }
}

impl Payload for StateSync {
    const MESSAGE_TYPE: MessageType = MessageType::StateSync;
}
