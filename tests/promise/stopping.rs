//! A program that is asked to stop ends in time, whoever is at the other end: a client that never
//! finishes its request, or a server that takes nothing more.

use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{Program, World};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

/// Messages that do not fit into the buffers between two programs.
const LARGE: usize = 40;
const LARGE_BYTES: usize = 400_000;

/// Far above what a stop may take, and below what the other end would take.
const LONG_MILLIS: u64 = 60_000;

fn signal(program: &Program, signal: Signal) {
    let pid = i32::try_from(program.pid()).expect("a pid");
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("signalled");
}

#[test]
fn an_unfinished_request_does_not_keep_the_server() {
    let world = World::new();
    let server = world.server("server", 0);
    let address = server.address.trim_start_matches("http://").to_owned();
    let mut client = TcpStream::connect(&address).expect("a connection");
    let head = format!("POST /tasks HTTP/1.1\r\nHost: {address}\r\nContent-Length: 1000\r\n\r\n{{");
    client.write_all(head.as_bytes()).expect("written");
    // The server has read it when it has answered somebody who came later.
    assert!(world.get(&format!("{}/health", server.address)).is_some());
    let begun = world.clock().monotonic();
    assert_eq!(server.stop(), Some(0));
    assert!(world.clock().monotonic() - begun < LONG_MILLIS);
    drop(client);
}

#[test]
fn a_server_that_takes_nothing_does_not_keep_the_bridge() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    world.wait("a session", || {
        let status = world.get(&format!("{}/api/openclaw/status", bridge.address))?;
        (status["connected"] == true).then_some(())
    });
    signal(&server, Signal::STOP);
    for number in 0..LARGE {
        let value = "x".repeat(LARGE_BYTES);
        let entry = json!({"key": format!("k/{number}"), "value": value});
        let message = json!({"message_type": "state_sync", "payload": {"entries": [entry]}});
        let answer = world.post(&format!("{}/api/openclaw/send", bridge.address), &message);
        assert_eq!(answer.expect("an answer").0, 202);
    }
    let begun = world.clock().monotonic();
    assert_eq!(bridge.stop(), Some(0));
    assert!(world.clock().monotonic() - begun < LONG_MILLIS);
    signal(&server, Signal::CONT);
    assert_eq!(server.stop(), Some(0));
}
