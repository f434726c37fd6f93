//! What an admitted message does, by its type. One decision a message; it answers nobody.

use super::desk::Desk;
use super::model::Task;
use super::{members, progress, registry, shared, tasks};
use crate::protocol::payload::{
    CapabilityQuery, TaskAccept, TaskCancel, TaskComplete, TaskOffer, TaskReject, TaskUpdate,
};
use crate::protocol::{
    Envelope, ErrorCode, Fields, MessageType, Refusal, SERVER_AGENT_ID, payload,
};

/// Applies a message of an agent that is not a `register`, `heartbeat`, `ack` or `nack`.
///
/// # Errors
/// Why it is refused; nothing of it may be kept then.
pub fn message(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    sender: &str,
    envelope: &Envelope,
) -> Result<(), Refusal> {
    match envelope.message_type() {
        // What belongs to a task is the server's affair, whoever it is addressed to.
        MessageType::TaskAccept => {
            tasks::accept(desk, namespace, sender, &envelope.payload::<TaskAccept>()?)
        }
        MessageType::TaskReject => {
            tasks::reject(desk, namespace, sender, &envelope.payload::<TaskReject>()?)
        }
        MessageType::TaskUpdate => {
            let update = envelope.payload::<TaskUpdate>()?;
            progress::update(desk, namespace, sender, envelope, update)
        }
        MessageType::TaskComplete => {
            let complete = envelope.payload::<TaskComplete>()?;
            tasks::complete(desk, namespace, sender, envelope, complete)
        }
        MessageType::TaskCancel => {
            let cancel = envelope.payload::<TaskCancel>()?;
            let reason = cancel.reason.as_deref();
            tasks::cancel(desk, namespace, &cancel.task_id, Some(sender), reason).map(|_| ())
        }
        MessageType::TaskOffer => offer(desk, namespace, sender, envelope),
        _ => match envelope.recipient() {
            Some(to) => relay(desk, namespace, sender, to, envelope),
            None => for_the_server(desk, namespace, sender, envelope),
        },
    }
}

/// A task that an agent shares. `to` names its target as `target_agent` does.
fn offer(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    sender: &str,
    envelope: &Envelope,
) -> Result<(), Refusal> {
    let mut offer = envelope.payload::<TaskOffer>()?;
    if offer.target_agent.is_none() {
        offer.target_agent = envelope.recipient().map(str::to_owned);
    }
    if let Some(target) = &offer.target_agent {
        registry::check_known(desk, namespace, target)?;
    }
    let mut task = Task::new(namespace, offer, Some(sender), desk.now());
    task.extra = members::of_offer(envelope.payload_raw());
    task.envelope_extra = members::of_envelope(envelope);
    task.traceparent = envelope.traceparent().map(str::to_owned);
    tasks::create(desk, task).map(|_| ())
}

fn relay(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    sender: &str,
    to: &str,
    envelope: &Envelope,
) -> Result<(), Refusal> {
    registry::check_known(desk, namespace, to)?;
    desk.forward(envelope, namespace, sender, to)
}

fn for_the_server(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    sender: &str,
    envelope: &Envelope,
) -> Result<(), Refusal> {
    payload::validate(envelope)?;
    match envelope.message_type() {
        MessageType::StateSync => shared::sync(desk, namespace, sender, envelope),
        MessageType::CapabilityQuery => {
            let query = envelope.payload::<CapabilityQuery>()?;
            let agents = registry::staffed(desk, namespace);
            let answer = registry::capabilities(&agents, &query);
            let (correlation_id, traceparent) = (envelope.message_id(), envelope.traceparent());
            let fields = Fields { correlation_id, traceparent, ..Fields::default() };
            desk.send(sender, namespace, MessageType::CapabilityResponse, &answer, &fields)
        }
        // An answer to a question that the server never asks: taken, and nothing follows.
        MessageType::CapabilityResponse => Ok(()),
        MessageType::TaskInput => {
            let detail = "answer by POST /tasks/{id}/input, or name the agent in to";
            Err(Refusal::new(ErrorCode::MissingField, detail).at("to"))
        }
        other => {
            let detail = format!("{SERVER_AGENT_ID} takes no {other} by itself; name a recipient");
            Err(Refusal::new(ErrorCode::UnknownType, detail).at("message_type"))
        }
    }
}
