//! The alert rules and the Grafana board of `examples/monitoring` ask for metrics and labels that
//! the programs have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::World;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/monitoring");
const PROJECT: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n";

/// The queries of the rules and of the board, each with where it stands.
fn queries() -> Vec<(String, String)> {
    let rules = fs::read_to_string(format!("{FOLDER}/alerts.yml")).expect("the rules");
    let rules = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let mut all: Vec<_> = rules.map(|query| ("alerts.yml".to_owned(), query.to_owned())).collect();
    let board = fs::read(format!("{FOLDER}/grafana.json")).expect("the board");
    let board: Value = serde_json::from_slice(&board).expect("json");
    for panel in board["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            all.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for variable in board["templating"]["list"].as_array().expect("variables") {
        let query = variable["query"].as_str().expect("text").to_owned();
        all.push(("a variable".to_owned(), query));
    }
    all
}

/// The metrics that a query names, each with the labels that it asks for.
fn asked(query: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    for (at, _) in query.match_indices("openclaw_") {
        let start = query[..at].rfind(|letter| !is_name(letter)).map_or(0, |before| before + 1);
        if start != at && !query[start..].starts_with("loki_openclaw_") {
            continue;
        }
        let end = query[at..].find(|letter| !is_name(letter)).map_or(query.len(), |len| at + len);
        let labels = query[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let labels = labels.map_or("", |(inside, _)| inside).split(',');
        let labels = labels.filter_map(|one| one.split(['=', '!']).next());
        let labels = labels.map(|one| one.trim().to_owned()).filter(|one| !one.is_empty());
        found.push((query[start..end].to_owned(), labels.collect()));
    }
    found
}

/// Names of samples, each with the labels that it may have.
fn known(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().expect("a name").to_owned();
        let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let labels = labels.map_or("", |(inside, _)| inside).split(',');
        let labels =
            labels.filter_map(|one| one.split_once('=')).map(|(label, _)| label.to_owned());
        known.entry(name).or_default().extend(labels);
    }
    known
}

#[test]
fn the_rules_and_the_board_ask_for_what_the_programs_have() {
    let world = World::new();
    world.write("one/.loki/config.yaml", PROJECT);
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    let task = json!({"task_id": "t", "task_type": "testing"});
    assert_eq!(world.post(&format!("{}/tasks", server.address), &task).expect("an answer").0, 201);
    let text = world.wait("a task to be completed", || {
        let bridge = world.text(&format!("{}/metrics", bridge.address))?;
        let server = world.text(&format!("{}/metrics", server.address))?;
        let is_over = |text: &str, name: &str| text.contains(&format!("{name}_completed_total 1"));
        (is_over(&bridge, "loki_openclaw_tasks") && is_over(&server, "openclaw_tasks"))
            .then(|| bridge + &server)
    });
    let known = known(&text);
    let queries = queries();
    assert!(queries.len() > 30, "{}", queries.len());
    for (place, query) in queries {
        for (name, labels) in asked(&query) {
            let has = known.get(&name);
            assert!(has.is_some(), "{place}: there is no {name}\n{text}");
            for label in labels {
                // Prometheus adds this one.
                let is_known = label == "instance" || has.is_some_and(|has| has.contains(&label));
                assert!(is_known, "{place}: {name} has no label {label}");
            }
        }
    }
    promtool(&["check", "metrics"], &text);
    promtool(&["check", "config", &format!("{FOLDER}/prometheus.yml")], "");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

/// Has Prometheus' own tool check, where it is installed (`scripts/monitoring` installs it).
fn promtool(arguments: &[&str], input: &str) {
    use std::io::Write as _;
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        crate::support::say("promtool is not installed: that check is skipped");
        return;
    };
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("written");
    let done = child.wait_with_output().expect("ended");
    let told = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "promtool {arguments:?}: {told}");
}
