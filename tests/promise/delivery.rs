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

/// Messages of one lane to an agent that registers later, over this transport.
fn wait_for_an_agent(transport: &str) {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let more = [("LOKI_OPENCLAW_TRANSPORT", transport)];
    let bridge = world.bridge_with("one", &server.address, "loki-one", &more);
    for number in 0..8 {
        let body = json!({
            "message_type": "note", "to": "late", "ordering_key": "notes",
            "payload": {"number": number},
        });
        let url = format!("{}/api/openclaw/send", bridge.address);
        let (code, answer) = world.post(&url, &body).expect("an answer");
        assert_eq!(code, 202, "{answer}");
    }
    let first = format!("{}/api/openclaw/messages?peer=late&limit=8", bridge.address);
    let refused = |page: &Value| {
        let rows = page["messages"].as_array().cloned().unwrap_or_default();
        rows.iter().any(|row| row["attempts"].as_u64() >= Some(2))
    };
    world.wait("the first one to be refused twice", || world.get(&first).filter(refused));
    let register = json!({"message_type": "register", "agent_id": "late", "payload": {}});
    let url = format!("{}/messages", server.address);
    assert_eq!(world.post(&url, &register).map(|(code, _)| code), Some(202));
    let mailbox = format!("{url}?agent_id=late");
    let page = world.wait("all to arrive", || {
        let page = world.get(&mailbox)?;
        (page["messages"].as_array().map(Vec::len) == Some(8)).then_some(page)
    });
    let messages = page["messages"].as_array().into_iter().flatten();
    let numbers: Vec<u64> =
        messages.filter_map(|message| message["payload"]["number"].as_u64()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7], "in order over {transport}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_lane_stays_in_order_and_waits_for_an_agent_that_registers_later() {
    for transport in ["websocket", "http"] {
        wait_for_an_agent(transport);
    }
}
