//! The wire as tables: what is accepted as printed, and what each bad message is refused for.
//! Properties hold for arbitrary input. Nothing here opens a socket or a store.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::payload::{self, Outcome, Priority, Register, StateSync, TaskComplete, TaskOffer};
use super::*;

/// The messages of the integration guide, as it prints them.
const GUIDE: [&str; 8] = [
    r#"{
  "protocol_version": "1.0",
  "message_type": "task_offer",
  "agent_id": "loki-12345",
  "namespace": "default",
  "timestamp": "2026-02-15T14:30:00Z",
  "payload": {
    "task_id": "task-abc123",
    "task_type": "code_review",
    "priority": "high",
    "deadline": "2026-02-15T16:00:00Z",
    "requirements": {
      "model": "opus",
      "skills": ["code_review", "security_audit"]
    }
  }
}"#,
    r#"{
  "message_type": "register",
  "agent_id": "loki-12345",
  "payload": {
    "name": "Loki Mode",
    "version": "5.42.2",
    "provider": "claude",
    "capabilities": [
      "full_stack_development",
      "code_review",
      "testing",
      "deployment",
      "business_operations"
    ],
    "agent_types": [
      "eng-frontend", "eng-backend", "eng-qa",
      "ops-devops", "ops-sre", "biz-marketing"
    ],
    "max_concurrent_tasks": 10,
    "supported_models": ["opus", "sonnet", "haiku"]
  }
}"#,
    r#"{
  "message_type": "task_offer",
  "payload": {
    "task_id": "external-task-123",
    "task_type": "code_review",
    "description": "Review authentication module",
    "files": ["src/auth.py", "tests/test_auth.py"],
    "priority": "high",
    "deadline": "2026-02-15T16:00:00Z"
  }
}"#,
    r#"{
  "message_type": "task_accept",
  "payload": {
    "task_id": "external-task-123",
    "assigned_agent": "review-code",
    "estimated_duration": 600
  }
}"#,
    r#"{
  "message_type": "task_offer",
  "payload": {
    "task_id": "loki-task-456",
    "task_type": "data_analysis",
    "description": "Analyze user behavior logs",
    "requirements": {
      "skills": ["data_science", "ml"],
      "estimated_cost": 0.50
    }
  }
}"#,
    r#"{
  "message_type": "state_sync",
  "payload": {
    "session_status": "running",
    "iteration": 42,
    "agents_active": 12,
    "tasks_pending": 5,
    "tasks_in_progress": 8,
    "tasks_completed": 127,
    "cost_usd": 2.34
  }
}"#,
    r#"{
  "message_type": "capability_query",
  "payload": {
    "query_type": "supports_task_type",
    "task_type": "frontend_development"
  }
}"#,
    r#"{
  "message_type": "capability_response",
  "payload": {
    "supported": true,
    "agent_types": ["eng-frontend"],
    "confidence": 0.95,
    "estimated_cost": 0.10
  }
}"#,
];

/// Parses and validates; the code and the field of the refusal.
fn refused(text: &str) -> Option<(String, String)> {
    let judged = match parse_one(text.to_owned()) {
        Ok(envelope) => validate(&envelope),
        Err(rejected) => Err(rejected.refusal),
    };
    judged.err().map(|it| (it.code.as_str().to_owned(), it.field.unwrap_or_default()))
}

fn message(message_type: &str, payload: &Value) -> String {
    json!({"message_type": message_type, "payload": payload}).to_string()
}

#[test]
fn the_messages_of_the_guide_are_accepted_as_printed() {
    for text in GUIDE {
        assert_eq!(refused(text), None, "{text}");
        assert_eq!(parse_one(text).unwrap().raw(), text);
    }
    let offer: TaskOffer = parse_one(GUIDE[0]).unwrap().payload().unwrap();
    assert_eq!((offer.priority, offer.deadline), (Priority::High, Some(1_771_171_200_000)));
    let register: Register = parse_one(GUIDE[1]).unwrap().payload().unwrap();
    assert_eq!((register.slots(), register.capabilities.len()), (10, 5));
    let offer: TaskOffer = parse_one(GUIDE[4]).unwrap().payload().unwrap();
    assert_eq!(offer.priority, Priority::Normal);
    assert_eq!(offer.requirements.unwrap().estimated_cost, Some(0.5));
    let state: StateSync = parse_one(GUIDE[5]).unwrap().payload().unwrap();
    assert!(matches!(state, StateSync::Flat(_)));
}

#[test]
fn every_bad_envelope_is_refused_for_its_field() {
    let deep = format!(r#"{{"message_type":"x","to":"b","payload":{{"a":{}1"#, "[".repeat(300));
    let long = format!(r#"{{"message_type":"register","to":"{}"}}"#, "x".repeat(129));
    let table: &[(&str, &str, &str)] = &[
        ("", "malformed", ""),
        ("[]", "malformed", ""),
        ("{\"message_type\":\"register\"} x", "malformed", ""),
        (r#"{"message_type":"ack","message_type":"ack"}"#, "malformed", ""),
        (r#"{"message_type":"register","payload":{"a":{"b":1,"b":1}}}"#, "malformed", ""),
        (r#"{"message_type":"register","x":"\ud800"}"#, "malformed", ""),
        (r#"{"message_type":"register","x":1e999}"#, "malformed", ""),
        (&deep, "malformed", ""),
        ("{}", "missing_field", "message_type"),
        (r#"{"message_type":null}"#, "missing_field", "message_type"),
        (r#"{"message_type":7}"#, "invalid_field", "message_type"),
        (r#"{"message_type":""}"#, "invalid_field", "message_type"),
        (r#"{"message_type":"dance"}"#, "unknown_type", "message_type"),
        (r#"{"message_type":"dance","to":"openclaw-server"}"#, "unknown_type", "message_type"),
        (r#"{"message_type":"register","payload":[]}"#, "invalid_field", "payload"),
        (r#"{"message_type":"register","payload":"x"}"#, "invalid_field", "payload"),
        (r#"{"message_type":"register","agent_id":"a b"}"#, "invalid_field", "agent_id"),
        (r#"{"message_type":"register","namespace":""}"#, "invalid_field", "namespace"),
        (r#"{"message_type":"register","message_id":1}"#, "invalid_field", "message_id"),
        (r#"{"message_type":"register","correlation_id":"é"}"#, "invalid_field", "correlation_id"),
        (&long, "invalid_field", "to"),
        (r#"{"message_type":"register","timestamp":"now"}"#, "invalid_field", "timestamp"),
        (r#"{"message_type":"register","expires_at":1771165800}"#, "invalid_field", "expires_at"),
        (r#"{"message_type":"register","ordering_key":"\n"}"#, "invalid_field", "ordering_key"),
        (
            r#"{"message_type":"register","protocol_version":"2.0"}"#,
            "unsupported_version",
            "protocol_version",
        ),
        (
            r#"{"message_type":"register","protocol_version":"one"}"#,
            "invalid_field",
            "protocol_version",
        ),
        (
            r#"{"message_type":"register","protocol_version":1}"#,
            "invalid_field",
            "protocol_version",
        ),
    ];
    for (text, code, field) in table {
        assert_eq!(refused(text), Some(((*code).to_owned(), (*field).to_owned())), "{text}");
    }
}

#[test]
fn every_bad_payload_is_refused_for_its_field() {
    let table = [
        ("register", json!({"capabilities": "x"}), "invalid_field", "capabilities"),
        ("register", json!({"agent_types": ["a", 1]}), "invalid_field", "agent_types[1]"),
        ("register", json!({"max_concurrent_tasks": -1}), "invalid_field", "max_concurrent_tasks"),
        ("register", json!({"running": [{"attempt": 1}]}), "missing_field", "running[0].task_id"),
        ("register", json!({"heartbeat_interval": 0}), "invalid_field", "heartbeat_interval"),
        ("heartbeat", json!({"status": "asleep"}), "invalid_field", "status"),
        ("heartbeat", json!({"settled_before": "x"}), "invalid_field", "settled_before"),
        ("task_offer", json!({"task_type": "x"}), "missing_field", "task_id"),
        ("task_offer", json!({"task_id": "t"}), "missing_field", "task_type"),
        ("task_offer", json!({"task_id": "t 1", "task_type": "x"}), "invalid_field", "task_id"),
        (
            "task_offer",
            json!({"task_id": "t", "task_type": "x", "priority": "urgent"}),
            "invalid_field",
            "priority",
        ),
        (
            "task_offer",
            json!({"task_id": "t", "task_type": "x", "requirements": {"skills": [1]}}),
            "invalid_field",
            "requirements.skills[0]",
        ),
        ("task_accept", json!({}), "missing_field", "task_id"),
        ("task_accept", json!({"task_id": "t", "attempt": 0.5}), "invalid_field", "attempt"),
        ("task_reject", json!({"task_id": "t", "reason": "mood"}), "invalid_field", "reason"),
        ("task_update", json!({"task_id": "t", "progress": 1.5}), "invalid_field", "progress"),
        (
            "task_update",
            json!({"task_id": "t", "artifact": {}}),
            "missing_field",
            "artifact.artifact_id",
        ),
        ("task_complete", json!({"task_id": "t", "status": "done"}), "invalid_field", "status"),
        ("task_complete", json!({"task_id": "t", "error": "no"}), "invalid_field", "error"),
        ("task_cancel", json!({"task_id": null}), "missing_field", "task_id"),
        ("task_input", json!({"task_id": "t"}), "missing_field", "message"),
        ("state_sync", json!({"entries": {}}), "invalid_field", "entries"),
        ("state_sync", json!({"entries": [{"value": 1}]}), "missing_field", "entries[0].key"),
        ("state_sync", json!({"entries": [{"key": "k"}]}), "missing_field", "entries[0].value"),
        (
            "state_sync",
            json!({"entries": [{"key": "k", "value": 1, "deleted": true}]}),
            "invalid_field",
            "entries[0].value",
        ),
        ("capability_query", json!({}), "missing_field", "query_type"),
        ("capability_query", json!({"query_type": "supports_skill"}), "missing_field", "skill"),
        ("capability_query", json!({"query_type": "supports"}), "invalid_field", "query_type"),
        ("capability_response", json!({}), "missing_field", "supported"),
        ("ack", json!({"message_ids": ["a", "b c"]}), "invalid_field", "message_ids[1]"),
        ("nack", json!({"message_id": "m"}), "missing_field", "error"),
        ("nack", json!({"error": {}}), "missing_field", "error.code"),
        ("task_cancel", json!({"task_id": "t", "sealed": {}}), "missing_field", "sealed.enc"),
    ];
    for (message_type, payload, code, field) in table {
        let wanted = Some((code.to_owned(), format!("payload.{field}")));
        assert_eq!(refused(&message(message_type, &payload)), wanted, "{message_type} {payload}");
    }
}

#[test]
fn what_the_rules_leave_open_is_accepted() {
    let sealed = json!({"enc": "A256GCM", "kid": "00", "nonce": "", "ciphertext": "",
        "origin": {"namespace": "default", "to": null}});
    let table = [
        ("register", json!({"capabilities": null, "running": null, "color": {"a": 1}})),
        ("heartbeat", json!({})),
        ("task_offer", json!({"task_id": "t", "task_type": "x", "deadline": null, "files": null})),
        ("task_update", json!({"task_id": "t", "status": "input_required"})),
        ("task_complete", json!({"task_id": "t", "result": null})),
        ("task_input", json!({"task_id": "t", "sealed": sealed})),
        ("state_sync", json!({"entries": [{"key": "a/b", "value": null}]})),
        ("state_sync", json!({"entries": [{"key": "a/b", "deleted": true, "version": 3}]})),
        ("state_sync", json!({"entries": [{"key": "a/b"}], "sealed": sealed})),
        ("capability_query", json!({"query_type": "list"})),
        ("ack", json!({"session_id": "s", "window": 256, "index": 0})),
        ("nack", json!({"error": {"code": "teapot"}, "index": 4})),
    ];
    for (message_type, payload) in table {
        assert_eq!(refused(&message(message_type, &payload)), None, "{message_type} {payload}");
    }
    let text = r#"{"message_type":"dance","to":"b","payload":{"task_id":[]}}"#;
    assert_eq!(refused(text), None);
    let text = r#"{"message_type":"heartbeat","agent_id":null,"payload":null,"traceparent":"x"}"#;
    assert_eq!(refused(text), None);
    assert_eq!(parse_one(text).unwrap().traceparent(), None);
}

#[test]
fn a_lane_is_the_ordering_key_or_the_task() {
    let lane = |text: &str| parse_one(text.to_owned()).unwrap().lane_key().map(str::to_owned);
    let task = r#"{"message_type":"task_update","payload":{"task_id":"t-1"}}"#;
    assert_eq!(lane(task).as_deref(), Some("t-1"));
    let keyed = task.replacen('{', r#"{"ordering_key":"k","#, 1);
    assert_eq!(lane(&keyed).as_deref(), Some("k"));
    assert_eq!(lane(&task.replace("task_update", "state_sync")), None);
}

#[test]
fn an_agent_may_not_be_the_server() {
    let sender = |text: &str| {
        let envelope = parse_one(text.to_owned()).unwrap();
        envelope.sending_agent().map(str::to_owned).map_err(|refusal| refusal.code)
    };
    let text = r#"{"message_type":"heartbeat","agent_id":"openclaw-server"}"#;
    assert_eq!(sender(text), Err(ErrorCode::InvalidField));
    assert_eq!(sender(r#"{"message_type":"heartbeat"}"#), Err(ErrorCode::MissingField));
    assert_eq!(sender(&text.replace("openclaw-server", "a")), Ok("a".to_owned()));
}

#[test]
fn the_same_content_has_the_same_digest() {
    let digest = |text: &str| parse_one(text.to_owned()).unwrap().body_digest();
    let text = r#"{"message_type":"x","to":"b","payload":{"a":1,"b":[2]}}"#;
    let same = r#"{"timestamp":"2026-02-15T14:30:00Z","to":"b","payload": {"b":[ 2 ],"a":1},
        "message_type":"x"}"#;
    assert_eq!(digest(text), digest(same));
    assert_ne!(digest(text), digest(&text.replace("[2]", "[3]")));
    assert_ne!(digest(text), digest(&text.replace(r#""b","p"#, r#""c","p"#)));
    let sealed = |nonce: &str, id: &str| {
        let sealed = json!({"nonce": nonce, "origin": {"message_id": id}});
        digest(&message("task_input", &json!({"task_id": "t", "sealed": sealed})))
    };
    assert_eq!(sealed("1", "m"), sealed("2", "m"));
    assert_ne!(sealed("1", "m"), sealed("1", "n"));
}

#[test]
fn typed_payloads_read_and_write() {
    let payload = json!({"task_id": "t", "error": {"message": "no"}, "duration_seconds": 600});
    let complete: TaskComplete =
        parse_one(message("task_complete", &payload)).unwrap().payload().unwrap();
    assert_eq!((complete.outcome(), complete.result_text()), (Outcome::Failed, "null"));
    assert_eq!(serde_json::to_value(&complete).unwrap(), payload);
    let payload = json!({"entries": [{"key": "a", "value": null}, {"key": "b", "deleted": true}]});
    let envelope = parse_one(message("state_sync", &payload)).unwrap();
    let state: StateSync = envelope.payload().unwrap();
    assert_eq!(serde_json::to_value(&state).unwrap(), payload);
    assert_eq!(envelope.payload::<TaskOffer>().unwrap_err().code, ErrorCode::InvalidField);
    let payload = json!({"session_id": "s-1", "heartbeat_interval": 0.5, "window": 256,
        "dedup_window_seconds": 691_200, "server_time": "2026-02-15T14:30:00.000Z"});
    let ack = parse_one(message("ack", &payload)).unwrap().register_ack().unwrap();
    assert_eq!(serde_json::to_value(&ack).unwrap(), payload);
}

#[test]
fn a_submission_is_an_offer_without_an_id() {
    let body = br#"{"task_type":"code_review","description":"Review API implementation",
        "files":["api/routes.py"],"target_agent":"loki-12345"}"#;
    let offer = payload::read_submission(body, "t-new").unwrap();
    assert_eq!((offer.task_id.as_str(), offer.priority), ("t-new", Priority::Normal));
    let own = payload::read_submission(br#"{"task_type":"x","task_id":"mine"}"#, "t").unwrap();
    assert_eq!(own.task_id, "mine");
    let field = |body: &str| payload::read_submission(body.as_bytes(), "t").unwrap_err().field;
    assert_eq!(field("{}").as_deref(), Some("task_type"));
    assert_eq!(field(r#"{"task_type":"x","files":[1]}"#).as_deref(), Some("files[0]"));
    assert_eq!(field("[]").as_deref(), Some("body"));
    assert_eq!(field(r#"{"task_type":"x","task_type":"x"}"#), None);
}

/// JSON values of a small depth.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_ndjson(bytes.clone());
        if let Ok(frame) = parse_frame(bytes) {
            prop_assert!(frame.is_batch || frame.messages.len() == 1);
        }
    }

    #[test]
    fn no_payload_makes_validation_panic(index in 0_usize..14, payload in any_json()) {
        let text = message(MessageType::KNOWN[index].as_str(), &payload);
        if let Ok(envelope) = parse_one(text) {
            let _ = (validate(&envelope), envelope.sealed(), envelope.body_digest());
        }
    }

    #[test]
    fn what_is_composed_is_read_back(
        id in "[A-Za-z0-9._:-]{1,128}",
        key in "[a-z /\"\\\\]{1,20}",
        at in 0_u64..4_000_000_000_000,
        content in any_json(),
    ) {
        let fields = Fields {
            message_id: Some(&id),
            to: Some(&id),
            timestamp: Some(at),
            ordering_key: Some(&key),
            ..Fields::default()
        };
        let payload = json!({"content": content});
        let envelope =
            Envelope::compose(MessageType::Other("x".to_owned()), fields, &payload).unwrap();
        prop_assert_eq!(envelope.message_id(), Some(id.as_str()));
        prop_assert_eq!(envelope.lane_key(), Some(key.as_str()));
        prop_assert_eq!(envelope.timestamp(), Some(at));
        prop_assert_eq!(envelope.payload_value(), payload);
        prop_assert_eq!(parse_one(envelope.raw().clone()).unwrap(), envelope);
    }

    #[test]
    fn unknown_fields_are_forwarded_byte_for_byte(
        before in any_json(),
        after in any_json(),
        space in "[ \n\t]{0,3}",
        to in "[a-z]{1,9}",
    ) {
        let before = serde_json::to_string_pretty(&before).unwrap();
        let wanted = |to: &str| format!(
            r#"{{{space}"x_1":{before},{space}"to":{to}{space},"message_type":"x","x_2":{after}}}"#
        );
        let envelope = parse_one(wanted("null")).unwrap();
        prop_assert_eq!(envelope.raw(), &wanted("null"));
        let fields = Fields { to: Some(&to), ..Fields::default() };
        let quoted = wanted(&format!("\"{to}\""));
        let filled = envelope.fill_missing(&fields).unwrap();
        prop_assert_eq!(filled.raw(), &quoted);
        let addressed = envelope.with_fields(&fields).unwrap();
        prop_assert_eq!(addressed.raw(), &quoted);
    }
}

#[test]
fn routing_is_read_without_the_rest_of_the_payload() {
    let read = |payload: &str| {
        parse_one(format!(r#"{{"message_type":"task_offer","payload":{payload}}}"#)).unwrap()
    };
    let offer = read(r#"{"priority":"h\u0069gh","deadline":"soon","files":[{}],"sealed":{}}"#);
    let routing = offer.routing();
    assert_eq!(routing.priority().as_deref(), Some("high"));
    assert_eq!(routing.deadline().as_deref(), Some("soon"));
    assert!(routing.is_sealed());
    let odd = read(r#"{"priority":3,"deadline":null,"sealed":null}"#);
    let routing = odd.routing();
    assert_eq!((routing.priority(), routing.deadline()), (None, None));
    assert!(!routing.is_sealed());
}
