//! A server that is away: messages queue up, are shown, and flow when it is back.

use serde_json::{Value, json};

use crate::support::{World, output};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn messages_wait_for_a_server_that_is_away_and_flow_when_it_is_back() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let (address, port) = (server.address.clone(), server.port());
    let bridge = world.bridge("one", &address, "loki-one");
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("the bridge to be connected", || {
        world.get(&status).filter(|status| status["connected"] == true)
    });
    server.kill();
    let mut sent = Vec::new();
    for number in 0..20 {
        let body = json!({
            "message_type": "state_sync",
            "payload": {"entries": [{"key": format!("k/{number}"), "value": number}]},
        });
        let url = format!("{}/api/openclaw/send", bridge.address);
        let (code, answer) = world.post(&url, &body).expect("an answer");
        assert_eq!((code, &answer["status"]), (202, &json!("pending")), "{answer}");
        sent.push(answer["message_id"].as_str().expect("an id").to_owned());
    }
    let pending = |text: &str| lines(text).iter().filter(|row| row["status"] == "pending").count();
    let list = ["openclaw", "messages", "--status", "pending", "--json"];
    let (_, running, said) = output(world.loki("one", &address).args(list));
    assert_eq!(pending(&running), 20, "{running}{said}");
    bridge.kill();
    let (_, stopped, said) = output(world.loki("one", &address).args(list));
    assert_eq!(pending(&stopped), 20, "{stopped}{said}");
    assert!(lines(&stopped).iter().all(|row| row["next_attempt_at"].is_string()), "{stopped}");

    let bridge = world.bridge("one", &address, "loki-one");
    let server = world.server("server", port);
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("the messages to be delivered", || {
        world.get(&status).filter(|status| status["messages"]["delivered"].as_u64() >= Some(20))
    });
    let state = world.get(&format!("{}/state/default", server.address)).expect("the state");
    for number in 0..20 {
        assert!(state.to_string().contains(&format!("k/{number}")), "{state}");
    }
    let inbound = ["openclaw", "messages", "--json", "--limit", "1000", "--direction", "inbound"];
    let (_, rows, _) = output(
        world.loki("one", &address).args(inbound).arg("--data-dir").arg(world.path("server")),
    );
    for id in &sent {
        let count = rows.lines().filter(|line| line.contains(id.as_str())).count();
        assert_eq!(count, 1, "{id} is applied once");
    }
    let show = ["openclaw", "show", sent[0].as_str(), "--json"];
    let (_, running, _) = output(world.loki("one", &address).args(show));
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
    let (_, stopped, _) = output(world.loki("one", &address).args(show));
    assert_eq!(running, stopped);
    let shown: Value = serde_json::from_str(&stopped).expect("json");
    let life: Vec<&str> = shown["history"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|step| step["status"].as_str())
        .collect();
    // A busy machine may lose the link between the two.
    assert_eq!(life[..2], ["pending", "sending"], "{shown}");
    assert_eq!(life.last(), Some(&"delivered"), "{shown}");
    assert_eq!(shown["payload"]["entries"][0]["key"], "k/0");
}
