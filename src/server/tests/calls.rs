//! The protocol over plain HTTP, section 4, call by call: limits, waiting, cursors, batches.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::http::{Web, hear};
use crate::protocol::MESSAGE_BYTES_MAX;
use crate::transport::Wire;

fn note(id: &str, to: &str) -> Value {
    json!({"message_type": "note", "agent_id": "a", "message_id": id, "to": to, "payload": {}})
}

fn ids(answer: &Value) -> Vec<&str> {
    let messages = answer["messages"].as_array().unwrap();
    messages.iter().map(|message| message["message_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_mailbox_is_read_page_by_page_and_reading_takes_nothing_out() {
    let web = Web::start().await;
    web.say("b", "register", json!({})).await;
    let notes: Vec<Value> = (1..=5).map(|number| note(&format!("m-{number}"), "b")).collect();
    web.post("/messages", json!(notes)).await;
    let mut path = "/messages?agent_id=b&limit=2".to_owned();
    for wanted in [vec!["m-1", "m-2"], vec!["m-3", "m-4"], vec!["m-5"], vec![]] {
        let page = web.get(&path).await;
        assert_eq!(ids(&page), wanted);
        path = format!("/messages?agent_id=b&limit=2&after={}", page["next"].as_str().unwrap());
    }
    web.post("/messages/ack", json!({"agent_id": "b", "message_ids": ["m-2", "m-9"]})).await;
    assert_eq!(ids(&web.get("/messages?agent_id=b").await), ["m-1", "m-3", "m-4", "m-5"]);
    let again = json!({"agent_id": "b", "message_ids": ["m-1", "m-1", "m-2"]});
    assert_eq!(web.post("/messages/ack", again).await.1["acknowledged"], 1);
    assert_eq!(ids(&web.get("/messages?agent_id=c").await), [""; 0]);
    web.running.stop().await;
}

#[tokio::test]
async fn a_reader_that_waits_is_woken_by_the_message_or_by_the_end() {
    let web = Web::start().await;
    web.say("b", "register", json!({})).await;
    let begun = tokio::time::Instant::now();
    let empty = web.get("/messages?agent_id=b&wait=0.2").await;
    assert_eq!((ids(&empty), &empty["next"]), (vec![], &Value::Null));
    assert!(begun.elapsed().as_millis() >= 200);
    let message = note("m", "b");
    let (heard, sent) =
        tokio::join!(web.get("/messages?agent_id=b&wait=60"), web.post("/messages", message),);
    assert_eq!((ids(&heard), sent.0), (vec!["m"], StatusCode::ACCEPTED));
    let error = json!({"code": "unavailable", "retry_after_seconds": 1});
    let nack = json!({"message_id": "m", "error": error});
    web.say("b", "nack", nack).await;
    assert_eq!(ids(&web.get("/messages?agent_id=b").await), [""; 0]);
    let due = web.get("/messages?agent_id=b&wait=60").await;
    assert!(ids(&due) == ["m"] && begun.elapsed().as_secs() < 20, "it comes when it is due");
    // A server that stops answers those who wait.
    let url = format!("{}/messages?agent_id=c&wait=60", web.running.url());
    let waiting = web.client.get(url).send();
    let (answer, ()) = tokio::join!(waiting, async {
        web.get("/health").await;
        web.running.stop().await;
    });
    // Either it was waiting already, or it came too late to be heard.
    assert!(answer.is_err() || answer.unwrap().status() == 200);
}

#[tokio::test]
async fn bad_calls_are_refused_by_the_field_that_is_wrong() {
    let web = Web::start().await;
    let table = [
        ("/messages?agent_id=b&limit=1001", "limit"),
        ("/messages?agent_id=b&limit=0", "limit"),
        ("/messages?agent_id=b&limit=ten", "limit"),
        ("/messages?agent_id=b&wait=-1", "wait"),
        ("/messages?agent_id=b&wait=soon", "wait"),
        ("/messages?agent_id=b&after=x", "after"),
        ("/messages?agent_id=b%20c", "agent_id"),
        ("/messages?agent_id=openclaw-server", "agent_id"),
        ("/messages?agent_id=b&namespace=a%2Fb", "namespace"),
        ("/tasks?after=a%20b", "after"),
        ("/state/default?limit=1001", "limit"),
    ];
    for (path, field) in table {
        let response = web.call(Method::GET, path, None).await;
        assert_eq!(response.status(), 400, "{path}");
        let problem: Value = response.json().await.unwrap();
        let found = (problem["code"].as_str(), problem["field"].as_str());
        assert_eq!(found, (Some("invalid_field"), Some(field)), "{path}");
    }
    assert_eq!(web.call(Method::GET, "/messages?agent_id=b&limit=1000", None).await.status(), 200);
    let ack = |body: Value| web.post("/messages/ack", body);
    assert_eq!(ack(json!({"agent_id": "b"})).await.1["field"], "message_ids");
    assert_eq!(ack(json!({"message_ids": []})).await.1["field"], "agent_id");
    assert_eq!(ack(json!([])).await.1["code"], "malformed");
    web.running.stop().await;
}

#[tokio::test]
async fn one_mebibyte_is_taken_and_a_byte_more_is_not() {
    let web = Web::start().await;
    web.say("b", "register", json!({})).await;
    let sized = |bytes: usize, id: &str| {
        let mut message = note(id, "b");
        message["payload"]["text"] = json!("");
        let padding = "x".repeat(bytes - message.to_string().len());
        message["payload"]["text"] = json!(padding);
        message.to_string()
    };
    let send = |body: String| web.call(Method::POST, "/messages", Some(body));
    assert_eq!(send(sized(MESSAGE_BYTES_MAX, "m-1")).await.status(), 202);
    let response = send(sized(MESSAGE_BYTES_MAX + 1, "m-2")).await;
    assert_eq!(response.status(), 413);
    let problem: Value = response.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["retryable"]), (&json!("too_large"), &json!(false)));
    let half = MESSAGE_BYTES_MAX / 2;
    let batch = format!("[{},{}]", sized(half, "m-3"), sized(half, "m-4"));
    assert_eq!(send(batch).await.status(), 413, "a batch has the same limit");
    assert_eq!(ids(&web.get("/messages?agent_id=b").await), ["m-1"]);
    let many = format!("[{}]", vec!["{}"; 10_001].join(","));
    assert_eq!(send(many).await.status(), 413);
    web.running.stop().await;
}

#[tokio::test]
async fn lines_are_judged_one_by_one() {
    let web = Web::start().await;
    web.say("b", "register", json!({})).await;
    let url = format!("{}/messages", web.running.url());
    let lines = |body: String| {
        let request = web.client.post(&url).header("content-type", "application/x-ndjson");
        request.body(body).send()
    };
    let body = format!("{}\n\nnot json\r\n{}", note("m-1", "b"), note("m-2", "nobody"));
    let response = lines(body).await.unwrap();
    assert_eq!(response.status(), 202);
    let answer: Value = response.json().await.unwrap();
    let results = answer["results"].as_array().unwrap();
    let shown: Vec<(&Value, &Value, &Value)> =
        results.iter().map(|it| (&it["message_id"], &it["status"], &it["error"]["code"])).collect();
    let wanted = [
        (json!("m-1"), json!("accepted"), Value::Null),
        (Value::Null, json!("refused"), json!("malformed")),
        (json!("m-2"), json!("refused"), json!("unknown_agent")),
    ];
    let wanted: Vec<_> = wanted.iter().map(|(id, status, code)| (id, status, code)).collect();
    assert_eq!(shown, wanted);
    assert_eq!(results[2]["error"]["retryable"], true);
    web.running.stop().await;
}

#[tokio::test]
async fn what_is_beyond_the_window_in_one_frame_is_refused_for_now() {
    let web = Web::start().await;
    web.say("c", "register", json!({})).await;
    let mut socket = web.ws("b", "one").await;
    let frame: Vec<Value> = (0..=256)
        .map(|number| {
            json!({"message_type": "note", "message_id": format!("m-{number}"), "to": "c",
                "ordering_key": "k"})
        })
        .collect();
    socket.send(Wire::Text(json!(frame).to_string())).await.unwrap();
    let ack = hear(&mut socket, "ack").await.payload_value();
    assert_eq!(ack["message_ids"].as_array().unwrap().len(), 256);
    let nack = hear(&mut socket, "nack").await.payload_value();
    assert_eq!(nack["message_id"], "m-256");
    let error = &nack["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("window_exceeded"), &json!(true)));
    // What follows in the lane may not overtake it.
    let next = json!({"message_type": "note", "message_id": "m-257", "to": "c",
        "ordering_key": "k"});
    socket.send(Wire::Text(json!([next, frame[256]]).to_string())).await.unwrap();
    let ack = hear(&mut socket, "ack").await.payload_value();
    assert_eq!(ack["message_ids"], json!(["m-256"]));
    let nack = hear(&mut socket, "nack").await.payload_value();
    assert_eq!(nack["error"]["code"], "lane_blocked");
    web.running.stop().await;
}

#[tokio::test]
async fn a_heartbeat_is_acknowledged_also_without_an_id() {
    let web = Web::start().await;
    let mut socket = web.ws("b", "one").await;
    let beat = json!({"message_type": "heartbeat", "payload": {"status": "idle"}});
    socket.send(Wire::Text(beat.to_string())).await.unwrap();
    let ack = hear(&mut socket, "ack").await.payload_value();
    assert_eq!(ack["index"], 0);
    web.running.stop().await;
}

#[tokio::test]
async fn events_tell_of_words_and_of_parts_that_follow() {
    let web = Web::start().await;
    web.say("b", "register", json!({"capabilities": ["code_review"]})).await;
    web.post("/tasks", json!({"task_id": "t", "task_type": "code_review"})).await;
    while web.get("/tasks/t").await["status"] != "offered" {}
    let url = format!("{}/tasks/t/events", web.running.url());
    let mut stream = web.client.get(&url).send().await.unwrap();
    let mut text = String::new();
    let part = |part: &str, append: bool| {
        json!({"task_id": "t", "message": part, "artifact": {"artifact_id": "log",
            "parts": [part], "append": append}})
    };
    for (said, append) in [("one", false), ("two", true)] {
        web.say("b", "task_update", part(said, append)).await;
        while !text.contains(&format!("\"{said}\"]")) {
            let chunk = stream.chunk().await.unwrap().expect("the task goes on");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
    web.say("b", "task_complete", json!({"task_id": "t"})).await;
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let artifacts = text.matches("event: artifact").count();
    assert!(artifacts == 2 && text.contains(r#"["one","two"]"#), "{text}");
    assert!(text.contains(r#""message":"one""#) && text.contains(r#""message":"two""#), "{text}");
    assert!(text.ends_with("\n\n") && text.contains("event: completed"), "{text}");
    let id = text.lines().filter_map(|line| line.strip_prefix("id: ")).nth(1).unwrap();
    let rest = web.client.get(&url).header("last-event-id", id).send().await.unwrap();
    let rest = rest.text().await.unwrap();
    assert!(!rest.contains("event: offered") && rest.contains("event: in_progress"), "{rest}");
    web.running.stop().await;
}
