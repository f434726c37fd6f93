//! Conversations over real connections: what comes back, who is fenced off, who says goodbye.

use serde_json::{Value, json};

use super::http::{Web, hear, receive};
use crate::transport::Wire;

fn note(from: &str, id: &str, to: &str) -> Value {
    json!({"message_type": "review_note", "agent_id": from, "message_id": id, "to": to,
        "payload": {}})
}

#[tokio::test]
async fn a_refusal_over_a_websocket_comes_back_as_a_nack_that_is_kept_until_it_arrived() {
    let web = Web::start().await;
    let mut b = web.ws("b", "one").await;
    let mut a = web.ws("a", "two").await;
    for id in ["m-1", "m-2"] {
        a.send(Wire::Text(note("a", id, "b").to_string())).await.unwrap();
        let received = hear(&mut b, "review_note").await;
        assert_eq!(received.message_id(), Some(id));
        let error = json!({"code": "forbidden", "message": "not you"});
        let nack = json!({"message_type": "nack", "payload": {"message_id": id, "error": error}});
        b.send(Wire::Text(nack.to_string())).await.unwrap();
        let nack = hear(&mut a, "nack").await;
        assert_eq!(nack.correlation_id(), Some(id));
        let payload = nack.payload_value();
        assert_eq!(
            (&payload["message_id"], &payload["error"]["code"]),
            (&json!(id), &json!("undeliverable"))
        );
        if id == "m-1" {
            let payload = json!({"message_id": nack.message_id()});
            let ack = json!({"message_type": "ack", "payload": payload});
            a.send(Wire::Text(ack.to_string())).await.unwrap();
        }
    }
    let waiting = web.get("/messages?agent_id=a").await;
    let waiting = waiting["messages"].as_array().unwrap();
    assert!(waiting.iter().all(|nack| nack["correlation_id"] == "m-2"), "{waiting:?}");
    // Of the other one the server knows only that its bytes have left.
    drop(a);
    let mut a = web.ws("a", "two").await;
    assert_eq!(hear(&mut a, "nack").await.correlation_id(), Some("m-2"));
    web.running.stop().await;
}

#[tokio::test]
async fn one_id_of_two_senders_reaches_a_websocket_twice() {
    let web = Web::start().await;
    let mut b = web.ws("b", "one").await;
    let (_, taken) = web.post("/messages", json!([note("a", "m", "b"), note("c", "m", "b")])).await;
    assert_eq!(taken["results"][1]["status"], "accepted");
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let Some(Ok(Wire::Text(text))) = receive(&mut b).await else { continue };
        let frame = crate::protocol::parse_frame_within(text, 1 << 20).unwrap();
        heard.extend(frame.messages.into_iter().filter_map(Result::ok));
    }
    assert_eq!((heard[0].agent_id(), heard[1].agent_id()), (Some("a"), Some("c")));
    let ack = json!({"message_type": "ack", "payload": {"message_id": heard[0].message_id()}});
    b.send(Wire::Text(ack.to_string())).await.unwrap();
    drop(b);
    let mut b = web.ws("b", "one").await;
    let again = hear(&mut b, "review_note").await;
    assert_eq!((again.agent_id(), again.message_id()), (Some("c"), heard[1].message_id()));
    web.running.stop().await;
}

async fn register(web: &Web, agent_id: &str, instance: &str) -> String {
    let payload = json!({"instance_id": instance, "capabilities": ["code_review"]});
    let body = web.say(agent_id, "register", payload).await;
    body["results"][0]["payload"]["session_id"].as_str().unwrap().to_owned()
}

async fn status_of(web: &Web, agent_id: &str) -> Value {
    web.get(&format!("/agents/{agent_id}")).await["status"].clone()
}

/// Reads until the other side closes; its code.
async fn closed(socket: &mut crate::transport::Socket) -> u16 {
    loop {
        match receive(socket).await {
            Some(Ok(Wire::Close(code, _))) => return code,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn over_http_the_loser_of_a_session_is_told_and_the_same_instance_goes_on() {
    let web = Web::start().await;
    let first = register(&web, "b", "one").await;
    let again = register(&web, "b", "one").await;
    let url = format!("{}/messages", web.running.url());
    let call = |session: &str, method: reqwest::Method, path: &str, body: Value| {
        let request = web.client.request(method, format!("{url}{path}"));
        request.header("openclaw-session", session).body(body.to_string()).send()
    };
    let beat = json!({"message_type": "heartbeat", "agent_id": "b", "payload": {}});
    let post = reqwest::Method::POST;
    assert_eq!(call(&again, post.clone(), "", beat.clone()).await.unwrap().status(), 202);
    let second = register(&web, "b", "two").await;
    for old in [&first, &again] {
        let ack = json!({"agent_id": "b", "message_ids": []});
        let calls = [
            call(old, post.clone(), "", beat.clone()).await.unwrap(),
            call(old, post.clone(), "/ack", ack).await.unwrap(),
            call(old, reqwest::Method::GET, "?agent_id=b", json!({})).await.unwrap(),
        ];
        for response in calls {
            assert_eq!(response.status(), 409);
            let problem: Value = response.json().await.unwrap();
            assert_eq!(problem["code"], "session_replaced");
        }
    }
    assert_eq!(call(&second, post, "", beat).await.unwrap().status(), 202);
    web.running.stop().await;
}

#[tokio::test]
async fn the_same_instance_replaces_its_connection_silently_and_closing_is_a_goodbye() {
    let web = Web::start().await;
    let mut first = web.ws("b", "one").await;
    let mut second = web.ws("b", "one").await;
    assert_eq!(closed(&mut first).await, 1_000);
    // Whoever was superseded has not said goodbye.
    drop(first);
    assert_eq!(status_of(&web, "b").await, "online");
    let (status, _) = web.post("/tasks", json!({"task_id": "t", "task_type": "code_review"})).await;
    assert_eq!(status, 201);
    assert_eq!(hear(&mut second, "task_offer").await.task_id(), Some("t"));
    second.send(Wire::Close(1_001, "stopping".to_owned())).await.unwrap();
    let pending = web.get("/tasks/t?wait=0").await;
    assert!(pending["status"] == "offered" || pending["status"] == "pending");
    let gone = until(&web, "/agents/b", |agent| agent["status"] == "offline").await;
    assert_eq!(gone["running"], json!([]));
    assert_eq!(web.get("/tasks/t").await["status"], "pending");
    web.running.stop().await;
}

/// Asks until the answer is as wanted.
async fn until(web: &Web, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = tokio::time::Instant::now();
    loop {
        assert!(begun.elapsed().as_secs() < 20, "{path} is never as wanted");
        let found = web.get(path).await;
        if wanted(&found) {
            return found;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_reader_whose_session_is_replaced_while_it_waits_gets_nothing() {
    let web = Web::start().await;
    let old = register(&web, "b", "one").await;
    let url = format!("{}/messages?agent_id=b&wait=20", web.running.url());
    let waiting = web.client.get(url).header("openclaw-session", &old).send();
    let replaced = async {
        register(&web, "b", "two").await;
        web.post("/messages", note("a", "m-1", "b")).await
    };
    let (answer, (status, _)) = tokio::join!(waiting, replaced);
    assert_eq!((answer.unwrap().status().as_u16(), status.as_u16()), (409, 202));
    web.running.stop().await;
}
