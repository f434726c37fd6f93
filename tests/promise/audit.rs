//! The audit log at the command line: by event, by level, and followed while the bridge comes and
//! goes.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{World, output, say};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n";
const NOWHERE: &str = "http://127.0.0.1:9";

/// A program that would go on for ever.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_log_is_followed_through_a_kill_a_stop_and_a_start() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let follow = |more: &[&str]| {
        let mut command = world.loki("one", NOWHERE);
        command.args(["enterprise", "audit", "tail", "--follow", "--json"]);
        command.args(["--event", "store.open"]).args(more).stdin(Stdio::null());
        let mut tail = command.stdout(Stdio::piped()).spawn().expect("a tail");
        let mut lines = BufReader::new(tail.stdout.take().expect("its output")).lines();
        let next = move || {
            let line = lines.next().expect("one more entry").expect("text");
            let entry: Value = serde_json::from_str(&line).expect("json");
            assert_eq!(entry["event"], "store.open");
            entry["details"]["epoch"].as_u64().expect("an epoch")
        };
        (Killed(tail), next)
    };
    let (_tail, mut next) = follow(&[]);
    assert_eq!(next(), 1);
    bridge.kill();
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    assert_eq!(next(), 2);
    assert_eq!(bridge.stop(), Some(0));
    // A command opens the store of a stopped bridge too.
    let (code, ..) = output(world.loki("one", NOWHERE).args(["openclaw", "retry"]));
    assert_eq!(code, Some(0));
    assert_eq!(next(), 3);

    // Whatever comes first after it began to look is new to this one.
    let (_tail, mut next) = follow(&["-n", "0"]);
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::Builder::new().spawn(move || tell.send(next()));
    let first = world.wait("an entry that is new", || {
        output(world.loki("one", NOWHERE).args(["openclaw", "retry"]));
        told.try_recv().ok()
    });
    assert!(first > 3, "{first}");
    reader.expect("a thread").join().expect("no panic").expect("told");
    let tail = ["enterprise", "audit", "tail", "-n", "0"];
    let (code, data, _) = output(world.loki("one", NOWHERE).args(tail));
    assert_eq!((code, data.as_str()), (Some(0), ""));
}

#[test]
fn the_log_is_searched_by_event_and_level_and_time() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    bridge.kill();
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let tail = |more: &[&str]| {
        let mut command = world.loki("one", NOWHERE);
        let (code, data, talk) =
            output(command.args(["enterprise", "audit", "tail", "--json"]).args(more));
        (code, data.lines().count(), talk)
    };
    let check = || {
        assert_eq!(tail(&["--event", "store.open"]).1, 2);
        assert_eq!(tail(&["--event", "store.open", "-n", "1"]).1, 1);
        assert_eq!(tail(&["--event", "store.o*"]).1, 2);
        assert!(tail(&["--event", "store.*"]).1 >= 3);
        assert_eq!(tail(&["--event", "store.open", "--event", "store.recover"]).1, 3);
        assert_eq!(tail(&["--event", "store.recover", "--level", "warning"]).1, 1);
        assert_eq!(tail(&["--event", "store.open", "--level", "warning"]).1, 0);
        assert_eq!(tail(&["--event", "store.*", "--actor", "nobody"]).1, 0);
        assert_eq!(tail(&["--event", "store.open", "--since", "1h"]).1, 2);
        let later = ["--event", "store.*", "--since", "2999-01-01T00:00:00Z"];
        assert_eq!(tail(&later), (Some(0), 0, String::new()));
        let told = "error: no event is called store.opn; did you mean store.open?\n";
        assert_eq!(tail(&["--event", "store.opn"]), (Some(2), 0, told.to_owned()));
    };
    check();
    assert_eq!(bridge.stop(), Some(0));
    check();
}

/// What `loki enterprise audit` gives for these arguments: the exit code, the lines, the talk.
fn asked(world: &World, arguments: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let mut command = world.loki("one", NOWHERE);
    let (code, data, talk) = output(command.args(["enterprise", "audit"]).args(arguments));
    (code, data.lines().map(str::to_owned).collect(), talk)
}

/// Questions about a period that is over, so that their answers stay the same.
fn questions() -> Vec<Vec<&'static str>> {
    let all = [
        "tail --json -n 1000 --event message.*",
        "tail --json --event message.queued --resource m-7",
        "tail --json --event store.open",
        "tail --json --level warning --event message.*",
        "tail --json --actor loki-one --event message.queued -n 3",
        "summary --json --event message.*",
        "summary --json --event message.queued --actor loki-one",
        "search --json M-1 --event message.queued",
        "search --json m-1 -n 2 --event message.queued",
        "search --json nowhere-at-all --event message.queued",
        "export --event message.*",
        "export --format csv --event message.queued --resource m-3",
        "export --format syslog --text m-2 --event message.queued",
    ];
    all.iter().map(|line| line.split(' ').collect()).collect()
}

#[test]
fn every_question_has_the_same_answer_running_killed_and_stopped() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let url = format!("{}/api/openclaw/send", bridge.address);
    for number in 0..14 {
        let payload = serde_json::json!({"entries": [{"key": "k", "value": number}]});
        let message = serde_json::json!({
            "message_type": "state_sync", "payload": payload, "message_id": format!("m-{number}"),
        });
        assert_eq!(world.post(&url, &message).expect("an answer").0, 202);
    }
    let answers: Vec<_> = questions().iter().map(|one| asked(&world, one)).collect();
    let lines = |number: usize| &answers[number].1;
    assert!(answers.iter().all(|(code, _, talk)| *code == Some(0) && talk.is_empty()));
    assert_eq!((lines(0).len(), lines(1).len(), lines(2).len()), (14, 1, 1));
    assert_eq!((lines(4).len(), lines(7).len(), lines(8).len(), lines(9).len()), (3, 5, 2, 0));
    let seventh: Value = serde_json::from_str(&lines(1)[0]).expect("json");
    assert_eq!((&seventh["resource"], &seventh["actor"]), (&"m-7".into(), &"loki-one".into()));
    assert_eq!(seventh["metadata"]["pid"], bridge.pid());
    assert_eq!(seventh["metadata"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(seventh["chain_hash"].as_str().expect("a hash").len(), 64);
    let counted: Value = serde_json::from_str(&lines(5)[0]).expect("json");
    assert_eq!(counted["entries"], 14);
    assert_eq!(counted["events"], serde_json::json!([{"name": "message.queued", "count": 14}]));
    assert_eq!(counted["levels"], serde_json::json!({"info": 14}));
    assert_eq!(
        counted["first"],
        serde_json::from_str::<Value>(&lines(0)[0]).expect("json")["timestamp"]
    );
    // An export is a tail the other way round: both are oldest first.
    assert_eq!(lines(10), lines(0));
    assert!(lines(11)[0].starts_with("seq,timestamp,event,") && lines(11).len() == 2);
    assert!(lines(12)[0].starts_with("<110>1 ") && lines(12).len() == 1, "{:?}", lines(12));

    bridge.kill();
    let again: Vec<_> = questions().iter().map(|one| asked(&world, one)).collect();
    assert_eq!(again, answers);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    assert_eq!(bridge.stop(), Some(0));
    // The other start has an entry of its own.
    for (question, answer) in
        questions().iter().zip(&answers).filter(|(one, _)| !one.contains(&"store.open"))
    {
        assert_eq!(&asked(&world, question), answer, "{question:?}");
    }
    let (code, table, _) = asked(&world, &["summary", "--event", "message.*"]);
    assert_eq!(code, Some(0));
    let has =
        |words: &[&str]| table.iter().any(|line| line.split_whitespace().eq(words.iter().copied()));
    assert!(has(&["event", "message.queued", "14"]) && has(&["level", "info", "14"]), "{table:?}");
}

#[test]
fn the_log_of_a_server_is_read_from_its_data_directory() {
    let world = World::new();
    let server = world.server("server", 0);
    let url = format!("{}/tasks", server.address);
    for _ in 0..3 {
        let task = serde_json::json!({"task_type": "testing", "description": "Test"});
        assert_eq!(world.post(&url, &task).expect("an answer").0, 201);
    }
    let dir = world.path("server").display().to_string();
    let ask = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').chain(["--data-dir", &dir]).collect();
        let (code, lines, talk) = asked(&world, &arguments);
        assert_eq!((code, talk.as_str()), (Some(0), ""), "{line}");
        lines
    };
    let questions = [
        "tail --json --event task.create --level info",
        "summary --json --event task.create --level info",
        "search --json pending --event task.create",
        "export --event task.create",
    ];
    let running = questions.map(ask);
    assert_eq!(running[0].len(), 3);
    assert_eq!(serde_json::from_str::<Value>(&running[1][0]).expect("json")["entries"], 3);
    let over = format!("{}/api/audit/summary?event=task.create&level=error", server.address);
    assert_eq!(world.get(&over).expect("an answer")["entries"], 0);
    for query in ["after=12", "offset=9999999", "limit=1000000", "end=soon", "event=tsk.*"] {
        assert!(world.get(&format!("{}/api/audit?{query}", server.address)).is_none(), "{query}");
    }
    assert_eq!(server.stop(), Some(0));
    assert_eq!(questions.map(ask), running);
}

/// Every file below a folder with its content.
fn files(folder: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("a file"));
        }
    }
    found
}

#[test]
fn a_bad_question_is_one_sentence_with_its_code_and_changes_nothing() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let bad: [(&str, &str); 8] = [
        (
            "tail --event mesage.queued",
            "no event is called mesage.queued; did you mean message.queued?",
        ),
        ("summary --event store.opn", "no event is called store.opn; did you mean store.open?"),
        ("search x --event tsk.*", "no event is called tsk.*; did you mean task.*?"),
        ("export --event nothing.like.it", "no event is called nothing.like.it"),
        ("tail -n 1000000", "the field limit must be at most 1000"),
        ("search x -n 1000000", "the field limit must be at most 1000"),
        ("search x -n 0", "the field limit must be 1 or more"),
        ("tail --since yesterday", "give a time such as 2026-02-15T14:30:00Z"),
    ];
    let check = || {
        for (line, sentence) in bad {
            let arguments: Vec<&str> = line.split(' ').collect();
            let (code, lines, talk) = asked(&world, &arguments);
            assert_eq!((code, lines.len()), (Some(2), 0), "{line}: {talk}");
            assert!(talk.contains(sentence) && !talk.contains("panic"), "{line}: {talk}");
        }
    };
    check();
    let over = |query: &str| world.get(&format!("{}/api/audit?{query}", bridge.address));
    for query in ["after=12", "after=x.y", "offset=9999999", "limit=1000000", "end=soon"] {
        assert!(over(query).is_none(), "{query}");
    }
    assert!(over("offset=100000&after=1.0").is_some());
    assert_eq!(bridge.stop(), Some(0));
    let data = world.path("one/.loki/openclaw");
    let before = files(&data);
    check();
    for question in questions() {
        assert_eq!(asked(&world, &question).0, Some(0));
    }
    assert_eq!(files(&data), before);
    // A newer store is named and left alone; no store is named by where it was looked for.
    std::fs::write(data.join("format"), "loki-openclaw store 99\n").expect("written");
    let before = files(&data);
    for question in questions() {
        let (code, lines, talk) = asked(&world, &question);
        assert_eq!((code, lines.len(), talk.lines().count()), (Some(3), 0, 1), "{talk}");
        assert!(talk.contains("99"), "{talk}");
    }
    assert_eq!(files(&data), before);
    for question in questions() {
        let nowhere = world.path("empty").display().to_string();
        let arguments: Vec<&str> =
            question.iter().copied().chain(["--data-dir", &nowhere]).collect();
        let (code, lines, talk) = asked(&world, &arguments);
        assert_eq!((code, lines.len(), talk.lines().count()), (Some(3), 0, 1), "{talk}");
        assert!(talk.contains(&nowhere), "{talk}");
        assert!(!world.path("empty").exists());
    }
}

#[test]
fn verify_and_heads_refuse_in_one_sentence_and_change_nothing() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    assert_eq!(bridge.stop(), Some(0));
    let data = world.path("one/.loki/openclaw");
    world.write("garbage", "this is no head\n");
    let garbage = world.path("garbage").display().to_string();
    let gone = world.path("gone").display().to_string();
    let refused = |line: &str, code: i32, sentence: &str| {
        let (found, lines, talk) = asked(&world, &line.split(' ').collect::<Vec<_>>());
        assert_eq!((found, lines.len()), (Some(code), 0), "{line}: {talk}");
        assert!(talk.contains(sentence) && !talk.contains("panic"), "{line}: {talk}");
        // The parser of the command line adds where to read more.
        let said = talk.lines().filter(|line| !line.is_empty() && !line.starts_with("For more"));
        assert_eq!(said.count(), 1, "{line}: {talk}");
    };
    let before = files(&data);
    refused("verify --key zz", 2, "give the 64 hexadecimal digits");
    refused(&format!("verify --against {garbage}"), 2, "a line is no head");
    refused(&format!("verify --against {gone}"), 2, &gone);
    refused(&format!("verify --against {}", world.path("one").display()), 3, "there is no store");
    refused("tail --since yesterday", 2, "give a time such as");
    refused("export --until 31.12.2026", 2, "give a time such as");
    refused(&format!("verify --data-dir {gone}"), 3, &gone);
    refused(&format!("heads --data-dir {gone}"), 3, &gone);
    assert!(!world.path("gone").exists());
    std::fs::write(data.join("format"), "loki-openclaw store 99\n").expect("written");
    refused("verify", 3, "99");
    refused("heads", 3, "99");
    std::fs::remove_file(data.join("format")).expect("removed");
    let after = files(&data);
    assert!(before.iter().filter(|(path, _)| !path.ends_with("format")).eq(&after));
}

#[test]
fn the_store_of_another_user_is_named_and_left_alone() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    // Whoever is nobody runs the program at all: not where it is built in a private folder.
    let nobody = |command: &mut Command| {
        let mut as_nobody = Command::new("setpriv");
        as_nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        as_nobody.arg(command.get_program()).args(command.get_args());
        as_nobody.current_dir(command.get_current_dir().expect("a folder"));
        as_nobody
    };
    for folder in [world.path(""), world.path("one"), world.path("one/.loki")] {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder, open).expect("our own");
    }
    let tried = nobody(world.loki("one", NOWHERE).arg("--version")).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        say("skipped: no command can be run as another user here");
        return;
    }
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    assert_eq!(bridge.stop(), Some(0));
    let data = world.path("one/.loki/openclaw");
    let before = files(&data);
    let owner = std::fs::metadata(&data).expect("there").uid();
    let commands = [
        "enterprise audit tail",
        "enterprise audit summary",
        "enterprise audit search x",
        "enterprise audit export",
        "enterprise audit verify",
        "enterprise audit heads",
        "openclaw messages",
        "store info",
    ];
    // Its folder may not be listed; or its files not be read, as after an odd umask.
    for (folder, file) in [(0o700, 0o600), (0o755, 0o600)] {
        let mode = std::fs::Permissions::from_mode;
        for path in before.keys() {
            std::fs::set_permissions(path, mode(file)).expect("our own");
        }
        for path in [data.clone(), data.join("journal")] {
            std::fs::set_permissions(path, mode(folder)).expect("our own");
        }
        for line in commands {
            let mut command = world.loki("one", NOWHERE);
            command.args(line.split(' ')).arg("--data-dir").arg(&data);
            let (code, text, talk) = output(&mut nobody(&mut command));
            assert_eq!((code, text.as_str()), (Some(3), ""), "{line} {folder:o}: {talk}");
            assert_eq!(talk.lines().count(), 1, "{line} {folder:o}: {talk}");
            let named = format!("may not be read: it belongs to the user with the number {owner}");
            assert!(talk.contains(&named), "{line} {folder:o}: {talk}");
        }
    }
    assert_eq!(files(&data), before);
}

#[test]
fn damage_is_named_also_when_it_is_met_while_following() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let url = format!("{}/api/openclaw/send", bridge.address);
    for number in 0..5 {
        let message = serde_json::json!({
            "message_type": "state_sync", "payload": {}, "message_id": format!("m-{number}"),
        });
        assert_eq!(world.post(&url, &message).expect("an answer").0, 202);
    }
    bridge.kill();
    let mut command = world.loki("one", NOWHERE);
    command.args(["enterprise", "audit", "tail", "--follow", "--json", "-n", "1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tail = Killed(command.spawn().expect("a tail"));
    let mut lines = BufReader::new(tail.0.stdout.take().expect("its output")).lines();
    assert!(lines.next().expect("an entry").expect("text").contains("m-4"));
    let talk = BufReader::new(tail.0.stderr.take().expect("its talk")).lines();
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::Builder::new().spawn(move || {
        talk.map_while(Result::ok).try_for_each(|line| tell.send(line).map_err(|_| ()))
    });
    let name = damage(&world.path("one/.loki/openclaw"), b"m-3");
    let warning = world.wait("a word about it", || told.try_recv().ok());
    assert!(warning.starts_with("warning: ") && warning.contains(&name), "{warning}");
    // The same words once, however often it looks.
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    assert!(lines.next().expect("an entry").is_ok());
    assert_eq!(bridge.stop(), Some(0));
    drop(tail);
    assert_eq!(told.iter().filter(|line| *line == warning).count(), 0, "{warning}");
    let _ = reader.expect("a thread").join().expect("no panic");
}

/// Changes a bit of the first frame with this id; the name of its file.
fn damage(data: &Path, id: &[u8]) -> String {
    let journal = files(&data.join("journal"));
    let (path, at, byte) = journal
        .into_iter()
        .find_map(|(path, bytes)| {
            let at = bytes.windows(id.len()).position(|window| window == id)?;
            Some((path, at as u64, bytes[at]))
        })
        .expect("the message");
    // In its place: whoever reads meanwhile finds one byte changed and no file that is too short.
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opened");
    file.write_all_at(&[byte ^ 1], at).expect("written");
    path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
}

#[test]
fn what_damage_took_is_named_and_the_rest_is_answered() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let url = format!("{}/api/openclaw/send", bridge.address);
    for number in 0..5 {
        let message = serde_json::json!({
            "message_type": "state_sync", "payload": {}, "message_id": format!("m-{number}"),
        });
        assert_eq!(world.post(&url, &message).expect("an answer").0, 202);
    }
    assert_eq!(bridge.stop(), Some(0));
    let name = damage(&world.path("one/.loki/openclaw"), b"m-2");
    for line in [
        "tail --json --event message.queued",
        "search --json m- --event message.queued",
        "export --event message.queued",
    ] {
        let (code, lines, talk) = asked(&world, &line.split(' ').collect::<Vec<_>>());
        assert_eq!((code, lines.len()), (Some(0), 4), "{line}: {talk}");
        assert!(talk.starts_with("warning: ") && talk.contains(&name), "{line}: {talk}");
        assert_eq!(talk.lines().count(), 1, "{line}: {talk}");
    }
    let (code, lines, talk) = asked(&world, &["summary", "--json", "--event", "message.queued"]);
    let counted: Value = serde_json::from_str(&lines[0]).expect("json");
    assert_eq!((code, &counted["entries"]), (Some(0), &4.into()));
    assert!(talk.contains(&name) && counted["damage"][0].to_string().contains(&name), "{talk}");
}
