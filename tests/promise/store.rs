//! `loki store` through the real programs, on the stores of bridges and servers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{World, output};

/// A command with `--json` on the data folder `name`: its exit code, its data and its talk.
fn asked(world: &World, name: &str, arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let mut command = world.loki("project", "http://127.0.0.1:9");
    command.arg("--data-dir").arg(world.path(name)).args(arguments).arg("--json");
    let (code, data, talk) = output(&mut command);
    (code, data.lines().map(|line| serde_json::from_str(line).expect("json")).collect(), talk)
}

/// Copies a folder, as a backup that is put back would be.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("a copy");
        }
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/fixtures").join(name)
}

fn migrations_told(world: &World, name: &str) -> Vec<Value> {
    let tail = ["enterprise", "audit", "tail", "--event", "store.migrate"];
    let (code, entries, talk) = asked(world, name, &tail);
    assert_eq!(code, Some(0), "{talk}");
    entries
}

#[test]
fn a_store_of_an_older_version_is_migrated_by_command_and_by_a_start() {
    let world = World::new();
    for name in ["by-command", "by-server"] {
        copy(&fixture("format-1/killed"), &world.path(name));
    }
    let dry = ["store", "migrate", "--dry-run"];
    let (code, plan, talk) = asked(&world, "by-command", &dry);
    assert_eq!(code, Some(0), "{talk}");
    assert_eq!((&plan[0]["from"], &plan[0]["to"]), (&1.into(), &2.into()));
    assert_eq!((&plan[0]["files"], &plan[0]["done"]), (&5.into(), &false.into()));
    assert_eq!(migrations_told(&world, "by-command").len(), 0);
    let (code, done, talk) = asked(&world, "by-command", &["store", "migrate"]);
    assert_eq!((code, &done[0]["done"]), (Some(0), &true.into()), "{talk}");
    assert!(talk.contains("from format 1 to 2"), "{talk}");
    let (code, again, _) = asked(&world, "by-command", &["store", "migrate"]);
    assert_eq!((code, &again[0]["needed"]), (Some(0), &false.into()));

    let server = world.server("by-server", 0);
    let (code, _, talk) = asked(&world, "by-server", &["store", "migrate"]);
    assert_eq!(code, Some(3), "{talk}");
    assert!(talk.contains("is in use by another process"), "{talk}");
    assert_eq!(server.stop(), Some(0));
    for name in ["by-command", "by-server"] {
        let told = migrations_told(&world, name);
        assert_eq!(told.len(), 1, "{name}");
        assert_eq!(told[0]["details"]["from"], 1, "{name}: {}", told[0]);
        let (_, messages, _) = asked(&world, name, &["openclaw", "messages", "--limit", "1000"]);
        // The server gives back what it cannot deliver any more, with messages of its own.
        let is_old =
            |one: &&Value| one["message_id"].as_str().is_some_and(|id| id.starts_with("message-"));
        assert_eq!(messages.iter().filter(is_old).count(), 90, "{name}");
    }
}

#[test]
fn a_newer_store_is_refused_by_name() {
    let world = World::new();
    copy(&fixture("format-1/clean"), &world.path("newer"));
    fs::write(world.path("newer/format"), "loki-openclaw store 3\n").expect("written");
    let looks: [&[&str]; 4] = [
        &["store", "migrate"],
        &["openclaw", "messages"],
        &["openclaw", "send", "state_sync"],
        &["start", "--openclaw"],
    ];
    for arguments in looks {
        let (code, _, talk) = asked(&world, "newer", arguments);
        assert_eq!(code, Some(3), "{arguments:?}: {talk}");
        assert!(talk.contains("was written by a newer version (format 3"), "{talk}");
    }
}

/// Where the frame begins that accepted a message, by its magic and the message's content.
fn frame_of(bytes: &[u8], content: &str) -> usize {
    let has = |part: &[u8]| part.windows(content.len()).any(|here| here == content.as_bytes());
    let is_frame = |at: &usize| bytes[*at..].starts_with(b"LKFR");
    let mut starts = (4096..bytes.len()).step_by(8).filter(is_frame).peekable();
    while let Some(start) = starts.next() {
        if has(&bytes[start..*starts.peek().unwrap_or(&bytes.len())]) {
            return start;
        }
    }
    panic!("{content} is not in this segment");
}

#[test]
fn a_damaged_store_is_checked_goes_on_and_tells() {
    let world = World::new();
    copy(&fixture("format-1/clean"), &world.path("data"));
    assert_eq!(asked(&world, "data", &["store", "migrate"]).0, Some(0));
    let (code, sound, talk) = asked(&world, "data", &["store", "check", "--bodies"]);
    assert_eq!(
        (code, &sound[0]["sound"], &sound[0]["bodies"]),
        (Some(0), &true.into(), &90.into())
    );
    assert!(sound[0]["damage"] == Value::Array(Vec::new()), "{} {talk}", sound[0]);
    let segment = world.path("data/journal/segment-0000000002.log");
    let mut bytes = fs::read(&segment).expect("a segment");
    let at = frame_of(&bytes, "body 22");
    bytes[at + 130] ^= 1;
    fs::write(&segment, bytes).expect("written");
    // Without a checkpoint everything is read again.
    fs::remove_dir_all(world.path("data/checkpoints")).expect("removed");
    let (code, found, _) = asked(&world, "data", &["store", "check"]);
    assert_eq!(code, Some(1), "{found:?}");
    let damage = &found[0]["damage"][0];
    assert_eq!(damage["segment"], "segment-0000000002.log");
    assert_eq!(damage["offset"], at);
    assert!(damage["first"].is_u64() && damage["first"] == damage["last"], "{damage}");
    let id = "message-022";
    assert_eq!(found[0]["messages"][0], id, "{}", found[0]);
    let (_, _, talk) = {
        let mut command = world.loki("project", "http://127.0.0.1:9");
        command.arg("--data-dir").arg(world.path("data")).args(["store", "check"]);
        output(&mut command)
    };
    assert!(talk.contains(&format!("records about message {id} are lost")), "{talk}");

    let server = world.server("data", 0);
    let health = world.get(&format!("{}/health", server.address)).expect("it goes on");
    assert_eq!(health["status"], "ok", "{health}");
    let (code, ..) = asked(&world, "data", &["store", "check"]);
    assert_eq!(code, Some(1), "a check works beside a running program");
    let (code, _, talk) = asked(&world, "data", &["store", "rebuild"]);
    assert_eq!(code, Some(3), "{talk}");
    assert!(talk.contains("is in use by another process"), "{talk}");
    assert_eq!(server.stop(), Some(0));
    let tail = ["enterprise", "audit", "tail", "--event", "store.damage"];
    let (_, told, _) = asked(&world, "data", &tail);
    let about = |resource: &str| told.iter().any(|one| one["resource"] == resource);
    assert!(about(id) && about("segment-0000000002.log"), "{told:?}");

    let list = ["openclaw", "messages", "--limit", "1000"];
    let before = asked(&world, "data", &list).1.len();
    let (code, rebuilt, talk) = asked(&world, "data", &["store", "rebuild"]);
    assert_eq!(code, Some(0), "{talk}");
    assert_eq!(rebuilt[0]["messages"], before, "{}", rebuilt[0]);
    assert!(world.path("data/messages").is_dir());
}

#[test]
fn a_server_in_use_is_backed_up_and_its_backup_goes_on() {
    let world = World::new();
    let server = world.server("server", 0);
    let offer = |id: &str| json!({"task_id": id, "task_type": "testing", "description": "x"});
    for id in ["t-1", "t-2"] {
        let (status, answer) =
            world.post(&format!("{}/tasks", server.address), &offer(id)).expect("an answer");
        assert_eq!(status, 201, "{answer}");
    }
    let to = world.path("copy").display().to_string();
    let (code, made, talk) = asked(&world, "server", &["store", "backup", &to]);
    assert_eq!(code, Some(0), "{talk}");
    assert!(made[0]["sequence"].as_u64().is_some_and(|sequence| sequence > 2), "{}", made[0]);
    let (code, _, talk) = asked(&world, "server", &["store", "backup", &to]);
    assert_eq!(code, Some(2));
    assert_eq!(talk, format!("error: {to} is not empty; name a new folder for the backup\n"));
    world.post(&format!("{}/tasks", server.address), &offer("t-3")).expect("an answer");
    let (code, checked, talk) = asked(&world, "copy", &["store", "check", "--bodies"]);
    assert_eq!((code, &checked[0]["backup_differs"]), (Some(0), &json!([])), "{talk}");
    server.kill();
    let restored = world.server("copy", 0);
    let status = |id: &str| world.get(&format!("{}/tasks/{id}", restored.address));
    assert!(status("t-1").is_some() && status("t-2").is_some());
    assert!(status("t-3").is_none(), "it came later");
    assert_eq!(restored.stop(), Some(0));
    let (code, checked, _) = asked(&world, "copy", &["store", "check"]);
    assert_eq!((code, &checked[0]["backup_differs"]), (Some(0), &Value::Null));
}

#[test]
fn an_export_makes_the_same_store_elsewhere_and_garbage_is_named_by_line() {
    let world = World::new();
    copy(&fixture("format-1/clean"), &world.path("from"));
    assert_eq!(asked(&world, "from", &["store", "migrate"]).0, Some(0));
    let exported = |name: &str, more: &[&str]| {
        let (code, lines, talk) = asked(&world, name, &[&["store", "export"], more].concat());
        assert_eq!(code, Some(0), "{talk}");
        lines
    };
    let of = |lines: &[Value], kind: &str| {
        lines.iter().filter(|line| line["line"] == kind).cloned().collect::<Vec<_>>()
    };
    let first = exported("from", &[]);
    let messages = of(&first, "message");
    assert_eq!((messages.len(), of(&first, "entity").len()), (90, 5));
    let failed = &messages[10];
    assert_eq!((&failed["status"], &failed["attempts"]), (&"failed".into(), &2.into()));
    assert_eq!(failed["body"]["text"], "body 10");
    assert_eq!(failed["error"], "the peer refused it");

    let text = first.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n";
    fs::write(world.path("export.jsonl"), &text).expect("written");
    let file = world.path("export.jsonl").display().to_string();
    let (code, done, talk) = asked(&world, "to", &["store", "import", &file]);
    assert_eq!(code, Some(0), "{talk}");
    assert_eq!((&done[0]["messages"], &done[0]["entities"]), (&90.into(), &5.into()));
    let second = exported("to", &[]);
    for kind in ["message", "entity"] {
        assert_eq!(of(&second, kind), of(&first, kind), "{kind}");
    }
    let entries = of(&second, "audit");
    let missing: Vec<_> =
        of(&first, "audit").into_iter().filter(|one| !entries.contains(one)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(asked(&world, "to", &["store", "check", "--bodies"]).0 == Some(0));
    let late = exported("from", &["--since", "2026-01-01T00:00:00Z"]);
    assert!(of(&late, "message").is_empty() && !of(&late, "audit").is_empty());

    let (code, _, talk) = asked(&world, "to", &["store", "import", &file]);
    assert_eq!(code, Some(2));
    assert!(talk.contains("has a store with something in it"), "{talk}");
    let bad = text.replacen("\"pending\"", "\"asleep\"", 1) + "not json\n\n{\"line\":\"other\"}\n";
    fs::write(world.path("bad.jsonl"), &bad).expect("written");
    let (code, _, talk) =
        asked(&world, "new", &["store", "import", &world.path("bad.jsonl").display().to_string()]);
    assert_eq!(code, Some(2), "{talk}");
    let asleep = 1 + bad.lines().position(|line| line.contains("asleep")).expect("a line");
    let last = bad.lines().count();
    assert!(talk.contains(&format!("line {asleep}: \"asleep\" is no status")), "{talk}");
    assert!(talk.contains(&format!("line {}: ", last - 2)), "{talk}");
    assert!(talk.contains(&format!("line {last}: ")), "{talk}");
    assert!(!world.path("new/journal").exists(), "nothing was written");
    what_was_lost_is_not_sent(&world, &text);
}

/// A message that waits and whose content was lost is imported as one that failed.
fn what_was_lost_is_not_sent(world: &World, text: &str) {
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    let is_waiting = |line: &&mut Value| line["line"] == "message" && line["status"] == "pending";
    let waiting = lines.iter_mut().find(is_waiting).expect("one that waits");
    waiting["body"] = Value::Null;
    let id = waiting["message_id"].as_str().expect("an id").to_owned();
    let text = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n";
    fs::write(world.path("lost.jsonl"), text).expect("written");
    let file = world.path("lost.jsonl").display().to_string();
    let (code, _, talk) = asked(world, "lost", &["store", "import", &file]);
    assert_eq!(code, Some(0), "{talk}");
    let (_, shown, _) = asked(world, "lost", &["openclaw", "show", &id]);
    let what = [&shown[0]["status"], &shown[0]["reason"], &shown[0]["error"]];
    assert_eq!(what, ["failed", "permanent", "its content was lost before it was exported"]);
    // There is nothing to send again, also under a new id.
    let (_, again, talk) = asked(world, "lost", &["openclaw", "retry", &id]);
    assert_eq!(again[0]["retried"], 0, "{talk}");
}
