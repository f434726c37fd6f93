//! The wire: envelopes, payloads, error codes and their validation. It knows no socket and no
//! storage, and imports nothing of ours but [`crate::clock`]. `docs/protocol.md` is its text.

pub mod agents;
mod compose;
mod envelope;
mod error;
mod frame;
mod identifier;
mod json;
mod message_type;
pub mod payload;
#[cfg(test)]
mod tests;
pub mod text;

pub use compose::{EnvelopeBuilder, Fields};
pub use envelope::{Envelope, parse_one, parse_one_within};
pub use error::{ErrorCode, Problem, Refusal};
pub use frame::{Frame, Rejected, parse_frame, parse_frame_within, parse_ndjson};
pub use identifier::{is_identifier, is_traceparent, parse_time};
pub use message_type::MessageType;
pub use payload::validate;

/// Bytes of a message or of a batch, as received.
pub const MESSAGE_BYTES_MAX: usize = 1_048_576;

/// Bytes of what an agent takes from the server: a message of [`MESSAGE_BYTES_MAX`] to which the
/// server added the routing fields that its sender left out.
pub const RELAYED_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 4_096;

/// Messages in one frame or body. A smaller limit than the bytes allow, because a refused message
/// costs more memory than its few bytes on the wire.
pub const FRAME_MESSAGES_MAX: usize = 10_000;

/// Bytes of a task's description where only its beginning is shown: a list needs no more.
pub const BRIEF_BYTES_MAX: usize = 512;

/// The version that we write; every `1.x` is read.
pub const PROTOCOL_VERSION: &str = "1.0";

/// The namespace of a message that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The `agent_id` of the coordination server; no agent may have it.
pub const SERVER_AGENT_ID: &str = "openclaw-server";
