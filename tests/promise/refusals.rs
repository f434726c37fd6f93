//! Bad input: one clear sentence, the exit code or status of the protocol, and nothing changes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{World, output};

/// What a command says and how it ends, with the folder's name taken out.
fn said(world: &World, environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut command = world.loki("one", "");
    for name in ["LOKI_OPENCLAW_ENABLED", "LOKI_OPENCLAW_ENDPOINT"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied()).args(arguments);
    let (code, stdout, stderr) = output(&mut command);
    assert_eq!(stdout, "", "data goes to stdout, talk to stderr");
    let code = code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    format!("loki {}\n{stderr}exit {code}\n", arguments.join(" "))
}

#[test]
fn a_bad_start_says_what_to_do() {
    let world = World::new();
    let start = ["start", "--openclaw"];
    let mut text = said(&world, &[("LOKI_OPENCLAW_ENABLED", "true")], &start);
    let mut with = |config: &str, arguments: &[&str]| {
        world.write("one/.loki/config.yaml", config);
        let more = said(&world, &[], arguments);
        let _ = writeln!(text, "\n{more}");
    };
    with("openclaw:\n  endpont: http://127.0.0.1:9\n", &start);
    with("openclaw:\n  heartbeat_interval: often\n", &start);
    let excluded = "enterprise:\n  audit:\n    exclude_events: [task.*, mesage.*]\n";
    with(&format!("openclaw:\n  endpoint: http://127.0.0.1:9\n{excluded}"), &start);
    with(
        "openclaw:\n  authorization:\n    enabled: true\n",
        &["start", "--openclaw", "--embedded"],
    );
    let config = "openclaw:\n  enabled: true\n  endpoint: http://127.0.0.1:9\n\
                  agents:\n  - type: eng-qa\n    command: [no-such-program]\n";
    with(config, &["start", "--openclaw", "missing.md"]);
    world.write("one/empty.md", "");
    with(config, &["start", "--openclaw", "empty.md"]);
    world.write("one/prd.md", "- [ ] One task\n");
    with(config, &["start", "--openclaw", "prd.md"]);
    with(config, &["openclaw", "messages"]);
    world.write("one/prd.md", "- [ ] Test <!-- typ: testing -->\n");
    with("agents: [eng-qa]\n", &["start", "prd.md"]);
    with("agents: [eng-qa]\n", &["start"]);
    with("agents: [eng-qa]\n", &["start", "."]);
    insta::assert_snapshot!(text);
    assert!(!world.path("one/.loki/openclaw").exists(), "nothing is left behind");
}

/// A file system of its own, so small that a test can fill it.
struct Small(PathBuf);

impl Small {
    /// `None` where one cannot be mounted: only root may.
    fn mount(folder: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut mount = Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(&folder).output();
        done.ok()?.status.success().then_some(Self(folder))
    }

    fn read_only(&self) {
        let mut mount = Command::new("mount");
        let done = mount.args(["-o", "remount,ro"]).arg(&self.0).status().expect("mount runs");
        assert!(done.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_and_a_read_only_folder_say_what_to_do() {
    let world = World::new();
    world.write("one/.loki/config.yaml", "agents:\n  - type: eng-qa\n    command: [\"true\"]\n");
    world.write("one/prd.md", "- [ ] Test <!-- type: testing -->\n");
    let Some(small) = Small::mount(world.path("one/small")) else {
        let text = b"skipped a_full_and_a_read_only_folder_say_what_to_do: only root may mount\n";
        let _ = std::io::stderr().write_all(text);
        return;
    };
    let start = ["start", "--data-dir", "small/data", "prd.md"];
    let full = said(&world, &[], &start);
    small.read_only();
    let read_only = said(&world, &[], &start);
    std::fs::write(world.path("one/file"), "").expect("a file");
    let file = said(&world, &[], &["start", "--data-dir", "file", "prd.md"]);
    insta::assert_snapshot!(format!("{full}\n{read_only}\n{file}"));
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let world = World::new();
    world.write("one/.loki/config.yaml", "agents:\n  - type: eng-qa\n    command: [\"true\"]\n");
    world.write("one/prd.md", "- [ ] Test <!-- type: testing -->\n");
    let (code, ..) = output(world.loki("one", "http://127.0.0.1:9").args(["start", "prd.md"]));
    assert_eq!(code, Some(0));
    // Format and checksum stand where storage/FORMAT.md has them.
    let segment = world.path("one/.loki/openclaw/journal/segment-0000000001.log");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[8..12].copy_from_slice(&7_u32.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&segment, &bytes).expect("written");
    world.write("one/.loki/openclaw/endpoint", "http://127.0.0.1:9");
    let mut text = String::new();
    for line in ["start prd.md", "openclaw status", "openclaw messages", "openclaw retry"] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let _ = writeln!(text, "{}", said(&world, &[], &arguments));
    }
    insta::assert_snapshot!(text);
    assert_eq!(std::fs::read(&segment).expect("a segment"), bytes);
    let left = world.path("one/.loki/openclaw/endpoint");
    assert!(!left.exists(), "nobody is sent to where a killed bridge was");
}

#[test]
fn a_taken_port_and_a_locked_store_say_so() {
    let world = World::new();
    world.write("one/.loki/config.yaml", "agents:\n  - type: eng-qa\n    command: [\"true\"]\n");
    let bridge = world.bridge("one", "http://127.0.0.1:9", "loki-one");
    let start = ["start", "--openclaw"];
    let endpoint = ("LOKI_OPENCLAW_ENDPOINT", "http://127.0.0.1:9");
    let port = bridge.port().to_string();
    let locked = said(&world, &[endpoint, ("LOKI_DASHBOARD_PORT", &port)], &start);
    let other = ["start", "--openclaw", "--data-dir", "other"];
    let taken = said(&world, &[endpoint, ("LOKI_DASHBOARD_PORT", &port)], &other);
    assert!(!world.path("one/other").exists(), "a start that is refused leaves nothing behind");
    insta::assert_snapshot!(format!("{locked}\n{}", taken.replace(&port, "PORT")));
    assert_eq!(bridge.stop(), Some(0));
}

#[test]
fn a_bad_envelope_is_refused_with_its_code_and_audited() {
    let world = World::new();
    let server = world.server("server", 0);
    let client = reqwest::blocking::Client::builder().no_proxy().build().expect("a client");
    let large = format!(
        r#"{{"message_type":"state_sync","agent_id":"a","payload":{{"k":"{}"}}}}"#,
        "x".repeat(1 << 20)
    );
    let cases = [
        "not json",
        r#"{"agent_id":"a"}"#,
        r#"{"message_type":7,"agent_id":"a"}"#,
        r#"{"message_type":"task_update","agent_id":"a","payload":{"task_id":5}}"#,
        r#"{"message_type":"state_sync","agent_id":"a","protocol_version":"2.0"}"#,
        r#"{"message_type":"no_such_type","agent_id":"a"}"#,
        r#"{"message_type":"state_sync","payload":{"k":1}}"#,
        &large,
    ];
    let mut text = String::new();
    for case in cases {
        let sent = client.post(format!("{}/messages", server.address)).body(case.to_owned());
        let response = sent.header("content-type", "application/json").send().expect("an answer");
        let status = response.status().as_u16();
        let problem: serde_json::Value = response.json().expect("a problem document");
        let shown = if case.len() > 100 { "a message of more than 1 MiB" } else { case };
        let (code, detail) = (&problem["code"], &problem["detail"]);
        let _ = writeln!(text, "{shown}\n  {status} {code} {} {detail}\n", problem["field"]);
    }
    insta::assert_snapshot!(text);
    let tasks = world.get(&format!("{}/tasks", server.address)).expect("the tasks");
    assert_eq!(tasks["tasks"], serde_json::json!([]));
    assert_eq!(server.stop(), Some(0));
    let mut audit = world.loki("one", "http://127.0.0.1:9");
    audit.args(["enterprise", "audit", "tail", "--event", "message.rejected", "--json"]);
    let (_, rows, said) = output(audit.arg("--data-dir").arg(world.path("server")));
    assert_eq!(rows.lines().count(), cases.len(), "{rows}{said}");
}
