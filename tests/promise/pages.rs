//! Lists of tasks and agents in pages, through the real programs: nothing is missing, nothing comes
//! twice while things move, and no answer is without a bound.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{World, output};

const AGENTS: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                      task_types: [testing]\n";

/// More than one page of the largest size.
const TASKS: usize = 1_100;

/// Where the tasks stand that the bridge does at its start.
const WAITING: std::ops::Range<usize> = 500..503;

impl World {
    /// A store in the folder `data` with these entities.
    fn store_of(&self, data: &str, entities: impl Iterator<Item = (&'static str, String, Value)>) {
        let line = |(kind, id, value): (&str, String, Value)| {
            let value = json!({"text": value.to_string()});
            let name = ["default".to_owned(), id];
            json!({"line": "entity", "kind": kind, "name": name, "value": value}).to_string()
        };
        let lines: Vec<String> = entities.map(line).collect();
        self.write("export", &lines.join("\n"));
        let data = self.path(data).display().to_string();
        let mut import = self.loki("one", "http://127.0.0.1:9");
        import.args(["store", "import", "../export", "--data-dir", &data]);
        let (code, _, talk) = output(&mut import);
        assert_eq!(code, Some(0), "{talk}");
    }

    /// The ids of a page, and where the next begins.
    fn page(&self, url: &str, list: &str, id: &str) -> (Vec<String>, Option<String>) {
        let answer = self.get(url).unwrap_or_else(|| panic!("an answer of {url}"));
        let elements = answer[list].as_array().expect("a list").iter();
        let ids = elements.map(|one| one[id].as_str().expect("an id").to_owned());
        (ids.collect(), answer["next"].as_str().map(str::to_owned))
    }

    /// The ids of all pages.
    fn pages(&self, url: &str, list: &str, id: &str) -> Vec<String> {
        let (mut ids, mut next) = self.page(url, list, id);
        while let Some(after) = next {
            let (more, behind) = self.page(&format!("{url}&after={after}"), list, id);
            ids.extend(more);
            next = behind;
        }
        ids
    }

    fn listed(&self, command: &[&str], endpoint: &str, id: &str) -> Vec<String> {
        let (code, data, talk) = output(self.loki("one", endpoint).args(command).arg("--json"));
        assert_eq!(code, Some(0), "{talk}");
        let one = |line: &str| serde_json::from_str::<Value>(line).expect("a line of json");
        data.lines().map(|line| one(line)[id].as_str().expect("an id").to_owned()).collect()
    }
}

fn task(number: usize) -> (&'static str, String, Value) {
    let id = format!("t-{:04}", TASKS - number);
    let status = if WAITING.contains(&number) { "pending" } else { "completed" };
    let finished_at = (status == "completed").then_some(2_000 + number);
    let value = json!({
        "task_id": id, "origin": "local", "type": "testing", "description": "x".repeat(2_000),
        "files": ["a.py"], "attempt": 1, "status": status, "position": number, "created_at": 1_000,
        "finished_at": finished_at, "result": {"text": "long"}, "agent": "eng-qa",
    });
    ("task", id, value)
}

#[test]
fn the_tasks_of_a_bridge_are_read_page_by_page_while_they_move() {
    let world = World::new();
    world.write("one/.loki/config.yaml", AGENTS);
    world.store_of("one/.loki/openclaw", (0..TASKS).map(task));
    let bridge = world.bridge("one", "http://127.0.0.1:9", "loki-one");
    let tasks = format!("{}/api/openclaw/tasks", bridge.address);
    let (first, next) = world.page(&format!("{tasks}?limit=501"), "tasks", "task_id");
    let completed = |status: &Value| status["tasks"]["completed"] == TASKS;
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("the tasks that waited", || world.get(&status).filter(completed));
    let rest = format!("{tasks}?limit=400&after={}", next.expect("more"));
    let (second, next) = world.page(&rest, "tasks", "task_id");
    let rest = format!("{tasks}?limit=1000&after={}", next.expect("more"));
    let (third, next) = world.page(&rest, "tasks", "task_id");
    assert_eq!(next, None);
    let written: Vec<String> = (0..TASKS).map(|number| task(number).1).collect();
    assert_eq!([first, second, third].concat(), written, "each once, in the order of the PRD");
    assert_eq!(
        world.page(&tasks, "tasks", "task_id").0.len(),
        1_000,
        "a page has as many by itself"
    );
    let recent = format!("{tasks}?order=recent&status=completed&limit=3");
    let newest: BTreeSet<String> = world.page(&recent, "tasks", "task_id").0.into_iter().collect();
    assert_eq!(newest, WAITING.map(|number| task(number).1).collect(), "what ended last");
    assert_eq!(world.pages(&format!("{recent}00"), "tasks", "task_id").len(), TASKS);
    let brief = world.get(&format!("{tasks}?brief=true&limit=1")).expect("a page");
    let brief = &brief["tasks"][0];
    assert_eq!((&brief["result"], &brief["files"]), (&Value::Null, &json!([])));
    assert!(brief["description"].as_str().is_some_and(|text| text.len() <= 512), "{brief}");
    let one = world.get(&format!("{tasks}/t-0001")).expect("the task");
    assert_eq!((&one["task_id"], &one["files"][0]), (&"t-0001".into(), &"a.py".into()));
    for wrong in ["?limit=1000000", "?limit=0", "?after=t-0001", "?status=don", "?brief=so", "/t"] {
        assert_eq!(world.get(&format!("{tasks}{wrong}")), None, "{wrong}");
    }
    let list = || world.listed(&["openclaw", "tasks"], "http://127.0.0.1:9", "task_id");
    assert_eq!(list(), written, "the command goes on to list all");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(list(), written);
}

#[test]
fn the_agents_of_a_server_are_read_page_by_page() {
    let world = World::new();
    let agent = |number: usize| {
        let id = format!("a-{number:04}");
        let status = ["online", "lost", "offline"][number % 3];
        let value = json!({
            "agent_id": id, "namespace": "default", "name": null, "version": null,
            "provider": null, "capabilities": [], "agent_types": [format!("type-{}", number % 7)],
            "max_concurrent_tasks": 1, "supported_models": [], "status": status,
            "registered_at": world.clock().now(), "updated_at": world.clock().now(),
            "session": null,
        });
        ("agent", id, value)
    };
    world.store_of("server", (0..TASKS).map(agent));
    let server = world.server("server", 0);
    let agents = format!("{}/agents", server.address);
    let all: Vec<String> = (0..TASKS).map(|number| format!("a-{number:04}")).collect();
    assert_eq!(world.pages(&format!("{agents}?limit=7"), "agents", "agent_id"), all);
    assert_eq!(world.page(&agents, "agents", "agent_id").0.len(), 1_000);
    let lost = world.pages(&format!("{agents}?status=offline&limit=50"), "agents", "agent_id");
    assert!(lost.len() >= TASKS / 3 && lost.contains(&all[2]), "{}", lost.len());
    let typed = world.pages(&format!("{agents}?text=type-3&limit=50"), "agents", "agent_id");
    assert_eq!(typed, all.iter().skip(3).step_by(7).cloned().collect::<Vec<_>>());
    for wrong in ["limit=1000000", "after=a-0001", "after=/", "namespace=far&after=default/a-0001"]
    {
        assert_eq!(world.get(&format!("{agents}?{wrong}")), None, "{wrong}");
    }
    let listed = world.listed(&["openclaw", "agents"], &server.address, "agent_id");
    assert_eq!(listed, all, "the command goes on to list all");
    assert_eq!(server.stop(), Some(0));
}
