//! Tasks from a PRD, by one bridge and by two.

use serde_json::{Value, json};

use crate::support::{World, output};

/// A real task: counts the words of the files that it is given.
const COUNT: &str = r#"
import json, sys
task = json.load(sys.stdin)
print(json.dumps({"progress": 0.5, "message": "reading"}))
words = sum(len(open(name).read().split()) for name in task["files"])
print(json.dumps({"result": {"words": words}}))
"#;

fn config(agent_type: &str, task_type: &str) -> String {
    format!(
        "agents:\n  - type: {agent_type}\n    command: [python3, count.py]\n    \
         task_types: [{task_type}]\n"
    )
}

#[test]
fn a_prd_is_carried_out_with_an_embedded_server() {
    let world = World::new();
    world.write("one/.loki/config.yaml", &config("eng-qa", "testing"));
    world.write("one/count.py", COUNT);
    world.write("one/prd.md", "- [ ] Count <!-- type: testing; files: prd.md -->\n- [x] Done\n");
    let mut command = world.loki("one", "");
    command.env_remove("LOKI_OPENCLAW_ENDPOINT");
    let (code, stdout, stderr) =
        output(command.args(["start", "--openclaw", "--embedded", "prd.md"]));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("completed"), "{stdout}");
    assert!(stdout.contains("words"), "{stdout}");
}

#[test]
fn what_the_first_bridge_cannot_serve_the_second_does() {
    let world = World::new();
    let server = world.server("server", 0);
    world.write("one/.loki/config.yaml", &config("eng-qa", "testing"));
    world.write("one/count.py", COUNT);
    world.write(
        "one/prd.md",
        "- [ ] Count <!-- type: testing; files: prd.md -->\n\
         - [ ] Analyse <!-- type: data_analysis; files: count.py -->\n",
    );
    world.write("two/.loki/config.yaml", &config("data-analytics", "data_analysis"));
    world.write("two/count.py", COUNT);
    let second = world.bridge("two", &server.address, "loki-two");
    let mut first = world.loki("one", &server.address);
    first.env("LOKI_OPENCLAW_AGENT_ID", "loki-one");
    let (code, stdout, stderr) = output(first.args(["start", "--openclaw", "--json", "prd.md"]));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let done = stdout.lines().filter(|line| line.contains("completed")).count();
    assert_eq!(done, 2, "{stdout}");
    let lines = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let shared: Vec<Value> = lines.filter(|line| line.to_string().contains("loki-two")).collect();
    let words = COUNT.split_whitespace().count();
    assert!(shared.iter().any(|line| line["result"] == json!({"words": words})), "{stdout}");
    assert_eq!(second.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}
