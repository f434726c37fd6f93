//! Conversations over real connections: what comes back, who is fenced off, who says goodbye.

use serde_json::{Value, json};

use super::http::{Web, hear};
use crate::transport::Wire;

fn note(from: &str, id: &str, to: &str) -> Value {
    json!({"message_type": "review_note", "agent_id": from, "message_id": id, "to": to,
        "payload": {}})
}

#[tokio::test]
async fn a_refusal_over_a_websocket_comes_back_as_a_nack_that_nobody_acknowledges() {
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
    }
    // The second one left after the first, so the first one is settled.
    let waiting = web.get("/messages?agent_id=a").await;
    let waiting = waiting["messages"].as_array().unwrap();
    assert!(waiting.iter().all(|nack| nack["correlation_id"] == "m-2"), "{waiting:?}");
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
        let Some(Ok(Wire::Text(text))) = b.receive().await else { continue };
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
