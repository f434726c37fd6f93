//! Who is there: sessions, silence, goodbyes, and what becomes of the tasks of those who leave.

use serde_json::json;

use super::*;
use crate::server::registry;

impl World {
    async fn goodbye(&self, agent_id: &'static str) {
        let session_id = self.agent(agent_id).session.unwrap().session_id;
        let said = self
            .core
            .decided(move |desk| registry::goodbye(desk, "default", agent_id, &session_id));
        said.await.unwrap();
    }

    /// A task that `b` has accepted.
    async fn accepted(&self, task_id: &str) {
        self.share("a", task_id).await;
        self.step().await;
        self.ok("b", "task_accept", json!({"task_id": task_id})).await;
    }
}

#[tokio::test]
async fn after_a_goodbye_offers_go_back_at_once_and_accepted_tasks_after_a_while() {
    let world = World::new();
    let two = json!({"max_concurrent_tasks": 2});
    world.ok("b", "register", two.clone()).await;
    world.accepted("t").await;
    world.share("a", "u").await;
    world.step().await;
    assert_eq!(world.task("u").status, TaskStatus::Offered);
    world.goodbye("b").await;
    world.step().await;
    assert_eq!(world.agent("b").status, Presence::Offline);
    let back = world.task("u");
    assert_eq!((back.status, back.misses), (TaskStatus::Pending, 1));
    assert_eq!(back.pending_reason.as_deref(), Some("no suitable agent is online"));
    assert_eq!(world.mail("b"), ["task_offer"], "the withdrawn offer is gone, the first is unread");
    assert_eq!(world.task("t").status, TaskStatus::Accepted);
    world.advance(89).await;
    assert_eq!(world.task("t").status, TaskStatus::Accepted);
    world.advance(1).await;
    assert_eq!(world.task("t").status, TaskStatus::Pending);
    assert_eq!(world.agent("b").status, Presence::Offline);
    world.ok("b", "register", two).await;
    world.step().await;
    assert_eq!(world.task("u").status, TaskStatus::Offered);
}

#[tokio::test]
async fn a_goodbye_of_an_older_session_means_nothing() {
    let world = World::new();
    world.register("b").await;
    let old = world.agent("b").session.unwrap().session_id;
    world.register("b").await;
    let said = world.core.decided(move |desk| registry::goodbye(desk, "default", "b", &old));
    said.await.unwrap();
    assert_eq!(world.agent("b").status, Presence::Online);
}

#[tokio::test]
async fn who_said_that_it_drains_is_offline_when_it_falls_silent() {
    let world = World::new();
    world.register("b").await;
    world.ok("b", "heartbeat", json!({"status": "draining"})).await;
    world.advance(90).await;
    assert_eq!(world.agent("b").status, Presence::Offline);
    world.ok("b", "heartbeat", json!({"status": "idle"})).await;
    assert_eq!(world.agent("b").status, Presence::Online);
    world.advance(90).await;
    assert_eq!(world.agent("b").status, Presence::Lost);
}

#[tokio::test]
async fn any_message_is_a_sign_of_life() {
    let world = World::new();
    world.register("b").await;
    for _ in 0..3 {
        world.advance(60).await;
        world.ok("b", "capability_query", json!({"query_type": "list"})).await;
        assert_eq!(world.agent("b").status, Presence::Online);
    }
    assert!(world.core.life.vital(&name("default", "nobody")).seen_at.is_none());
    world.ok("nobody", "capability_query", json!({"query_type": "list"})).await;
    assert!(world.core.life.vital(&name("default", "nobody")).seen_at.is_none());
}

#[tokio::test]
async fn a_task_that_is_given_back_is_pending_at_once_and_counts() {
    let world = World::new();
    world.register("b").await;
    world.accepted("t").await;
    world.ok("b", "task_update", json!({"task_id": "t", "progress": 0.5})).await;
    let give_back = json!({"task_id": "t", "attempt": 1, "reason": "shutting_down"});
    world.ok("b", "task_reject", give_back.clone()).await;
    let task = world.task("t");
    assert_eq!((task.status, task.misses, task.agent_id), (TaskStatus::Pending, 1, None));
    // A heartbeat does not bring it offers again, a new session does.
    world.ok("b", "heartbeat", json!({"status": "idle"})).await;
    world.step().await;
    assert_eq!(world.task("t").status, TaskStatus::Pending);
    world.register("c").await;
    world.step().await;
    assert_eq!(world.task("t").agent_id.as_deref(), Some("c"));
    // Said again it is late: acknowledged and kept, and nothing changes.
    world.ok("b", "task_reject", give_back.clone()).await;
    let task = world.task("t");
    let last = task.history.last().unwrap();
    assert!(task.status == TaskStatus::Offered && last.late);
    assert_eq!((last.attempt, last.detail.as_deref()), (1, Some("shutting_down")));
    assert_eq!(world.refused("d", "task_reject", give_back).await, ErrorCode::NotOwner);
    world.register("b").await;
    world.share("a", "u").await;
    world.step().await;
    assert_eq!(world.task("u").agent_id.as_deref(), Some("b"));
}

#[tokio::test]
async fn a_task_that_is_given_back_too_often_fails() {
    let world = World::new();
    for attempt in 1..=5 {
        world.register("b").await;
        if attempt == 1 {
            world.share("a", "t").await;
        }
        world.step().await;
        world.ok("b", "task_accept", json!({"task_id": "t"})).await;
        let give_back = json!({"task_id": "t", "reason": "shutting_down"});
        world.ok("b", "task_reject", give_back).await;
    }
    assert_eq!(world.task("t").status, TaskStatus::Failed);
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_takes_nothing_from_anybody() {
    const DAY: i64 = 24 * 60 * 60 * 1_000;
    let world = World::new();
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    for jump in [DAY, -2 * DAY, DAY] {
        world.core.clock.jump(jump);
        world.advance(5).await;
        assert_eq!(world.task("t").status, TaskStatus::Offered);
        assert_eq!(world.agent("b").status, Presence::Online);
        assert_eq!(world.letters("b").len(), 1, "the offer is still delivered");
    }
    world.advance(14).await;
    assert_eq!(world.task("t").status, TaskStatus::Offered);
    world.advance(1).await;
    assert_eq!(world.task("t").misses, 1);
    world.ok("b", "task_accept", json!({"task_id": "t"})).await;
    world.core.clock.jump(DAY);
    world.advance(59).await;
    assert_eq!(world.task("t").status, TaskStatus::Accepted);
    assert_eq!(world.agent("b").status, Presence::Online);
}

#[tokio::test]
async fn after_a_start_every_lease_has_its_full_time_again() {
    let world = World::new();
    let two = json!({"max_concurrent_tasks": 2});
    world.ok("b", "register", two).await;
    world.accepted("t").await;
    world.advance(80).await;
    world.share("a", "u").await;
    world.step().await;
    world.core.clock.advance(std::time::Duration::from_hours(1));
    let world = world.restarted();
    world.step().await;
    assert_eq!(world.task("u").status, TaskStatus::Offered);
    world.advance(29).await;
    assert_eq!(world.task("u").status, TaskStatus::Offered);
    world.advance(1).await;
    assert_eq!(world.task("u").misses, 1);
    assert_eq!(world.agent("b").status, Presence::Online);
    world.advance(59).await;
    assert_eq!(world.task("t").status, TaskStatus::Accepted);
    world.advance(1).await;
    assert_eq!(world.agent("b").status, Presence::Lost);
    assert_eq!(world.task("t").status, TaskStatus::Pending);
}

#[tokio::test]
async fn of_the_updates_within_a_second_one_is_kept_and_no_word_that_matters_is_lost() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    world.accepted("t").await;
    let update = |id: &str, progress: f64, more: Value| {
        let mut payload = json!({"task_id": "t", "progress": progress});
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"message_type": "task_update", "agent_id": "b", "message_id": id,
            "payload": payload})
    };
    for (id, progress) in [("u-1", 0.1), ("u-2", 0.2), ("u-2", 0.2)] {
        assert_eq!(world.send(update(id, progress, json!({}))).await, Fate::Accepted(None));
    }
    assert_eq!(world.send(update("u-1", 0.1, json!({}))).await, Fate::Duplicate);
    assert_eq!(world.task("t").progress, Some(0.1));
    assert_eq!(world.mail("a"), ["task_update"]);
    let artifact = json!({"artifact": {"artifact_id": "log", "parts": [1]}});
    world.send(update("u-3", 0.3, artifact)).await;
    assert_eq!((world.task("t").progress, world.task("t").artifacts.len()), (Some(0.3), 1));
    world.send(update("u-4", 0.4, json!({"status": "input_required"}))).await;
    assert_eq!(world.task("t").status, TaskStatus::InputRequired);
    world.send(update("u-5", 0.5, json!({}))).await;
    assert_eq!(world.task("t").status, TaskStatus::InProgress);
    world.send(update("u-6", 1.0, json!({}))).await;
    assert_eq!(world.task("t").progress, Some(1.0));
    world.advance(1).await;
    world.send(update("u-7", 0.7, json!({}))).await;
    assert_eq!(world.task("t").progress, Some(0.7));
    assert_eq!(world.mail("a").len(), 6);
    let Fate::Refused(refusal) = world.send(update("u-8", -1.0, json!({}))).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::InvalidField);
}

/// A message id of `UUIDv7` made so many milliseconds after the start.
fn id_at(after: u64) -> String {
    Clock::simulated(START + after, after).message_id()
}

#[tokio::test]
async fn a_register_that_comes_late_or_twice_ends_nobody_s_session() {
    let world = World::new();
    let register = |id: &str, instance: &str| {
        json!({"message_type": "register", "agent_id": "b", "message_id": id,
            "payload": {"instance_id": instance}})
    };
    let (killed, first, second) = (id_at(1), id_at(2), id_at(3));
    let Fate::Accepted(Some(opened)) = world.send(register(&first, "one")).await else { panic!() };
    let Fate::Accepted(Some(again)) = world.send(register(&first, "one")).await else { panic!() };
    assert_eq!(opened["session_id"], again["session_id"], "said twice it opens one session");
    let Fate::Accepted(Some(opened)) = world.send(register(&second, "one")).await else { panic!() };
    let session = || world.agent("b").session.unwrap().session_id;
    // A proxy repeats the first one; and what a killed program sent arrives at last.
    for late in [register(&first, "one"), register(&killed, "zero"), register(&killed, "zero")] {
        let Fate::Refused(refusal) = world.send(late).await else { panic!() };
        assert_eq!((refusal.code, refusal.retryable), (ErrorCode::Unavailable, true));
        assert_eq!(opened["session_id"], session());
    }
    // One whose clock is behind is there all the same: it comes again.
    let fate = world.send(register(&id_at(2), "zero")).await;
    assert!(matches!(fate, Fate::Accepted(Some(_))), "{fate:?}");
    assert_ne!(opened["session_id"], session());
    assert_eq!(world.agent("b").session.unwrap().instance_id.as_deref(), Some("zero"));
}

#[tokio::test]
async fn a_session_that_nobody_replaced_is_only_to_be_opened_again() {
    let world = World::new();
    world.ok("c", "register", json!({"instance_id": "one"})).await;
    // Sessions that a store knew which went back since: of an agent that it knows, and of none.
    let lost = id_at(1_000);
    let world = World { source: Source { session_id: Some(lost), ..Source::default() }, ..world };
    for agent_id in ["b", "c"] {
        let Fate::Refused(refusal) = world.say(agent_id, "heartbeat", json!({})).await else {
            panic!("{agent_id}")
        };
        assert_eq!((refusal.code, refusal.retryable), (ErrorCode::Unavailable, true), "{agent_id}");
    }
}
