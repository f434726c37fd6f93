//! A store that went back is noticed on both sides, through the real programs: a backup of the
//! bridge or of the server that was put back, and a folder that was cloned. Service goes on.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use storage::inspect::{AuditFilter, Inspect};

use crate::support::{Program, World, output};

const DATA: &str = "one/.loki/openclaw";

/// Whose store each `store.rollback` of an audit log is about, the oldest first.
fn rollbacks(folder: &Path) -> Vec<String> {
    let events = vec!["store.rollback".to_owned()];
    let look = Inspect::open(folder).expect("the store");
    let page = look.audit(&AuditFilter { events, ..AuditFilter::default() }).expect("read");
    let whose = page.entries.iter().rev().map(|entry| {
        let details: Value = serde_json::from_str(&entry.record.details).expect("json");
        details["whose"].as_str().expect("whose").to_owned()
    });
    whose.collect()
}

/// Sends messages with these keys and waits until the server has them.
fn deliver(world: &World, bridge: &Program, keys: &[&str]) {
    for key in keys {
        let message = json!({"message_type": "state_sync", "message_id": format!("m-{key}"),
            "payload": {"entries": [{"key": key, "value": 1}]}});
        let url = format!("{}/api/openclaw/send", bridge.address);
        assert_eq!(world.post(&url, &message).expect("an answer").0, 202);
    }
    settled(world, bridge);
}

fn settled(world: &World, bridge: &Program) -> Value {
    let url = format!("{}/api/openclaw/status", bridge.address);
    world.wait("everything to be delivered", || {
        world
            .get(&url)
            .filter(|status| status["connected"] == true && status["messages_pending"] == 0)
    })
}

/// Each key was applied once.
fn once(world: &World, server: &Program, keys: &[&str]) {
    for key in keys {
        let cell = world.get(&format!("{}/state/default/{key}", server.address));
        assert!(cell.is_some_and(|cell| cell["version"] == 1), "{key}");
    }
}

fn back_up(world: &World, from: &str, to: &str) {
    let mut command = world.loki("one", "http://127.0.0.1:9");
    command.arg("--data-dir").arg(world.path(from)).args(["store", "backup"]);
    let (code, _, talk) = output(command.arg(world.path(to)));
    assert_eq!(code, Some(0), "{talk}");
}

fn put_back(world: &World, backup: &str, place: &str) {
    fs::remove_dir_all(world.path(place)).expect("removed");
    fs::rename(world.path(backup), world.path(place)).expect("put back");
}

#[test]
fn a_backup_that_was_put_back_is_noticed_on_both_sides_and_service_goes_on() {
    let world = World::new();
    let server = world.server("server", 0);
    let (address, port) = (server.address.clone(), server.port());
    let bridge = || world.bridge("one", &address, "loki-one");
    let first = bridge();
    deliver(&world, &first, &["a", "b"]);
    back_up(&world, DATA, "copy-of-bridge");
    back_up(&world, "server", "copy-of-server");
    deliver(&world, &first, &["c", "d"]);
    // The ends are shown with a registration: that of the next start is later than the backup.
    assert_eq!(first.stop(), Some(0));
    let second = bridge();
    deliver(&world, &second, &["e"]);
    let status = settled(&world, &second);
    assert_eq!(status["rollback"], Value::Null, "{status}");
    assert_eq!(second.stop(), Some(0));
    assert!(rollbacks(&world.path(DATA)).is_empty() && rollbacks(&world.path("server")).is_empty());

    put_back(&world, "copy-of-bridge", DATA);
    let restored = bridge();
    deliver(&world, &restored, &["f"]);
    let status = world.wait("the status to tell", || {
        Some(settled(&world, &restored)).filter(|status| status["rollback"].is_string())
    });
    assert!(
        status["rollback"].as_str().is_some_and(|text| text.contains("store of the bridge")),
        "{status}"
    );
    assert_eq!(rollbacks(&world.path(DATA)), ["bridge"]);
    assert_eq!(rollbacks(&world.path("server")), ["agent"]);
    let agent = world.get(&format!("{address}/agents/loki-one")).expect("the agent");
    assert!(agent["rollback_at"].is_string(), "{agent}");
    once(&world, &server, &["a", "b", "c", "d", "e", "f"]);
    assert_eq!(restored.stop(), Some(0));
    let again = bridge();
    settled(&world, &again);
    assert_eq!(rollbacks(&world.path("server")), ["agent"], "it is told of once");

    server.kill();
    put_back(&world, "copy-of-server", "server");
    let server = world.server("server", port);
    deliver(&world, &again, &["g"]);
    once(&world, &server, &["a", "b", "g"]);
    world.wait("both to tell", || {
        let bridge = rollbacks(&world.path(DATA)) == ["bridge", "server"];
        (bridge && rollbacks(&world.path("server")).contains(&"server".to_owned())).then_some(())
    });
    let health = world.get(&format!("{address}/health")).expect("it goes on");
    assert!(health["storage"]["rollback_at"].is_string(), "{health}");
    assert_eq!(again.stop(), Some(0));
    let mut look = world.loki("one", &address);
    look.env("LOKI_OPENCLAW_AGENT_ID", "loki-one").args(["openclaw", "status", "--json"]);
    let (_, stopped, talk) = output(&mut look);
    assert!(stopped.contains("the store of the server went back"), "{stopped} {talk}");
}

#[test]
fn a_cloned_folder_is_noticed_also_when_it_went_further_than_the_original() {
    let world = World::new();
    let server = world.server("server", 0);
    let address = server.address.clone();
    let first = world.bridge("one", &address, "loki-one");
    deliver(&world, &first, &["a"]);
    assert_eq!(first.stop(), Some(0));
    crate::store::copy(&world.path(DATA), &world.path("two/.loki/openclaw"));
    let original = world.bridge("one", &address, "loki-one");
    deliver(&world, &original, &["b"]);
    assert_eq!(original.stop(), Some(0));
    // Without a server the clone goes on, and its journal becomes the longer one.
    let lonely = world.bridge("two", "http://127.0.0.1:9", "loki-one");
    for number in 0..60 {
        let message = json!({"message_type": "state_sync", "message_id": format!("clone-{number}"),
            "payload": {"entries": [{"key": format!("clone/{number}"), "value": 1}]}});
        let url = format!("{}/api/openclaw/send", lonely.address);
        assert_eq!(world.post(&url, &message).expect("an answer").0, 202);
    }
    assert_eq!(lonely.stop(), Some(0));
    let clone = world.bridge("two", &address, "loki-one");
    settled(&world, &clone);
    world.wait("both to tell", || {
        let clone = rollbacks(&world.path("two/.loki/openclaw")) == ["bridge"];
        (clone && rollbacks(&world.path("server")) == ["agent"]).then_some(())
    });
    once(&world, &server, &["a", "b", "clone/0", "clone/59"]);
    assert_eq!(clone.stop(), Some(0));
}
