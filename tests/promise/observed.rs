//! What is seen from outside: shared state that another bridge put, and metrics to the unit.

use std::collections::BTreeMap;

use loki_openclaw::clock::rfc3339;
use serde_json::json;

use crate::support::{Program, World, output};

/// A task that reports twice and gives a part of its result early.
const WORK: &str = r#"
import json, sys
task = json.load(sys.stdin)
print(json.dumps({"progress": 0.25, "message": "begun"}))
part = {"artifact_id": "list", "parts": [{"file": "a.py"}], "last_chunk": True}
print(json.dumps({"progress": 0.5, "artifact": part}))
print(json.dumps({"result": "done"}))
"#;

const CONFIG: &str = "agents:\n  - type: eng-qa\n    command: [python3, work.py]\n    \
                      task_types: [testing]\n";

fn project(world: &World, name: &str) {
    world.write(&format!("{name}/.loki/config.yaml"), CONFIG);
    world.write(&format!("{name}/work.py"), WORK);
}

fn share(world: &World, bridge: &Program, key: &str, value: u64) {
    let entries = json!([{"key": key, "value": value}]);
    let body = json!({"message_type": "state_sync", "payload": {"entries": entries}});
    let url = format!("{}/api/openclaw/send", bridge.address);
    let (code, answer) = world.post(&url, &body).expect("an answer");
    assert_eq!(code, 202, "{answer}");
}

#[test]
fn what_one_bridge_puts_into_the_shared_state_the_other_reads() {
    let world = World::new();
    project(&world, "one");
    project(&world, "two");
    let server = world.server("server", 0);
    let first = world.bridge("one", &server.address, "loki-one");
    let second = world.bridge("two", &server.address, "loki-two");
    for bridge in [&first, &second] {
        let status = format!("{}/api/openclaw/status", bridge.address);
        world.wait("a session", || world.get(&status).filter(|it| it["connected"] == true));
    }
    share(&world, &first, "build/version", 7);
    let url = format!("{}/api/openclaw/messages?type=state_sync&direction=inbound", second.address);
    let row = world.wait("the state at the other bridge", || {
        world.get(&url)?["messages"].as_array()?.first().cloned()
    });
    let id = row["message_id"].as_str().expect("an id");
    let mut show = world.loki("two", &server.address);
    let (code, shown, said) = output(show.args(["openclaw", "show", id, "--json"]));
    assert_eq!(code, Some(0), "{said}");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("json");
    let entry = &shown["payload"]["entries"][0];
    assert_eq!((&entry["key"], &entry["value"]), (&json!("build/version"), &json!(7)), "{shown}");
    assert_eq!(shown["status"], "processed", "{shown}");
    for program in [first, second, server] {
        assert_eq!(program.stop(), Some(0));
    }
}

#[test]
fn what_the_recipient_never_fetched_comes_back_as_a_receipt() {
    let world = World::new();
    project(&world, "one");
    project(&world, "two");
    let server = world.server("server", 0);
    let second = world.bridge("two", &server.address, "loki-two");
    let status = format!("{}/api/openclaw/status", second.address);
    world.wait("a session", || world.get(&status).filter(|it| it["connected"] == true));
    assert_eq!(second.stop(), Some(0));
    for transport in ["websocket", "http"] {
        let mut command = world.loki("one", &server.address);
        command.args(["start", "--openclaw"]).env("LOKI_OPENCLAW_AGENT_ID", "loki-one");
        command.env("LOKI_OPENCLAW_TRANSPORT", transport);
        let first = world.start(command, &world.path("one/.loki/openclaw"));
        let soon = rfc3339(world.clock().now() + 1_500);
        let body = json!({
            "message_type": "review_note", "to": "loki-two", "payload": {}, "expires_at": soon,
        });
        let url = format!("{}/api/openclaw/send", first.address);
        let (code, answer) = world.post(&url, &body).expect("an answer");
        assert_eq!(code, 202, "{answer}");
        let id = answer["message_id"].as_str().expect("an id");
        let url = format!("{}/api/openclaw/messages/{id}", first.address);
        let shown = world
            .wait("a receipt", || world.get(&url).filter(|shown| shown["receipt"].is_object()));
        assert_eq!(shown["receipt"]["code"], "undeliverable", "{transport} {shown}");
        assert_eq!(shown["status"], "delivered", "{transport} {shown}");
        assert_eq!(first.stop(), Some(0));
        // The journal of a stopped bridge says the same.
        let (_, stopped, _) =
            output(world.loki("one", &server.address).args(["openclaw", "show", id, "--json"]));
        let stopped: serde_json::Value = serde_json::from_str(&stopped).expect("json");
        assert_eq!(stopped["receipt"], shown["receipt"], "{transport}");
    }
    assert_eq!(server.stop(), Some(0));
}

/// The samples of an exposition, by name with labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

#[test]
fn the_metrics_count_a_known_day_to_the_unit() {
    let world = World::new();
    project(&world, "one");
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    for number in 0..25 {
        share(&world, &bridge, &format!("k/{number}"), number);
    }
    for number in 0..3 {
        let task = json!({"task_id": format!("t{number}"), "task_type": "testing"});
        let url = format!("{}/tasks", server.address);
        assert_eq!(world.post(&url, &task).expect("an answer").0, 201);
    }
    for number in 0..3 {
        let url = format!("{}/tasks/t{number}?wait=30", server.address);
        let task =
            world.wait("a task", || world.get(&url).filter(|it| it["status"] == "completed"));
        assert_eq!(task["artifacts"][0]["parts"][0]["file"], "a.py", "{task}");
    }
    // The last thing that is counted of a delivery.
    let last = r#"loki_openclaw_latency_seconds_count{operation="deliver"}"#;
    let url = format!("{}/metrics", bridge.address);
    world.wait("everything to be delivered", || {
        (samples(&world.text(&url)?).get(last) >= Some(&37.0)).then_some(())
    });
    // What is measured is measured before what is counted is read.
    let text = world.text(&url).expect("the metrics");
    let found = samples(&text);
    // A report, and one with an artifact, a task.
    #[rustfmt::skip]
    let expected = [
        ("loki_openclaw_connected", 1.0),
        ("loki_openclaw_circuit_open", 0.0),
        ("loki_openclaw_oldest_pending_seconds", 0.0),
        ("loki_openclaw_tasks_completed_total", 3.0),
        ("loki_openclaw_store_errors_total", 0.0),
        (r#"loki_openclaw_messages_sent_total{type="state_sync"}"#, 25.0),
        (r#"loki_openclaw_messages_sent_total{type="task_accept"}"#, 3.0),
        (r#"loki_openclaw_messages_sent_total{type="task_update"}"#, 6.0),
        (r#"loki_openclaw_messages_sent_total{type="task_complete"}"#, 3.0),
        (r#"loki_openclaw_messages_received_total{type="task_offer"}"#, 3.0),
        (r#"loki_openclaw_delivery_attempts_total{outcome="delivered"}"#, 37.0),
        (r#"loki_openclaw_messages{direction="outbound",status="delivered"}"#, 37.0),
        (r#"loki_openclaw_messages{direction="outbound",status="failed"}"#, 0.0),
        (r#"loki_openclaw_messages{direction="inbound",status="processed"}"#, 3.0),
        (last, 37.0),
        (r#"loki_openclaw_latency_seconds_count{operation="connect"}"#, 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(found.get(name), Some(&value), "{name}\n{text}");
    }
    let some = ["loki_openclaw_journal_commit_seconds_count", "loki_openclaw_journal_bytes"];
    assert!(some.iter().all(|name| found.get(*name) > Some(&0.0)), "{text}");
    assert!(found.contains_key("loki_openclaw_view_lag_records"), "{text}");
    assert!(found.len() < 400, "labels are bounded\n{text}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}
