//! What an operator asks before and after: doctor, the configuration in force, completions.

use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use crate::support::{World, output};

const CONFIG: &str = "openclaw:\n  auth_token: hunter2\nagents:\n  - type: eng-qa\n    \
                      command: [\"true\"]\n";

/// The checks of `loki doctor`: its exit code, and status and detail of each by name.
fn doctor(
    world: &World,
    endpoint: &str,
    port: &str,
) -> (Option<i32>, Vec<(String, String, String)>) {
    let mut command = world.loki("one", endpoint);
    command.env("LOKI_DASHBOARD_PORT", port).args(["doctor", "--json"]);
    let (code, data, talk) = output(&mut command);
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("a line of json");
        let text = |name: &str| row[name].as_str().expect(name).to_owned();
        (text("check"), text("status"), text("detail"))
    };
    assert_eq!(talk, "");
    (code, data.lines().map(row).collect())
}

fn failing(checks: &[(String, String, String)]) -> Vec<(&str, &str)> {
    let failing = checks.iter().filter(|(_, status, _)| status == "fail");
    failing.map(|(check, _, detail)| (check.as_str(), detail.as_str())).collect()
}

#[test]
fn doctor_finds_nothing_wrong_with_a_bridge_that_runs_or_is_stopped() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    let server = world.server("server", 0);
    let check = |running: bool| {
        let (code, checks) = doctor(&world, &server.address, "0");
        assert_eq!((code, failing(&checks)), (Some(0), vec![]), "{checks:#?}");
        let names: Vec<&str> = checks.iter().map(|(check, ..)| check.as_str()).collect();
        let all = ["configuration", "agent", "data directory", "store", "bridge", "port", "server"];
        assert_eq!(names, all);
        let told = |wanted: &str, part: &str| {
            checks.iter().any(|(check, _, detail)| check == wanted && detail.contains(part))
        };
        assert!(told("bridge", if running { "it runs at http" } else { "stopped" }), "{checks:#?}");
        assert!(told("server", &server.address), "{checks:#?}");
    };
    check(false);
    let bridge = world.bridge("one", &server.address, "loki-one");
    check(true);
    assert_eq!(bridge.stop(), Some(0));
    check(false);
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let world = World::new();
    world.write("one/.loki/config.yaml", "agents:\n  - {type: eng-qa, command: [no-such]}\n");
    world.write("one/.loki/openclaw/journal/segment-0000000001.log", "LOKISEG");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (code, checks) = doctor(&world, "http://127.0.0.1:9", &port);
    assert_eq!(code, Some(1));
    let failing = failing(&checks);
    let names: Vec<&str> = failing.iter().map(|(check, _)| *check).collect();
    assert_eq!(names, ["agent", "store", "port", "server"], "{checks:#?}");
    assert!(failing[0].1.contains("needs the program `no-such`"), "{failing:#?}");
    assert!(failing[1].1.contains("segment-0000000001.log"), "{failing:#?}");
    assert!(failing[2].1.contains("set LOKI_DASHBOARD_PORT"), "{failing:#?}");
    assert!(failing[3].1.contains("cannot reach the server at http://127.0.0.1:9"), "{failing:#?}");
    world.write("one/.loki/config.yaml", "openclaw:\n  endpont: http://127.0.0.1:9\n");
    let (code, checks) = doctor(&world, "http://127.0.0.1:9", "0");
    assert_eq!(
        (code, checks[0].0.as_str(), checks[0].1.as_str()),
        (Some(1), "configuration", "fail")
    );
}

#[test]
fn the_configuration_is_shown_with_its_origin_and_without_its_secrets() {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    let mut command = world.loki("one", "http://127.0.0.1:9");
    let (code, data, talk) = output(command.args(["config", "show", "--data-dir", "elsewhere"]));
    assert_eq!(code, Some(0), "{talk}");
    let line = |name: &str| {
        let line = data.lines().find(|line| line.trim_start().starts_with(name)).expect(name);
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("openclaw.endpoint"), ["http://127.0.0.1:9", "LOKI_OPENCLAW_ENDPOINT"]);
    assert_eq!(line("openclaw.auth_token"), ["***", ".loki/config.yaml:2"]);
    assert_eq!(line("openclaw.data_dir"), ["elsewhere", "--data-dir"]);
    assert_eq!(line("openclaw.namespace"), ["default", "default"]);
    assert!(!format!("{data}{talk}").contains("hunter2"));
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = output(world.loki("one", "").args(["completions", shell]));
        assert_eq!(code, Some(0));
        assert!(script.contains("reconnect"), "{shell}");
        world.write(shell, &script);
    }
    let (code, _, talk) = output(Command::new("bash").arg("-n").arg(world.path("bash")));
    assert_eq!((code, talk.as_str()), (Some(0), ""));
}
