//! kill -9 of either program at random moments, over a good link and over a bad one: every task
//! completes, none twice, none runs twice at the same time, and every message that was acknowledged
//! is applied once.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use loki_openclaw::clock::Clock;
use serde_json::{Value, json};

use crate::link::Link;
use crate::support::{Program, World, say};
use crate::traffic::Traffic;

/// Kills in the short form that the test suite runs; `LOKI_CRASH_KILLS` asks for more.
const KILLS: u64 = 8;

/// Time between two kills, at most.
const PAUSE_MILLIS_MAX: u64 = 700;

/// Tasks at the beginning, and before each kill.
const TASKS: [usize; 2] = [24, 3];

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

fn kills() -> u64 {
    let asked = std::env::var("LOKI_CRASH_KILLS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(KILLS)
}

/// Both programs, and what they know of each other.
struct Pair<'a> {
    world: &'a World,
    server: Option<Program>,
    bridge: Option<Program>,
    port: u16,
    /// Where the bridge looks for the server.
    endpoint: String,
    transport: &'static str,
    tasks: usize,
}

impl<'a> Pair<'a> {
    fn start(world: &'a World, transport: &'static str, seed: Option<u64>) -> (Self, Option<Link>) {
        world.write("one/.loki/config.yaml", CONFIG);
        world.write("one/work.py", WORK);
        let server = world.server("server", 0);
        let port = server.port();
        let link = seed.map(|seed| Link::new(port, seed));
        let endpoint = link.as_ref().map_or_else(|| server.address.clone(), Link::url);
        let mut pair =
            Self { world, server: Some(server), bridge: None, port, endpoint, transport, tasks: 0 };
        pair.restart_bridge();
        (pair, link)
    }

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
        let more = [("LOKI_OPENCLAW_TRANSPORT", self.transport), ("LOKI_OPENCLAW_TIMEOUT", "2s")];
        self.bridge = Some(self.world.bridge_with("one", &self.endpoint, "loki-one", &more));
    }

    fn create_tasks(&mut self, count: usize) {
        for number in self.tasks..self.tasks + count {
            let task = json!({
                "task_id": format!("t{number}"), "task_type": "testing", "description": "work",
            });
            let url = format!("{}/tasks", self.address());
            let (code, answer) = self.world.post(&url, &task).expect("an answer");
            assert_eq!(code, 201, "{answer}");
        }
        self.tasks += count;
    }

    fn kill_in_turns(&mut self, chance: &Clock, traffic: Option<&Traffic>) {
        for round in 0..kills() {
            std::thread::park_timeout(Duration::from_millis(chance.draw(PAUSE_MILLIS_MAX)));
            self.create_tasks(TASKS[1]);
            if round % 2 == 0 {
                self.restart_bridge();
            } else {
                self.restart_server();
            }
            if let (Some(traffic), Some(bridge)) = (traffic, &self.bridge) {
                traffic.bridge_is_at(&bridge.address);
            }
        }
    }

    fn completed(&self) -> Vec<Value> {
        let url = format!("{}/tasks?limit=1000", self.address());
        let Some(answer) = self.world.get(&url) else { return Vec::new() };
        let tasks = answer["tasks"].as_array().cloned().unwrap_or_default();
        tasks.into_iter().filter(|task| task["status"] == "completed").collect()
    }

    /// Waits until every task is complete, once, and gives back how often each was granted.
    fn all_complete(&self) -> HashMap<String, usize> {
        let done = self.world.wait("all tasks to complete", || {
            let done = self.completed();
            (done.len() == self.tasks).then_some(done)
        });
        let mut grants = HashMap::new();
        for task in &done {
            let id = task["task_id"].as_str().expect("an id");
            let url = format!("{}/tasks/{id}", self.address());
            let task = self.world.get(&url).expect("the task");
            let history = task["history"].as_array().expect("a history");
            let count = |status: &str| {
                let steps = history.iter().filter(|step| step["status"] == status);
                steps.filter(|step| step["late"] != true).count()
            };
            assert_eq!(count("completed"), 1, "{task}");
            assert!(task["result"]["digest"].is_string(), "{task}");
            grants.insert(id.to_owned(), count("offered"));
        }
        grants
    }

    fn stop(mut self) {
        for program in [self.bridge.take(), self.server.take()] {
            assert_eq!(program.expect("a program").stop(), Some(0));
        }
    }
}

#[test]
fn every_task_completes_once_however_often_the_programs_are_killed() {
    let world = World::new();
    let (mut pair, _) = Pair::start(&world, "websocket", None);
    pair.create_tasks(TASKS[0]);
    pair.kill_in_turns(world.clock(), None);
    pair.all_complete();
    assert_eq!(check_runs(&world, |_| 1), pair.tasks);
}

#[test]
fn nothing_is_lost_or_doubled_over_a_bad_link_by_websocket() {
    over_a_bad_link("websocket");
}

#[test]
fn nothing_is_lost_or_doubled_over_a_bad_link_by_http() {
    over_a_bad_link("http");
}

/// Kills, and a link that does harm all the time, while messages go both ways and tasks run.
fn over_a_bad_link(transport: &'static str) {
    let world = World::new();
    let asked = std::env::var("LOKI_CRASH_SEED").ok().and_then(|text| text.parse().ok());
    let seed = asked.unwrap_or_else(|| world.clock().draw(u64::from(u32::MAX)));
    say(&format!("LOKI_CRASH_SEED={seed}"));
    let (mut pair, link) = Pair::start(&world, transport, Some(seed));
    let link = link.expect("a link");
    let traffic = Traffic::new(&world, &pair.address(), "loki-one");
    traffic.bridge_is_at(&pair.bridge.as_ref().expect("a bridge").address);
    pair.create_tasks(TASKS[0]);
    let chance = Clock::simulated(0, seed);
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let _guard = traffic.guard();
        let sending = traffic.start(scope, &stop);
        pair.kill_in_turns(&chance, Some(&traffic));
        // Few kills may be over before it does.
        let has_harmed = || link.harms() > 0 && link.repeated_and_dropped().0 > 0;
        world.wait("the link to do harm", || has_harmed().then_some(()));
        sending.finish()
    });
    link.calm();
    let grants = pair.all_complete();
    traffic.settle(&sent);
    assert_eq!(check_runs(&world, |task| grants[task]), grants.len());
    pair.stop();
    traffic.check(&sent);
    let (repeated, dropped) = link.repeated_and_dropped();
    say(&format!(
        "figures: kills={} acknowledged={} tasks={} lost=0 twice=0 harms={} repeated={repeated} \
         dropped={dropped}",
        kills(),
        sent.count(),
        grants.len(),
        link.harms(),
    ));
}

/// No task begins while an earlier run of it has not ended, nor more often than it was granted. A
/// supervisor outlives its bridge, so no run of these is ever cut short. How many tasks ran.
fn check_runs(world: &World, granted: impl Fn(&str) -> usize) -> usize {
    let log = fs::read_to_string(world.path("one/runs.log")).expect("runs");
    let mut running = HashSet::new();
    let mut begun: HashMap<&str, usize> = HashMap::new();
    for line in log.lines() {
        let mut words = line.split(' ');
        let (id, what) = (words.next().expect("an id"), words.next().expect("what"));
        if what == "begin" {
            assert!(running.insert(id), "{id} runs twice at the same time:\n{log}");
            *begun.entry(id).or_default() += 1;
            assert!(begun[id] <= granted(id), "{id} began again after its end:\n{log}");
        } else {
            assert!(running.remove(id), "{id} ended without running:\n{log}");
        }
    }
    begun.len()
}
