//! A full disk under the real programs: what was accepted is delivered and acknowledged, what is
//! new is refused with a clear text, looking goes on, and when there is room so is service, without
//! a restart. It mounts a small file system, and says so when it may not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::disk::Disk;
use crate::support::{Program, World, output};

/// Room for the store of a program with small files, and for its rows.
const SIZE: &str = "size=24m";

const STORE: &str = "store:\n  segment_size: 1MiB\n  reserve: 2MiB\n";

/// A bridge that runs one command, with small files.
fn config(command: &str) -> String {
    let store = STORE.replace('\n', "\n  ");
    format!(
        "openclaw:\n  {}\nagents:\n  - type: eng-qa\n    command: [sh, -c, '{command}']\n    \
         task_types: [testing]\n",
        store.trim_end()
    )
}

fn message(number: usize, bytes: usize) -> Value {
    json!({
        "message_type": "state_sync", "message_id": format!("m-{number}"),
        "payload": {"entries": [{"key": format!("k-{number}"), "value": "x".repeat(bytes)}]},
    })
}

/// Sends until one is refused because the disk is full: its number.
fn until_full(
    world: &World,
    url: &str,
    first: usize,
    change: impl Fn(&mut Value),
) -> (usize, Value) {
    for number in first..first + 2_000 {
        let mut message = message(number, 20_000);
        change(&mut message);
        let (status, answer) = world.post(url, &message).expect("an answer");
        if status == 507 {
            return (number, answer);
        }
        assert_eq!(status, 202, "{answer}");
    }
    panic!("nothing is refused");
}

fn check_refusal(refusal: &Value) {
    assert_eq!((&refusal["code"], &refusal["retryable"]), (&json!("storage_full"), &json!(true)));
    let detail = refusal["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("make room") && detail.contains("No space left"), "{detail}");
}

fn audited(world: &World, data: &Path, event: &str) -> usize {
    let mut audit = world.loki("one", "http://127.0.0.1:9");
    audit.args(["enterprise", "audit", "tail", "--event", event, "--json", "--data-dir"]);
    let (code, rows, said) = output(audit.arg(data));
    assert_eq!(code, Some(0), "{said}");
    rows.lines().count()
}

fn has_keys(world: &World, server: &Program, count: usize) {
    for number in 0..count {
        let cell = world.get(&format!("{}/state/default/k-{number}", server.address));
        assert!(cell.is_some_and(|cell| cell["version"] == 1), "k-{number} is missing");
    }
}

#[test]
fn a_bridge_on_a_full_disk_delivers_what_it_took_and_takes_more_when_there_is_room() {
    let world = World::new();
    let Some(disk) = Disk::of_size(&world.path("small"), SIZE) else { return };
    world.write("small/one/.loki/config.yaml", &config("true"));
    let server = world.server("server", 0);
    let port = server.port();
    assert_eq!(server.stop(), Some(0));
    let endpoint = format!("http://127.0.0.1:{port}");
    let bridge = world.bridge("small/one", &endpoint, "loki-one");
    let send = format!("{}/api/openclaw/send", bridge.address);
    assert_eq!(world.post(&send, &message(0, 20_000)).expect("an answer").0, 202);
    disk.fill();
    let (count, refusal) = until_full(&world, &send, 1, |_| {});
    check_refusal(&refusal);
    // What is known is acknowledged also now, and looking goes on.
    assert_eq!(world.post(&send, &message(0, 20_000)).expect("an answer").0, 202);
    let status = format!("{}/api/openclaw/status", bridge.address);
    let shown = world.get(&status).expect("the status");
    assert!(shown["storage_full"].as_str().is_some_and(|why| why.contains("No space left")));
    let data = world.path("small/one/.loki/openclaw");
    world.wait("the audit log", || (audited(&world, &data, "store.full") == 1).then_some(()));
    let server = world.server("server", port);
    world.wait("everything to be delivered", || {
        world.get(&status).filter(|status| status["messages_pending"] == 0)
    });
    has_keys(&world, &server, count);
    // What was delivered is owed nothing any more, so that there may be a little room.
    disk.fill();
    let (count, _) = until_full(&world, &send, count, |_| {});
    // A start on a full disk works too, and says so; also the first one that signs the log.
    bridge.kill();
    fs::remove_file(data.join("audit.key")).expect("removed");
    disk.fill();
    let bridge = world.bridge("small/one", &endpoint, "loki-one");
    let (send, status) = (
        format!("{}/api/openclaw/send", bridge.address),
        format!("{}/api/openclaw/status", bridge.address),
    );
    let (count, _) = until_full(&world, &send, count, |_| {});
    world.get(&status).expect("the status").get("storage_full").expect("it is full");
    disk.free();
    world.wait("the disk to have room", || {
        world.post(&send, &message(count, 20_000)).filter(|(status, _)| *status == 202)
    });
    assert!(world.get(&status).expect("the status").get("storage_full").is_none());
    let list = format!("{}/api/openclaw/messages/m-{count}", bridge.address);
    world.wait("the rows", || world.get(&list).filter(|row| row["status"] == "delivered"));
    has_keys(&world, &server, count + 1);
    assert_eq!((bridge.stop(), server.stop()), (Some(0), Some(0)));
    assert!(audited(&world, &data, "store.room") >= 1);
    assert!(!world.logs().contains("panicked"));
}

#[test]
fn a_part_of_a_result_waits_for_room_and_leaves_what_is_kept_to_the_rest() {
    let world = World::new();
    let Some(disk) = Disk::of_size(&world.path("small"), SIZE) else { return };
    let (begun, go) = (world.path("begun"), world.path("go"));
    let report = r#"{"progress": 0.5, "artifact": {"artifact_id": "list", "parts": ["a"]}}"#;
    let report = report.replace('"', "\\\"");
    let wait =
        format!("touch {}; until [ -e {} ]; do sleep 0.05; done", begun.display(), go.display());
    world.write("small/one/.loki/config.yaml", &config(&format!("{wait}; echo \"{report}\"")));
    // What the command says has room.
    let data = world.path("small/one/.loki/openclaw");
    fs::create_dir_all(&data).expect("a folder");
    fs::create_dir_all(world.path("runs")).expect("a folder");
    symlink(world.path("runs"), data.join("runs")).expect("a link");
    let server = world.server("server", 0);
    let (port, endpoint) = (server.port(), server.address.clone());
    let bridge = world.bridge("small/one", &endpoint, "loki-one");
    let (status, _) = world
        .post(
            &format!("{endpoint}/tasks"),
            &json!({"task_id": "t", "task_type": "testing", "description": "d"}),
        )
        .expect("an answer");
    assert_eq!(status, 201);
    world.wait("the run", || begun.exists().then_some(()));
    assert_eq!(server.stop(), Some(0));
    disk.fill();
    until_full(&world, &format!("{}/api/openclaw/send", bridge.address), 1, |_| {});
    fs::write(&go, "").expect("written");
    let waits = "a part of a result waits until the disk has room";
    world.wait("the part", || world.logs().contains(waits).then_some(()));
    disk.free();
    let server = world.server("server", port);
    let task = format!("{endpoint}/tasks/t");
    let task = world.wait("the end", || world.get(&task).filter(|it| it["status"] == "completed"));
    assert_eq!(task["artifacts"][0]["parts"], json!(["a"]), "{task}");
    assert_eq!((bridge.stop(), server.stop()), (Some(0), Some(0)));
}

#[test]
fn a_server_on_a_full_disk_gives_out_its_mail_and_says_that_it_is_degraded() {
    let world = World::new();
    let Some(disk) = Disk::of_size(&world.path("small"), SIZE) else { return };
    world.write("small/server.yaml", STORE);
    let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw-server"));
    command.arg("--config").arg(world.path("small/server.yaml"));
    command.arg("--data-dir").arg(world.path("small/server")).args(["--listen", "127.0.0.1:0"]);
    let server = world.start(command, &world.path("small/server"));
    let (url, health) =
        (format!("{}/messages", server.address), format!("{}/health", server.address));
    assert_eq!(world.get(&health).expect("an answer")["status"], "ok");
    let reader = json!({"message_type": "register", "agent_id": "reader", "payload": {}});
    assert_eq!(world.post(&url, &reader).expect("an answer").0, 202);
    disk.fill();
    let to_reader = |message: &mut Value| {
        message["agent_id"] = "writer".into();
        message["message_type"] = "capability_query".into();
        message["to"] = "reader".into();
        message["payload"] = json!({"query_type": "list", "filter": "x".repeat(20_000)});
    };
    let (count, refusal) = until_full(&world, &url, 0, to_reader);
    check_refusal(&refusal);
    let shown = world.get(&health).expect("an answer");
    assert_eq!((&shown["status"], &shown["ready"]), (&json!("degraded"), &json!(true)), "{shown}");
    let mut known = message(0, 20_000);
    to_reader(&mut known);
    assert_eq!(world.post(&url, &known).expect("an answer").0, 202, "it is known");
    let task = json!({"task_type": "testing", "description": "waits"});
    let tasks = format!("{}/tasks", server.address);
    check_refusal(&world.post(&tasks, &task).expect("an answer").1);
    // The mail is fetched and acknowledged, all of it.
    let mut fetched = 0;
    while fetched < count {
        let mail = world.get(&format!("{url}?agent_id=reader&limit=50")).expect("the mail");
        let ids: Vec<&str> = mail["messages"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|message| message["message_id"].as_str())
            .collect();
        assert!(!ids.is_empty(), "{fetched} of {count}: {mail}");
        let ack = json!({"agent_id": "reader", "message_ids": ids});
        let (status, answer) = world.post(&format!("{url}/ack"), &ack).expect("an answer");
        assert_eq!((status, &answer["acknowledged"]), (200, &json!(ids.len())), "{answer}");
        fetched += ids.len();
    }
    disk.free();
    world.wait("the server to be well", || {
        world.get(&health).filter(|shown| shown["status"] == "ok")
    });
    assert_eq!(world.post(&tasks, &task).expect("an answer").0, 201);
    assert_eq!(server.stop(), Some(0));
    assert!(!world.logs().contains("panicked"));
}

#[test]
fn an_import_that_breaks_off_leaves_nothing_behind() {
    let world = World::new();
    let Some(disk) = Disk::of_size(&world.path("small"), SIZE) else { return };
    world.write("one/.loki/config.yaml", &config("true"));
    let data = world.path("small/data").display().to_string();
    let entity = |number: usize, bytes: usize| {
        let value = json!({"text": "x".repeat(bytes)});
        let name = ["key".to_owned(), number.to_string()];
        json!({"line": "entity", "kind": "meta", "name": name, "value": value}).to_string()
    };
    let import = |count: usize, bytes: usize| {
        let lines: Vec<String> = (0..count).map(|number| entity(number, bytes)).collect();
        fs::write(world.path("export"), lines.join("\n")).expect("written");
        let mut import = world.loki("one", "http://127.0.0.1:9");
        import.args(["store", "import", "../export", "--data-dir", &data]);
        output(&mut import)
    };
    let (code, _, talk) = import(2_000, 20_000);
    assert!(code == Some(3) && talk.contains("no room"), "{code:?} {talk}");
    assert_eq!(import(2, 20).0, Some(0), "it may be tried again");
    drop(disk);
}
