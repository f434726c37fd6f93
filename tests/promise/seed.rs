//! A plain Python client of the server's REST, with nothing of ours in it, gets a real result.

use std::process::Command;

use crate::support::{World, output};

const CLIENT: &str = r#"
import sys, time
import requests

openclaw_url = sys.argv[1] + "/tasks"
task = {
    "task_type": "code_review",
    "description": "Review API implementation",
    "files": ["api/routes.py"],
    "target_agent": "loki-12345",
}
response = requests.post(openclaw_url, json=task)
print(f"Task sent: {response.json()}")
task_id = response.json()["task_id"]
while True:
    status = requests.get(f"{openclaw_url}/{task_id}").json()
    if status["status"] == "completed":
        print(f"Result: {status['result']}")
        break
    time.sleep(0.2)
"#;

const REVIEW: &str = r#"
import ast, json, sys
task = json.load(sys.stdin)
found = []
for name in task["files"]:
    for node in ast.walk(ast.parse(open(name).read())):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append({"file": name, "line": node.lineno, "rule": "bare-except"})
print(json.dumps({"result": {"defects": found}}))
"#;

#[test]
fn a_python_program_gets_the_result_of_a_real_review() {
    let world = World::new();
    let python = std::env::var("LOKI_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    world.write(
        "one/.loki/config.yaml",
        "agents:\n  - type: review-code\n    command: [python3, review.py]\n",
    );
    world.write("one/review.py", REVIEW);
    world.write("one/api/routes.py", "try:\n    import json\nexcept:\n    pass\n");
    world.write("client.py", CLIENT);
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-12345");
    let mut client = Command::new(python);
    client.arg(world.path("client.py")).arg(&server.address);
    let (code, stdout, stderr) = output(&mut client);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("bare-except") && stdout.contains("'line': 3"), "{stdout}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}
