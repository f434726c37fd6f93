//! Commands while the bridge is stopped or killed: they read its journal, and change it under its
//! lock; the next start delivers what they put there.

use std::fs;

use serde_json::Value;

use crate::support::{World, output};

const COUNT: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                     task_types: [testing]\n";

/// A command with `--json`: its exit code, the objects that it printed, and its talk.
fn asked(world: &World, endpoint: &str, arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let mut command = world.loki("one", endpoint);
    command.env("LOKI_OPENCLAW_AGENT_ID", "loki-one");
    let (code, data, talk) = output(command.args(arguments).arg("--json"));
    let line = |line| serde_json::from_str(line).expect("a line of json");
    (code, data.lines().map(line).collect(), talk)
}

#[test]
fn a_killed_bridge_is_looked_at_and_written_to_and_delivers_at_its_next_start() {
    let world = World::new();
    world.write("one/.loki/config.yaml", COUNT);
    world.write("one/prd.md", "- [ ] Test <!-- type: testing -->\n");
    let server = world.server("server", 0);
    let (address, port) = (server.address.clone(), server.port());
    let (code, ..) = asked(&world, &address, &["start", "--openclaw", "prd.md"]);
    assert_eq!(code, Some(0));
    let bridge = world.bridge("one", &address, "loki-one");
    let connected = |one: &Value| one["connected"] == true;
    let url = format!("{}/api/openclaw/status", bridge.address);
    world.wait("the connection", || world.get(&url).filter(connected));
    let send = |key: &str| {
        let payload = format!(r#"{{"entries": [{{"key": "{key}", "value": 1}}]}}"#);
        let (code, sent, talk) =
            asked(&world, &address, &["openclaw", "send", "state_sync", "--payload", &payload]);
        assert_eq!(code, Some(0), "{talk}");
        sent[0]["message_id"].as_str().expect("an id").to_owned()
    };
    server.kill();
    send("k/running");
    bridge.kill();

    // What is left behind may be the address of somebody else by now.
    let other = world.bridge("two", &address, "loki-two");
    fs::write(world.path("one/.loki/openclaw/endpoint"), &other.address).expect("written");
    let (code, status, talk) = asked(&world, &address, &["openclaw", "status"]);
    assert_eq!(code, Some(1), "{talk}");
    let status = &status[0];
    assert_eq!(status["agent_id"], "loki-one");
    assert_eq!((&status["connected"], &status["running"]), (&false.into(), &false.into()));
    assert_eq!(
        (&status["messages_pending"], &status["tasks"]["completed"]),
        (&1.into(), &1.into())
    );
    assert!(status["oldest_pending_seconds"].is_u64(), "{status}");
    assert!(status["last_connected_at"].is_string(), "{status}");
    let (code, tasks, _) = asked(&world, &address, &["openclaw", "tasks"]);
    assert_eq!((code, &tasks[0]["status"]), (Some(0), &"completed".into()));
    let late = send("k/stopped");
    let pending = ["openclaw", "messages", "--status", "pending"];
    assert_eq!(asked(&world, &address, &pending).1.len(), 2);

    let server = world.server("server", port);
    let bridge = world.bridge("one", &address, "loki-one");
    let show = ["openclaw", "show", &late];
    world.wait("both messages to be delivered", || {
        let waiting = asked(&world, &address, &pending).1.len();
        (waiting == 0).then_some(())
    });
    assert_eq!(asked(&world, &address, &show).1[0]["status"], "delivered");
    let state = world.get(&format!("{}/state/default", server.address)).expect("the state");
    assert!(state.to_string().contains("k/stopped"), "{state}");
    for program in [other, bridge, server] {
        assert_eq!(program.stop(), Some(0));
    }
}

#[test]
fn failed_messages_are_sent_again_by_id_and_by_filter_running_and_stopped() {
    let world = World::new();
    world.write("one/.loki/config.yaml", COUNT);
    let server = world.server("server", 0);
    let address = server.address.clone();
    let bridge = world.bridge("one", &address, "loki-one");
    let failed = ["openclaw", "messages", "--status", "failed"];
    let wait_for = |count: usize| {
        world.wait("messages to fail", || {
            let found = asked(&world, &address, &failed).1;
            (found.len() == count).then_some(found)
        })
    };
    for task in ["t-1", "t-2"] {
        // The server knows no such task, and says so for good.
        let payload = format!(r#"{{"task_id": "{task}", "status": "completed"}}"#);
        let send = ["openclaw", "send", "task_complete", "--payload", &payload];
        assert_eq!(asked(&world, &address, &send).0, Some(0));
    }
    let first = wait_for(2)[0]["message_id"].as_str().expect("an id").to_owned();
    let retry = |more: &[&str]| {
        let (code, answer, talk) =
            asked(&world, &address, &[&["openclaw", "retry"], more].concat());
        let count = answer.first().map(|answer| answer["retried"].as_u64().expect("a count"));
        (code, count, talk)
    };
    let refusals = || {
        let (code, _, talk) = retry(&["nobody"]);
        assert_eq!((code, talk.trim()), (Some(1), "error: no message has the id nobody"));
        let (code, _, talk) = retry(&["--reason", "boredom"]);
        assert_eq!(code, Some(2), "{talk}");
        let (code, count, _) = retry(&["--reason", "max_age"]);
        assert_eq!((code, count), (Some(0), Some(0)));
        let (code, count, _) = retry(&["--to", "loki-two"]);
        assert_eq!((code, count), (Some(0), Some(0)));
    };
    refusals();
    assert_eq!(retry(&[&first]).1, Some(1));
    wait_for(2);
    assert_eq!(bridge.stop(), Some(0));
    refusals();
    assert_eq!(retry(&["--type", "task_complete", "--reason", "permanent"]).1, Some(2));
    assert_eq!(asked(&world, &address, &failed).1.len(), 0);
    let (code, _, talk) = retry(&[&first]);
    let waits = format!("error: the message {first} is pending; only failed ones are sent again");
    assert_eq!((code, talk.trim()), (Some(1), waits.as_str()));
    let bridge = world.bridge("one", &address, "loki-one");
    wait_for(2);
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_program_that_has_the_store_and_does_not_answer_is_told() {
    let world = World::new();
    world.write("one/.loki/config.yaml", COUNT);
    let bridge = world.bridge("one", "http://127.0.0.1:9", "loki-one");
    assert_eq!(bridge.stop(), Some(0));
    let data = world.path("one/.loki/openclaw");
    let lock = fs::File::open(data.join("journal/lock")).expect("the lock");
    lock.try_lock().expect("nobody has it");
    // A port of this machine that nobody listens on.
    fs::write(data.join("endpoint"), "http://127.0.0.1:9\n").expect("an address");
    for command in [["openclaw", "status"], ["openclaw", "messages"], ["openclaw", "disconnect"]] {
        let (code, _, talk) = asked(&world, "", &command);
        let told = "error: cannot reach the program that has .loki/openclaw open at \
                    http://127.0.0.1:9: it is not there";
        assert_eq!((code, talk.trim()), (Some(4), told));
    }
}

#[test]
fn a_servers_folder_is_looked_at_running_and_stopped_and_not_written_to() {
    let world = World::new();
    world.write("one/.loki/config.yaml", COUNT);
    let server = world.server("server", 0);
    let painting = serde_json::json!({"task_id": "t-1", "task_type": "painting"});
    world.post(&format!("{}/tasks", server.address), &painting).expect("an answer");
    let folder = world.path("server").display().to_string();
    let look = |command: &[&str]| {
        asked(&world, "", &[&["--data-dir", folder.as_str(), "openclaw"], command].concat())
    };
    let check = |running: bool| {
        let (code, status, _) = look(&["status"]);
        assert_eq!((code, &status[0]["tasks"]["pending"]), (Some(i32::from(!running)), &1.into()));
        let (code, tasks, talk) = look(&["tasks"]);
        assert_eq!(
            (code, tasks.len(), &tasks[0]["task_id"]),
            (Some(0), 1, &"t-1".into()),
            "{talk}"
        );
        assert_eq!(look(&["messages"]).0, Some(0));
        for command in [vec!["send", "state_sync"], vec!["pause"]] {
            let (code, _, talk) = look(&command);
            assert_eq!(code, Some(2), "{talk}");
            assert!(talk.contains("belongs to a server"), "{talk}");
        }
    };
    check(true);
    assert_eq!(server.stop(), Some(0));
    check(false);
}

#[test]
fn a_bridge_with_a_token_answers_only_to_it() {
    let world = World::new();
    world.write("one/.loki/config.yaml", COUNT);
    let mut start = world.loki("one", "http://127.0.0.1:9");
    start.args(["start", "--openclaw"]).env("LOKI_DASHBOARD_TOKEN", "right");
    let bridge = world.start(start, &world.path("one/.loki/openclaw"));
    let status = |token: &str| {
        let mut command = world.loki("one", "http://127.0.0.1:9");
        output(command.args(["openclaw", "retry"]).env("LOKI_DASHBOARD_TOKEN", token))
    };
    assert_eq!(status("right").0, Some(0));
    let (code, data, talk) = status("wrong");
    assert_eq!((code, data.as_str()), (Some(5), ""));
    assert!(talk.trim().ends_with("set LOKI_DASHBOARD_TOKEN") && !talk.contains("right"), "{talk}");
    assert_eq!(bridge.stop(), Some(0));
}
