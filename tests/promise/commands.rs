//! The commands that steer and start: what they do, and the exit code that follows.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{World, output};

/// Fails until a file is there; counts its runs in another.
const CONFIG: &str = "agents:\n  - type: eng-qa\n    command: [sh, -c, \"echo run >> runs; \
                      test -f fixed || exit 1\"]\n  - type: prod-techwriter\n    \
                      command: [\"true\"]\n";
const NOWHERE: &str = "http://127.0.0.1:9";

/// A command: its exit code, its data and its talk.
fn loki(world: &World, endpoint: &str, line: &str) -> (Option<i32>, String, String) {
    let mut command = world.loki("one", endpoint);
    output(command.env("LOKI_OPENCLAW_AGENT_ID", "loki-one").args(line.split(' ')))
}

fn objects(data: &str) -> Vec<Value> {
    data.lines().map(|line| serde_json::from_str(line).expect("a line of json")).collect()
}

#[test]
fn a_test_message_travels_through_the_bridge_or_directly() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    let server = world.server("server", 0);
    let address = server.address.clone();
    let test = || {
        let (code, data, talk) = loki(&world, &address, "openclaw test --json");
        (code, objects(&data).pop().unwrap_or_default(), talk)
    };
    let (code, report, talk) = test();
    assert_eq!((code, &report["status"]), (Some(0), &"delivered".into()), "{talk}");
    assert!(report["via"].as_str().is_some_and(|via| via.starts_with("directly")), "{report}");
    let mail = world.get(&format!("{address}/messages?agent_id=loki-one")).expect("the mailbox");
    assert_eq!(mail["messages"], serde_json::json!([]));
    let bridge = world.bridge("one", &address, "loki-one");
    let status = format!("{}/api/openclaw/status", bridge.address);
    let connected = |wanted: bool| {
        world.wait("the link", || world.get(&status).filter(|it| it["connected"] == wanted))
    };
    connected(true);
    let (code, report, talk) = test();
    assert_eq!(
        (code, &report["via"]),
        (Some(0), &"through the bridge (websocket)".into()),
        "{talk}"
    );
    assert!(report["round_trip_ms"].is_u64(), "{report}");
    assert_eq!(loki(&world, &address, "openclaw disconnect").0, Some(0));
    connected(false);
    let (code, _, talk) = test();
    let told =
        format!("error: the bridge is not connected to {address}: disconnected by request\n");
    assert_eq!((code, talk), (Some(4), told));
    assert_eq!(loki(&world, &address, "openclaw reconnect").0, Some(0));
    connected(true);
    server.kill();
    connected(false);
    assert_eq!(test().0, Some(4));
    for line in ["openclaw agents", "openclaw submit work", "openclaw cancel t-1"] {
        let (code, _, talk) = loki(&world, &address, line);
        let told = format!("error: cannot reach the server at {address}: it is not there\n");
        assert_eq!((code, talk), (Some(4), told), "{line}");
    }
    let (code, _, talk) = loki(&world, &address, "stop");
    assert_eq!(code, Some(0), "{talk}");
    assert!(!world.path("one/.loki/openclaw/endpoint").exists(), "it has ended: {talk}");
    let (code, _, talk) = loki(&world, &address, "stop");
    assert_eq!(code, Some(4), "{talk}");
    assert!(talk.contains("no bridge is running in .loki/openclaw"), "{talk}");
    assert_eq!(test().0, Some(4));
}

#[test]
fn the_server_is_asked_to_cancel_a_task() {
    let world = World::new();
    let server = world.server("server", 0);
    let submit = "openclaw submit --type painting --skill oil --model big --json paint";
    let (code, data, talk) = loki(&world, &server.address, submit);
    assert_eq!(code, Some(0), "{talk}");
    let id = objects(&data)[0]["task_id"].as_str().expect("an id").to_owned();
    let given = world.get(&format!("{}/tasks/{id}", server.address)).expect("the task");
    let wanted = serde_json::json!({"model": "big", "skills": ["oil"]});
    assert_eq!(given["requirements"], wanted);
    let cancel = format!("openclaw cancel --json {id}");
    let (code, data, _) = loki(&world, &server.address, &cancel);
    assert_eq!((code, &objects(&data)[0]["status"]), (Some(0), &"cancelled".into()));
    let kept = world.get(&format!("{}/tasks/{id}", server.address)).expect("the task");
    assert_eq!(kept["status"], "cancelled");
    assert_eq!(loki(&world, &server.address, "openclaw cancel nobody").0, Some(1));
    assert_eq!(loki(&world, &server.address, "openclaw cancel no/body").0, Some(2));
}

#[test]
fn the_same_prd_started_again_keeps_what_was_completed_and_runs_what_failed() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    world.write(
        "one/prd.md",
        "# Plan\n\n- [ ] Write <!-- type: documentation -->\n  1. [ ] Test <!-- type: testing -->\n\
         - [x] Done\n\n```\n- [ ] no task\n```\n",
    );
    let tasks = |line: &str| {
        let (code, data, talk) = loki(&world, NOWHERE, line);
        let rows = objects(&data);
        let ids: Vec<String> =
            rows.iter().map(|row| row["task_id"].as_str().expect("an id").to_owned()).collect();
        let statuses: Vec<Value> = rows.iter().map(|row| row["status"].clone()).collect();
        (code, ids, statuses, talk)
    };
    let (code, planned, ..) = tasks("start --dry-run --json prd.md");
    assert_eq!((code, planned.len()), (Some(0), 2));
    assert!(!world.path("one/.loki/openclaw").exists(), "a dry run leaves nothing behind");
    let shape = |id: &str| {
        let (rest, number) = id.strip_prefix("loki-one-").expect(id).split_once('-').expect(id);
        rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit()) && number == "1"
    };
    assert!(planned.iter().all(|id| shape(id)), "{planned:?}");

    let (code, ids, statuses, talk) = tasks("start --json prd.md");
    assert_eq!((code, &ids), (Some(1), &planned), "{talk}");
    assert_eq!(statuses, ["completed", "failed"], "{talk}");
    world.write("one/fixed", "");
    let (code, ids, statuses, talk) = tasks("start --json prd.md");
    assert_eq!((code, &ids), (Some(0), &planned), "{talk}");
    assert_eq!(statuses, ["completed", "completed"], "{talk}");
    let (code, ..) = tasks("start --json prd.md");
    assert_eq!(code, Some(0));
    let runs = fs::read_to_string(world.path("one/runs")).expect("the runs");
    assert_eq!(runs.lines().count(), 2, "what is completed does not run again");
}

#[test]
fn a_start_that_is_interrupted_shows_its_table_and_its_code() {
    let world = World::new();
    world.write(
        "one/.loki/config.yaml",
        "openclaw:\n  drain_timeout: 0\nagents:\n  - type: eng-qa\n    command: [cat, pipe]\n",
    );
    world.write("one/prd.md", "- [ ] Wait <!-- type: testing -->\n- [ ] Later\n");
    // Nobody writes into it, so that its reader waits until it is ended.
    let pipe = world.path("one/pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("a pipe");
    let mut start = world.loki("one", NOWHERE);
    start.args(["start", "--json", "prd.md"]).stdin(Stdio::null());
    start.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = start.spawn().expect("started");
    world.wait("the task to run", || {
        let (_, data, _) = loki(&world, NOWHERE, "openclaw tasks --json");
        data.contains("in_progress").then_some(())
    });
    let (code, _, talk) = loki(&world, NOWHERE, "stop");
    assert_eq!(code, Some(0), "{talk}");
    let ended = child.wait_with_output().expect("an end");
    assert_eq!(ended.status.code(), Some(1));
    let rows = objects(&String::from_utf8_lossy(&ended.stdout));
    let statuses: Vec<&Value> = rows.iter().map(|row| &row["status"]).collect();
    assert_eq!(statuses, ["in_progress", "pending"]);
    // The supervisor has the task until its command ends, and its folder until it has told so.
    drop(fs::OpenOptions::new().write(true).open(&pipe).expect("opened"));
    world.wait("the supervisor to end", || {
        let mut runs = fs::read_dir(world.path("one/.loki/openclaw/runs")).expect("the runs");
        let is_free = |run: &fs::DirEntry| {
            let lock = fs::File::open(run.path().join("lock"));
            lock.is_ok_and(|lock| lock.try_lock().is_ok())
        };
        runs.all(|run| is_free(&run.expect("a run"))).then_some(())
    });
}

#[test]
fn a_bridge_that_keeps_running_goes_on_with_tasks_of_the_server() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    world.write("one/fixed", "");
    world.write("one/prd.md", "- [ ] Test <!-- type: testing -->\n");
    let server = world.server("server", 0);
    let mut start = world.loki("one", &server.address);
    start.args(["start", "--openclaw", "--keep-running", "--json", "prd.md"]);
    start.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = start.spawn().expect("started");
    let completed = |count: usize| {
        world.wait("tasks to be completed", || {
            let (_, data, _) = loki(&world, &server.address, "openclaw tasks --json");
            (data.matches("\"completed\"").count() == count).then_some(())
        });
    };
    completed(1);
    let submit = "openclaw submit --type documentation write";
    assert_eq!(loki(&world, &server.address, submit).0, Some(0));
    completed(2);
    assert_eq!(loki(&world, &server.address, "stop").0, Some(0));
    let ended = child.wait_with_output().expect("an end");
    assert_eq!(ended.status.code(), Some(0));
    let rows = objects(&String::from_utf8_lossy(&ended.stdout));
    assert_eq!(rows.len(), 2, "the table has what was done for others too: {rows:?}");
}

#[test]
fn a_payload_comes_from_the_line_a_file_or_standard_input() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    world.write("one/payload.json", r#"{"from": "file"}"#);
    let send = |payload: &str, input: &str| {
        let mut command = world.loki("one", NOWHERE);
        command.args(["openclaw", "send", "state_sync", "--payload", payload]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        // A command that reads no input may be gone already.
        let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
        let ended = child.wait_with_output().expect("an end");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
    };
    for (payload, input, from) in [
        (r#"{"from": "line"}"#, "", "line"),
        ("@payload.json", "", "file"),
        ("-", r#"{"from": "input"}"#, "input"),
    ] {
        let (code, id, talk) = send(payload, input);
        assert_eq!((code, talk.as_str()), (Some(0), "the message is on disk"));
        let (_, data, _) = loki(&world, NOWHERE, &format!("openclaw show --json {id}"));
        assert_eq!(objects(&data)[0]["payload"]["from"], from);
    }
    let before = loki(&world, NOWHERE, "openclaw messages --json").1;
    for (payload, told) in [
        ("{", "error: the payload is not valid JSON: EOF while parsing an object"),
        ("[]", "error: the payload is not an object"),
        ("@missing", "error: cannot read missing: No such file"),
    ] {
        let (code, id, talk) = send(payload, "");
        assert_eq!((code, id.as_str()), (Some(2), ""));
        assert!(talk.starts_with(told), "{talk}");
    }
    for bad in ["openclaw send heartbeat", "openclaw send nonsense", "openclaw show a/b"] {
        assert_eq!(loki(&world, NOWHERE, bad).0, Some(2), "{bad}");
    }
    assert_eq!(loki(&world, NOWHERE, "openclaw show nothing").0, Some(1));
    assert_eq!(loki(&world, NOWHERE, "openclaw messages --json").1, before);
    assert_eq!(bridge.stop(), Some(0));
}

#[test]
fn a_long_list_is_read_page_by_page() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    for _ in 0..5 {
        assert_eq!(loki(&world, NOWHERE, "openclaw send state_sync").0, Some(0));
    }
    let pages = || {
        let (mut ids, mut after) = (Vec::new(), String::new());
        loop {
            let line = format!("openclaw messages --json --limit 2{after}");
            let (code, data, talk) = loki(&world, NOWHERE, &line);
            assert_eq!(code, Some(0), "{talk}");
            assert!(ids.len() <= 5, "a page is shown again");
            ids.extend(objects(&data).iter().map(|row| row["message_id"].clone()));
            let Some(next) = talk.trim().strip_prefix("there are more: add") else { return ids };
            after = next.to_owned();
        }
    };
    let running = pages();
    assert_eq!(running.len(), 5);
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(pages(), running);
    for bad in ["--limit 0", "--limit 1001", "--after x", "--status lost", "--since later"] {
        let (code, _, talk) = loki(&world, NOWHERE, &format!("openclaw messages {bad}"));
        assert_eq!(code, Some(2), "{bad}: {talk}");
    }
}
