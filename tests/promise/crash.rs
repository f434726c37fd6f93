//! kill -9 of either program at random moments: every task completes, none twice, none runs twice
//! at the same time.

use std::collections::HashSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Program, World};

/// Kills in the short form that the test suite runs; `LOKI_CRASH_KILLS` asks for more.
const KILLS: u64 = 8;

const TASKS: usize = 24;

/// Notes its beginning and its end beside the project, works for a moment in between.
const WORK: &str = r#"
import json, os, sys, time, hashlib
task = json.load(sys.stdin)
def note(what):
    line = f"{task['task_id']} {what} {time.monotonic_ns()}\n".encode()
    fd = os.open("runs.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line); os.close(fd)
note("begin")
digest = b""
until = time.monotonic() + 0.15
while time.monotonic() < until:
    digest = hashlib.sha256(digest).digest()
note("end")
print(json.dumps({"result": {"digest": digest.hex()}}))
"#;

const CONFIG: &str = "openclaw:\n  max_concurrent_tasks: 4\nagents:\n  - type: eng-qa\n    \
                      command: [python3, work.py]\n    task_types: [testing]\n";

struct Pair<'a> {
    world: &'a World,
    server: Option<Program>,
    bridge: Option<Program>,
    port: u16,
}

impl Pair<'_> {
    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn restart_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
        self.server = Some(self.world.server("server", self.port));
    }

    fn restart_bridge(&mut self) {
        if let Some(bridge) = self.bridge.take() {
            bridge.kill();
        }
        self.bridge = Some(self.world.bridge("one", &self.address(), "loki-one"));
    }

    fn completed(&self) -> Vec<Value> {
        let url = format!("{}/tasks?limit=1000", self.address());
        let Some(answer) = self.world.get(&url) else { return Vec::new() };
        let tasks = answer["tasks"].as_array().cloned().unwrap_or_default();
        tasks.into_iter().filter(|task| task["status"] == "completed").collect()
    }
}

#[test]
fn every_task_completes_once_however_often_the_programs_are_killed() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    world.write("one/work.py", WORK);
    let server = world.server("server", 0);
    let port = server.port();
    let mut pair = Pair { world: &world, server: Some(server), bridge: None, port };
    pair.restart_bridge();
    for number in 0..TASKS {
        let task = json!({
            "task_id": format!("t{number}"), "task_type": "testing", "description": "work",
        });
        let (code, answer) =
            world.post(&format!("{}/tasks", pair.address()), &task).expect("an answer");
        assert_eq!(code, 201, "{answer}");
    }
    let kills = std::env::var("LOKI_CRASH_KILLS").ok().and_then(|text| text.parse().ok());
    for round in 0..kills.unwrap_or(KILLS) {
        std::thread::park_timeout(std::time::Duration::from_millis(world.clock().draw(700)));
        if round % 2 == 0 {
            pair.restart_bridge();
        } else {
            pair.restart_server();
        }
    }
    let done = world.wait("all tasks to complete", || {
        let done = pair.completed();
        (done.len() == TASKS).then_some(done)
    });
    for task in &done {
        let id = task["task_id"].as_str().expect("an id");
        let url = format!("{}/tasks/{id}", pair.address());
        let task = world.get(&url).expect("the task");
        let history = task["history"].as_array().expect("a history");
        let ends = history.iter().filter(|step| step["status"] == "completed").count();
        assert_eq!(ends, 1, "{task}");
        assert!(task["result"]["digest"].is_string(), "{task}");
    }
    check_runs(&fs::read_to_string(world.path("one/runs.log")).expect("runs"));
}

/// No task begins while an earlier run of it has not ended, nor after it ended. A supervisor
/// outlives its bridge, so no run of these is ever cut short.
fn check_runs(log: &str) {
    let mut running = HashSet::new();
    let mut ended = HashSet::new();
    for line in log.lines() {
        let mut words = line.split(' ');
        let (id, what) = (words.next().expect("an id"), words.next().expect("what"));
        if what == "begin" {
            assert!(running.insert(id), "{id} runs twice at the same time:\n{log}");
            assert!(!ended.contains(id), "{id} began again after its end:\n{log}");
        } else {
            assert!(running.remove(id), "{id} ended without running:\n{log}");
            ended.insert(id);
        }
    }
    assert_eq!(ended.len(), TASKS, "{log}");
}
