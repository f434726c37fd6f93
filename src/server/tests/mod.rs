//! Decisions of the server over a store in memory, with a clock that stands still.

mod calls;
mod delivery;
mod fairness;
mod http;
mod interface;
mod presence;
mod sizes;
mod trace;
mod upkeep;
mod wire;

use std::sync::Arc;

use serde_json::{Value, json};
use storage::fold::State;
use storage::journal::{Identity, Log, MemoryLog};
use storage::record::Status;
use storage::store::Store;
use tokio::sync::watch;

use super::core::Core;
use super::desk::Rules;
use super::intake::{self, Fate, Source};
use super::life::name;
use super::model::{Agent, Presence, Task, TaskStatus, agent_key, decode, task_key};
use super::{mail, scheduler};
use crate::clock::Clock;
use crate::protocol::{ErrorCode, parse_frame};

const START: u64 = 1_771_165_800_000;

fn memory() -> MemoryLog {
    MemoryLog::new(Identity { journal: [1; 16], key: [2; 16] })
}

struct World {
    core: Arc<Core>,
    source: Source,
    _stop: watch::Sender<bool>,
}

impl World {
    fn new() -> Self {
        Self::over(Box::new(memory()))
    }

    fn over(log: Box<dyn Log>) -> Self {
        Self::with(log, Rules::default())
    }

    fn with(log: Box<dyn Log>, rules: Rules) -> Self {
        let clock = Clock::simulated(START, 7);
        let wall = clock.clone();
        let now = Box::new(move || wall.now());
        let store = Store::start(log, State::new([2; 16]), now, Box::new(|_| {})).unwrap();
        let (stop, stopping) = watch::channel(false);
        let core = Core::new(store, clock, rules, stopping, None);
        Self { core, source: Source::default(), _stop: stop }
    }

    /// The same store under a server that was just started.
    fn restarted(self) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (store, clock) = (self.core.store.clone(), self.core.clock.clone());
        let core = Core::new(store, clock, self.core.rules.clone(), stopping, None);
        scheduler::grace(&core);
        Self { core, source: Source::default(), _stop: stop }
    }

    async fn send(&self, message: Value) -> Fate {
        let frame = parse_frame(message.to_string()).unwrap();
        let mut taken = intake::take(&self.core, &self.source, frame.messages).await;
        taken.remove(0).fate
    }

    async fn say(&self, agent_id: &str, message_type: &str, payload: Value) -> Fate {
        let message =
            json!({"message_type": message_type, "agent_id": agent_id, "payload": payload});
        self.send(message).await
    }

    async fn ok(&self, agent_id: &str, message_type: &str, payload: Value) {
        let fate = self.say(agent_id, message_type, payload).await;
        assert!(matches!(fate, Fate::Accepted(_)), "{message_type}: {fate:?}");
    }

    async fn refused(&self, agent_id: &str, message_type: &str, payload: Value) -> ErrorCode {
        match self.say(agent_id, message_type, payload).await {
            Fate::Refused(refusal) => refusal.code,
            fate => panic!("{message_type}: {fate:?}"),
        }
    }

    async fn register(&self, agent_id: &str) {
        self.ok(agent_id, "register", json!({"capabilities": ["code_review"]})).await;
    }

    async fn share(&self, agent_id: &str, task_id: &str) {
        let offer = json!({"task_id": task_id, "task_type": "code_review", "x": 1});
        self.ok(agent_id, "task_offer", offer).await;
    }

    async fn step(&self) {
        while scheduler::step(&self.core).await {}
    }

    async fn advance(&self, seconds: u64) {
        self.core.clock.advance(std::time::Duration::from_secs(seconds));
        self.step().await;
    }

    fn task(&self, task_id: &str) -> Task {
        let ledger = self.core.store.ledger();
        decode(&ledger.get(&task_key("default", task_id)).unwrap().value).unwrap()
    }

    fn agent(&self, agent_id: &str) -> Agent {
        let ledger = self.core.store.ledger();
        decode(&ledger.get(&agent_key("default", agent_id)).unwrap().value).unwrap()
    }

    /// What an agent that fetches over HTTP gets, oldest first.
    fn letters(&self, agent_id: &str) -> Vec<Value> {
        let mailbox = mail::mailbox("default", agent_id);
        let due = mail::unacknowledged(&self.core, &mailbox, None, 1_000);
        let letters =
            mail::read(&self.core.store, due, &mail::returns(&self.core.store, &self.core.clock));
        letters.iter().map(|letter| serde_json::from_slice(&letter.bytes).unwrap()).collect()
    }

    /// Types of the unfinished messages in a mailbox, oldest first.
    fn mail(&self, agent_id: &str) -> Vec<String> {
        self.core.store.messages(|messages| {
            let mailbox = format!("default/{agent_id}");
            let here = messages.iter().filter(|live| live.destination == mailbox);
            let open = here.filter(|live| live.status == Status::Pending);
            open.map(|live| live.message_type.to_owned()).collect()
        })
    }
}

#[tokio::test]
async fn a_shared_task_is_offered_accepted_and_completed_and_its_origin_hears_of_it() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    let task = world.task("t");
    assert_eq!((task.status, task.agent_id.as_deref()), (TaskStatus::Offered, Some("b")));
    assert_eq!(task.extra["x"].get(), "1");
    assert_eq!(world.mail("b"), ["task_offer"]);
    world.ok("b", "task_accept", json!({"task_id": "t", "attempt": 1})).await;
    world.ok("b", "task_accept", json!({"task_id": "t", "attempt": 1})).await;
    world.ok("b", "task_update", json!({"task_id": "t", "progress": 0.5})).await;
    assert_eq!(world.task("t").status, TaskStatus::InProgress);
    let end = json!({"task_id": "t", "attempt": 1, "result": {"n": 1}});
    world.ok("b", "task_complete", end).await;
    let task = world.task("t");
    assert_eq!(task.status, TaskStatus::Completed);
    assert_eq!(task.result.unwrap().get(), r#"{"n":1}"#);
    assert_eq!(world.mail("a"), ["task_update", "task_complete"]);
}

#[tokio::test]
async fn a_message_id_is_applied_once_and_never_means_two_things() {
    let world = World::new();
    world.register("a").await;
    let offer = |kind: &str| {
        json!({"message_type": "task_offer", "agent_id": "a", "message_id": "m-1",
            "payload": {"task_id": "t", "task_type": kind}})
    };
    assert_eq!(world.send(offer("code_review")).await, Fate::Accepted(None));
    assert_eq!(world.send(offer("code_review")).await, Fate::Duplicate);
    let Fate::Refused(refusal) = world.send(offer("testing")).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::IdConflict);
    assert_eq!(world.task("t").history.len(), 1);
}

#[tokio::test]
async fn who_rejected_is_not_asked_again_in_its_session_and_no_attempt_is_counted() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    world.ok("b", "task_reject", json!({"task_id": "t", "reason": "policy"})).await;
    world.step().await;
    let task = world.task("t");
    assert_eq!((task.status, task.misses), (TaskStatus::Pending, 0));
    let reason = task.pending_reason.as_deref();
    assert_eq!(reason, Some("every suitable agent refused the task"));
    world.register("b").await;
    world.step().await;
    assert_eq!(world.task("t").attempt, 2);
}

#[tokio::test]
async fn an_agent_without_room_is_asked_again_after_its_heartbeat() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    world.ok("b", "task_reject", json!({"task_id": "t", "reason": "capacity"})).await;
    world.step().await;
    assert_eq!(world.task("t").status, TaskStatus::Pending);
    world.ok("b", "heartbeat", json!({"status": "draining"})).await;
    world.step().await;
    assert_eq!(world.task("t").status, TaskStatus::Pending);
    world.ok("b", "heartbeat", json!({"status": "idle"})).await;
    world.step().await;
    assert_eq!(world.task("t").status, TaskStatus::Offered);
}

#[tokio::test]
async fn offers_that_nobody_answers_end_with_failure_and_late_results_change_nothing() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    world.register("c").await;
    world.share("a", "t").await;
    world.step().await;
    let first = world.task("t").agent_id.unwrap();
    let other = if first == "b" { "c" } else { "b" };
    world.advance(30).await;
    let task = world.task("t");
    assert_eq!((task.misses, task.agent_id.as_deref()), (1, Some(other)));
    let accept = json!({"task_id": "t", "attempt": 1});
    assert_eq!(world.refused(&first, "task_accept", accept).await, ErrorCode::WrongState);
    world.ok(&first, "task_complete", json!({"task_id": "t", "attempt": 1})).await;
    let task = world.task("t");
    assert!(task.status == TaskStatus::Offered && task.history.last().unwrap().late);
    assert_eq!(
        world.refused("a", "task_complete", json!({"task_id": "t"})).await,
        ErrorCode::NotOwner
    );
    for _ in 0..4 {
        world.ok("b", "heartbeat", json!({})).await;
        world.ok("c", "heartbeat", json!({})).await;
        world.advance(30).await;
    }
    let task = world.task("t");
    assert_eq!(task.status, TaskStatus::Failed);
    assert_eq!(task.error.unwrap().code.as_deref(), Some("max_attempts"));
    assert_eq!(world.mail("a"), ["task_complete"]);
}

#[tokio::test]
async fn a_silent_agent_is_lost_and_its_task_goes_back() {
    let world = World::new();
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    world.ok("b", "task_accept", json!({"task_id": "t"})).await;
    world.advance(60).await;
    assert_eq!(world.task("t").status, TaskStatus::Accepted);
    world.advance(30).await;
    let task = world.task("t");
    assert_eq!((task.status, task.misses), (TaskStatus::Pending, 1));
    assert_eq!(world.agent("b").status, Presence::Lost);
    world.ok("b", "heartbeat", json!({})).await;
    world.step().await;
    assert_eq!(world.agent("b").status, Presence::Online);
    assert_eq!(world.task("t").attempt, 2);
}

#[tokio::test]
async fn another_instance_wins_and_the_same_one_keeps_its_tasks() {
    let world = World::new();
    let instance = |id: &str| json!({"instance_id": id, "capabilities": ["code_review"]});
    world.ok("b", "register", instance("one")).await;
    world.share("a", "t").await;
    world.step().await;
    world.ok("b", "task_accept", json!({"task_id": "t"})).await;
    world.ok("b", "register", instance("one")).await;
    assert_eq!(world.task("t").status, TaskStatus::Accepted);
    let old = world.agent("b").session.unwrap().session_id;
    let ending = world.core.life.connect(&name("default", "b"), &old);
    world.ok("b", "register", instance("two")).await;
    assert_eq!(*ending.borrow(), super::life::Ending::Replaced);
    assert_eq!(world.task("t").status, TaskStatus::Pending);
    let stale = World { source: Source { session_id: Some(old), ..Source::default() }, ..world };
    let code = stale.refused("b", "heartbeat", json!({})).await;
    assert_eq!(code, ErrorCode::SessionReplaced);
}

#[tokio::test]
async fn a_registration_that_is_not_written_ends_no_session() {
    let log = memory();
    let world = World::over(Box::new(log.writer()));
    let instance = |id: &str| json!({"instance_id": id, "capabilities": ["code_review"]});
    world.ok("b", "register", instance("one")).await;
    let session = world.agent("b").session.unwrap().session_id;
    let ending = world.core.life.connect(&name("default", "b"), &session);
    log.writer().new_epoch();
    assert_eq!(world.refused("b", "register", instance("two")).await, ErrorCode::Unavailable);
    assert_eq!(*ending.borrow(), super::life::Ending::Open);
}

#[tokio::test]
async fn only_the_origin_cancels_and_only_once_does_it_matter() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    let cancel = json!({"task_id": "t"});
    let code = world.refused("b", "task_cancel", cancel.clone()).await;
    assert_eq!(code, ErrorCode::NotOwner);
    world.ok("a", "task_cancel", cancel.clone()).await;
    world.ok("a", "task_cancel", cancel.clone()).await;
    assert_eq!(world.task("t").status, TaskStatus::Cancelled);
    assert_eq!(world.mail("b"), ["task_offer", "task_cancel"]);
    world.share("a", "u").await;
    world.step().await;
    world.ok("b", "task_complete", json!({"task_id": "u"})).await;
    let code = world.refused("a", "task_cancel", json!({"task_id": "u"})).await;
    assert_eq!(code, ErrorCode::WrongState);
    let code = world.refused("a", "task_cancel", json!({"task_id": "z"})).await;
    assert_eq!(code, ErrorCode::UnknownTask);
}

#[tokio::test]
async fn a_deadline_expires_a_task_at_once_or_later() {
    let world = World::new();
    let offer = |id: &str, deadline: &str| {
        let task_type = "code_review";
        json!({"task_id": id, "task_type": task_type, "deadline": deadline})
    };
    world.ok("a", "task_offer", offer("past", "2026-02-15T14:29:59Z")).await;
    world.ok("a", "task_offer", offer("soon", "2026-02-15T14:30:10Z")).await;
    assert_eq!(world.task("past").status, TaskStatus::Expired);
    world.advance(5).await;
    assert_eq!(world.task("soon").status, TaskStatus::Pending);
    world.advance(5).await;
    assert_eq!(world.task("soon").status, TaskStatus::Expired);
}

#[tokio::test]
async fn waiting_tasks_go_out_by_priority_then_deadline_then_age() {
    let world = World::new();
    let offer = |id: &str, priority: &str, deadline: Option<&str>| {
        json!({"task_id": id, "task_type": "code_review", "priority": priority,
            "deadline": deadline})
    };
    world.ok("a", "task_offer", offer("old", "normal", None)).await;
    world.core.clock.advance(std::time::Duration::from_secs(1));
    world.ok("a", "task_offer", offer("new", "normal", None)).await;
    world.ok("a", "task_offer", offer("due", "normal", Some("2026-02-16T00:00:00Z"))).await;
    world.ok("a", "task_offer", offer("top", "critical", None)).await;
    world.register("b").await;
    for wanted in ["top", "due", "old", "new"] {
        world.step().await;
        assert_eq!(world.task(wanted).status, TaskStatus::Offered, "{wanted}");
        world.ok("b", "task_complete", json!({"task_id": wanted})).await;
    }
}

#[tokio::test]
async fn a_message_to_another_agent_waits_in_its_mailbox_and_a_lane_stays_in_order() {
    let world = World::new();
    let note = |id: &str| {
        json!({"message_type": "review_note", "agent_id": "a", "message_id": id, "to": "b",
            "ordering_key": "k", "payload": {"n": 1}})
    };
    let Fate::Refused(refusal) = world.send(note("m-1")).await else { panic!() };
    assert!(refusal.code == ErrorCode::UnknownAgent && refusal.retryable);
    let Fate::Refused(refusal) = world.send(note("m-2")).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::LaneBlocked);
    world.register("b").await;
    let Fate::Refused(refusal) = world.send(note("m-3")).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::LaneBlocked);
    for id in ["m-1", "m-2", "m-3"] {
        assert_eq!(world.send(note(id)).await, Fate::Accepted(None), "{id}");
    }
    let letters = world.letters("b");
    let ids: Vec<&Value> = letters.iter().map(|letter| &letter["message_id"]).collect();
    assert_eq!(ids, ["m-1", "m-2", "m-3"]);
}

#[tokio::test]
async fn shared_state_keeps_the_later_write_joins_queues_and_guards_a_status() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    let sync = |agent: &str, at: &str, key: &str, value: Value, version: Option<u64>| {
        json!({"message_type": "state_sync", "agent_id": agent, "timestamp": at,
            "payload": {"entries": [{"key": key, "value": value, "version": version}]}})
    };
    let value = |key: &str| {
        let ledger = world.core.store.ledger();
        let entity = ledger.get(&super::shared::cell_key("default", key)).unwrap();
        decode::<super::shared::Cell>(&entity.value).unwrap().value()
    };
    let (early, late) = ("2026-02-15T14:30:00Z", "2026-02-15T14:30:01Z");
    world.send(sync("a", late, "k", json!(1), None)).await;
    world.send(sync("b", early, "k", json!(2), None)).await;
    assert_eq!(value("k"), 1);
    world.send(sync("a", late, "queue/q", json!([{"id": "x", "n": 1}]), None)).await;
    let both = json!([{"id": "y"}, {"id": "x", "n": 2}]);
    world.send(sync("b", early, "queue/q", both, None)).await;
    assert_eq!(value("queue/q"), json!([{"id": "x", "n": 1}, {"id": "y"}]));
    let removed = json!([{"id": "y", "deleted": true}]);
    world.send(sync("a", late, "queue/q", removed, None)).await;
    assert_eq!(value("queue/q"), json!([{"id": "x", "n": 1}]));
    world.send(sync("a", early, "agent/a/status", json!("up"), None)).await;
    let fate = world.send(sync("b", late, "agent/a/status", json!("down"), None)).await;
    let Fate::Refused(refusal) = fate else { panic!("{fate:?}") };
    assert_eq!(refusal.code, ErrorCode::StateConflict);
    assert_eq!(refusal.current.unwrap()["value"], "up");
    let fate = world.send(sync("b", early, "agent/a/status", json!("down"), Some(1))).await;
    assert_eq!(fate, Fate::Accepted(None));
    assert!(world.mail("b").iter().all(|kind| kind == "state_sync"));
}
