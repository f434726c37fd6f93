//! Texts of any length that agents and people say about tasks: taken, and kept up to a limit.

use serde_json::json;

use super::http::Web;
use super::*;
use crate::protocol::payload::{ERROR_CODE_BYTES_MAX, ERROR_MESSAGE_BYTES_MAX};
use crate::server::model::DETAIL_BYTES_MAX;

/// Nearly as much as a message may have.
fn long() -> String {
    "é".repeat(500_000)
}

#[track_caller]
fn is_cut(text: Option<&str>, most: usize) {
    let text = text.unwrap();
    assert!(text.len() <= most && text.len() + 9 > most, "{} of {most}", text.len());
    assert!(text.ends_with(" bytes)"), "{}", text.len());
}

#[tokio::test]
async fn long_texts_about_a_task_are_taken_and_kept_up_to_a_limit() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    let reject = json!({"task_id": "t", "reason": "capacity", "detail": long()});
    world.ok("b", "task_reject", reject).await;
    let rejected = world.task("t").history.pop().unwrap();
    assert!(rejected.detail.as_ref().unwrap().starts_with("capacity: éé"));
    is_cut(rejected.detail.as_deref(), DETAIL_BYTES_MAX);
    world.ok("b", "heartbeat", json!({"status": "idle"})).await;
    world.step().await;
    world.ok("b", "task_accept", json!({"task_id": "t"})).await;
    world.ok("b", "task_update", json!({"task_id": "t", "message": long()})).await;
    is_cut(world.task("t").message.as_deref(), 16 << 10);
    let error = json!({"code": "c".repeat(100_000), "message": long().split_off(200_000)});
    world.ok("b", "task_complete", json!({"task_id": "t", "error": error})).await;
    let task = world.task("t");
    assert_eq!(task.status, TaskStatus::Failed);
    let error = task.error.unwrap();
    is_cut(error.message.as_deref(), ERROR_MESSAGE_BYTES_MAX);
    is_cut(error.code.as_deref(), ERROR_CODE_BYTES_MAX);
    let told = world.letters("a").pop().unwrap();
    let message = told["payload"]["error"]["message"].as_str().unwrap();
    assert_eq!(message.len(), 800_000, "its origin gets all of it");
}

#[tokio::test]
async fn a_task_that_is_given_back_too_often_with_many_words_fails() {
    let world = World::new();
    world.register("a").await;
    world.share("a", "t").await;
    for _ in 0..world.core.rules.max_attempts {
        world.register("b").await;
        world.step().await;
        world.ok("b", "task_accept", json!({"task_id": "t"})).await;
        let back = json!({"task_id": "t", "reason": "shutting_down", "detail": long()});
        world.ok("b", "task_reject", back).await;
    }
    let task = world.task("t");
    assert_eq!(task.status, TaskStatus::Failed);
    let error = task.error.unwrap().message.unwrap();
    assert!(error.starts_with("given up after 5 attempts: shutting_down: é"), "{error}");
    assert!(error.len() < 2 * DETAIL_BYTES_MAX);
    assert_eq!(world.mail("a"), ["task_complete"]);
}

#[tokio::test]
async fn a_cancellation_with_a_long_reason_reaches_the_agent() {
    let web = Web::start().await;
    web.say("b", "register", json!({"capabilities": ["code_review"]})).await;
    web.post("/tasks", json!({"task_id": "t", "task_type": "code_review"})).await;
    let inbox = web.get("/messages?agent_id=b&wait=5").await;
    assert_eq!(inbox["messages"][0]["message_type"], "task_offer");
    let reason = long() + &"x".repeat(48_000);
    let (status, task) = web.post("/tasks/t/cancel", json!({"reason": reason})).await;
    assert_eq!((status.as_u16(), &task["status"]), (200, &json!("cancelled")));
    is_cut(task["history"][2]["detail"].as_str(), DETAIL_BYTES_MAX);
    let inbox = web.get("/messages?agent_id=b").await;
    let cancel = inbox["messages"].as_array().unwrap().last().unwrap();
    is_cut(cancel["payload"]["reason"].as_str(), DETAIL_BYTES_MAX);
    let listed = web.get("/tasks?brief=true&task_type=code_review&limit=1").await;
    let task = &listed["tasks"][0];
    assert_eq!((&task["task_id"], &task["history"]), (&json!("t"), &json!([])));
    for wrong in ["limit=1000000", "brief=perhaps", "status=done", "after=a%2Fb"] {
        let answer = web.get(&format!("/tasks?{wrong}")).await;
        assert_eq!(answer["code"], "invalid_field", "{wrong}");
    }
    web.running.stop().await;
}
