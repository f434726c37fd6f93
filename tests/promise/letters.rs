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
        command.env("LOKI_OPENCLAW_AGENT_ID", "loki-one").env("USER", "ada");
        command.arg("openclaw").args(arguments);
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

impl Place {
    /// Waits until the bridge is connected.
    fn linked(&self) {
        self.world.wait("the link", || (self.loki("status").0 == Some(0)).then_some(()));
    }

    /// What keeps a message, in words and in a sentence.
    fn explained(&self, id: &str) -> (Vec<String>, String) {
        let told = self.done(&format!("explain {id}")).remove(0);
        let because = told["because"].as_array().expect("a list").iter();
        let word = |word: &Value| word.as_str().expect("a word").to_owned();
        (because.map(word).collect(), told["explanation"].as_str().expect("a text").to_owned())
    }
}

/// How many messages stand where, as the status tells.
fn count(place: &Place, status: &str) -> u64 {
    let (_, told, talk) = place.loki("status");
    told.first().unwrap_or_else(|| panic!("{talk}"))["messages"][status].as_u64().unwrap_or(0)
}

#[test]
fn a_person_prunes_and_shreds_dead_letters_running_and_stopped() {
    let (place, server) = Place::new();
    let bridge = place.bridge();
    let ids = place.fail(&["t-1", "t-2", "t-3", "t-4", "t-5"]);
    let prune = |line: &str| place.done(&format!("prune {line}")).remove(0);
    let told = |pruned: u64, shredded: u64| json!({"pruned": pruned, "shredded": shredded});
    assert_eq!(prune("--older-than 1h"), told(0, 0));
    assert_eq!(prune("--reason max_age"), told(0, 0));
    assert_eq!(prune(&ids[0]), told(1, 0));
    assert_eq!(prune(&format!("{} --shred", ids[1])), told(1, 1));
    assert_eq!(bridge.stop(), Some(0));
    // A stopped bridge is changed under its lock.
    assert_eq!(prune(&format!("{} --shred", ids[2])), told(1, 1));
    let payload = json!({"entries": [{"key": "k", "value": 1}]});
    let waiting = place.send("state_sync", &payload, &[]);
    assert_eq!(prune("--until 0s"), told(2, 0), "all that failed, and nothing that waits");
    assert_eq!(prune(&waiting), told(1, 0), "one that waits, when it is named");
    let looks = || {
        assert_eq!((count(&place, "failed"), count(&place, "pruned")), (0, 6));
        assert_eq!(place.done("messages --type task_complete").len(), 0);
        assert_eq!(place.done("messages --status pruned").len(), 6);
        let show = |id: &String| place.done(&format!("show {id}")).remove(0);
        let (kept, gone) = (show(&ids[0]), show(&ids[2]));
        assert_eq!(
            (&kept["status"], &kept["payload"]["task_id"]),
            (&"pruned".into(), &"t-1".into())
        );
        assert_eq!((&gone["shredded"], &gone["payload"]), (&true.into(), &Value::Null), "{gone}");
        let last = gone["history"].as_array().and_then(|it| it.last()).expect("a step");
        assert_eq!((&last["event"], &last["actor"]), (&"message.pruned".into(), &"ada".into()));
        for (line, why) in [
            (format!("prune {}", ids[0]), "is pruned already"),
            (format!("retry {}", ids[0]), "is pruned; only failed ones are sent again"),
            ("prune nobody".to_owned(), "no message has the id nobody"),
        ] {
            let (code, _, talk) = place.loki(&line);
            assert!(code == Some(1) && talk.ends_with(why), "{talk}");
        }
        for (line, why) in [
            ("prune --status delivered", "has nothing to end but its content"),
            ("prune --older-than soon", "how long ago it was"),
            ("prune --reason boredom", "possible values"),
        ] {
            let (code, _, talk) = place.loki(line);
            assert!(code == Some(2) && talk.contains(why), "{talk}");
        }
    };
    looks();
    let bridge = place.bridge();
    looks();
    place.world.wait("the link", || (place.loki("status").0 == Some(0)).then_some(()));
    let state = place.world.get(&format!("{}/state/default", place.endpoint)).expect("the state");
    assert!(!state.to_string().contains("\"k\""), "what was pruned is not delivered: {state}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_pause_holds_what_is_for_one_agent_over_a_restart_and_explain_says_so() {
    let (place, server) = Place::new();
    let bridge = place.bridge();
    place.linked();
    let explain = |id: &str| place.explained(id);
    let paused = place.done("pause --to openclaw-server").remove(0);
    assert_eq!((&paused["changed"], &paused["paused"][0]["by"]), (&1.into(), &"ada".into()));
    assert_eq!(place.done("pause --to openclaw-server")[0]["changed"], 0, "it is paused already");
    let entry = |key: &str| json!({"entries": [{"key": key, "value": 1}]});
    let lane = ["--ordering-key", "k"];
    let first = place.send("state_sync", &entry("k/1"), &lane);
    let second = place.send("state_sync", &entry("k/2"), &lane);
    // Others are not held: the server takes this one for an agent that it does not know yet.
    let other = place.send("state_sync", &entry("k/3"), &["--to", "nobody"]);
    place.world.wait("an attempt", || {
        (place.done(&format!("show {other}"))[0]["attempts"] != 0).then_some(())
    });
    let held = |also: &[&str], second_also: &[&str]| {
        let (because, sentence) = explain(&first);
        assert_eq!(because, [&["paused"], also].concat());
        assert!(sentence.contains("as ada paused deliveries to openclaw-server at"), "{sentence}");
        let (because, sentence) = explain(&second);
        assert_eq!(because, [&["paused"], second_also].concat());
        assert!(sentence.contains(&format!("behind {first}, the first of")), "{sentence}");
    };
    held(&[], &["behind"]);
    assert_eq!(bridge.stop(), Some(0));
    held(&["stopped"], &["stopped", "behind"]);
    let status = place.loki("status").1.remove(0);
    assert_eq!(status["paused"][0]["to"], "openclaw-server", "{status}");
    let bridge = place.bridge();
    place.linked();
    held(&[], &["behind"]);
    assert_eq!(place.done(&format!("show {first}"))[0]["attempts"], 0);
    let resumed = place.done("resume").remove(0);
    assert_eq!((&resumed["changed"], &resumed["paused"]), (&1.into(), &json!([])));
    for id in [&first, &second] {
        place.world.wait("the delivery", || {
            explain(id).1.contains("is delivered: the server has it since").then_some(())
        });
    }
    let audit = |event: &str| {
        let url = format!("{}/api/audit?event={event}&actor=ada", bridge.address);
        place.world.get(&url).expect("the audit log")["entries"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((audit("message.held"), audit("message.released")), (1, 1));
    let (code, _, talk) = place.loki("explain nobody");
    assert_eq!((code, talk.as_str()), (Some(1), "error: no message has the id nobody"));
    let (code, _, talk) = place.loki("pause --to no/body");
    assert!(code == Some(2) && talk.contains("the id of an agent"), "{talk}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_stopped_bridge_is_paused_as_well_and_a_link_that_is_down_is_told() {
    let (place, server) = Place::new();
    assert_eq!(place.bridge().stop(), Some(0));
    assert_eq!(place.done("pause")[0]["changed"], 1);
    assert_eq!(server.stop(), Some(0));
    let payload = json!({"entries": [{"key": "k", "value": 1}]});
    let id = place.send("state_sync", &payload, &[]);
    assert_eq!(place.explained(&id).0, ["paused", "stopped"]);
    assert_eq!(place.done("resume")[0]["changed"], 1);
    assert_eq!(place.explained(&id).0, ["stopped"]);
    let bridge = place.bridge();
    let is_down = |told: &(Vec<String>, String)| told.0.first().is_some_and(|it| it == "link_down");
    let told =
        place.world.wait("a word on the link", || Some(place.explained(&id)).filter(is_down));
    assert!(told.1.contains("the link to the server is down"), "{}", told.1);
    assert_eq!(bridge.stop(), Some(0));
}

#[test]
fn what_was_shredded_does_not_come_out_of_an_export_again() {
    let (place, server) = Place::new();
    let bridge = place.bridge();
    place.linked();
    let payload = json!({"entries": [{"key": "k", "value": 1}]});
    let ids = [(); 2].map(|()| place.send("state_sync", &payload, &[]));
    for id in &ids {
        let shown = || place.done(&format!("show {id}")).remove(0);
        place.world.wait("a delivery", || (shown()["status"] == "delivered").then_some(()));
    }
    place.done(&format!("prune {} --shred", ids[1]));
    let mut export = place.world.loki("one", &place.endpoint);
    let (code, lines, talk) = output(export.args(["store", "export"]));
    assert_eq!(code, Some(0), "{talk}");
    let line = |text: &str| serde_json::from_str::<Value>(text).expect("a line of json");
    let lines: Vec<Value> = lines.lines().map(line).collect();
    let has_body = |id: String| {
        let one = lines.iter().find(|one| one["line"] == "message" && one["message_id"] == *id);
        !one.expect("exported")["body"].is_null()
    };
    assert_eq!(ids.map(has_body), [true, false]);
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}
