//! Twenty questions of a person, and the same answers to them whether the program runs, was killed,
//! was stopped, or lost a part of its store: what that took is named.

use std::fs;
use std::path::Path;

use loki_openclaw::clock::rfc3339;
use serde_json::{Value, json};

use crate::store::copy;
use crate::support::{Program, World, output};

const CONFIG: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                      task_types: [testing]\n";
const NOWHERE: &str = "http://127.0.0.1:9";

/// What a command answered: its exit code, its lines and its talk.
type Answer = (Option<i32>, Vec<String>, String);

/// What the questions name: a message that was delivered, one that failed, one that waits; the
/// times between which the messages were written; and where the second page of them begins.
struct Names {
    delivered: String,
    failed: String,
    waiting: String,
    from: String,
    until: String,
    next: String,
    server: String,
}

impl Names {
    /// The questions, each a line of words. What is asked about is over, so that the answers stay.
    fn questions(&self) -> Vec<String> {
        let Self { delivered, failed, waiting, from, until, next, .. } = self;
        let audit = |what: &str| format!("enterprise audit {what} --until {until}");
        let messages = |what: &str| format!("openclaw messages --until {until}{what}");
        vec![
            "openclaw status --json".into(),
            messages(" --json"),
            messages(" --json --status delivered"),
            messages(" --json --status pending --direction outbound"),
            messages(" --json --direction inbound"),
            messages(" --json --type task_complete --reason permanent"),
            messages(" --json --peer loki-two"),
            messages(" --json --task-id t-1"),
            format!("openclaw messages --json --since {from} --until {until} --limit 4"),
            messages(&format!(" --json --limit 4 --after {next}")),
            messages(" --json --by-cause"),
            messages(" --by-cause"),
            format!("openclaw show {delivered} --json"),
            format!("openclaw show {failed}"),
            format!("openclaw show {waiting} --json"),
            format!("openclaw explain {failed}"),
            "openclaw tasks --json".into(),
            audit("tail --json -n 1000"),
            audit("tail --level warning --event message.* --event task.*"),
            audit(&format!("tail --json --actor loki-one --since {from} -n 7")),
            audit("summary --json"),
            audit("summary --event message.*"),
            audit("search --json task_complete"),
            audit(&format!("export --resource {failed}")),
            audit("export --format csv --event message.queued"),
            audit("export --format syslog --level error"),
            "store info --json".into(),
        ]
    }
}

fn ask(world: &World, folder: &Path, names: &Names, question: &str) -> Answer {
    let mut command = world.loki("one", &names.server);
    command.env("LOKI_OPENCLAW_AGENT_ID", "loki-one").arg("--data-dir").arg(folder);
    let (code, data, talk) = output(command.args(question.split(' ')));
    (code, data.lines().map(str::to_owned).collect(), talk)
}

fn answers(world: &World, folder: &Path, names: &Names) -> Vec<(String, Answer)> {
    let one = |question: String| {
        let answer = settled(&question, ask(world, folder, names, &question));
        (question, answer)
    };
    names.questions().into_iter().map(one).collect()
}

/// An answer without what is of the moment: how the link is, and what a start and a stop add to the
/// files.
fn settled(question: &str, (code, lines, talk): Answer) -> Answer {
    let kept: &[&str] = match question {
        "openclaw status --json" => &[
            "agent_id",
            "agents",
            "messages",
            "messages_pending",
            "namespace",
            "paused",
            "rollback",
            "server",
            "tasks",
            "version",
        ],
        "store info --json" => &["first_frame", "format", "full", "last_compaction", "messages"],
        _ => return (code, lines, talk),
    };
    let object = |line: &String| -> Value { serde_json::from_str(line).expect("json") };
    let kept = |line: &String| {
        let object = object(line);
        kept.iter().map(|name| format!("{name}: {}", object[name])).collect::<Vec<_>>()
    };
    // Which program is stopped is told beside it.
    let talk = talk.lines().filter(|line| !line.contains("is stopped; this is what"));
    let talk: Vec<&str> = talk.collect();
    (code, lines.iter().flat_map(kept).collect(), talk.join("\n"))
}

/// A bridge with messages of every kind, whose server is gone.
fn lived(world: &World) -> (Program, Names) {
    world.write("one/.loki/config.yaml", CONFIG);
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    let server_address = server.address.clone();
    let from = rfc3339(world.clock().now());
    for number in 1..3 {
        let task = json!({"task_id": format!("t-{number}"), "task_type": "testing"});
        world.post(&format!("{}/tasks", server.address), &task).expect("an answer");
    }
    let send = |id: &str, message: Value| {
        let mut message = message;
        message["message_id"] = id.into();
        let url = format!("{}/api/openclaw/send", bridge.address);
        let (code, answer) = world.post(&url, &message).expect("an answer");
        assert_eq!(code, 202, "{answer}");
    };
    for number in 0..6 {
        let entries = json!([{"key": format!("k/{number}"), "value": number}]);
        let message = json!({"message_type": "state_sync", "payload": {"entries": entries}});
        send(&format!("good-{number}"), message);
    }
    for number in 0..2 {
        // The server knows no such task, and says so for good.
        let payload = json!({"task_id": format!("x-{number}"), "status": "completed"});
        send(
            &format!("bad-{number}"),
            json!({"message_type": "task_complete", "payload": payload}),
        );
    }
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("all to be settled", || {
        let status = world.get(&status)?;
        let is_done = status["messages_pending"] == 0 && status["tasks"]["completed"] == 2;
        (is_done && status["messages"]["failed"] == 2).then_some(())
    });
    server.kill();
    world.wait("the end of the session", || {
        world.get(&status).filter(|status| status["connected"] == false)
    });
    let mut pause = world.loki("one", NOWHERE);
    assert_eq!(output(pause.args(["openclaw", "pause", "--to", "loki-three"])).0, Some(0));
    for number in 0..4 {
        let note = json!({"message_type": "review_note", "to": "loki-two", "payload": {}});
        send(&format!("wait-{number}"), note);
    }
    let soon = rfc3339(world.clock().now() + 300);
    send("late", json!({"message_type": "review_note", "to": "loki-two", "expires_at": soon}));
    world.wait("one to expire", || {
        world.get(&status).filter(|status| status["messages"]["expired"] == 1)
    });
    let until = rfc3339(world.clock().now() + 1);
    let first = format!("{}/api/openclaw/messages?limit=4&until={until}", bridge.address);
    let next = world.get(&first).expect("a page")["next"].as_str().expect("more").to_owned();
    let names = ["good-3", "bad-1", "wait-2"].map(str::to_owned);
    let [delivered, failed, waiting] = names;
    (bridge, Names { delivered, failed, waiting, from, until, next, server: server_address })
}

/// Makes a byte of the frame that accepted a message another one; the file that it is in.
fn damage(data: &Path, message_id: &str) -> String {
    let files = fs::read_dir(data.join("journal")).expect("the journal");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let id = message_id.as_bytes();
    for path in paths.iter().filter(|path| path.is_file()) {
        let mut bytes = fs::read(path).expect("a file");
        if let Some(at) = bytes.windows(id.len()).position(|window| window == id) {
            bytes[at] ^= 1;
            fs::write(path, bytes).expect("written");
            return path.file_name().expect("a name").to_string_lossy().into_owned();
        }
    }
    panic!("{message_id} is nowhere");
}

/// A message whose acceptance is a frame of its own, by the audit log as it was answered.
fn alone(world: &World, folder: &Path, names: &Names) -> String {
    let question = format!("enterprise audit export --until {}", names.until);
    let (_, lines, _) = ask(world, folder, names, &question);
    let entries: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("json")).collect();
    let frame = |entry: &Value| {
        let seq = entry["seq"].as_str().expect("a place");
        seq.split('.').next().expect("a frame").to_owned()
    };
    let is_alone = |entry: &&Value| {
        let others = entries.iter().filter(|one| frame(one) == frame(entry)).count();
        let id = entry["resource"].as_str().unwrap_or_default();
        others == 1 && id.starts_with("wait-") && id != names.waiting
    };
    let found = entries.iter().find(is_alone).expect("a frame with one entry");
    found["resource"].as_str().expect("an id").to_owned()
}

/// What a damaged store answers to a question is what a sound one did, less what is about the
/// message that was lost; and it names what is missing.
fn less(question: &str, lost: &str, sound: &Answer, found: &Answer) {
    let without = |answer: &Answer| -> Vec<String> {
        answer.1.iter().filter(|line| !line.contains(lost)).cloned().collect()
    };
    let (sound_lines, found_lines) = (without(sound), without(found));
    assert_eq!(sound.0, found.0, "{question}: {found:?}");
    if question.contains(" summary") || question.contains("status --json") {
        // One less of them: which is in the counts.
        assert_ne!(sound_lines, found_lines, "{question}");
    } else if question.contains("--limit") || question.contains(" -n 7") {
        // The page goes on behind the one that is missing.
        let shared = sound_lines.iter().filter(|line| found_lines.contains(line)).count();
        assert!(shared + 1 >= sound_lines.len(), "{question}: {found:?}");
    } else if question != "store info --json" {
        assert_eq!(sound_lines, found_lines, "{question}");
    }
}

#[test]
fn twenty_questions_have_the_same_answers_running_killed_stopped_and_damaged() {
    let world = World::new();
    let (bridge, names) = lived(&world);
    let folder = world.path("one/.loki/openclaw");
    let running = answers(&world, &folder, &names);
    assert!(running.len() >= 20);
    for (question, (code, lines, _)) in &running {
        let expected = i32::from(question.starts_with("openclaw status"));
        assert_eq!(*code, Some(expected), "{question}");
        assert!(!lines.is_empty(), "{question}");
    }
    let lost = alone(&world, &folder, &names);
    bridge.kill();
    assert_same(&running, &answers(&world, &folder, &names));
    let damaged = world.path("two/.loki/openclaw");
    copy(&folder, &damaged);
    let bridge = world.bridge("one", &names.server, "loki-one");
    assert_eq!(bridge.stop(), Some(0));
    assert_same(&running, &answers(&world, &folder, &names));

    let segment = damage(&damaged, &lost);
    let check = || {
        let found = answers(&world, &damaged, &names);
        for ((question, sound), (_, found)) in running.iter().zip(&found) {
            less(question, &lost, sound, found);
            let told = found.2.lines().filter(|line| line.contains(&segment)).count();
            assert_eq!(told, 1, "{question}: {}", found.2);
        }
        found
    };
    let killed = check();
    let bridge = world.bridge("two", &names.server, "loki-one");
    // The rows of a running bridge are beside the journal, and whole; its words are the same.
    let told = |answers: &[(String, Answer)]| -> Vec<String> {
        let lines = answers.iter().flat_map(|(_, answer)| answer.2.lines());
        lines.filter(|line| line.contains(&segment)).map(str::to_owned).collect()
    };
    assert_eq!(told(&check()), told(&killed));
    assert_eq!(bridge.stop(), Some(0));
    assert_same(&killed, &check());
}

fn assert_same(expected: &[(String, Answer)], found: &[(String, Answer)]) {
    for (expected, found) in expected.iter().zip(found) {
        assert_eq!(expected, found);
    }
}

/// The same about a server, and its agents.
fn of_server(world: &World, folder: &Path, names: &Names) -> Vec<(String, Answer)> {
    let mut answers = answers(world, folder, names);
    // A server that runs is well, and a stopped one is not: that is the code of its status.
    answers[0].1.0 = None;
    let mut agents = world.loki("one", NOWHERE);
    agents.env_remove("LOKI_OPENCLAW_ENDPOINT").env("LOKI_OPENCLAW_ENABLED", "false");
    agents.arg("--data-dir").arg(folder).args(["openclaw", "agents", "--json"]);
    let (code, lines, _) = output(&mut agents);
    let known = |line: &str| {
        let mut agent: Value = serde_json::from_str(line).expect("json");
        // Only a running server knows when it heard of somebody.
        let members = agent.as_object_mut().expect("an agent");
        members.retain(|name, _| name != "last_heartbeat" && name != "activity");
        agent.to_string()
    };
    let lines = lines.lines().map(known).collect();
    answers.push(("openclaw agents --json".into(), (code, lines, String::new())));
    answers
}

#[test]
fn twenty_questions_about_a_server_have_the_same_answers_running_killed_and_stopped() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    let server = world.server("server", 0);
    let from = rfc3339(world.clock().now());
    let bridge = world.bridge("one", &server.address, "loki-one");
    let url = |path: &str| format!("{}{path}", server.address);
    for (number, to) in [(1, "loki-one"), (2, "loki-one"), (3, "nobody"), (4, "nobody")] {
        let task = json!({"task_id": format!("t-{number}"), "task_type": "testing",
            "target_agent": to});
        world.post(&url("/tasks"), &task).expect("an answer");
    }
    let say = |message: Value, code: u16| {
        let (found, answer) = world.post(&url("/messages"), &message).expect("an answer");
        assert_eq!(found, code, "{answer}");
    };
    let note = |id: &str| {
        json!({"message_type": "review_note", "agent_id": "loki-two", "message_id": id,
            "to": "loki-one", "payload": {"text": id}})
    };
    say(json!({"message_type": "register", "agent_id": "loki-two"}), 202);
    say(note("note-1"), 202);
    let payload = json!({"task_id": "x-1", "status": "completed"});
    let bad = json!({"message_type": "task_complete", "agent_id": "loki-two", "message_id": "bad-1",
        "payload": payload});
    say(bad, 404);
    world.wait("two tasks to be done and the agents to be gone", || {
        let tasks = world.get(&url("/tasks?status=completed"))?;
        let is_lost = world.get(&url("/agents/loki-two"))?["status"] == "lost";
        (is_lost && tasks["tasks"].as_array()?.len() == 2).then_some(())
    });
    assert_eq!(bridge.stop(), Some(0));
    for number in 2..5 {
        say(note(&format!("note-{number}")), 202);
    }
    world.wait("the sender to be gone again", || {
        world.get(&url("/agents/loki-two")).filter(|agent| agent["status"] == "lost")
    });
    let until = rfc3339(world.clock().now() + 1);
    let [delivered, failed, waiting] = ["note-1", "note-2", "note-3"].map(str::to_owned);
    let next = "20.0".to_owned();
    let names = Names { delivered, failed, waiting, from, until, next, server: NOWHERE.to_owned() };
    let folder = world.path("server");
    let running = of_server(&world, &folder, &names);
    server.kill();
    assert_same(&running, &of_server(&world, &folder, &names));
    let damaged = world.path("damaged");
    copy(&folder, &damaged);
    let segment = damage(&damaged, "note-4");
    for ((question, sound), (_, found)) in
        running.iter().zip(answers(&world, &damaged, &names)).skip(1)
    {
        less(question, "note-4", sound, &found);
        assert!(found.2.contains(&segment), "{question}: {}", found.2);
    }
    let server = world.server("server", 0);
    assert_eq!(server.stop(), Some(0));
    assert_same(&running, &of_server(&world, &folder, &names));
    let about = |question: &str| {
        let found = running.iter().find(|(one, _)| one.starts_with(question));
        found.expect("a question").1.1.clone()
    };
    assert_eq!(about("openclaw agents").len(), 2);
    assert_eq!(about("openclaw tasks").len(), 4);
    let waits = "note-2 waits: it lies in the mailbox of loki-one until that agent takes it";
    assert_eq!(about("openclaw explain note-2"), [waits]);
    let status = about("openclaw status").join("\n");
    assert!(status.contains(r#"tasks: {"completed":2,"pending":2}"#), "{status}");
    assert!(status.contains("messages_pending: 3"), "{status}");
}
