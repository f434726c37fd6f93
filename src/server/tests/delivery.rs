//! What becomes of messages: ids, duplicates, lanes, refusals, and the mail that comes back.

use std::sync::atomic::{AtomicBool, Ordering};

use storage::journal::{AppendError, Appended, Entry, Head, Position, ReadLog, Syncing};

use super::*;

/// A journal on a disk that has no room when it is told so.
struct Disk {
    log: MemoryLog,
    is_full: Arc<AtomicBool>,
}

impl Log for Disk {
    fn append(&mut self, time: u64, entries: &[Entry<'_>]) -> Result<Appended, AppendError> {
        if self.is_full.load(Ordering::SeqCst) {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(AppendError::Full { path: "segment".into(), source });
        }
        self.log.append(time, entries)
    }

    fn begin_sync(&mut self) -> Box<dyn Syncing> {
        self.log.begin_sync()
    }

    fn finish_sync(
        &mut self,
        done: Result<Position, AppendError>,
    ) -> Result<Position, AppendError> {
        self.log.finish_sync(done)
    }

    fn next_sequence(&self) -> u64 {
        self.log.next_sequence()
    }

    fn appended(&self) -> Head {
        self.log.appended()
    }

    fn reader(&self) -> Arc<dyn ReadLog> {
        Log::reader(&self.log)
    }
}

/// A message from one agent to another.
fn note(from: &str, id: &str, to: &str, text: &str) -> Value {
    json!({"message_type": "review_note", "agent_id": from, "message_id": id, "to": to,
        "payload": {"text": text}})
}

#[tokio::test]
async fn two_senders_may_use_one_id_for_the_same_recipient() {
    let world = World::new();
    world.register("b").await;
    assert_eq!(world.send(note("a", "m-1", "b", "of a")).await, Fate::Accepted(None));
    assert_eq!(world.send(note("c", "m-1", "b", "of c")).await, Fate::Accepted(None));
    let letters = world.letters("b");
    let texts: Vec<&Value> = letters.iter().map(|letter| &letter["payload"]["text"]).collect();
    assert_eq!(texts, ["of a", "of c"]);
    assert_eq!(
        (&letters[0]["message_id"], &letters[1]["original_id"]),
        (&json!("m-1"), &json!("m-1"))
    );
    let fresh = letters[1]["message_id"].clone();
    world.ok("b", "ack", json!({"message_ids": ["m-1"]})).await;
    assert_eq!(world.letters("b"), letters[1..]);
    world.ok("b", "ack", json!({"message_ids": [fresh]})).await;
    assert!(world.letters("b").is_empty());
    assert_eq!(world.send(note("c", "m-1", "b", "of c")).await, Fate::Duplicate);
}

#[tokio::test]
async fn what_the_server_does_not_know_goes_on_byte_for_byte() {
    let world = World::new();
    world.register("b").await;
    let sent = [
        concat!(
            r#"{"message_type":"note","agent_id":"a","message_id":"n","to":"b","x":1.50,"#,
            r#""payload":{"y": 1e2 }}"#
        ),
        concat!(
            r#"{"message_type":"task_offer","agent_id":"a","message_id":"o","x":[1.50],"#,
            r#""payload":{"task_id":"t","task_type":"code_review","y":12345678901234567890123,"#,
            r#""requirements":{"z": 1.0}}}"#
        ),
    ];
    for message in sent {
        let frame = parse_frame(message.to_owned()).unwrap();
        let taken = intake::take(&world.core, &world.source, frame.messages).await;
        assert_eq!(taken[0].fate, Fate::Accepted(None));
    }
    world.step().await;
    let mailbox = mail::mailbox("default", "b");
    let due = mail::unacknowledged(&world.core, &mailbox, None, 9);
    let letters =
        mail::read(&world.core.store, due, &mail::returns(&world.core.store, &world.core.clock));
    let texts: Vec<String> =
        letters.into_iter().map(|letter| String::from_utf8(letter.bytes).unwrap()).collect();
    assert!(texts[0].starts_with(sent[0].trim_end_matches('}')), "{}", texts[0]);
    for kept in [r#""x":[1.50]"#, r#""y":12345678901234567890123"#, r#""requirements":{"z": 1.0}"#]
    {
        assert!(texts[1].contains(kept), "{kept} in {}", texts[1]);
    }
}

#[tokio::test]
async fn a_task_that_no_agent_can_be_sent_fails_and_holds_up_no_other() {
    let world = World::new();
    world.register("b").await;
    let large = "x".repeat(crate::protocol::MESSAGE_BYTES_MAX - 200);
    let offer = json!({"task_id": "large", "task_type": "code_review", "description": large});
    world.ok("a", "task_offer", offer).await;
    world.share("a", "t").await;
    world.step().await;
    let large = world.task("large");
    assert_eq!(large.status, TaskStatus::Failed);
    assert_eq!(large.error.unwrap().code.as_deref(), Some("too_large"));
    assert_eq!(world.task("t").status, TaskStatus::Offered);
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_acknowledges_what_it_has() {
    let is_full = Arc::new(AtomicBool::new(false));
    let world = World::over(Box::new(Disk { log: memory(), is_full: Arc::clone(&is_full) }));
    world.register("b").await;
    assert_eq!(world.send(note("a", "m-1", "b", "one")).await, Fate::Accepted(None));
    is_full.store(true, Ordering::SeqCst);
    assert_eq!(world.send(note("a", "m-1", "b", "one")).await, Fate::Duplicate);
    let Fate::Refused(refusal) = world.send(note("a", "m-1", "b", "two")).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::IdConflict);
    let Fate::Refused(refusal) = world.send(note("a", "m-2", "b", "new")).await else { panic!() };
    assert_eq!((refusal.code, refusal.retryable), (ErrorCode::StorageFull, true));
    assert_eq!(refusal.retry_after_seconds, Some(5));
    is_full.store(false, Ordering::SeqCst);
    assert_eq!(world.send(note("a", "m-2", "b", "new")).await, Fate::Accepted(None));
}

#[tokio::test]
async fn a_duplicate_is_acknowledged_whatever_has_happened_since() {
    let world = World::new();
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    let accept = json!({"message_type": "task_accept", "agent_id": "b", "message_id": "m-1",
        "expires_at": "2026-02-15T14:30:10Z", "payload": {"task_id": "t", "attempt": 1}});
    assert_eq!(world.send(accept.clone()).await, Fate::Accepted(None));
    world.ok("b", "task_complete", json!({"task_id": "t"})).await;
    world.advance(20).await;
    assert_eq!(world.send(accept.clone()).await, Fate::Duplicate);
    let mut late = accept;
    late["message_id"] = json!("m-2");
    let Fate::Refused(refusal) = world.send(late).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::Gone);
}

#[tokio::test]
async fn a_duplicate_is_acknowledged_in_a_blocked_lane() {
    let world = World::new();
    world.register("b").await;
    let lane = |id: &str, to: &str| {
        let mut note = note("a", id, to, "text");
        note["ordering_key"] = json!("k");
        note["to"] = json!(to);
        note
    };
    assert_eq!(world.send(lane("m-1", "b")).await, Fate::Accepted(None));
    let lane_of_b = "default\0a\0b\0k";
    world.source.blocked.lock().block(lane_of_b, "m-0");
    assert_eq!(world.send(lane("m-1", "b")).await, Fate::Duplicate);
    let Fate::Refused(refusal) = world.send(lane("m-2", "b")).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::LaneBlocked);
}

#[tokio::test]
async fn a_refused_id_is_not_remembered() {
    let world = World::new();
    let Fate::Refused(refusal) = world.send(note("a", "m-1", "b", "one")).await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::UnknownAgent);
    world.register("b").await;
    assert_eq!(world.send(note("a", "m-1", "b", "two")).await, Fate::Accepted(None));
    assert_eq!(world.letters("b")[0]["payload"]["text"], "two");
}

/// The nacks that lie in an agent's mailbox: which message, the code, and what it answers.
fn returned(world: &World, agent_id: &str) -> Vec<(Value, Value, Value)> {
    let letters = world.letters(agent_id);
    let nacks = letters.iter().filter(|letter| letter["message_type"] == "nack");
    nacks
        .map(|nack| {
            assert_eq!(nack["agent_id"], "openclaw-server");
            let payload = &nack["payload"];
            assert_eq!(payload["error"]["retryable"], false);
            let code = payload["error"]["code"].clone();
            (payload["message_id"].clone(), code, nack["correlation_id"].clone())
        })
        .collect()
}

fn undeliverable(id: &str) -> (Value, Value, Value) {
    (json!(id), json!("undeliverable"), json!(id))
}

#[tokio::test]
async fn mail_that_nobody_fetches_goes_back_to_its_sender_after_its_age() {
    let world = World::new();
    world.register("b").await;
    world.ok("c", "capability_query", json!({"query_type": "list"})).await;
    // The sender's clock is wrong; the age counts from the acceptance.
    let mut old = note("a", "m-1", "b", "one");
    old["timestamp"] = json!("2020-01-01T00:00:00Z");
    world.send(old).await;
    world.send(note("c", "m-1", "b", "two")).await;
    world.advance(7 * 24 * 3_600 - 1).await;
    assert_eq!(world.letters("b").len(), 2);
    world.advance(1).await;
    assert!(world.letters("b").is_empty());
    assert_eq!(returned(&world, "a"), [undeliverable("m-1")]);
    // Its second message lay under another id, which means nothing to it.
    assert_eq!(returned(&world, "c"), [undeliverable("m-1")]);
    assert_eq!(world.letters("c").len(), 1, "what the server says by itself just expires");
    let failed = world.core.store.select(|one| one.status == Status::Failed);
    let failed: Vec<_> = failed.iter().map(|live| (live.head.peer.clone(), live.reason)).collect();
    let by_age = ("b".to_owned(), storage::record::Reason::MaxAge);
    assert_eq!(failed, [by_age.clone(), by_age]);
}

#[tokio::test]
async fn mail_that_expires_or_is_refused_for_good_goes_back_at_once() {
    let world = World::new();
    world.register("b").await;
    let mut short = note("a", "m-1", "b", "one");
    short["expires_at"] = json!("2026-02-15T14:30:10Z");
    world.send(short).await;
    world.send(note("a", "m-2", "b", "two")).await;
    world.advance(10).await;
    assert_eq!(returned(&world, "a"), [undeliverable("m-1")]);
    let error = json!({"code": "forbidden", "message": "not you", "retryable": false});
    world.ok("b", "nack", json!({"message_id": "m-2", "error": error})).await;
    assert!(world.letters("b").is_empty());
    assert_eq!(returned(&world, "a"), [undeliverable("m-1"), undeliverable("m-2")]);
    let nacks: Vec<Value> =
        world.letters("a").iter().map(|nack| nack["message_id"].clone()).collect();
    world.ok("a", "ack", json!({"message_ids": nacks})).await;
    assert!(world.core.mailboxes.is_empty("default/a"));
}

#[tokio::test]
async fn an_offer_that_is_refused_for_good_goes_back_to_nobody() {
    let world = World::new();
    world.register("b").await;
    world.share("a", "t").await;
    world.step().await;
    let offer = world.letters("b")[0]["message_id"].clone();
    let error = json!({"code": "forbidden", "retryable": false});
    world.ok("b", "nack", json!({"message_id": offer, "error": error})).await;
    assert!(world.letters("b").is_empty() && world.letters("a").is_empty());
    assert_eq!(world.core.store.messages(storage::messages::Messages::live_len), 0);
}

#[tokio::test]
async fn what_is_refused_for_now_comes_again_when_it_is_due_and_its_lane_waits() {
    let world = World::new();
    world.register("b").await;
    for id in ["m-1", "m-2", "m-3"] {
        let mut note = note("a", id, "b", "text");
        if id != "m-3" {
            note["ordering_key"] = json!("k");
        }
        world.send(note).await;
    }
    let ids = || {
        let letters = world.letters("b");
        letters.iter().map(|it| it["message_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let busy = |seconds: Option<u64>| {
        let error = json!({"code": "unavailable", "retry_after_seconds": seconds});
        json!({"message_id": "m-1", "error": error})
    };
    world.ok("b", "nack", busy(Some(60))).await;
    assert_eq!(ids(), ["m-3"]);
    world.advance(60).await;
    assert_eq!(ids(), ["m-1", "m-2", "m-3"]);
    // Full jitter: drawn from zero to the bound, which is 4 s after the fourth attempt.
    let mut delays = std::collections::BTreeSet::new();
    for _ in 0..3 {
        world.ok("b", "nack", busy(None)).await;
        let lives = world.core.store.select(|_| true);
        let live = lives.iter().find(|live| live.head.message_id == "m-1");
        let due = live.unwrap().next_attempt_at;
        delays.insert(due - world.core.clock.now());
    }
    assert!(delays.len() == 3 && delays.iter().all(|delay| *delay < 4_000), "{delays:?}");
    assert!(!delays.contains(&1_000) && !delays.contains(&2_000), "{delays:?}");
}

#[tokio::test]
async fn a_clock_that_jumped_back_holds_up_no_delivery() {
    use crate::outbox::Pump;
    use crate::transport::Feed as _;

    let world = World::new();
    world.register("b").await;
    let Core { store, clock, .. } = &*world.core;
    let pump = Pump::new(store.clone(), clock.clone(), mail::policy(), "default/b");
    world.send(note("a", "m-1", "b", "one")).await;
    clock.jump(-24 * 60 * 60 * 1_000);
    let patience = std::time::Duration::from_secs(1);
    let batch = tokio::time::timeout(patience, pump.next(9)).await.expect("it is due");
    assert_eq!(batch[0].message_id, "m-1");
}

#[tokio::test]
async fn a_nack_for_what_was_given_back_already_changes_nothing() {
    let world = World::new();
    world.register("b").await;
    world.send(note("a", "m-1", "b", "one")).await;
    let refused = |retryable: bool| {
        let error = json!({"code": "forbidden", "retryable": retryable});
        json!({"message_id": "m-1", "error": error})
    };
    for retryable in [false, false, true] {
        world.ok("b", "nack", refused(retryable)).await;
        assert_eq!(returned(&world, "a"), [undeliverable("m-1")], "told once");
        assert!(world.letters("b").is_empty(), "it does not come again");
    }
}

#[tokio::test]
async fn a_reader_with_a_cursor_gets_no_message_before_an_earlier_one_of_its_lane() {
    let world = World::new();
    world.register("b").await;
    for id in ["m-1", "m-2", "m-3"] {
        let mut note = note("a", id, "b", "text");
        if id != "m-2" {
            note["ordering_key"] = json!("k");
        }
        world.send(note).await;
    }
    let busy = json!({"code": "unavailable", "retry_after_seconds": 60});
    let all = mail::unacknowledged(&world.core, "default/b", None, 9);
    world.ok("b", "nack", json!({"message_id": "m-1", "error": busy})).await;
    let behind = |after: usize| mail::unacknowledged(&world.core, "default/b", Some(all[after]), 9);
    assert_eq!(behind(0), all[1..2]);
    world.advance(60).await;
    assert_eq!(behind(0), all[1..]);
}

#[tokio::test]
async fn one_answer_has_a_few_megabytes_and_one_message_at_least() {
    let world = World::new();
    world.register("b").await;
    let large = "x".repeat(1_000_000);
    for number in 0..6 {
        let fate = world.send(note("a", &format!("m-{number}"), "b", &large)).await;
        assert_eq!(fate, Fate::Accepted(None));
    }
    let first = mail::unacknowledged(&world.core, "default/b", None, 1_000);
    let after = Some(first[first.len() - 1]);
    let rest = mail::unacknowledged(&world.core, "default/b", after, 1_000);
    assert_eq!((first.len(), rest.len()), (4, 2));
}
