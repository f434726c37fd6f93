//! What an agent says about a task while it works: progress, questions, parts of the result. The
//! rest of a task's life is in [`super::tasks`].

use storage::event::Event;

use super::desk::Desk;
use super::model::{Task, TaskStatus};
use super::tasks;
use crate::clock::Millis;
use crate::protocol::payload::{Artifact, TaskUpdate};
use crate::protocol::text::cut;
use crate::protocol::{Envelope, ErrorCode, Refusal};

/// Artifacts of one task.
const ARTIFACTS_MAX: usize = 256;

/// Parts of one artifact.
const ARTIFACT_PARTS_MAX: usize = 4_096;

/// Bytes of all artifacts of a task: with its description, its result and the message that brings
/// it, 1 MiB each at the most, it still fits into one frame of the journal.
const ARTIFACTS_BYTES_MAX: usize = 3 << 20;

/// Bytes of what an agent says of its progress, or asks, that are kept; whoever shared the task
/// gets all of it.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Plain updates of one task are kept at most once in this time, section 2 of the protocol.
const UPDATE_INTERVAL_MILLIS: Millis = 1_000;

fn status_of(update: &TaskUpdate) -> TaskStatus {
    if update.is_input_required() { TaskStatus::InputRequired } else { TaskStatus::InProgress }
}

/// Whether an update of the task's holder says so little, so soon after another one, that it is
/// acknowledged and dropped. What changes the status, asks, brings a part of the result or says
/// that all is done is always kept.
pub fn is_surplus(task: &Task, sender: &str, update: &TaskUpdate, now: Millis) -> bool {
    let is_plain = update.artifact.is_none()
        && status_of(update) == task.status
        && task.status == TaskStatus::InProgress
        && update.progress.is_none_or(|progress| progress < 1.0);
    // After a jump back of the clock an earlier report lies in the future, and does not count.
    let is_early = task
        .reported_at
        .and_then(|before| now.checked_sub(before))
        .is_some_and(|since| since < UPDATE_INTERVAL_MILLIS);
    is_plain && is_early && task.is_held_by(sender, update.attempt)
}

/// An agent reports progress, asks, or delivers a part of the result.
///
/// # Errors
/// `unknown_task`, `not_owner`, `wrong_state`, or `too_large` for too many artifacts.
pub fn update(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    sender: &str,
    envelope: &Envelope,
    update: TaskUpdate,
) -> Result<(), Refusal> {
    let mut task = desk.task(namespace, &update.task_id)?;
    tasks::check_holder(&task, sender, update.attempt)?;
    let status = status_of(&update);
    task.reported_at = Some(desk.now());
    task.progress = update.progress.or(task.progress);
    if let Some(message) = update.message {
        task.message = Some(cut(message, MESSAGE_BYTES_MAX));
    }
    if let Some(artifact) = update.artifact {
        add_artifact(&mut task, artifact)?;
    }
    let now = desk.now();
    let event = if task.status == status { Event::TaskUpdate } else { Event::TaskStart };
    if task.status == status {
        task.updated_at = now;
    } else {
        task.step(now, status, Some(sender), None);
    }
    desk.put_task(event, sender, &task);
    tasks::forward_to_origin(desk, &task, envelope, sender)
}

fn add_artifact(task: &mut Task, artifact: Artifact) -> Result<(), Refusal> {
    let too_many = || {
        let detail = format!(
            "send at most {ARTIFACTS_MAX} artifacts a task and {ARTIFACT_PARTS_MAX} parts each"
        );
        Refusal::new(ErrorCode::TooLarge, detail).at("payload.artifact")
    };
    let count = task.artifacts.len();
    let known = task.artifacts.iter_mut().find(|known| known.artifact_id == artifact.artifact_id);
    match known {
        Some(known) if artifact.append => {
            if known.parts.len() + artifact.parts.len() > ARTIFACT_PARTS_MAX {
                return Err(too_many());
            }
            known.parts.extend(artifact.parts);
            known.last_chunk = artifact.last_chunk;
        }
        Some(known) => *known = artifact,
        None if count >= ARTIFACTS_MAX => return Err(too_many()),
        None => task.artifacts.push(artifact),
    }
    if task.artifacts.iter().map(bytes).sum::<usize>() > ARTIFACTS_BYTES_MAX {
        let detail = format!("send at most {ARTIFACTS_BYTES_MAX} bytes of artifacts a task");
        return Err(Refusal::new(ErrorCode::TooLarge, detail).at("payload.artifact"));
    }
    Ok(())
}

fn bytes(artifact: &Artifact) -> usize {
    let name = artifact.name.as_ref().map_or(0, String::len);
    let parts = artifact.parts.iter().map(|part| part.get().len() + 1);
    artifact.artifact_id.len() + name + parts.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_update_within_a_second_is_dropped() {
        type Edit = fn(&mut Task, &mut TaskUpdate);
        let table: [(&str, Edit, bool); 10] = [
            ("plain", |_, _| {}, true),
            ("with progress", |_, update| update.progress = Some(0.9), true),
            ("all done", |_, update| update.progress = Some(1.0), false),
            ("a question", |_, u| u.status = Some("input_required".to_owned()), false),
            ("an artifact", |_, update| update.artifact = Some(Artifact::default()), false),
            ("a second later", |task, _| task.reported_at = Some(9_000), false),
            ("nearly a second later", |task, _| task.reported_at = Some(9_001), true),
            ("after a jump back", |task, _| task.reported_at = Some(10_001), false),
            ("the first of the work", |task, _| task.status = TaskStatus::Accepted, false),
            ("of another agent", |task, _| task.agent_id = Some("c".to_owned()), false),
        ];
        for (name, edit, wanted) in table {
            let mut task = Task {
                status: TaskStatus::InProgress,
                agent_id: Some("b".to_owned()),
                reported_at: Some(9_500),
                ..Task::default()
            };
            let mut update = TaskUpdate::default();
            edit(&mut task, &mut update);
            assert_eq!(is_surplus(&task, "b", &update, 10_000), wanted, "{name}");
        }
    }
}
