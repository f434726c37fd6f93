//! Bytes that rot under a running program: whoever reads them is told, from then on in every
//! answer, by the commands, the API and the audit log, and the rest is answered.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{World, output};

const NOWHERE: &str = "http://127.0.0.1:9";

/// Makes a byte of this text in the journal another one, wherever it is, and says in which file.
fn rot(data: &Path, text: &str) -> String {
    for file in fs::read_dir(data.join("journal")).expect("the journal") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|ending| ending != "log") {
            continue;
        }
        let bytes = fs::read(&path).expect("a file");
        let places = bytes.windows(text.len()).enumerate();
        let places = places.filter(|(_, window)| *window == text.as_bytes());
        let found: Vec<usize> = places.map(|(at, _)| at).collect();
        // In place, as a disk does it: the program has this file open.
        let file = fs::File::options().write(true).open(&path).expect("the file");
        for at in &found {
            file.write_all_at(&[bytes[*at] ^ 1], *at as u64).expect("written");
        }
        if !found.is_empty() {
            return path.file_name().expect("a name").to_string_lossy().into_owned();
        }
    }
    panic!("{text} is nowhere");
}

#[test]
fn what_rots_while_the_bridge_runs_is_named_by_every_command() {
    let world = World::new();
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let data = world.path("one/.loki/openclaw");
    for (id, text) in [("sound-1", "as it was"), ("rotten-1", "a text that rots")] {
        let note = json!({"message_type": "review_note", "to": "loki-two", "message_id": id,
            "payload": {"text": text}});
        let url = format!("{}/api/openclaw/send", bridge.address);
        assert_eq!(world.post(&url, &note).expect("an answer").0, 202);
    }
    let ask = |words: &str| {
        let mut command = world.loki("one", NOWHERE);
        command.env("LOKI_OPENCLAW_AGENT_ID", "loki-one");
        output(command.args(words.split(' ')))
    };
    let segment = rot(&data, "a text that rots");
    let told = |talk: &str| talk.lines().filter(|line| line.contains(&segment)).count();
    assert_eq!(told(&ask("openclaw messages").2), 0, "nobody has read it");

    let (code, shown, talk) = ask("openclaw show rotten-1 --json");
    let shown: Value = serde_json::from_str(&shown).expect("json");
    assert_eq!((code, told(&talk), &shown["payload"]), (Some(0), 1, &Value::Null), "{talk}");
    assert!(talk.contains("frame does not pass its checksum; frame "), "{talk}");
    let sound = ask("openclaw show sound-1 --json").1;
    assert!(sound.contains("as it was"), "{sound}");
    let questions = [
        "openclaw messages",
        "openclaw messages --by-cause --status pending",
        "openclaw explain sound-1",
        "openclaw status",
        "openclaw tasks",
        "store info",
    ];
    for words in questions {
        assert_eq!(told(&ask(words).2), 1, "{words}");
    }
    let (code, found, _) = ask("doctor");
    assert_eq!((code, told(&found)), (Some(1), 1), "{found}");
    let get = |path: &str| world.get(&format!("{}{path}", bridge.address)).expect("an answer");
    let paths = ["/api/overview", "/api/openclaw/status", "/api/openclaw/messages/sound-1"];
    for path in paths {
        let damage = get(path)["damage"].clone();
        assert!(damage[0].as_str().is_some_and(|one| one.contains(&segment)), "{path}: {damage}");
    }
    world.wait("the audit log to have it", || {
        let page = get("/api/audit?event=store.damage");
        let of_it = |entry: &Value| entry["resource"] == segment.as_str();
        (page["entries"].as_array().expect("entries").iter().filter(|it| of_it(it)).count() == 1)
            .then_some(())
    });
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(told(&ask("openclaw show rotten-1").2), 1, "stopped");
}

#[test]
fn what_rots_while_a_server_runs_is_named_by_every_command() {
    let world = World::new();
    let server = world.server("server", 0);
    let post = |path: &str, body: &Value| {
        let (code, answer) =
            world.post(&format!("{}{path}", server.address), body).expect("answer");
        assert!(code < 300, "{answer}");
    };
    post("/messages", &json!({"message_type": "register", "agent_id": "reader"}));
    post("/tasks", &json!({"task_id": "t-1", "task_type": "painting"}));
    let note = json!({"message_type": "review_note", "agent_id": "writer", "to": "reader",
        "message_id": "rotten-1", "payload": {"text": "a text that rots"}});
    post("/messages", &note);
    let folder = world.path("server");
    let segment = rot(&folder, "a text that rots");
    let ask = |words: &str| {
        let mut command = world.loki("one", NOWHERE);
        command.env_remove("LOKI_OPENCLAW_ENDPOINT").env("LOKI_OPENCLAW_ENABLED", "false");
        output(command.arg("--data-dir").arg(&folder).args(words.split(' ')))
    };
    let told = |talk: &str| talk.lines().filter(|line| line.contains(&segment)).count();
    for words in ["openclaw tasks", "openclaw agents", "openclaw status"] {
        assert_eq!(told(&ask(words).2), 0, "{words}");
    }
    let questions = [
        "openclaw show rotten-1",
        "openclaw messages",
        "openclaw tasks",
        "openclaw agents",
        "openclaw status",
        "enterprise audit tail -n 1000",
    ];
    for words in questions {
        let (code, _, talk) = ask(words);
        assert_eq!((code, told(&talk)), (Some(0), 1), "{words}: {talk}");
    }
    assert_eq!(told(&ask("doctor").1), 1);
    world.wait("the audit log to have it", || {
        let page = world.get(&format!("{}/api/audit?event=store.damage", server.address))?;
        (page["entries"][0]["resource"] == segment.as_str()).then_some(())
    });
    assert_eq!(server.stop(), Some(0));
}

/// What was acknowledged is delivered as it was, or stays as a dead letter that says why.
#[test]
fn what_has_rotted_is_never_delivered() {
    let world = World::new();
    let server = world.server("server", 0);
    let register = json!({"message_type": "register", "agent_id": "reader"});
    assert_eq!(world.post(&format!("{}/messages", server.address), &register).unwrap().0, 202);
    let (address, port) = (server.address.clone(), server.port());
    assert_eq!(server.stop(), Some(0));
    let bridge = world.bridge("one", &address, "loki-one");
    let note = |id: &str, text: &str| {
        json!({"message_type": "review_note", "to": "reader", "message_id": id,
            "payload": {"text": text}})
    };
    let send = |note: &Value| {
        let url = format!("{}/api/openclaw/send", bridge.address);
        world.post(&url, note).expect("an answer").0
    };
    let rotten = note("rotten-1", "a text that rots");
    assert_eq!([send(&rotten), send(&note("sound-1", "as it was"))], [202, 202]);
    // The bridge knows everything of it but the text.
    rot(&world.path("one/.loki/openclaw"), "a text that rots");
    let server = world.server("server", port);
    let fetched = || {
        let page = world.get(&format!("{}/messages?agent_id=reader", server.address))?;
        Some(page["messages"].as_array()?.clone())
    };
    let mail = world.wait("the sound message", || fetched().filter(|mail| !mail.is_empty()));
    assert_eq!((mail.len(), &mail[0]["message_id"]), (1, &json!("sound-1")), "{mail:?}");
    let url = format!("{}/api/openclaw/messages/rotten-1", bridge.address);
    let failed = world
        .wait("the rotten one to fail", || world.get(&url).filter(|one| one["status"] == "failed"));
    assert_eq!(failed["reason"], "permanent");
    let error = failed["error"].as_str().unwrap_or_default();
    assert!(error.contains("does not pass its checksum"), "{failed}");
    assert_eq!(bridge.stop(), Some(0));

    // The same in a mailbox of the server; a limit of one shows that it holds up nothing.
    let write = |note: &Value| {
        let mut note = note.clone();
        note["agent_id"] = json!("writer");
        world.post(&format!("{}/messages", server.address), &note).expect("an answer").0
    };
    let (rots, stays) = (note("rotten-2", "it rots here"), note("sound-2", "and this stays"));
    assert_eq!([write(&rots), write(&stays)], [202, 202]);
    let done = json!({"agent_id": "reader", "message_ids": ["sound-1"]});
    let acked = world.post(&format!("{}/messages/ack", server.address), &done).expect("an answer");
    assert!(acked.0 < 300, "{acked:?}");
    rot(&world.path("server"), "it rots here");
    let mail = world.wait("the sound message", || {
        let url = format!("{}/messages?agent_id=reader&limit=1", server.address);
        let page = world.get(&url)?["messages"].as_array()?.clone();
        (!page.is_empty()).then_some(page)
    });
    assert_eq!(mail[0]["message_id"], "sound-2", "{mail:?}");
    // Sent again it is the same message, whatever became of its bytes here.
    assert_eq!(write(&rots), 202);
    assert_eq!(server.stop(), Some(0));
}
