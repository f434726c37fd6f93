//! A trace is carried by every message about its task, and stands in every entry about the two,
//! also when agents say nothing of it.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use storage::event::Event;
use storage::record::Record;

use super::World;
use crate::server::{mail, retire};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What is recorded from now on: the event, and the trace that its entry names.
fn recorded(world: &World) -> Arc<Mutex<Vec<(&'static str, Value)>>> {
    let entries = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&entries);
    world.core.store.listen(Box::new(move |published| {
        // Ids and agents are forgotten too, in no trace.
        let is_other =
            |record: &Record| record.event == Event::StoreForget && &*record.resource != "t";
        let records = published.entries.iter().map(|(_, record, _)| record);
        let told = records.filter(|record| !is_other(record)).map(|record| {
            let details: Value = serde_json::from_str(&record.details).unwrap_or_default();
            (record.event.name(), details["traceparent"].clone())
        });
        kept.lock().extend(told);
        true
    }));
    entries
}

/// Fails unless all of these entries name `trace`, and there is one of each of these events.
fn check(entries: &Mutex<Vec<(&'static str, Value)>>, trace: &Value, events: &[&str]) {
    let entries = entries.lock();
    let of_agents = |event: &str| event.starts_with("openclaw.");
    for (event, told) in entries.iter().filter(|(event, _)| !of_agents(event)) {
        assert_eq!(told, trace, "{event}");
    }
    for wanted in events {
        assert!(entries.iter().any(|(event, _)| event == wanted), "{wanted}: {entries:?}");
    }
}

fn offer(trace: &str) -> Value {
    json!({"message_type": "task_offer", "agent_id": "a", "traceparent": trace,
        "payload": {"task_id": "t", "task_type": "code_review",
            "deadline": "2026-03-01T00:00:00Z"}})
}

/// Takes and acknowledges what lies in a mailbox.
async fn fetch(world: &World, agent_id: &'static str) -> Vec<Value> {
    let letters = world.letters(agent_id);
    let id = |letter: &Value| letter["message_id"].as_str().unwrap().to_owned();
    let ids: Vec<String> = letters.iter().map(id).collect();
    let settled = move |desk: &mut crate::server::desk::Desk<'_, '_>| {
        Ok(mail::delivered(desk, "default", agent_id, &ids))
    };
    assert_eq!(world.core.decided(settled).await.unwrap(), letters.len());
    letters
}

#[tokio::test]
async fn the_whole_life_of_a_task_is_in_its_trace() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    let entries = recorded(&world);
    assert!(matches!(world.send(offer(TRACE)).await, crate::server::intake::Fate::Accepted(_)));
    world.step().await;
    assert_eq!(fetch(&world, "b").await[0]["traceparent"], TRACE);
    let task = json!({"task_id": "t", "attempt": 1, "progress": 0.5});
    for kind in ["task_accept", "task_update", "task_complete"] {
        world.ok("b", kind, task.clone()).await;
    }
    let letters = fetch(&world, "a").await;
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().all(|letter| letter["traceparent"] == TRACE), "{letters:?}");
    let events = ["message.received", "task.create", "task.offer", "message.queued"];
    check(&entries, &json!(TRACE), &events);
    let events = ["message.delivered", "task.accept", "task.start", "task.complete"];
    check(&entries, &json!(TRACE), &events);
    world.core.clock.advance(world.core.rules.retention + std::time::Duration::from_secs(1));
    while retire::step(&world.core).await.unwrap() {}
    check(&entries, &json!(TRACE), &["store.forget"]);
}

#[tokio::test]
async fn what_goes_wrong_with_a_message_is_in_its_trace() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    let entries = recorded(&world);
    let note = json!({"message_type": "review_note", "agent_id": "a", "to": "b", "message_id": "m",
        "traceparent": TRACE, "expires_at": "2026-02-15T14:30:10Z", "payload": {}});
    for _ in 0..2 {
        world.send(note.clone()).await;
    }
    let nack = json!({"message_id": "m", "error": {"code": "unavailable", "retryable": true}});
    world.ok("b", "nack", nack).await;
    let mut late = note.clone();
    late["message_id"] = "m-2".into();
    late["to"] = "nobody".into();
    world.send(late).await;
    world.core.clock.advance(std::time::Duration::from_secs(11));
    let now = world.core.clock.now();
    let expired = world.core.mailboxes.overdue(now, 10);
    let give_up = move |desk: &mut crate::server::desk::Desk<'_, '_>| {
        mail::give_up(desk, &expired, now);
        Ok(())
    };
    world.core.decided(give_up).await.unwrap();
    let nack = &fetch(&world, "a").await[0];
    assert_eq!((&nack["message_type"], &nack["traceparent"]), (&json!("nack"), &json!(TRACE)));
    let events = ["message.duplicate", "message.retry", "message.rejected", "message.expired"];
    check(&entries, &json!(TRACE), &events);
}

#[tokio::test]
async fn a_trace_that_is_none_goes_on_and_is_not_recorded() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    let entries = recorded(&world);
    world.send(offer("00-1-2-3")).await;
    world.step().await;
    assert_eq!(world.letters("b")[0]["traceparent"], Value::Null);
    check(&entries, &Value::Null, &["task.create", "task.offer"]);
}
