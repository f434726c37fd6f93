//! After a clean stop the plain sled crate finds every message with its direction and status; what
//! is deleted is rebuilt to the same rows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;
use storage::view::decode_rows;

use crate::support::World;

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

/// Direction and status of every message, by its id.
fn rows(folder: &Path) -> BTreeMap<String, (String, String)> {
    let tree = sled::open(folder).expect("the plain crate opens it");
    let mut found = BTreeMap::new();
    for item in tree.iter() {
        let (key, value) = item.expect("a row");
        let Some(rows) = decode_rows(&key, &value) else { continue };
        for row in rows.expect("a row that decodes") {
            let state = (row.direction.as_str().to_owned(), row.status.as_str().to_owned());
            found.insert(row.message_id, state);
        }
    }
    found
}

#[test]
fn the_plain_sled_crate_finds_every_message_after_a_clean_stop() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    let status = format!("{}/api/openclaw/status", bridge.address);
    let mut sent = Vec::new();
    for number in 0..50 {
        let entries = json!([{"key": format!("k/{number}"), "value": number}]);
        let body = json!({"message_type": "state_sync", "payload": {"entries": entries}});
        let url = format!("{}/api/openclaw/send", bridge.address);
        let (code, answer) = world.post(&url, &body).expect("an answer");
        assert_eq!(code, 202, "{answer}");
        sent.push(answer["message_id"].as_str().expect("an id").to_owned());
    }
    world.wait("the messages to be delivered", || {
        world.get(&status).filter(|status| status["messages"]["delivered"].as_u64() >= Some(50))
    });
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));

    let here = world.path("one/.loki/openclaw/messages");
    let at_bridge = rows(&here);
    let at_server = rows(&world.path("server/messages"));
    for id in &sent {
        let of = |direction: &str, status: &str| Some((direction.to_owned(), status.to_owned()));
        assert_eq!(at_bridge.get(id).cloned(), of("outbound", "delivered"), "{id}");
        assert_eq!(at_server.get(id).cloned(), of("inbound", "processed"), "{id}");
    }
    fs::remove_dir_all(&here).expect("deleted");
    let bridge = world.bridge("one", "http://127.0.0.1:9", "loki-one");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(rows(&here), at_bridge);
}
