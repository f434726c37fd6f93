//! What a message that arrived does to this agent's tasks and state, decided in the same commit
//! that admits it. It reads no socket; what has to run is left to the work on tasks.

use std::sync::Arc;

use storage::event::Event;
use storage::record::{EntityKey, Kind, Level};
use storage::store::CommitError;
use storage::transaction::{Body, Transaction};

use super::mail::{DESTINATION, unknown_task};
use super::offer::{Decision, Situation, decide};
use super::task::{self, LocalTask, Origin, TaskStatus};
use super::{Shared, meter, witness};
use crate::audit::is_written;
use crate::inbox::{self, Admitted, Arrival};
use crate::inspector::receipt;
use crate::outbox;
use crate::protocol::payload::{
    CapabilityQuery, CapabilityResponse, Heads, Outcome, Payload, QueryType, StateSync, TaskAccept,
    TaskCancel, TaskComplete, TaskError, TaskOffer, TaskReject, TaskUpdate,
};
use crate::protocol::{
    Envelope, ErrorCode, Fields, MessageType, Refusal, Rejected, SERVER_AGENT_ID,
};
use crate::shutdown::Phase;
use crate::trace::{self, traced};
use crate::transport::{Answer, Answers, Handler};

/// Takes what arrives on the session.
pub(super) struct Receiver(pub(super) Arc<Shared>);

impl Handler for Receiver {
    async fn frame(&self, messages: Vec<Result<Envelope, Rejected>>) -> Answers {
        let mut waiting = Vec::with_capacity(messages.len());
        for (position, message) in messages.into_iter().enumerate() {
            let position = u32::try_from(position).ok();
            waiting.push(match message {
                Err(Rejected { message_id, refusal }) => {
                    let index = position.filter(|_| message_id.is_none());
                    Waiting::Refused(refusing(message_id, index, refusal))
                }
                Ok(envelope) => self.admit(&envelope, position),
            });
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for one in waiting {
            match one {
                Waiting::Refused(answer) => answers.push(answer),
                Waiting::Committing { arrival, index, commit } => {
                    // A store that stopped acknowledges nothing: the server sends it again.
                    let outcome = match meter::durable(commit).await {
                        Ok(outcome) => outcome,
                        Err(CommitError::Stopped) => continue,
                        Err(error) => Err(inbox::unwritten(&error)),
                    };
                    let message_id = arrival.message_id().to_owned();
                    match &outcome {
                        Ok(Admitted::Accepted) => meter::received(arrival.envelope.message_type()),
                        Ok(Admitted::Duplicate) => {}
                        Err(refusal) => self.refused(arrival, refusal.clone()),
                    }
                    let outcome = outcome.map(|_| ());
                    let heads = Heads::default();
                    answers.push(Answer { message_id: Some(message_id), index, outcome, heads });
                }
            }
        }
        Answers { answers, close: None }
    }

    fn witnessed(&self, heads: Heads) {
        witness::confirmed(&self.0, &heads);
    }
}

fn refusing(message_id: Option<String>, index: Option<u32>, refusal: Refusal) -> Answer {
    Answer { message_id, index, outcome: Err(refusal), heads: Heads::default() }
}

enum Waiting {
    Refused(Answer),
    Committing {
        arrival: Arc<Arrival>,
        index: Option<u32>,
        commit: storage::commit::Commit<Result<Admitted, Refusal>>,
    },
}

impl Receiver {
    fn admit(&self, envelope: &Envelope, position: Option<u32>) -> Waiting {
        let shared = Arc::clone(&self.0);
        let assigned = shared.clock.message_id();
        let index = position.filter(|_| envelope.message_id().is_none());
        let fields = Fields {
            message_id: Some(&assigned),
            agent_id: Some(SERVER_AGENT_ID),
            namespace: Some(&shared.settings.namespace),
            ..Fields::default()
        };
        let envelope = match envelope.fill_missing(&fields) {
            Ok(envelope) => envelope,
            Err(refusal) => {
                let message_id = envelope.message_id().map(str::to_owned);
                return Waiting::Refused(refusing(message_id, index, refusal));
            }
        };
        let window = shared.settings.dedup_window.as_millis();
        let arrival = Arrival {
            namespace: shared.settings.namespace.clone(),
            sender: envelope.agent_id().unwrap_or(SERVER_AGENT_ID).to_owned(),
            dedup_window: u64::try_from(window).unwrap_or(u64::MAX),
            envelope,
        };
        let body = Body::new(arrival.envelope.raw());
        let arrival = Arc::new(arrival);
        let (deciding, admitted) = (Arc::clone(&shared), Arc::clone(&arrival));
        let commit = self.0.store.commit(move |tx| {
            let apply = |tx: &mut Transaction<'_>| apply(&deciding, tx, &admitted);
            let trace = trace_of(&deciding, tx, &admitted.envelope);
            let content = (body, trace.as_deref());
            let outcome = inbox::admit(tx, &deciding.store, &admitted, content, apply)?;
            if outcome == Admitted::Duplicate {
                let act = deciding.act(Event::MessageDuplicate, admitted.message_id());
                deciding.note(tx, traced(act, trace.as_deref()));
            }
            Ok(outcome)
        });
        Waiting::Committing { arrival, index, commit }
    }
}

impl Receiver {
    /// Records a refusal. It is informative: nobody waits for it.
    fn refused(&self, arrival: Arc<Arrival>, refusal: Refusal) {
        if self.0.store.is_full()
            || !is_written(&self.0.settings.audit, Event::MessageRejected, Level::Warning)
        {
            return;
        }
        drop(self.0.store.commit(move |tx| -> Result<(), std::convert::Infallible> {
            inbox::note_refusal(tx, &arrival, &refusal);
            Ok(())
        }));
    }
}

/// The trace that a message belongs to: its own, or that of its task.
fn trace_of(shared: &Shared, tx: &Transaction<'_>, envelope: &Envelope) -> Option<String> {
    let of_task = || {
        let (ledger, namespace) = (tx.ledger(), &shared.settings.namespace);
        let id = envelope.task_id()?;
        // Most tasks belong to no trace, which shows without reading the whole of one.
        let named = |id| trace::of_object(&ledger.get(&task::key(namespace, id))?.value);
        named(id).or_else(|| named(id.rsplit_once('.')?.0))?;
        let task = task::get_shared(ledger, namespace, id);
        task.or_else(|| task::get(ledger, namespace, id))?.traceparent
    };
    envelope.traceparent().map(str::to_owned).or_else(of_task)
}

/// Applies one message. What it refuses is not remembered.
fn apply(shared: &Shared, tx: &mut Transaction<'_>, arrival: &Arrival) -> Result<(), Refusal> {
    let envelope = &arrival.envelope;
    if envelope.namespace() != shared.settings.namespace {
        let detail = "this agent lives in another namespace";
        return Err(Refusal::new(ErrorCode::Forbidden, detail).at("namespace"));
    }
    match envelope.message_type() {
        MessageType::TaskOffer => offered(shared, tx, arrival),
        MessageType::TaskCancel => cancelled(shared, tx, &envelope.payload()?),
        MessageType::TaskUpdate => updated(shared, tx, &envelope.payload()?),
        MessageType::TaskComplete => completed(shared, tx, arrival),
        MessageType::TaskAccept => accepted(shared, tx, &envelope.payload()?),
        MessageType::TaskInput => {
            let detail = "no task of this agent waits for input";
            Err(Refusal::new(ErrorCode::WrongState, detail))
        }
        MessageType::CapabilityQuery => queried(shared, tx, arrival),
        MessageType::StateSync => synced(shared, tx, arrival),
        MessageType::Nack => {
            receipt::record(tx, &arrival.sender, envelope, &envelope.payload()?);
            Ok(())
        }
        // An answer, or a message for a person: it is kept, and nothing else follows from it.
        _ => Ok(()),
    }
}

fn answer<P: Payload>(
    shared: &Shared,
    tx: &mut Transaction<'_>,
    arrival: &Arrival,
    message_id: &str,
    payload: &P,
) -> Result<(), Refusal> {
    let to = Some(arrival.sender.as_str()).filter(|sender| *sender != SERVER_AGENT_ID);
    let (answers, trace) = (Some(arrival.message_id()), arrival.envelope.traceparent());
    let envelope = shared.author.write(message_id, to, answers, trace, payload)?;
    outbox::stage(tx, &envelope, DESTINATION, to.unwrap_or(SERVER_AGENT_ID));
    Ok(())
}

fn offered(shared: &Shared, tx: &mut Transaction<'_>, arrival: &Arrival) -> Result<(), Refusal> {
    let offer: TaskOffer = arrival.envelope.payload()?;
    let settings = &shared.settings;
    let known = task::get(tx.ledger(), &settings.namespace, &offer.task_id);
    let message_id = shared.clock.message_id();
    let mut accept = TaskAccept {
        task_id: offer.task_id.clone(),
        attempt: offer.attempt,
        ..TaskAccept::default()
    };
    if let Some(mut same) = known.clone().filter(|known| is_same_grant(known, &offer)) {
        // Offered again because our word did not arrive: given again, and judged again.
        accept.assigned_agent.clone_from(&same.agent);
        if same.status == TaskStatus::Accepted {
            same.waits_for = Some(message_id.clone());
            task::put(tx, Event::TaskAccept, &settings.agent_id, &settings.namespace, &same);
        }
        return answer(shared, tx, arrival, &message_id, &accept);
    }
    let held = |task: &LocalTask| !task.status.is_terminal() || task.origin != Origin::Offered;
    let situation = Situation {
        agents: &settings.agents,
        busy: shared.slots.held(tx.ledger(), &settings.namespace),
        slots: settings.slots(),
        draining: shared.shutdown.phase() > Phase::Running,
        still_running: known
            .as_ref()
            .is_some_and(|task| task.origin == Origin::Offered && !task.status.is_terminal()),
        taken: known.as_ref().is_some_and(held),
        now: tx.now(),
    };
    match decide(&offer, &situation) {
        Decision::Accept { agent } => {
            let mut task = LocalTask::of_offer(offer, &agent, &message_id, tx.now());
            task.traceparent = arrival.envelope.traceparent().map(str::to_owned);
            shared.slots.note(&task);
            task::put(tx, Event::TaskAccept, &settings.agent_id, &settings.namespace, &task);
            accept.assigned_agent = Some(agent);
            answer(shared, tx, arrival, &message_id, &accept)
        }
        Decision::Reject { reason, detail } => {
            let act = shared.act(Event::TaskReject, &offer.task_id);
            shared.note(tx, traced(act, arrival.envelope.traceparent()));
            let reject = TaskReject {
                task_id: offer.task_id,
                attempt: offer.attempt,
                reason: Some(reason),
                detail: Some(detail),
            };
            answer(shared, tx, arrival, &message_id, &reject)
        }
    }
}

fn is_same_grant(known: &LocalTask, offer: &TaskOffer) -> bool {
    known.origin == Origin::Offered
        && known.attempt == offer.attempt.unwrap_or(1)
        && !known.status.is_terminal()
}

fn cancelled(
    shared: &Shared,
    tx: &mut Transaction<'_>,
    cancel: &TaskCancel,
) -> Result<(), Refusal> {
    let namespace = &shared.settings.namespace;
    let ours = task::get(tx.ledger(), namespace, &cancel.task_id)
        .filter(|task| task.origin == Origin::Offered);
    let Some(mut task) = ours.or_else(|| task::get_shared(tx.ledger(), namespace, &cancel.task_id))
    else {
        return Err(unknown_task(&cancel.task_id));
    };
    let earlier = task.origin == Origin::Offered
        && cancel.attempt.is_some_and(|attempt| attempt != task.attempt);
    if earlier || task.status.is_terminal() {
        return Ok(());
    }
    let now = tx.now();
    task.finish(TaskStatus::Cancelled, now);
    task::put(tx, Event::TaskCancel, SERVER_AGENT_ID, namespace, &task);
    Ok(())
}

fn accepted(shared: &Shared, tx: &mut Transaction<'_>, accept: &TaskAccept) -> Result<(), Refusal> {
    let namespace = &shared.settings.namespace;
    let Some(mut task) = task::get_shared(tx.ledger(), namespace, &accept.task_id) else {
        return Err(unknown_task(&accept.task_id));
    };
    if !task.status.is_terminal() {
        task.agent.clone_from(&accept.assigned_agent);
        task.started_at = task.started_at.or(Some(tx.now()));
        task::put(tx, Event::TaskAccept, SERVER_AGENT_ID, namespace, &task);
    }
    Ok(())
}

fn updated(shared: &Shared, tx: &mut Transaction<'_>, update: &TaskUpdate) -> Result<(), Refusal> {
    let namespace = &shared.settings.namespace;
    let Some(mut task) = task::get_shared(tx.ledger(), namespace, &update.task_id) else {
        return Err(unknown_task(&update.task_id));
    };
    if !task.status.is_terminal() {
        task.progress = update.progress.unwrap_or(task.progress);
        task.started_at = task.started_at.or(Some(tx.now()));
        task::put(tx, Event::TaskUpdate, SERVER_AGENT_ID, namespace, &task);
    }
    Ok(())
}

fn completed(shared: &Shared, tx: &mut Transaction<'_>, arrival: &Arrival) -> Result<(), Refusal> {
    let complete: TaskComplete = arrival.envelope.payload()?;
    let namespace = &shared.settings.namespace;
    let Some(mut task) = task::get_shared(tx.ledger(), namespace, &complete.task_id) else {
        return Err(unknown_task(&complete.task_id));
    };
    if task.status.is_terminal() {
        return Ok(());
    }
    let now = tx.now();
    let (status, event) = match complete.outcome() {
        Outcome::Completed => (TaskStatus::Completed, Event::TaskComplete),
        Outcome::Failed => (TaskStatus::Failed, Event::TaskFail),
    };
    task.finish(status, now);
    task.started_at = task.started_at.or_else(|| {
        let millis = std::time::Duration::try_from_secs_f64(complete.duration_seconds?).ok()?;
        Some(now.saturating_sub(u64::try_from(millis.as_millis()).ok()?))
    });
    task.result = complete.result;
    task.error = complete.error.map(TaskError::kept);
    if arrival.sender != SERVER_AGENT_ID {
        task.agent = Some(arrival.sender.clone());
    }
    task::put(tx, event, &arrival.sender, namespace, &task);
    Ok(())
}

fn queried(shared: &Shared, tx: &mut Transaction<'_>, arrival: &Arrival) -> Result<(), Refusal> {
    if !shared.settings.features.capabilities_discovery {
        let detail = "this agent answers no capability queries";
        return Err(Refusal::new(ErrorCode::Forbidden, detail));
    }
    let query: CapabilityQuery = arrival.envelope.payload()?;
    let response = respond(shared, &query);
    answer(shared, tx, arrival, &shared.clock.message_id(), &response)
}

fn respond(shared: &Shared, query: &CapabilityQuery) -> CapabilityResponse {
    let agents = &shared.settings.agents;
    let (supported, agent_types) = match query.query_type {
        QueryType::SupportsTaskType => {
            let serving = agents.serving(query.task_type.as_deref().unwrap_or_default());
            (!serving.is_empty(), serving)
        }
        QueryType::SupportsSkill => {
            let skill = query.skill.as_deref().unwrap_or_default();
            let serving = agents.serving(skill);
            (agents.capabilities().iter().any(|known| known == skill), serving)
        }
        QueryType::SupportsModel => {
            let model = query.model.as_deref().unwrap_or_default();
            let uses = |models: &[String]| models.iter().any(|known| known == model);
            let able = agents.all().iter().filter(|agent| uses(&agent.models));
            let able: Vec<String> = able.map(|agent| agent.agent_type.clone()).collect();
            (!able.is_empty(), able)
        }
        QueryType::List => (!agents.all().is_empty(), agents.types()),
    };
    let confidence = Some(if supported { 1.0 } else { 0.0 });
    CapabilityResponse { supported, agent_types, confidence, ..CapabilityResponse::default() }
}

fn synced(shared: &Shared, tx: &mut Transaction<'_>, arrival: &Arrival) -> Result<(), Refusal> {
    if !shared.settings.features.state_sync {
        return Ok(());
    }
    let namespace = &shared.settings.namespace;
    let key = |name: &str| EntityKey::new(Kind::State, &[namespace, name]);
    let trace = arrival.envelope.traceparent();
    match arrival.envelope.payload()? {
        StateSync::Flat(object) => {
            let name = format!("session/{}", arrival.sender);
            let act = traced(shared.act(Event::StateSync, &name), trace);
            tx.put(act, key(&name), object.get().as_bytes().to_vec());
        }
        StateSync::Entries(entries) => {
            for entry in entries {
                let act = traced(shared.act(Event::StateSync, &entry.key), trace);
                match entry.value.filter(|_| !entry.deleted) {
                    Some(value) => tx.put(act, key(&entry.key), value.get().as_bytes().to_vec()),
                    None => tx.remove(act, key(&entry.key)),
                }
            }
        }
    }
    Ok(())
}
