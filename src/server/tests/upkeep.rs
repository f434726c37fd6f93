//! What the server keeps only for a time, what it looks at, and what a journal's head tells.

use serde_json::json;
use storage::event::Event;
use storage::record::{Kind, Status};

use super::*;
use crate::audit::heads;
use crate::audit::witness::Seen;
use crate::config::{Audit, AuditLevel};
use crate::server::model::{Remembered, encode};
use crate::server::{mail, retire};

const DAY: u64 = 24 * 60 * 60;

impl World {
    fn has_task(&self, task_id: &str) -> bool {
        self.core.store.ledger().get(&task_key("default", task_id)).is_some()
    }

    fn count(&self, kind: Kind) -> usize {
        self.core.store.ledger().scan(kind, "").count()
    }

    /// How often an event stands in the audit log.
    fn audited(&self, event: Event) -> usize {
        self.core.store.reader().by_event(&[event.code()], None, 1_000).unwrap().len()
    }

    async fn done(&self, task_id: &str) {
        self.share("a", task_id).await;
        self.step().await;
        self.ok("b", "task_complete", json!({"task_id": task_id})).await;
    }
}

#[tokio::test]
async fn a_finished_task_is_kept_for_its_retention_and_then_unknown() {
    let world = World::new();
    world.register("b").await;
    world.done("t").await;
    world.ok("b", "register", json!({"agent_types": ["eng-qa"], "max_concurrent_tasks": 0})).await;
    world.share("a", "open").await;
    world.advance(10 * DAY).await;
    // A late word about a task does not keep it for longer.
    world.ok("b", "task_complete", json!({"task_id": "t"})).await;
    world.advance(20 * DAY - 1).await;
    assert!(world.has_task("t"));
    let world = world.restarted();
    world.advance(1).await;
    assert!(!world.has_task("t") && world.has_task("open"));
    let open = world.core.census.tasks().into_iter().filter(|(_, count)| *count > 0);
    assert_eq!(open.collect::<Vec<_>>(), [(TaskStatus::Pending, 1)]);
    let code = world.refused("b", "task_complete", json!({"task_id": "t"})).await;
    assert_eq!(code, ErrorCode::UnknownTask);
}

#[tokio::test]
async fn a_message_is_expired_also_by_a_decision_that_began_before_it_was_overdue() {
    let world = World::new();
    world.register("a").await;
    world.register("b").await;
    let note = json!({"message_type": "review_note", "agent_id": "a", "to": "b",
        "message_id": "m", "expires_at": "2026-02-15T14:30:10Z", "payload": {}});
    world.send(note).await;
    // Those who looked were a little later than the decision says it is.
    let later = world.core.clock.now() + 20_000;
    let overdue = world.core.mailboxes.overdue(later, 10);
    assert_eq!(overdue.len(), 1);
    let give_up = move |desk: &mut crate::server::desk::Desk<'_, '_>| {
        mail::give_up(desk, &overdue, later);
        Ok(())
    };
    world.core.decided(give_up).await.unwrap();
    let counts = world.core.store.messages(|messages| messages.counts().clone());
    let stand: Vec<_> = counts.keys().filter(|(to, ..)| !to.is_empty()).map(|key| key.2).collect();
    assert!(stand.contains(&Status::Expired) && !stand.contains(&Status::Failed), "{counts:?}");
}

#[tokio::test]
async fn more_than_one_decision_retires_is_retired_in_several() {
    let world = World::new();
    world.register("b").await;
    for number in 0..300 {
        world.done(&format!("t-{number}")).await;
    }
    world.advance(30 * DAY).await;
    assert_eq!(world.count(Kind::Task), 0);
    assert!(world.core.census.tasks().iter().all(|(_, count)| *count == 0));
}

#[tokio::test]
async fn who_is_long_gone_leaves_the_registry_but_not_before_its_mail() {
    let world = World::new();
    world.register("b").await;
    world.register("c").await;
    world.advance(100).await;
    assert_eq!(world.agent("b").status, Presence::Lost);
    world.advance(29 * DAY).await;
    let note = json!({"message_type": "note", "agent_id": "a", "to": "b", "payload": {}});
    assert_eq!(world.send(note.clone()).await, Fate::Accepted(None));
    world.advance(DAY).await;
    assert_eq!(world.count(Kind::Agent), 1);
    assert_eq!(world.agent("b").status, Presence::Lost);
    world.advance(7 * DAY).await;
    assert_eq!(world.count(Kind::Agent), 0);
    let Fate::Refused(refusal) = world.send(note).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::UnknownAgent);
}

#[tokio::test]
async fn tombstones_of_the_shared_state_go_after_the_retention() {
    let world = World::new();
    let sync = |entry: Value| json!({"entries": [entry]});
    world.ok("a", "state_sync", sync(json!({"key": "k", "value": 1}))).await;
    world.ok("a", "state_sync", sync(json!({"key": "l", "value": 1}))).await;
    world.ok("a", "state_sync", sync(json!({"key": "k", "deleted": true}))).await;
    world.advance(30 * DAY - 1).await;
    assert_eq!(world.count(Kind::State), 2);
    world.advance(1).await;
    assert_eq!(world.count(Kind::State), 1);
}

#[tokio::test]
async fn what_was_removed_from_a_queue_is_forgotten_after_the_retention() {
    let world = World::new();
    let sync = |value: Value| json!({"entries": [{"key": "queue/q", "value": value}]});
    let bytes = || {
        let key = crate::server::shared::cell_key("default", "queue/q");
        world.core.store.ledger().get(&key).unwrap().value.len()
    };
    world.ok("a", "state_sync", sync(json!([{"id": "kept"}]))).await;
    let small = bytes();
    for number in 0..50 {
        let removed = json!([{"id": format!("gone-{number}"), "deleted": true}]);
        world.ok("a", "state_sync", sync(removed)).await;
    }
    world.advance(30 * DAY - 1).await;
    world.ok("a", "state_sync", sync(json!([{"id": "kept"}]))).await;
    assert!(bytes() > 50 * 20, "an earlier write must not bring it back");
    world.advance(1).await;
    world.ok("a", "state_sync", sync(json!([{"id": "kept"}]))).await;
    assert!(bytes() < small + 20, "{} of {small}", bytes());
}

#[tokio::test]
async fn message_ids_are_remembered_for_the_window_and_not_lost_by_a_jump() {
    let world = World::new();
    let query = |id: &str, kind: &str| {
        json!({"message_type": "capability_query", "agent_id": "a", "message_id": id,
            "payload": {"query_type": kind, "skill": "x"}})
    };
    assert_eq!(world.send(query("m-1", "list")).await, Fate::Accepted(None));
    world.advance(3_600).await;
    assert_eq!(world.send(query("m-2", "list")).await, Fate::Accepted(None));
    world.advance(8 * DAY - 3_600).await;
    assert_eq!(world.send(query("m-1", "list")).await, Fate::Duplicate);
    world.advance(1).await;
    assert_eq!(world.send(query("m-1", "supports_skill")).await, Fate::Accepted(None));
    world.core.clock.jump(30 * 24 * 60 * 60 * 1_000);
    world.advance(600).await;
    world.advance(1).await;
    assert_eq!(world.send(query("m-1", "supports_skill")).await, Fate::Duplicate);
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_a_moment_makes_nothing_stale_or_late_afterwards() {
    let world = World::new();
    let Core { clock, .. } = &*world.core;
    let month = 30 * 24 * 60 * 60 * 1_000;
    clock.jump(month);
    world.share("a", "ahead").await;
    clock.jump(-month);
    let world = world.restarted();
    let Core { clock, .. } = &*world.core;
    let soon = crate::clock::rfc3339(clock.now() + 1_000);
    let query = json!({"message_type": "capability_query", "agent_id": "a", "expires_at": soon,
        "message_id": clock.message_id(), "payload": {"query_type": "list", "skill": "x"}});
    assert_eq!(world.send(query).await, Fate::Accepted(None));
    let offer = json!({"task_id": "t", "task_type": "code_review", "deadline": soon});
    world.ok("a", "task_offer", offer).await;
    assert_eq!(world.task("t").status, TaskStatus::Pending);
    world.advance(2).await;
    assert_eq!(world.task("t").status, TaskStatus::Expired);
}

#[tokio::test]
async fn tasks_that_fit_nobody_do_not_keep_others_from_those_who_are_free() {
    let world = World::new();
    for number in 0..1_200 {
        let odd = json!({"task_id": format!("odd-{number}"), "task_type": "code_review",
            "priority": "critical", "requirements": {"skills": ["telepathy"]}});
        world.ok("a", "task_offer", odd).await;
    }
    world.share("a", "t").await;
    world.step().await;
    let reason = world.task("odd-7").pending_reason;
    assert_eq!(reason.as_deref(), Some("no other agent is registered in this namespace"));
    world.register("b").await;
    world.step().await;
    assert_eq!(world.task("t").status, TaskStatus::Offered);
    let reason = world.task("odd-1199").pending_reason;
    assert_eq!(reason.as_deref(), Some("no agent meets the requirements"));
}

#[tokio::test]
async fn the_heads_of_both_journals_are_exchanged_and_a_step_back_is_audited() {
    let world = World::new();
    let head = |text: &str| json!({"journal_head": text});
    let fate = world.say("b", "register", head("j:1:9:ab")).await;
    let Fate::Accepted(Some(ack)) = fate else { panic!("{fate:?}") };
    let own = ack["journal_head"].as_str().unwrap();
    assert!(own.starts_with(&heads::hex(&[1; 16])), "{own}");
    let again = world.say("b", "register", head("j:2:12:cd")).await;
    let Fate::Accepted(Some(later)) = again else { panic!("{again:?}") };
    assert!(heads::is_rollback(later["journal_head"].as_str().unwrap(), own));
    world.ok("b", "register", json!({})).await;
    assert_eq!(world.audited(Event::StoreRollback), 0);
    world.ok("b", "register", head("j:3:11:ef")).await;
    assert_eq!(world.audited(Event::StoreRollback), 1);
    assert_eq!(world.agent("b").journal_head.as_deref(), Some("j:3:11:ef"));
    world.ok("b", "register", head("k:1:1:ef")).await;
    assert_eq!(world.audited(Event::StoreRollback), 1);
    let claims = |now: &str, shown: &[&str]| json!({"journal_head": now, "journal_shown": shown});
    world.ok("b", "register", claims("k:1:5:aa", &["k:1:1:ef", "k:1:5:aa"])).await;
    world.ok("b", "register", claims("k:1:5:aa", &["k:1:5:aa"])).await;
    world.ok("b", "register", claims("l:1:1:aa", &["l:1:1:aa"])).await;
    assert_eq!(world.audited(Event::StoreRollback), 1);
    world.ok("b", "register", claims("l:1:9:bb", &["l:1:7:cc", "l:1:9:bb"])).await;
    assert_eq!(world.audited(Event::StoreRollback), 2, "it does not remember what it showed");
    assert!(world.agent("b").rollback_at.is_some());
    let saw = |seen: &str| json!({"peer_head": seen});
    let fate = world.say("b", "register", saw(own)).await;
    let Fate::Accepted(Some(ack)) = fate else { panic!("{fate:?}") };
    assert_eq!((&ack["peer_head_known"], &ack["peer_head"]), (&true.into(), &"l:1:9:bb".into()));
    let (journal, _) = own.split_once(':').unwrap();
    let fate = world.say("b", "register", saw(&format!("{journal}:1:900000:ff"))).await;
    let Fate::Accepted(Some(ack)) = fate else { panic!("{fate:?}") };
    assert_eq!(ack["peer_head_known"], false);
    assert_eq!(world.audited(Event::StoreRollback), 3, "our own went back");
}

#[tokio::test]
async fn the_configuration_says_what_is_written_beside_what_the_server_needs() {
    let told = async |change: fn(&mut Audit)| {
        let mut rules = Rules::default();
        change(&mut rules.audit);
        let world = World::with(Box::new(memory()), rules);
        world.register("b").await;
        world.share("a", "t").await;
        world.ok("b", "heartbeat", json!({"status": "idle"})).await;
        let sync = json!({"message_type": "state_sync", "agent_id": "b", "message_id": "m",
            "payload": {"entries": [{"key": "k", "value": 1}]}});
        for fate in [Fate::Accepted(None), Fate::Duplicate] {
            assert_eq!(world.send(sync.clone()).await, fate);
        }
        let unknown = json!({"task_id": "x", "status": "completed"});
        assert_eq!(world.refused("b", "task_complete", unknown).await, ErrorCode::UnknownTask);
        for needed in [Event::Register, Event::TaskCreate, Event::MessageReceived] {
            assert!(world.audited(needed) > 0, "{needed}");
        }
        let informative = [Event::Heartbeat, Event::MessageDuplicate, Event::MessageRejected];
        informative.map(|event| world.audited(event))
    };
    assert_eq!(told(|_| {}).await, [1, 1, 1]);
    assert_eq!(told(|audit| audit.level = AuditLevel::Info).await, [0, 1, 1]);
    assert_eq!(told(|audit| audit.level = AuditLevel::Warning).await, [0, 0, 1]);
    let without = |audit: &mut Audit| audit.exclude_events = vec!["message.rej*".to_owned()];
    assert_eq!(told(without).await, [1, 1, 0]);
    assert_eq!(told(|audit| audit.enabled = false).await, [0, 0, 0]);
}

#[tokio::test]
async fn heartbeats_exchange_the_heads_once_a_minute_after_traffic() {
    let world = World::new();
    world.register("b").await;
    let answered = async |payload: Value| match world.say("b", "heartbeat", payload).await {
        Fate::Accepted(told) => told.unwrap_or_default(),
        fate => panic!("{fate:?}"),
    };
    let first = answered(json!({"journal_head": "j:1:9:ab"})).await;
    let own = first["journal_head"].as_str().expect("our end").to_owned();
    assert_eq!(first["peer_head"], "j:1:9:ab");
    assert_eq!(world.agent("b").journal_head.as_deref(), Some("j:1:9:ab"));
    assert_eq!(world.agent("b").peer_head, None, "nobody said that it keeps ours");

    // It keeps ours; an end that is not of this journal, or of another history of it, it cannot.
    assert!(answered(json!({"peer_head": own})).await.is_null());
    let other = format!("{}ff", &own[..own.len() - 2]);
    for peer_head in [other.as_str(), "j:1:1:aa", "anything"] {
        answered(json!({"peer_head": peer_head})).await;
        assert_eq!(world.agent("b").peer_head.as_ref(), Some(&own), "{peer_head}");
    }
    let witnessed = crate::audit::witness::acked(&world.core.store.ledger());
    assert_eq!(witnessed, [Seen { by: "b".to_owned(), head: own.clone() }]);

    // What comes late is no news, and accuses nobody.
    let late = answered(json!({"journal_head": "j:1:8:cd"})).await;
    assert_eq!((&late["peer_head"], world.audited(Event::StoreRollback)), (&"j:1:9:ab".into(), 0));

    let begun = heads::head(world.core.store.reader());
    world.advance(60).await;
    assert!(answered(json!({})).await.is_null(), "nothing happened since");
    let idle = heads::head(world.core.store.reader());
    assert_eq!(begun, idle, "what tells of heads alone writes nothing more");
    world.share("b", "t").await;
    let later = answered(json!({})).await;
    assert!(heads::is_rollback(later["journal_head"].as_str().expect("our end"), &own));
    world.share("b", "u").await;
    world.advance(59).await;
    assert!(answered(json!({})).await.is_null(), "not yet a minute");
    // A new session shows it all at once.
    world.ok("b", "register", json!({"peer_head": later["journal_head"]})).await;
    assert_eq!(world.agent("b").peer_head.as_deref(), later["journal_head"].as_str());
}

#[tokio::test]
async fn an_idempotency_key_is_forgotten_after_a_day() {
    let world = World::new();
    let stored = world.core.decided(|desk| {
        let remembered = Remembered { digest: vec![1], task_id: "t".to_owned(), at: desk.now() };
        let key = storage::record::EntityKey::new(Kind::Idempotency, &["default", "k"]);
        let act = storage::transaction::Act::new(Event::TaskCreate, "a", "default", "t");
        desk.tx.put(act, key, encode(&remembered));
        Ok(())
    });
    stored.await.unwrap();
    world.advance(DAY - 1).await;
    assert_eq!(world.count(Kind::Idempotency), 1);
    world.advance(1).await;
    assert_eq!(world.count(Kind::Idempotency), 0);
}

#[tokio::test]
async fn what_is_written_anew_while_its_tombstone_is_to_go_stays() {
    let world = World::new();
    let sync = |entry: Value| json!({"entries": [entry]});
    for key in ["k", "l"] {
        world.ok("a", "state_sync", sync(json!({"key": key, "value": 1}))).await;
        world.ok("a", "state_sync", sync(json!({"key": key, "deleted": true}))).await;
    }
    world.core.clock.advance(std::time::Duration::from_secs(30 * DAY));
    let keys = world.core.census.retiring(world.core.clock.now(), 9);
    assert_eq!(keys.len(), 2);
    world.ok("a", "state_sync", sync(json!({"key": "k", "value": 2}))).await;
    let mailboxes = world.core.mailboxes.clone();
    let retired = world.core.decided(move |desk| Ok(retire::retire(desk, &mailboxes, keys)));
    assert!(retired.await.unwrap().is_empty());
    assert_eq!(world.count(Kind::State), 1);
    let key = crate::server::shared::cell_key("default", "k");
    let cell: crate::server::shared::Cell =
        decode(&world.core.store.ledger().get(&key).expect("it stays").value).unwrap();
    assert_eq!((cell.version, cell.value()), (3, json!(2)));
}

#[tokio::test]
async fn large_tasks_are_offered_taken_back_and_ended_over_several_decisions() {
    let world = World::new();
    world.ok("b", "register", json!({"max_concurrent_tasks": 12})).await;
    let ids: Vec<String> = (0..12).map(|number| format!("t-{number}")).collect();
    let large = "x".repeat(900_000);
    for id in &ids {
        // All of them together, and their offers, are more than one frame of the journal holds.
        let task = json!({"task_id": id, "task_type": "code_review", "description": large,
            "deadline": "2026-02-15T14:40:00Z"});
        world.ok("a", "task_offer", task).await;
    }
    let all = |status: TaskStatus| ids.iter().all(|id| world.task(id).status == status);
    world.step().await;
    assert!(all(TaskStatus::Offered));
    for id in &ids {
        world.ok("b", "task_accept", json!({"task_id": id})).await;
    }
    world.advance(90).await;
    assert!(all(TaskStatus::Pending), "their agent was lost");
    world.advance(600).await;
    assert!(all(TaskStatus::Expired));
}

#[tokio::test]
async fn the_artifacts_of_a_task_have_a_limit_below_that_of_a_frame() {
    let world = World::new();
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    world.ok("b", "task_accept", json!({"task_id": "t"})).await;
    let part = "x".repeat(900_000);
    let update = |id: &str, append: bool| {
        json!({"task_id": "t",
            "artifact": {"artifact_id": id, "parts": [part], "append": append}})
    };
    world.ok("b", "task_update", update("one", false)).await;
    world.ok("b", "task_update", update("one", true)).await;
    world.ok("b", "task_update", update("two", false)).await;
    for more in [update("one", true), update("three", false)] {
        assert_eq!(world.refused("b", "task_update", more).await, ErrorCode::TooLarge);
    }
    world.ok("b", "task_update", update("two", false)).await;
    world.ok("b", "task_complete", json!({"task_id": "t", "result": part})).await;
    assert_eq!(world.task("t").artifacts.len(), 2);
}
