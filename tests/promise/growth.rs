//! Growth is bounded: the content of finished messages goes from the disk, with the program running
//! or stopped, and everything else of them stays.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Program, World, output};

/// Small files, and nothing finished is kept for long.
const CONFIG: &str = "openclaw:\n  retention: 0\n  store:\n    segment_size: 1MiB\n    \
                      reserve: 1MiB\nagents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                      task_types: [testing]\n";

const MESSAGES: usize = 60;

fn send(world: &World, bridge: &Program, number: usize) {
    let message = json!({
        "message_type": "state_sync", "message_id": format!("m-{number}"),
        "payload": {"entries": [{"key": "k", "value": "x".repeat(100_000)}]},
    });
    let answer = world.post(&format!("{}/api/openclaw/send", bridge.address), &message);
    assert_eq!(answer.expect("an answer").0, 202);
}

fn asked(world: &World, arguments: &[&str]) -> Value {
    let mut command = world.loki("one", "http://127.0.0.1:9");
    let (code, stdout, stderr) = output(command.args(arguments).arg("--json"));
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).expect("json")
}

fn journal_bytes(world: &World) -> u64 {
    let journal = world.path("one/.loki/openclaw/journal");
    let files = fs::read_dir(journal).expect("the journal");
    files.flatten().map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[test]
fn what_nobody_keeps_goes_from_the_disk_and_its_history_stays() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    for number in 0..MESSAGES {
        send(&world, &bridge, number);
    }
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("everything to be delivered", || {
        world.get(&status).filter(|status| status["messages_pending"] == 0)
    });
    let before = asked(&world, &["store", "info"]);
    let (bytes, live) = (before["bytes"].as_u64(), before["live_bytes"].as_u64());
    assert!(bytes > Some(6_000_000) && live < Some(3_000_000), "{before}");
    assert_eq!(before["messages"]["delivered"]["count"], MESSAGES, "{before}");
    let size = journal_bytes(&world);
    // A person does not wait until the program finds the time.
    let freed = asked(&world, &["store", "compact"]);
    let won = freed["bytes_freed"].as_u64().expect("a number");
    assert!(freed["done"] == true && won > 4_000_000, "{freed}");
    assert!(journal_bytes(&world) < size - won / 2);
    let after = asked(&world, &["store", "info"]);
    assert!(after["bytes"].as_u64() < Some(3_000_000), "{after}");
    assert!(after["last_compaction"].is_string() && after["full"].is_null(), "{after}");
    assert!(after["recorded_since"].is_string() && after["last_trim"].is_null(), "{after}");
    let shown = asked(&world, &["openclaw", "show", "m-3"]);
    assert_eq!((&shown["payload"], &shown["status"]), (&Value::Null, &json!("delivered")));
    assert!(shown["history"].as_array().is_some_and(|steps| steps.len() > 1), "{shown}");
    // Known is known, whatever became of the content.
    send(&world, &bridge, 3);
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
    let stopped = asked(&world, &["store", "info"]);
    assert_eq!(stopped["messages"], after["messages"]);
    assert_eq!(asked(&world, &["store", "compact"])["done"], true);
    let audit = ["enterprise", "audit", "tail", "--event", "store.compact", "--json"];
    let (_, rows, _) = output(world.loki("one", "http://127.0.0.1:9").args(audit));
    assert!(rows.lines().count() > 3, "{rows}");
}
