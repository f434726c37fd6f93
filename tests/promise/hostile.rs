//! Whatever arrives that is not a message of the protocol: a documented refusal, an audit entry, no
//! panic, and nothing else changes. What is wrong follows from the documentation and from a seed.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use loki_openclaw::clock::Clock;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::garbage::{Target, body, byte, upto, wrong_messages};
use crate::support::{PATIENCE, World, say};

/// How late an acknowledgement of TCP may be: what waits for one takes longer than this.
const DELAYED_ACK_MILLIS: u64 = 35;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// `LOKI_GARBAGE_SEED` draws the same again.
fn chance(world: &World) -> Clock {
    let seed = setting("LOKI_GARBAGE_SEED").unwrap_or_else(|| world.clock().draw(1 << 32));
    say(&format!("LOKI_GARBAGE_SEED={seed}"));
    Clock::simulated(0, seed)
}

/// `LOKI_GARBAGE_BODIES` sends more.
fn bodies() -> u64 {
    setting("LOKI_GARBAGE_BODIES").unwrap_or(1_000)
}

#[test]
fn a_wrong_type_in_any_field_is_refused_by_its_name() {
    let world = World::new();
    for mut target in [Target::server(&world), Target::bridge(&world)] {
        let before = target.state();
        for (mut message, field) in wrong_messages() {
            if target.is_bridge() {
                // The bridge fills it in, and has no business with another one's.
                message.as_object_mut().expect("an object").remove("agent_id");
            }
            let own = ["register", "heartbeat", "ack"].map(Value::from);
            let own = target.is_bridge() && own.contains(&message["message_type"]);
            let (status, answer) = target.post(message.to_string().into_bytes());
            assert_eq!(status, 400, "{message} brings {answer}");
            let named = answer["field"].as_str().unwrap_or_default();
            let wanted = if own { "message_type" } else { &field };
            assert!(named.starts_with(wanted), "{message} brings {answer}");
        }
        assert_eq!(target.state(), before);
        target.finish();
    }
}

#[test]
fn garbage_is_refused_by_the_server_and_changes_nothing() {
    let world = World::new();
    let (mut target, chance) = (Target::server(&world), chance(&world));
    let before = target.state();
    for number in 0..bodies() {
        let body = body(&chance, number);
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let (status, answer) = target.post(body);
        // A random change may leave an array whose messages are refused one by one.
        for result in answer["results"].as_array().into_iter().flatten() {
            assert_eq!(result["status"], "refused", "{shown} brings {answer}");
            target.check(&shown, None, &result["error"]);
        }
        assert_ne!(status, 500, "{shown} brings {answer}");
    }
    let large = format!(r#"{{"message_type":"x","payload":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(target.post(large.into_bytes()).0, 413);
    assert_eq!(target.state(), before);
    target.finish();
}

#[test]
fn garbage_is_refused_by_the_bridge() {
    let world = World::new();
    let (mut target, chance) = (Target::bridge(&world), chance(&world));
    for number in 0..bodies() {
        let text = body(&chance, number);
        // Without a sender, because that is the bridge; some bodies are messages then.
        let text = match String::from_utf8(text) {
            Ok(text) => text.replace(r#""agent_id":"fuzz","#, "").into_bytes(),
            Err(error) => error.into_bytes(),
        };
        target.post(text);
    }
    let large = format!(r#"{{"message_type":"x","payload":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(target.post(large.into_bytes()).0, 413);
    let same = |value| json!({"message_type": "state_sync", "message_id": "m", "payload": value});
    assert_eq!(target.post(same(json!({"a": 1})).to_string().into_bytes()).0, 202);
    assert_eq!(target.post(same(json!({"a": 1})).to_string().into_bytes()).0, 202);
    let (status, answer) = target.post(same(json!({"a": 2})).to_string().into_bytes());
    assert_eq!((status, &answer["code"]), (409, &json!("id_conflict")), "{answer}");
    target.finish();
}

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// The receipts that one frame brings, `wanted` of them.
async fn receipts(socket: &mut Socket, frame: &str, wanted: usize) -> Vec<Value> {
    assert!(socket.send(Message::text(frame)).await.is_ok(), "{frame}");
    let mut receipts = Vec::new();
    while receipts.len() < wanted {
        let next = tokio::time::timeout(PATIENCE, socket.next()).await;
        match next.unwrap_or_else(|_| panic!("{frame} brings {receipts:?} only")) {
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text).expect("json") {
                Value::Array(several) => receipts.extend(several),
                one => receipts.push(one),
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{frame} brings {other:?}"),
        }
    }
    receipts
}

#[test]
fn a_websocket_judges_each_message_of_a_frame_alone() {
    let world = World::new();
    let (mut target, chance) = (Target::server(&world), chance(&world));
    let url = format!("{}/ws", target.address().replace("http:", "ws:"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("connected");
        let register = json!({"message_type": "register", "agent_id": "fuzz", "payload": {}});
        receipts(&mut socket, &register.to_string(), 1).await;
        // Receipts are never answered, not even bad ones.
        let mut times = Vec::new();
        let answered = |(wrong, _): &(Value, String)| wrong["message_type"] != "ack";
        let all = wrong_messages().into_iter().filter(answered);
        for (number, (wrong, field)) in all.enumerate() {
            let id = format!("ok-{number}");
            let sound = json!({"message_type": "capability_response", "message_id": id,
                "payload": {"supported": false}});
            let frame = json!([wrong, sound]).to_string();
            let begun = world.clock().monotonic();
            let answers = receipts(&mut socket, &frame, 2).await;
            times.push(world.clock().monotonic() - begun);
            let of = |kind: &str| answers.iter().find(|one| one["message_type"] == kind);
            let error = &of("nack").expect("a nack")["payload"]["error"];
            assert!(error["field"].as_str().is_some_and(|it| it.starts_with(&field)), "{error}");
            target.check(&frame, None, error);
            assert!(of("ack").expect("an ack").to_string().contains(&id), "{answers:?}");
        }
        times.sort_unstable();
        let median = times[times.len() / 2];
        assert!(median < DELAYED_ACK_MILLIS, "an answer waits for the one before it: {median} ms");
        for number in 0..bodies() / 4 {
            let Ok(text) = String::from_utf8(body(&chance, number)) else { continue };
            if text.starts_with('[') || text.is_empty() {
                continue;
            }
            let answers = receipts(&mut socket, &text, 1).await;
            assert_eq!(answers[0]["message_type"], "nack", "{text} brings {answers:?}");
            target.check(&text, None, &answers[0]["payload"]["error"]);
        }
    });
    target.finish();
}

/// What a socket answers to these bytes before it closes or falls silent.
fn say_raw(address: &str, bytes: &[u8]) -> (TcpStream, String) {
    let address = address.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
    // It may have been closed in the middle, which is an answer too.
    let _ = socket.write_all(bytes);
    let mut answer = vec![0; 4_096];
    let read = socket.read(&mut answer).unwrap_or(0);
    (socket, String::from_utf8_lossy(&answer[..read]).into_owned())
}

#[test]
fn a_request_that_is_half_closed_in_its_middle_may_come_again() {
    let world = World::new();
    for target in [Target::server(&world), Target::bridge(&world)] {
        let address = target.address().trim_start_matches("http://");
        let mut socket = TcpStream::connect(address).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        write!(socket, "{}Content-Length: 9\r\n\r\n{{", target.head()).expect("sent");
        socket.shutdown(Shutdown::Write).expect("half-closed");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("\"retryable\":true"), "{answer}");
        target.stop();
    }
}

#[test]
fn what_is_not_even_http_disturbs_nobody() {
    let world = World::new();
    let chance = chance(&world);
    for target in [Target::server(&world), Target::bridge(&world)] {
        let before = target.state();
        let address = target.address().to_owned();
        let mut requests: Vec<Vec<u8>> = vec![
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
            format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(5_000)).into_bytes(),
            format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 17)).into_bytes(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            format!("{}Transfer-Encoding: chunked\r\n\r\nZZ\r\n", target.head()).into_bytes(),
            format!("{}Content-Length: -1\r\n\r\n", target.head()).into_bytes(),
            b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".to_vec(),
        ];
        for _ in 0..20 {
            requests.push((0..=upto(&chance, 2_000)).map(|_| byte(&chance)).collect());
        }
        let mut open = Vec::new();
        for request in &requests {
            let (socket, answer) = say_raw(&address, request);
            let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
            let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            assert!(refused, "{shown} brings {answer}");
            open.push(socket);
        }
        // Slow ones: each sends a part of its request and then nothing.
        for _ in 0..200 {
            let mut socket = TcpStream::connect(address.trim_start_matches("http://"));
            let slow = socket.as_mut().expect("connected");
            slow.write_all(b"POST /messages HTTP/1.1\r\nContent-Le").expect("sent");
            open.extend(socket);
        }
        assert_eq!(target.state(), before, "others are served all the same");
        drop(open);
        target.stop();
    }
}
