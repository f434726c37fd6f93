//! What becomes of messages: ids, duplicates, lanes, refusals, and the mail that comes back.

use serde_json::json;

use super::*;

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
        r#"{"message_type":"note","agent_id":"a","message_id":"n","to":"b","x":1.50,"payload":{"y": 1e2 }}"#,
        r#"{"message_type":"task_offer","agent_id":"a","message_id":"o","x":[1.50],"payload":{"task_id":"t","task_type":"code_review","y":12345678901234567890123,"requirements":{"z": 1.0}}}"#,
    ];
    for message in sent {
        let frame = parse_frame(message.to_owned()).unwrap();
        let taken = intake::take(&world.core, &world.source, frame.messages).await;
        assert_eq!(taken[0].fate, Fate::Accepted(None));
    }
    world.step().await;
    let mailbox = mail::mailbox("default", "b");
    let letters = mail::unacknowledged(&world.core.store, &mailbox, None, 9, START);
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
