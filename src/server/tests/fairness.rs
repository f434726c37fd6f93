//! Many agents on one real server: one that takes nothing does not slow the others down, and one
//! whose mail a person holds gets it after that.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::http::{PATIENCE, Web, receive};
use crate::transport::{Socket, Wire};

/// Agents that take what they get.
const LIVE: usize = 9;

/// Messages for each agent and round.
const ROUND: usize = 60;

/// Messages that wait for the one that takes nothing.
const BACKLOG: usize = 1_000;

fn note(number: usize, to: &str) -> Value {
    json!({"message_type": "review_note", "agent_id": "sender", "message_id": format!("m-{number}"),
        "to": to, "payload": {"text": "x".repeat(200)}})
}

/// Sends these messages, in batches.
async fn give(web: &Web, notes: Vec<Value>) {
    for batch in notes.chunks(500) {
        let (status, answer) = web.post("/messages", json!(batch)).await;
        assert_eq!(status, 202, "{answer}");
    }
}

/// Takes and acknowledges this many messages.
async fn take(socket: &mut Socket, count: usize) {
    let mut taken = 0;
    while taken < count {
        let text = match receive(socket).await {
            Some(Ok(Wire::Text(text))) => text,
            Some(Ok(Wire::Ping(_) | Wire::Pong(_))) => continue,
            other => panic!("{other:?}"),
        };
        let frame = crate::protocol::parse_frame_within(text, 2 << 20).expect("a frame");
        let ids: Vec<String> = frame
            .messages
            .into_iter()
            .filter_map(Result::ok)
            .filter_map(|one| one.message_id().map(str::to_owned))
            .collect();
        taken += ids.len();
        let ack = json!({"message_type": "ack", "payload": {"message_ids": ids}});
        socket.send(Wire::Text(ack.to_string())).await.expect("sent");
    }
}

/// How long it takes until each live agent has a round of messages, of which as many are for the
/// dead one too if there is one.
async fn round(
    web: &Web,
    live: &mut [Box<Socket>],
    number: &mut usize,
    dead: Option<&str>,
) -> Duration {
    let mut notes = Vec::new();
    for _ in 0..ROUND {
        let names = (0..live.len()).map(|agent| format!("live-{agent}"));
        for to in names.chain(dead.map(str::to_owned)) {
            *number += 1;
            notes.push(note(*number, &to));
        }
    }
    let begun = Instant::now();
    let takes = live.iter_mut().map(|socket| take(socket, ROUND));
    let all = async { tokio::join!(give(web, notes), futures_util::future::join_all(takes)) };
    tokio::time::timeout(PATIENCE, all).await.expect("the live ones get theirs");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_takes_nothing_does_not_slow_nine_others_down() {
    let web = Web::start().await;
    let mut live = Vec::new();
    for agent in 0..LIVE {
        live.push(web.ws(&format!("live-{agent}"), "one").await);
    }
    // One is connected and reads nothing, one has gone away; both have a full mailbox soon.
    let stuck = web.ws("stuck", "one").await;
    drop(web.ws("gone", "one").await);
    let mut number = 0;
    let mut alone = Duration::MAX;
    for _ in 0..2 {
        alone = alone.min(round(&web, &mut live, &mut number, None).await);
    }
    let mut backlog = Vec::new();
    for to in ["stuck", "gone"] {
        backlog.extend((0..BACKLOG).map(|one| note(1_000_000 + number + one, to)));
        number += BACKLOG;
    }
    give(&web, backlog).await;
    let mut beside = Duration::MAX;
    for dead in ["stuck", "gone"] {
        beside = beside.min(round(&web, &mut live, &mut number, Some(dead)).await);
    }
    // A tenth of the messages more, and whatever the machine does meanwhile.
    let bound = alone * 3 + Duration::from_millis(300);
    assert!(beside < bound, "{beside:?} beside a dead one, {alone:?} without");
    drop(stuck);
    web.running.stop().await;
}

#[tokio::test]
async fn held_mail_comes_over_neither_transport_until_it_is_let_go() {
    let web = Web::start().await;
    let mut bob = web.ws("bob", "one").await;
    web.say("eve", "register", json!({"capabilities": ["code_review"]})).await;
    for agent in ["bob", "eve"] {
        let (status, held) =
            web.post(&format!("/agents/{agent}/pause"), json!({"actor": "ada"})).await;
        assert_eq!((status.as_u16(), &held["changed"]), (200, &json!(1)), "{held}");
        assert_eq!(web.get(&format!("/agents/{agent}")).await["paused"]["by"], "ada");
    }
    let (status, _) = web.post("/agents/nobody/pause", json!({})).await;
    assert_eq!(status, 404);
    give(&web, vec![note(1, "bob"), note(2, "eve")]).await;
    let early = tokio::time::timeout(Duration::from_millis(300), take(&mut bob, 1)).await;
    assert!(early.is_err(), "held mail came");
    let inbox = web.get("/messages?agent_id=eve").await;
    assert_eq!(inbox["messages"], json!([]));
    for agent in ["bob", "eve"] {
        let (_, held) = web.post(&format!("/agents/{agent}/resume"), json!({})).await;
        assert_eq!((&held["changed"], &held["paused"]), (&json!(1), &Value::Null));
    }
    tokio::time::timeout(PATIENCE, take(&mut bob, 1)).await.expect("it is let go");
    let inbox = web.get("/messages?agent_id=eve&wait=5").await;
    assert_eq!(inbox["messages"][0]["message_id"], "m-2");
    web.running.stop().await;
}
