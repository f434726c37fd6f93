//! The payloads as types, and what they must hold. Unknown fields are tolerated, `null` is absence,
//! and nothing here judges whether a message fits the state of its task or session.

mod capability;
mod check;
mod receipt;
mod rules;
mod sealed;
mod session;
mod state;
mod task;
mod wire;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use capability::{CapabilityQuery, CapabilityResponse, QueryType};
pub use receipt::{Ack, Heads, Nack, NackError};
pub use sealed::{Origin, Sealed};
pub use session::{AgentStatus, Heartbeat, Register, RegisterAck, RunningTask};
pub use state::{StateEntry, StateSync};
pub use task::{
    Artifact, ERROR_CODE_BYTES_MAX, ERROR_MESSAGE_BYTES_MAX, Outcome, Priority, RejectReason,
    Requirements, TaskAccept, TaskCancel, TaskComplete, TaskError, TaskInput, TaskOffer,
    TaskReject, TaskUpdate,
};

use super::{Envelope, ErrorCode, MessageType, Refusal, json};

/// The payload of one message type.
pub trait Payload: Serialize + DeserializeOwned {
    /// The type that it belongs to.
    const MESSAGE_TYPE: MessageType;
}

/// Checks the payload of a known type. An unknown one with a recipient is opaque and passes.
///
/// # Errors
///
/// `missing_field` or `invalid_field` with the path of the first field at fault; `unknown_type`
/// for an unknown type that is for the server itself.
pub fn validate(envelope: &Envelope) -> Result<(), Refusal> {
    let message_type = envelope.message_type();
    if !message_type.is_known() {
        if envelope.recipient().is_some() {
            return Ok(());
        }
        let detail = format!(
            "use a message type of protocol 1.0, or name a recipient in to; the server does not \
             know {message_type}"
        );
        return Err(Refusal::new(ErrorCode::UnknownType, detail).at("message_type"));
    }
    let payload = super::envelope::as_text(envelope.payload_raw())?;
    check::check_payload(message_type, payload)
}

impl Envelope {
    /// The payload as `P`, after [`validate`]. The caller has looked at the type.
    ///
    /// # Errors
    ///
    /// As [`validate`]; `invalid_field` for a message of another type.
    pub fn payload<P: Payload>(&self) -> Result<P, Refusal> {
        if *self.message_type() != P::MESSAGE_TYPE {
            let wanted = P::MESSAGE_TYPE;
            return Err(Refusal::invalid("message_type", wanted.as_str()));
        }
        validate(self)?;
        self.read_payload()
    }

    /// The payload of an `ack` that answers a `register`.
    ///
    /// # Errors
    ///
    /// `invalid_field` when it is no such answer.
    pub fn register_ack(&self) -> Result<RegisterAck, Refusal> {
        validate(self)?;
        if *self.message_type() != MessageType::Ack {
            return Err(Refusal::invalid("message_type", "ack"));
        }
        self.read_payload()
    }

    fn read_payload<P: DeserializeOwned>(&self) -> Result<P, Refusal> {
        serde_json::from_slice(self.payload_raw()).map_err(|_| unreadable("payload"))
    }

    /// The `sealed` part of the payload, where content was replaced by it.
    pub fn sealed(&self) -> Option<Sealed> {
        let payload = super::envelope::as_text(self.payload_raw()).ok()?;
        let members = json::members(payload).ok()?;
        serde_json::from_str(json::find(&members, "sealed")?.value.get()).ok()
    }
}

/// Reads the body of a task submission: any field of a `task_offer`, of which `task_id` may be
/// absent and is then `new_id`. Paths in errors have no prefix.
///
/// # Errors
///
/// `malformed`, `missing_field` or `invalid_field`.
pub fn read_submission(body: &[u8], new_id: &str) -> Result<TaskOffer, Refusal> {
    let text = super::envelope::as_text(body)?;
    json::check(text).map_err(|error| super::envelope::malformed(&error))?;
    check::check_submission(text)?;
    let submission: task::Submission =
        serde_json::from_str(text).map_err(|_| unreadable("body"))?;
    Ok(submission.offer(new_id))
}

/// A body that passed its rules and still did not fit its type.
fn unreadable(field: &str) -> Refusal {
    Refusal::invalid(field, "as the specification describes it")
}

/// The text of a raw value, for comparing and hashing.
pub(super) fn raw_text(value: Option<&RawValue>) -> &str {
    value.map_or("null", RawValue::get)
}
