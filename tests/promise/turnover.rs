//! Old files of the journal go while messages wait and the bridge is killed: nothing that waits is
//! lost, sent twice or out of its order, and every question is answered as before.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Program, World, output, received};

/// Small files, and everything is old after a few starts.
const CONFIG: &str = "openclaw:\n  retention: 1\n  dedup_window_seconds: 8\n  retry:\n    \
                      max_age: 1\n  store:\n    segment_size: 1MiB\n    reserve: 1MiB\n\
                      enterprise:\n  audit:\n    retention: 8\nagents:\n  - type: eng-qa\n    \
                      command: [\"true\"]\n    task_types: [testing]\n";

/// Messages that wait, and the lanes in which they do.
const WAITING: u64 = 30;
const LANES: u64 = 3;

/// Starts of the bridge at the most; every second one ends by a kill.
const STARTS: u64 = 100;

/// How often files are to go.
const TURNS: u64 = 4;

/// Messages of 100 kB in each start.
const TRAFFIC: u64 = 12;

fn send(world: &World, bridge: &Program, message: &Value) {
    let url = format!("{}/api/openclaw/send", bridge.address);
    let (code, answer) = world.post(&url, message).expect("an answer");
    assert_eq!(code, 202, "{answer}");
}

/// One that waits; as it comes from tomorrow, it does not become too old.
fn wait(world: &World, bridge: &Program, number: u64) {
    let lane = format!("lane-{}", number % LANES);
    let entries = json!([{"key": lane, "value": number}]);
    let message = json!({
        "message_type": "state_sync", "message_id": format!("waits-{number}"),
        "timestamp": "2099-01-01T00:00:00Z", "ordering_key": lane, "payload": {"entries": entries},
    });
    send(world, bridge, &message);
}

/// Messages that nobody wants any more.
fn traffic(world: &World, bridge: &Program, start: u64) {
    let ids: Vec<String> = (0..TRAFFIC).map(|number| format!("gone-{start}-{number}")).collect();
    for id in &ids {
        let entries = json!([{"key": "k", "value": "x".repeat(100_000)}]);
        let payload = json!({ "entries": entries });
        let message = json!({"message_type": "state_sync", "message_id": id, "payload": payload});
        send(world, bridge, &message);
    }
    let url = format!("{}/api/openclaw/prune", bridge.address);
    let (code, answer) = world.post(&url, &json!({"message_ids": ids})).expect("an answer");
    assert_eq!((code, &answer["pruned"]), (200, &json!(TRAFFIC)), "{answer}");
}

fn asked(world: &World, endpoint: &str, arguments: &[&str]) -> Vec<Value> {
    let (code, stdout, stderr) = output(world.loki("one", endpoint).args(arguments).arg("--json"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?} {stdout}");
    stdout.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
}

/// The numbers of the journal's files, the oldest first.
fn files(world: &World) -> Vec<u64> {
    let journal = fs::read_dir(world.path("one/.loki/openclaw/journal")).expect("the journal");
    let names = journal.flatten().filter_map(|file| file.file_name().into_string().ok());
    let number = |name: String| name.strip_prefix("segment-")?.strip_suffix(".log")?.parse().ok();
    let mut numbers: Vec<u64> = names.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// What is asked of the waiting messages is answered as if nothing had gone.
fn is_sound(world: &World, endpoint: &str) {
    let list = ["openclaw", "messages", "--status", "pending", "--limit", "1000"];
    let listed = asked(world, endpoint, &list);
    let ids: Vec<&str> = listed.iter().filter_map(|row| row["message_id"].as_str()).collect();
    let wanted: Vec<String> = (0..WAITING).rev().map(|number| format!("waits-{number}")).collect();
    assert_eq!(ids, wanted);
    let shown = &asked(world, endpoint, &["openclaw", "show", "waits-7"])[0];
    assert_eq!(shown["payload"]["entries"][0]["value"], 7, "{shown}");
    assert_eq!(shown["history"][0]["event"], "store.carry", "{shown}");
    let explained = &asked(world, endpoint, &["openclaw", "explain", "waits-7"])[0];
    assert!(explained.to_string().contains("waits-7"), "{explained}");
    let verified = &asked(world, endpoint, &["enterprise", "audit", "verify"])[0];
    assert_eq!(verified["faults"], json!([]), "{verified}");
}

#[test]
fn what_waits_outlives_the_files_that_it_lay_in() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    let server = world.server("server", 0);
    let (endpoint, port) = (server.address.clone(), server.port());
    assert_eq!(server.stop(), Some(0));
    let bridge = world.bridge("one", &endpoint, "loki-one");
    for number in 0..WAITING {
        wait(&world, &bridge, number);
    }
    let begun = &asked(&world, &endpoint, &["store", "info"])[0];
    let accepted = begun["last_frame"].as_u64().expect("a frame");
    bridge.kill();
    let (mut turns, mut first, mut held) = (0, accepted, 0);
    for start in 0..STARTS {
        let bridge = world.bridge("one", &endpoint, "loki-one");
        traffic(&world, &bridge, start);
        // What a person asks for is followed by a look at what is old.
        asked(&world, &endpoint, &["store", "compact"]);
        let info = &asked(&world, &endpoint, &["store", "info"])[0];
        let begins = info["first_frame"].as_u64().expect("a frame");
        if begins > first {
            (turns, first) = (turns + 1, begins);
            held = if turns == 1 { files(&world).len() } else { held };
        }
        if start % 2 == 0 {
            bridge.kill();
        } else {
            assert_eq!(bridge.stop(), Some(0));
        }
        if turns == TURNS {
            break;
        }
    }
    assert_eq!(turns, TURNS, "files that are old go: {:?}", files(&world));
    // As many as were made since are gone, more or less.
    let kept = files(&world);
    assert!(kept.len() * 2 < held * 3, "{held} files, then {kept:?}");
    is_sound(&world, &endpoint);
    let bridge = world.bridge("one", &endpoint, "loki-one");
    is_sound(&world, &endpoint);

    let server = world.server("server", port);
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("everything to be delivered", || {
        world.get(&status).filter(|status| status["messages_pending"] == 0)
    });
    for lane in 0..LANES {
        let url = format!("{}/state/default/lane-{lane}", server.address);
        let cell = world.get(&url).expect("the state");
        let (value, version) = (json!(WAITING - LANES + lane), json!(WAITING / LANES));
        assert_eq!((&cell["value"], &cell["version"]), (&value, &version), "{cell}");
    }
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
    let arrived = received(&world.path("server"));
    let waited = arrived.iter().filter(|(id, _)| id.starts_with("waits-"));
    assert!(waited.clone().count() as u64 == WAITING && waited.into_iter().all(|(_, it)| *it == 1));
    let verified = &asked(&world, &endpoint, &["enterprise", "audit", "verify"])[0];
    assert_eq!(verified["faults"], json!([]), "{verified}");
}
