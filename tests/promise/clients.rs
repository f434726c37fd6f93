//! An agent written in Python from the protocol's text alone takes a task, and loses no result
//! when the server is killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::World;

/// Killed at the end, whatever happens.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python_agent(world: &World, server: &str, tasks: &str) -> Agent {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients/python_agent.py");
    let mut command = Command::new("python3");
    command.arg(client).arg(server).args(["--agent-id", "counter", "--tasks", tasks]);
    command.current_dir(world.path("files")).stdin(Stdio::null()).stderr(Stdio::null());
    Agent(command.spawn().expect("python3 starts"))
}

#[test]
fn an_agent_written_from_the_text_alone_does_tasks_and_outlives_the_server() {
    let world = World::new();
    world.write("files/a.txt", "three short words\n");
    let server = world.server("server", 0);
    let (address, port) = (server.address.clone(), server.port());
    let submit = |id: &str, task_type: &str, file: &str| {
        let task = json!({"task_id": id, "task_type": task_type, "files": [file]});
        let (code, answer) = world.post(&format!("{address}/tasks"), &task).expect("an answer");
        assert_eq!(code, 201, "{answer}");
    };
    let ended = |id: &str| {
        world.wait("the task to end", || {
            let task = world.get(&format!("{address}/tasks/{id}?wait=10"))?;
            ["completed", "failed"].contains(&task["status"].as_str()?).then_some(task)
        })
    };
    submit("other", "gardening", "a.txt");
    submit("good", "file_statistics", "a.txt");
    submit("bad", "file_statistics", "missing.txt");
    let mut agent = python_agent(&world, &address, "3");
    let good = ended("good");
    assert_eq!(good["result"]["a.txt"], json!({"lines": 1, "words": 3, "bytes": 18}), "{good}");
    let bad = ended("bad");
    assert_eq!((&bad["status"], &bad["error"]["code"]), (&json!("failed"), &json!("unreadable")));
    server.kill();
    let server = world.server("server", port);
    submit("after", "file_statistics", "a.txt");
    assert_eq!(ended("after")["status"], "completed");
    assert_eq!(agent.0.wait().expect("reaped").code(), Some(0));
    let other = world.get(&format!("{address}/tasks/other")).expect("the task");
    assert!(other["history"].to_string().contains("unsupported"), "{other}");
    assert_eq!(server.stop(), Some(0));
}
