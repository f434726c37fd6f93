//! What ended costs nothing any more: no change reads it again, and slots are counted without it.

use storage::event::Event;

use super::*;
use crate::bridge::prd;
use crate::bridge::task::{self, ENDED_READ, LocalTask, TaskStatus};
use crate::config::Agent;

/// A bridge with an agent and one slot.
fn place() -> Place {
    Place::new(|config| {
        config.agents = vec![Agent {
            agent_type: "eng-qa".into(),
            task_types: vec!["testing".into()],
            ..Agent::default()
        }];
        config.openclaw.max_concurrent_tasks = 1;
    })
}

fn prd_task(text: &str) -> prd::Task {
    prd::parse(&format!("- [ ] {text} <!-- type: nobody -->"), "loki-one").unwrap().remove(0)
}

impl Place {
    /// Adds a task that nobody here serves, and waits until the work on tasks has failed it.
    async fn fails(&self, text: &str) {
        let task = prd_task(text);
        let id = task.task_id.clone();
        self.bridge().add(vec![task], None).await.unwrap();
        loop {
            let changed = self.bridge().changed();
            tokio::pin!(changed);
            if !self.bridge().board().is_open(&id) {
                return;
            }
            changed.await;
        }
    }
}

#[tokio::test]
async fn a_change_reads_no_task_that_has_ended() {
    let place = place();
    let commit = place.database.store().commit(|tx| -> Result<(), Refusal> {
        for number in 0..50 {
            let mut task = LocalTask::of_prd(prd_task("done"), number, tx.now());
            task.task_id = format!("ended-{number}");
            task.finish(TaskStatus::Completed, tx.now());
            task::put(tx, Event::TaskComplete, "loki-one", "default", &task);
        }
        Ok(())
    });
    commit.await.unwrap().unwrap();
    place.fails("first").await;
    let read = || ENDED_READ.lock().iter().filter(|id| id.starts_with("ended-")).count();
    assert_eq!(read(), 50, "what has changed is read once");
    ENDED_READ.lock().clear();
    place.send(None, json!({"k": 1})).await.unwrap();
    place.fails("second").await;
    let offer = json!({"task_id": "far", "task_type": "nobody", "attempt": 1});
    assert!(place.hear(MessageType::TaskOffer, "o-1", offer).await.outcome.is_ok());
    place.fails("third").await;
    place.bridge().snapshot();
    assert_eq!(read(), 0);
    place.end().await;
}

#[tokio::test]
async fn of_two_offers_in_one_decision_a_single_slot_takes_one() {
    let place = place();
    let offer = |id: &str| {
        let fields = Fields {
            message_id: Some(id),
            agent_id: Some(SERVER_AGENT_ID),
            namespace: Some("default"),
            ..Fields::default()
        };
        let payload = json!({"task_id": id, "task_type": "testing", "attempt": 1});
        EnvelopeBuilder::new(MessageType::TaskOffer, fields).payload(&payload).build()
    };
    let offers = ["o-1", "o-2", "o-3"].map(|id| Ok(offer(id).unwrap())).into();
    let receiver = Receiver(std::sync::Arc::clone(&place.bridge().0));
    assert_eq!(receiver.frame(offers).await.answers.len(), 3);
    let open = ["o-1", "o-2", "o-3"].map(|id| place.bridge().board().is_open(id));
    assert_eq!(open, [true, false, false]);
    place.end().await;
}
