//! `/tasks/{id}/events`: the life of a task as server-sent events. It only reads.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use serde_json::json;

use super::problem::Failure;
use super::tasks::find;
use super::{Parameters, WAIT_MAX, wait_for};
use crate::clock::{Millis, rfc3339};
use crate::server::core::{Core, task_bell};
use crate::server::model::{Step, Task, task_key};

/// What was told of a task so far.
struct Told {
    core: Arc<Core>,
    namespace: String,
    task_id: String,
    after: Option<(Millis, usize)>,
    progress: (Option<f64>, Option<String>),
    /// Of each artifact: how many parts it had, and whether that was all.
    artifacts: Vec<(usize, bool)>,
    queue: VecDeque<Event>,
    is_over: bool,
}

/// `GET /tasks/{id}/events`.
pub(super) async fn stream(
    State(core): State<Arc<Core>>,
    Path(task_id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let namespace = Parameters::of(&uri)?.namespace()?;
    find(&core, &namespace, &task_id)?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let after = last.and_then(|id| {
        let (at, same) = id.split_once('-')?;
        Some((at.parse().ok()?, same.parse().ok()?))
    });
    let told = Told {
        core,
        namespace,
        task_id,
        after,
        progress: (None, None),
        artifacts: Vec::new(),
        queue: VecDeque::new(),
        is_over: false,
    };
    Ok(Sse::new(stream::unfold(told, next)).keep_alive(KeepAlive::default()))
}

async fn next(mut told: Told) -> Option<(Result<Event, Infallible>, Told)> {
    let core = Arc::clone(&told.core);
    let bell = task_bell(&task_key(&told.namespace, &told.task_id).name);
    loop {
        if let Some(event) = told.queue.pop_front() {
            return Some((Ok(event), told));
        }
        if told.is_over || *core.stopping.borrow() {
            return None;
        }
        wait_for(&core, &bell, WAIT_MAX, || {
            let task = find(&core, &told.namespace, &told.task_id).ok()?;
            told.look(&task);
            (told.is_over || !told.queue.is_empty()).then_some(())
        })
        .await;
    }
}

impl Told {
    /// Queues what is new. An event's id is the step's time and its number among those of it.
    fn look(&mut self, task: &Task) {
        let mut number = (0, 0);
        for step in &task.history {
            number = if number.0 == step.at { (step.at, number.1 + 1) } else { (step.at, 0) };
            if self.after.is_none_or(|after| number > after) {
                self.after = Some(number);
                self.queue.extend(status(step, number));
            }
        }
        let progress = (task.progress, task.message.clone());
        if progress != self.progress {
            self.progress = progress;
            let data = json!({"progress": task.progress, "message": task.message});
            self.queue.extend(Event::default().event("progress").json_data(data).ok());
        }
        for (index, artifact) in task.artifacts.iter().enumerate() {
            let shape = (artifact.parts.len(), artifact.last_chunk);
            if self.artifacts.get(index) != Some(&shape) {
                self.queue.extend(Event::default().event("artifact").json_data(artifact).ok());
            }
        }
        let shapes = task.artifacts.iter().map(|it| (it.parts.len(), it.last_chunk));
        self.artifacts = shapes.collect();
        self.is_over = task.status.is_terminal();
    }
}

fn status(step: &Step, (at, same): (Millis, usize)) -> Option<Event> {
    let data = json!({
        "at": rfc3339(step.at),
        "status": step.status,
        "attempt": step.attempt,
        "agent_id": step.agent_id,
        "detail": step.detail,
    });
    let event = Event::default().event(step.status.as_str()).id(format!("{at}-{same}"));
    event.json_data(data).ok()
}
