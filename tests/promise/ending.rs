//! How a task ends before it is done: cancelled, out of time, or given back by a bridge that stops.
//! Nothing of its command stays behind.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Program, World, output};

/// Starts a child, notes both processes, and waits until a file appears.
const WAIT: &str = r#"
import json, os, subprocess, sys, time
task = json.load(sys.stdin)
child = subprocess.Popen(["sleep", "600"])
line = f"{task['task_id']} {os.getpid()} {child.pid}\n".encode()
fd = os.open("runs.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(fd, line); os.close(fd)
print("waiting for the file go", file=sys.stderr, flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
child.kill()
child.wait()
print(json.dumps({"result": "gone on"}))
"#;

fn project(world: &World, name: &str, openclaw: &str, agent: &str) {
    let config = format!(
        "openclaw:\n  max_concurrent_tasks: 2\n{openclaw}agents:\n  - type: eng-qa\n    \
         command: [python3, wait.py]\n    task_types: [testing]\n{agent}"
    );
    world.write(&format!("{name}/.loki/config.yaml"), &config);
    world.write(&format!("{name}/wait.py"), WAIT);
}

/// The processes of every run so far, a run a line.
fn runs(world: &World, project: &str) -> Vec<Vec<PathBuf>> {
    let log = fs::read_to_string(world.path(project).join("runs.log")).unwrap_or_default();
    let processes = |line: &str| {
        line.split(' ').skip(1).map(|pid| PathBuf::from(format!("/proc/{pid}"))).collect()
    };
    log.lines().map(processes).collect()
}

fn wait_for_run(world: &World, project: &str, count: usize) -> Vec<PathBuf> {
    let run = world.wait("the command to run", || runs(world, project).into_iter().nth(count - 1));
    assert!(run.len() == 2 && run.iter().all(|process| process.exists()), "{run:?}");
    run
}

fn submit(world: &World, server: &Program, id: &str) {
    let task = json!({"task_id": id, "task_type": "testing"});
    let (code, answer) =
        world.post(&format!("{}/tasks", server.address), &task).expect("an answer");
    assert_eq!(code, 201, "{answer}");
}

fn wait_for_status(world: &World, server: &Program, id: &str, status: &str) -> Value {
    world.wait(status, || {
        let task = world.get(&format!("{}/tasks/{id}", server.address))?;
        (task["status"] == status).then_some(task)
    })
}

#[test]
fn a_cancelled_task_leaves_no_process_behind() {
    let world = World::new();
    project(&world, "one", "", "");
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    submit(&world, &server, "t1");
    let run = wait_for_run(&world, "one", 1);
    let url = format!("{}/tasks/t1/cancel", server.address);
    let (code, answer) = world.post(&url, &json!({})).expect("an answer");
    assert_eq!(code, 200, "{answer}");
    world.wait("its processes to end", || run.iter().all(|it| !it.exists()).then_some(()));
    wait_for_status(&world, &server, "t1", "cancelled");
    let tasks = world.get(&format!("{}/api/openclaw/tasks", bridge.address)).expect("tasks");
    assert_eq!(tasks["tasks"][0]["status"], "cancelled", "{tasks}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_task_that_takes_too_long_fails_with_the_last_words_of_its_command() {
    let world = World::new();
    project(&world, "one", "", "    timeout: 2s\n");
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    submit(&world, &server, "t1");
    let run = wait_for_run(&world, "one", 1);
    let task = wait_for_status(&world, &server, "t1", "failed");
    assert_eq!(task["error"]["code"], "timeout", "{task}");
    let message = task["error"]["message"].as_str().expect("a message");
    assert_eq!(message, "the command took longer than 2 s; it said last: waiting for the file go");
    assert!(run.iter().all(|process| !process.exists()), "{run:?}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_bridge_that_stops_gives_back_what_it_cannot_finish() {
    let world = World::new();
    project(&world, "one", "  drain_timeout: 2s\n", "");
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    submit(&world, &server, "t1");
    let run = wait_for_run(&world, "one", 1);
    bridge.signal();
    // While it drains it takes nothing more, and says so.
    world.wait("the server to know", || {
        let rows = server_audit(&world, &server)?;
        rows.contains("draining").then_some(())
    });
    submit(&world, &server, "t2");
    assert_eq!(bridge.ended(&world), Some(0));
    assert!(run.iter().all(|process| !process.exists()), "{run:?}");
    for id in ["t1", "t2"] {
        let task = world.get(&format!("{}/tasks/{id}", server.address)).expect("the task");
        assert_eq!(task["status"], "pending", "{task}");
    }
    let (_, rows, _) = output(world.loki("one", &server.address).args([
        "openclaw",
        "messages",
        "--type",
        "task_reject",
        "--json",
    ]));
    let sent: Value = serde_json::from_str(rows.lines().next().expect("a reject")).expect("json");
    assert_eq!((&sent["status"], rows.lines().count()), (&json!("delivered"), 1), "{rows}");
    let id = sent["message_id"].as_str().expect("an id");
    let (_, shown, _) =
        output(world.loki("one", &server.address).args(["openclaw", "show", id, "--json"]));
    let shown: Value = serde_json::from_str(&shown).expect("json");
    assert_eq!(shown["payload"]["reason"], "shutting_down", "{shown}");
    // Somebody else, or a later start, does them.
    world.write("one/go", "");
    let bridge = world.bridge("one", &server.address, "loki-one");
    for id in ["t1", "t2"] {
        let task = wait_for_status(&world, &server, id, "completed");
        assert_eq!(task["result"], "gone on", "{task}");
    }
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

/// What the server recorded of its agents, as its log file has it; it is read while it runs.
fn server_audit(world: &World, server: &Program) -> Option<String> {
    let mut audit = world.loki("one", &server.address);
    audit.args(["enterprise", "audit", "tail", "--event", "openclaw.heartbeat", "--json"]);
    let (code, rows, _) = output(audit.arg("--data-dir").arg(world.path("server")));
    (code == Some(0)).then_some(rows)
}

#[test]
fn a_task_of_its_own_waits_for_the_next_start() {
    let world = World::new();
    project(&world, "one", "  drain_timeout: 1s\n", "");
    world.write("one/prd.md", "- [ ] Wait <!-- type: testing -->\n");
    let mut command = world.loki("one", "");
    command.env("LOKI_OPENCLAW_ENABLED", "false").args(["start", "prd.md"]);
    let bridge = world.start(command, &world.path("one/.loki/openclaw"));
    let run = wait_for_run(&world, "one", 1);
    bridge.signal();
    assert_eq!(bridge.ended(&world), Some(1), "its task is not done");
    let (_, tasks, said) = output(world.loki("one", "").args(["openclaw", "tasks", "--json"]));
    let task: Value = serde_json::from_str(&tasks).unwrap_or_else(|_| panic!("{tasks}{said}"));
    assert_eq!(task["status"], "pending", "{task}");
    assert!(run.iter().all(|process| !process.exists()), "{run:?}");
    world.write("one/go", "");
    let mut command = world.loki("one", "");
    command.env("LOKI_OPENCLAW_ENABLED", "false").args(["start", "prd.md"]);
    let (code, stdout, stderr) = output(&mut command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("gone on"), "{stdout}");
    assert_eq!(runs(&world, "one").len(), 2);
    let mut audit = world.loki("one", "");
    audit.args(["enterprise", "audit", "tail", "--event", "session.*", "--json"]);
    let (_, rows, said) = output(&mut audit);
    let mut events: Vec<String> = rows
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<Value>(line).ok()?["event"].as_str().map(str::to_owned)
        })
        .collect();
    events.sort_unstable();
    let wanted = ["complete", "fail", "start", "start", "stop", "stop"];
    assert_eq!(events, wanted.map(|word| format!("session.{word}")), "{said}");
}

#[test]
fn a_second_signal_stops_at_once_and_the_next_start_goes_on() {
    let world = World::new();
    project(&world, "one", "  drain_timeout: 10m\n", "");
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    submit(&world, &server, "t1");
    let run = wait_for_run(&world, "one", 1);
    bridge.signal();
    world.wait("the bridge to drain", || {
        server_audit(&world, &server).filter(|rows| rows.contains("draining"))
    });
    bridge.signal();
    assert_eq!(bridge.ended(&world), Some(0));
    assert!(run.iter().all(|process| process.exists()), "its command outlives it");
    let bridge = world.bridge("one", &server.address, "loki-one");
    world.write("one/go", "");
    let task = wait_for_status(&world, &server, "t1", "completed");
    assert_eq!((&task["result"], &task["attempt"]), (&json!("gone on"), &json!(1)), "{task}");
    assert_eq!(runs(&world, "one").len(), 1, "it ran once");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_task_runs_only_at_the_program_that_owns_the_id() {
    let world = World::new();
    project(&world, "one", "", "");
    project(&world, "two", "", "");
    let server = world.server("server", 0);
    let first = world.bridge("one", &server.address, "loki-same");
    submit(&world, &server, "t1");
    let run = wait_for_run(&world, "one", 1);
    let second = world.bridge("two", &server.address, "loki-same");
    assert_eq!(first.ended(&world), Some(1));
    world.wait("the first run to end", || run.iter().all(|it| !it.exists()).then_some(()));
    wait_for_run(&world, "two", 1);
    world.write("two/go", "");
    let task = wait_for_status(&world, &server, "t1", "completed");
    assert_eq!(task["result"], "gone on", "{task}");
    assert_eq!(second.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}
