//! A trace from the submission of a task to its result, through both programs: by the trace alone
//! the whole life is found again, in the audit logs and in the logs.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::{World, output};

const ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Tells the trace that it was told.
const WORK: &str = r#"
import json, os
print(json.dumps({"progress": 0.5}))
print(json.dumps({"result": os.environ.get("TRACEPARENT")}))
"#;

fn project(world: &World, name: &str, task_type: &str) {
    let config = format!(
        "agents:\n  - type: eng-qa\n    command: [python3, work.py]\n    \
         task_types: [{task_type}]\n"
    );
    world.write(&format!("{name}/.loki/config.yaml"), &config);
    world.write(&format!("{name}/work.py"), WORK);
}

/// What a command about a data folder gives, a JSON object a line.
fn lines(world: &World, data: &str, arguments: &[&str]) -> Vec<Value> {
    let mut command = world.loki("one", "");
    command.args(arguments).arg("--data-dir").arg(world.path(data));
    let (code, data, talk) = output(&mut command);
    assert_eq!((code, talk.as_str()), (Some(0), ""), "{arguments:?}");
    data.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
}

/// The entries of one audit log that name the trace. They have to be all that are about the
/// messages and the task that they are about.
fn of_trace(world: &World, data: &str) -> Vec<Value> {
    let search = ["enterprise", "audit", "search", ID, "-n", "1000", "--json"];
    let found = lines(world, data, &search);
    let resources: BTreeSet<&str> =
        found.iter().filter_map(|entry| entry["resource"].as_str()).collect();
    let all = lines(world, data, &["enterprise", "audit", "export"]);
    let about = |entry: &&Value| resources.contains(entry["resource"].as_str().unwrap_or_default());
    let about: Vec<&Value> = all.iter().filter(about).collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), about, "{data}");
    found
}

/// How often each of these events is among the entries.
fn counts(entries: &[Value], events: &[&str]) -> Vec<usize> {
    let count = |event: &&str| entries.iter().filter(|entry| entry["event"] == **event).count();
    events.iter().map(count).collect()
}

/// The lines of a JSON log that name the trace.
fn logged(world: &World, log: &str) -> Vec<Value> {
    let text = fs::read_to_string(world.path(log)).expect("a log");
    let objects = text.lines().filter(|line| line.starts_with('{'));
    let objects = objects.map(|line| serde_json::from_str::<Value>(line).expect("json"));
    objects.filter(|line| line["traceparent"] == TRACE).collect()
}

#[test]
fn a_task_is_followed_from_its_submission_to_its_result_by_its_trace_alone() {
    let world = World::new();
    project(&world, "one", "testing");
    let data = world.path("server");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_openclaw-server"));
    command.arg("--data-dir").arg(&data).env("OPENCLAW_LISTEN", "127.0.0.1:0");
    command.env("OPENCLAW_LOG_LEVEL", "debug").env("OPENCLAW_LOG_FORMAT", "json");
    let server = world.start(command, &data);
    let mut command = world.loki("one", &server.address);
    command.args(["start", "--openclaw", "-vv"]).env("LOKI_OPENCLAW_AGENT_ID", "loki-one");
    command.env("LOKI_LOG_FORMAT", "json");
    let bridge = world.start(command, &world.path("one/.loki/openclaw"));

    let submit = |trace: &str| {
        let mut command = world.loki("one", &server.address);
        command.args(["openclaw", "submit", "Test", "--type", "testing", "--json"]);
        let (code, answer, talk) = output(command.env("TRACEPARENT", trace));
        assert_eq!(code, Some(0), "{talk}");
        let answer: Value = serde_json::from_str(&answer).expect("json");
        answer["task_id"].as_str().expect("an id").to_owned()
    };
    let tasks = [submit(TRACE), submit("00-none")];
    for (task_id, trace) in tasks.iter().zip([json!(TRACE), Value::Null]) {
        let url = format!("{}/tasks/{task_id}?wait=30", server.address);
        let ended = |task: &Value| task["status"] == "completed";
        let task = world.wait("the task", || world.get(&url).filter(ended));
        assert_eq!((&task["result"], &task["traceparent"]), (&trace, &trace), "{task}");
    }
    let url =
        format!("{}/api/openclaw/messages?type=task_complete&status=delivered", bridge.address);
    world.wait("the end to be acknowledged", || {
        world.get(&url).filter(|page| page["messages"].as_array().is_some_and(|it| it.len() == 2))
    });
    assert_eq!((bridge.stop(), server.stop()), (Some(0), Some(0)));

    let (of_bridge, of_server) =
        (of_trace(&world, "one/.loki/openclaw"), of_trace(&world, "server"));
    let messages = ["message.received", "message.queued", "message.sent", "message.delivered"];
    // The offer comes; the word, a report and the end go.
    assert_eq!(counts(&of_bridge, &messages), [1, 3, 3, 3]);
    assert_eq!(counts(&of_server, &messages), [3, 1, 1, 1]);
    let tasks = ["task.accept", "task.start", "task.update", "task.complete"];
    assert_eq!(counts(&of_bridge, &tasks), [1, 1, 1, 1]);
    // The places of a task among the waiting and on an agent are entries too.
    let steps: Vec<Value> =
        of_server.iter().filter(|entry| entry["level"] != "debug").cloned().collect();
    let tasks = ["task.create", "task.offer", "task.accept", "task.start", "task.complete"];
    assert_eq!(counts(&steps, &tasks), [1, 1, 1, 1, 1]);

    for (log, events) in [
        ("one/.loki/openclaw.log", ["message.delivered", "task.start", "task.complete"]),
        ("server.log", ["message.delivered", "task.offer", "task.complete"]),
    ] {
        let found = logged(&world, log);
        let is_missing = |event: &str| !found.iter().any(|line| line["event"] == event);
        let missing: Vec<&str> = events.into_iter().filter(|event| is_missing(event)).collect();
        assert!(missing.is_empty(), "{log} {missing:?} {found:#?}");
    }
}

#[test]
fn a_shared_task_and_a_message_carry_the_trace_of_who_asked() {
    let world = World::new();
    project(&world, "one", "testing");
    project(&world, "two", "data_analysis");
    world.write("one/prd.md", "- [ ] Analyse <!-- type: data_analysis -->\n");
    let server = world.server("server", 0);
    let second = world.bridge("two", &server.address, "loki-two");
    let mut first = world.loki("one", &server.address);
    first.env("LOKI_OPENCLAW_AGENT_ID", "loki-one").env("TRACEPARENT", TRACE);
    let (code, done, talk) = output(first.args(["start", "--openclaw", "--json", "prd.md"]));
    assert_eq!(code, Some(0), "{done}{talk}");
    assert!(done.contains(&format!(r#""result":"{TRACE}""#)), "{done}");
    let found = of_trace(&world, "one/.loki/openclaw");
    // The server passes on reports and the end.
    let events = ["task.create", "task.offer", "message.delivered", "task.complete"];
    assert_eq!(counts(&found, &events), [1, 1, 1, 1]);
    assert!(counts(&found, &["message.received"])[0] >= 1);

    // A header of the call, and a message whose own trace counts more.
    let other = TRACE.replacen(ID, &ID.replace('0', "1"), 1);
    let url = format!("{}/api/openclaw/send", second.address);
    let client = reqwest::blocking::Client::builder().no_proxy().build().expect("a client");
    let send = |id: &str, header: &str, own: Value| {
        let message = json!({"message_type": "state_sync", "message_id": id, "payload": {},
            "traceparent": own});
        let request = client.post(&url).header("traceparent", header).json(&message);
        assert_eq!(request.send().expect("an answer").status(), 202);
        let shown = format!("{}/api/openclaw/messages/{id}", second.address);
        world.get(&shown).expect("a message")["traceparent"].clone()
    };
    assert_eq!(send("m-1", TRACE, Value::Null), TRACE);
    assert_eq!(send("m-2", &other, json!(TRACE)), TRACE);
    assert_eq!(send("m-3", "00-none", Value::Null), Value::Null);
    let command = ["openclaw", "send", "state_sync", "--message-id", "m-4", "--traceparent", TRACE];
    assert_eq!(output(world.loki("two", "").args(command)).0, Some(0));
    assert_eq!((second.stop(), server.stop()), (Some(0), Some(0)));
    let bad = ["openclaw", "send", "state_sync", "--traceparent", "00-none"];
    assert_eq!(output(world.loki("two", "").args(bad)).0, Some(2));
    let found = of_trace(&world, "two/.loki/openclaw");
    let queued = |id: &str| {
        found.iter().any(|one| one["event"] == "message.queued" && one["resource"] == id)
    };
    assert_eq!(["m-1", "m-2", "m-3", "m-4"].map(queued), [true, true, false, true]);
}
