//! Bytes that rot under a running program: whoever reads them is told, from then on in every
//! answer, by the commands, the API and the audit log, and the rest is answered.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{World, output};

const NOWHERE: &str = "http://127.0.0.1:9";

/// Makes a byte of this text in the journal another one.
fn rot(data: &Path, text: &str) -> String {
    for file in fs::read_dir(data.join("journal")).expect("the journal") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|ending| ending != "log") {
            continue;
        }
        let mut bytes = fs::read(&path).expect("a file");
        let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(at) = found {
            bytes[at] ^= 1;
            // In place, as a disk does it: the program has this file open.
            let file = fs::File::options().write(true).open(&path).expect("the file");
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..=at], at as u64)
                .expect("written");
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
