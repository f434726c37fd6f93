//! Dead letters through the real programs: found, grouped by cause and shown, with the bridge
//! running and stopped.

use serde_json::{Value, json};

use crate::support::{Program, World, output};

const AGENTS: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                      task_types: [testing]\n";

/// A project with a bridge whose id is `loki-one`.
struct Place {
    world: World,
    endpoint: String,
}

impl Place {
    fn new() -> (Self, Program) {
        let world = World::new();
        world.write("one/.loki/config.yaml", AGENTS);
        let server = world.server("server", 0);
        let endpoint = server.address.clone();
        (Self { world, endpoint }, server)
    }

    fn bridge(&self) -> Program {
        self.world.bridge("one", &self.endpoint, "loki-one")
    }

    /// A command of `loki openclaw` with `--json`: its exit code, its objects and its talk.
    fn loki(&self, line: &str) -> (Option<i32>, Vec<Value>, String) {
        self.asked(&line.split(' ').collect::<Vec<_>>())
    }

    fn asked(&self, arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
        let mut command = self.world.loki("one", &self.endpoint);
        command.env("LOKI_OPENCLAW_AGENT_ID", "loki-one").arg("openclaw").args(arguments);
        let (code, data, talk) = output(command.arg("--json"));
        let line = |line| serde_json::from_str(line).expect("a line of json");
        (code, data.lines().map(line).collect(), talk.trim().to_owned())
    }

    /// The objects of a command that has to succeed.
    fn done(&self, line: &str) -> Vec<Value> {
        let (code, objects, talk) = self.loki(line);
        assert_eq!(code, Some(0), "{line}: {talk}");
        objects
    }

    fn send(&self, kind: &str, payload: &Value, more: &[&str]) -> String {
        let payload = payload.to_string();
        let send = ["send", kind, "--payload", payload.as_str()];
        let (code, answer, talk) = self.asked(&[&send[..], more].concat());
        assert_eq!(code, Some(0), "{talk}");
        answer[0]["message_id"].as_str().expect("an id").to_owned()
    }

    /// Sends results of tasks that the server does not know, and waits until it said so for good.
    fn fail(&self, tasks: &[&str]) -> Vec<String> {
        let status = json!("completed");
        let payload = |task: &&str| json!({"task_id": task, "status": status});
        let ids: Vec<String> =
            tasks.iter().map(|task| self.send("task_complete", &payload(task), &[])).collect();
        self.world.wait("messages to fail", || {
            let failed = self.done("messages --status failed");
            let has = |id: &String| failed.iter().any(|one| one["message_id"] == id.as_str());
            ids.iter().all(has).then_some(())
        });
        ids
    }
}

#[test]
fn dead_letters_are_grouped_by_cause_and_shown_with_every_attempt_running_and_stopped() {
    let (place, server) = Place::new();
    let bridge = place.bridge();
    let ids = place.fail(&["t-1", "t-2", "t-3"]);
    let looks = || {
        let (code, causes, talk) = place.loki("messages --by-cause");
        assert_eq!((code, talk.lines().last()), (Some(0), Some("3 messages, one cause")), "{talk}");
        let cause = causes[0].clone();
        assert_eq!((causes.len(), &cause["reason"]), (1, &"permanent".into()), "{cause}");
        assert!(cause["cause"].as_str().is_some_and(|it| it.contains("unknown_task")), "{cause}");
        assert!(cause["cause"].as_str().is_some_and(|it| it.contains('…')), "{cause}");
        let found = |line: &str| place.done(line).len();
        let failed = "messages --status failed --since 1h --reason";
        assert_eq!(found(&format!("{failed} permanent --type task_complete")), 3);
        assert_eq!(found(&format!("{failed} permanent --to openclaw-server")), 3);
        assert_eq!(found(&format!("{failed} max_age")), 0);
        assert_eq!(found(&format!("{failed} permanent --until 1h")), 0);
        assert_eq!(found("messages --by-cause --to nobody"), 0);
        let shown = place.done(&format!("show {}", ids[0])).remove(0);
        let tries = shown["tries"].as_array().expect("attempts").clone();
        assert_eq!((tries.len(), &tries[0]["outcome"]), (1, &"failed".into()), "{shown}");
        assert!(tries[0]["error"].as_str().is_some_and(|it| it.contains("t-1")), "{shown}");
        let times = ["started_at", "ended_at", "duration_ms"];
        assert!(times.iter().all(|time| !tries[0][*time].is_null()), "{shown}");
        for (line, told) in [
            ("messages --reason max_agee", "a similar value exists: 'max_age'"),
            ("messages --by-cause --since yesterday", "give a time such as"),
        ] {
            let (code, _, talk) = place.loki(line);
            assert!(code == Some(2) && talk.contains(told), "{line}: {talk}");
        }
        let (code, _, talk) = place.loki("show nobody");
        assert_eq!((code, talk.as_str()), (Some(1), "error: no message has the id nobody"));
        (causes, tries)
    };
    let running = looks();
    let url = format!("{}/api/openclaw/causes?reason=permanant", bridge.address);
    assert_eq!(place.world.get(&url), None, "a word that is none is refused");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(looks(), running, "a stopped bridge tells the same");
    assert_eq!(server.stop(), Some(0));
}
