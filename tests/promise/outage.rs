//! The server away for a while: what is sent waits as `pending`, with its next attempt shown, and
//! flows when the server is back, without a restart and each once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{World, output, say};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

/// The bridge tries again after this time at the latest: the bound of its backoff after as many
/// failures as fit into the short outage.
const BACKOFF_MILLIS_MAX: u64 = 32_000;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn delivered(world: &World, bridge: &str) -> Option<u64> {
    let status = world.get(&format!("{bridge}/api/openclaw/status"))?;
    Some(status["messages"]["delivered"].as_u64().unwrap_or(0))
}

/// `LOKI_OUTAGE_SECONDS` and `LOKI_OUTAGE_MESSAGES` make it longer and fuller.
#[test]
fn an_outage_delays_messages_and_loses_none() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let (seconds, count) = (setting("LOKI_OUTAGE_SECONDS", 2), setting("LOKI_OUTAGE_MESSAGES", 20));
    let server = world.server("server", 0);
    let (address, port) = (server.address.clone(), server.port());
    let bridge = world.bridge("one", &address, "loki-one");
    world.wait("the bridge to be connected", || {
        world.get(&format!("{}/api/openclaw/health", bridge.address))
    });
    server.kill();
    let away = world.clock().monotonic();
    for number in 0..count {
        let body = json!({
            "message_type": "state_sync", "message_id": format!("m-{number}"),
            "ordering_key": "all",
            "payload": {"entries": [{"key": "last", "value": number}]},
        });
        let url = format!("{}/api/openclaw/send", bridge.address);
        let (code, answer) = world.post(&url, &body).expect("an answer");
        assert_eq!((code, &answer["status"]), (202, &json!("pending")), "{answer}");
    }
    let is_over = || world.clock().monotonic() - away >= seconds * 1_000;
    while !is_over() {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let list = ["openclaw", "messages", "--status", "pending", "--json", "--limit", "1000"];
    let (_, listed, said) = output(world.loki("one", &address).args(list));
    let rows: Vec<Value> = listed.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
    assert_eq!(rows.len() as u64, count, "{listed}{said}");
    assert!(rows.iter().all(|row| row["next_attempt_at"].is_string()), "{listed}");
    assert!(rows.iter().all(|row| row["attempts"] == 0), "no bytes left: {listed}");

    let server = world.server("server", port);
    let back = world.clock().monotonic();
    let when = |wanted: u64| {
        world.wait("the messages to be delivered", || {
            delivered(&world, &bridge.address).filter(|sent| *sent >= wanted)
        });
        world.clock().monotonic() - back
    };
    let (first, all) = (when(1), when(count));
    say(&format!("away {seconds} s, {count} messages: first after {first} ms, last {all} ms"));
    assert!(seconds > 2 || all < BACKOFF_MILLIS_MAX, "the last one took {all} ms");
    let cell = world.get(&format!("{}/state/default/last", server.address)).expect("the state");
    assert_eq!((&cell["value"], &cell["version"]), (&json!(count - 1), &json!(count)), "{cell}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}
