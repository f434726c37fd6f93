//! The copy of the audit log that a syslog server gets: at least once over TCP, through servers
//! that go away in the middle and starts of the bridge; over UDP what the network takes; and a
//! server that takes nothing is waited for by nobody.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{PATIENCE, Program, World, output};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n";
const NOWHERE: &str = "http://127.0.0.1:9";
const DATA: &str = "one/.loki/openclaw";

fn bridge(world: &World, port: u16, protocol: &str) -> Program {
    world.write("one/.loki/config.yaml", IDLE);
    let port = port.to_string();
    let more = [
        ("LOKI_AUDIT_SYSLOG_HOST", "127.0.0.1"),
        ("LOKI_AUDIT_SYSLOG_PORT", &port),
        ("LOKI_AUDIT_SYSLOG_PROTO", protocol),
    ];
    world.bridge_with("one", NOWHERE, "loki-one", &more)
}

/// A server that sends its log to this port.
fn server(world: &World, port: u16, protocol: &str) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw-server"));
    let data = world.path("server");
    command.arg("--data-dir").arg(&data).env("OPENCLAW_LISTEN", "127.0.0.1:0");
    command.env("OPENCLAW_AUDIT_SYSLOG_HOST", "127.0.0.1");
    command.env("OPENCLAW_AUDIT_SYSLOG_PORT", port.to_string());
    command.env("OPENCLAW_AUDIT_SYSLOG_PROTO", protocol);
    world.start(command, &data)
}

fn send(world: &World, bridge: &Program, id: &str) {
    let url = format!("{}/api/openclaw/send", bridge.address);
    let message = json!({"message_type": "state_sync", "payload": {}, "message_id": id});
    assert_eq!(world.post(&url, &message).expect("an answer").0, 202);
}

/// The next connection of the bridge.
fn accepted(world: &World, listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("set");
    let stream = world.wait("a connection", || listener.accept().ok()).0;
    stream.set_nonblocking(false).expect("set");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// All that a connection brings until its end, by counted octets.
fn messages(mut stream: TcpStream) -> Vec<String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    let mut rest = std::str::from_utf8(&bytes).expect("text");
    let mut found = Vec::new();
    while let Some((length, after)) = rest.split_once(' ') {
        let (message, next) = after.split_at(length.parse().expect("a length"));
        found.push(message.to_owned());
        rest = next;
    }
    assert_eq!(rest, "");
    found
}

/// The place in the log of each message.
fn places(messages: &[String]) -> Vec<String> {
    let place = |message: &String| {
        let after = message.split_once("seq=\"").expect("a place").1;
        after.split_once('"').expect("its end").0.to_owned()
    };
    messages.iter().map(place).collect()
}

/// The same of the log itself, as an export of a data folder has it.
fn exported(world: &World, data: &str) -> Vec<String> {
    let mut command = world.loki("one", NOWHERE);
    let export = ["enterprise", "audit", "export", "--format", "syslog", "--data-dir"];
    let (code, data, _) = output(command.args(export).arg(world.path(data)));
    assert_eq!(code, Some(0));
    data.lines().map(str::to_owned).collect()
}

#[test]
fn over_tcp_every_entry_arrives_through_broken_servers_and_starts() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let one = bridge(&world, port, "tcp");
    send(&world, &one, "m-1");
    // Two servers go away with what they were sent unread: the bridge must not believe them.
    for _ in 0..2 {
        let stream = accepted(&world, &listener);
        world.wait("some bytes", || stream.peek(&mut [0; 8]).ok().filter(|count| *count > 0));
        drop(stream);
    }
    let mut arrived = messages(accepted(&world, &listener));
    assert!(arrived[0].contains(" store.open ") && arrived[0].starts_with("<110>1 "));
    while !arrived.iter().any(|message| message.contains(r#"resource="m-1""#)) {
        arrived.extend(messages(accepted(&world, &listener)));
    }
    let file = world.path("one/.loki/openclaw/syslog");
    let place = world.wait("a place", || std::fs::read_to_string(&file).ok());
    one.kill();
    assert_eq!(place.split(':').count(), 4);
    let confirmed = arrived.len();
    let one = bridge(&world, port, "tcp");
    send(&world, &one, "m-2");
    while !arrived.iter().any(|message| message.contains(r#"resource="m-2""#)) {
        arrived.extend(messages(accepted(&world, &listener)));
    }
    // What was confirmed before the kill is not sent again, but for the batch of that moment.
    let again = places(&arrived[confirmed..]);
    assert!(!again.contains(&places(&arrived[..1])[0]), "{again:?}");
    // Nobody reads the last words of this one; the next start says them.
    assert_eq!(one.stop(), Some(0));
    let one = bridge(&world, port, "tcp");
    let third = format!(r#""epoch":{},"#, 3);
    let opened = |message: &String| message.contains(" store.open ") && message.contains(&third);
    while !arrived.iter().any(opened) {
        arrived.extend(messages(accepted(&world, &listener)));
    }
    drop(one);
    let log = exported(&world, DATA);
    let before = log.iter().position(opened).expect("the third start");
    let arrived: BTreeSet<String> = arrived.into_iter().collect();
    let missing: Vec<_> = log[..before].iter().filter(|one| !arrived.contains(*one)).collect();
    assert_eq!(missing, Vec::<&String>::new());
    assert!(arrived.iter().all(|message| log.contains(message)));
}

#[test]
fn a_server_that_reads_nothing_is_waited_for_by_nobody() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let one = bridge(&world, port, "tcp");
    let held = accepted(&world, &listener);
    let begun = world.clock().monotonic();
    for number in 0..50 {
        send(&world, &one, &format!("m-{number}"));
    }
    let took = Duration::from_millis(world.clock().monotonic() - begun);
    assert!(took < Duration::from_secs(9), "{took:?}");
    assert_eq!(one.stop(), Some(0));
    assert!(!world.path("one/.loki/openclaw/syslog").exists());
    // The next start, with a server that reads, sends all of it.
    drop((held, listener));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let one = bridge(&world, listener.local_addr().expect("an address").port(), "tcp");
    let mut arrived = Vec::new();
    while !arrived.iter().any(|message: &String| message.contains(r#"resource="m-49""#)) {
        arrived.extend(messages(accepted(&world, &listener)));
    }
    drop(one);
    for number in 0..50 {
        let resource = format!(r#"resource="m-{number}""#);
        assert!(arrived.iter().any(|message| message.contains(&resource)), "{resource}");
    }
}

#[test]
fn over_udp_each_entry_is_a_datagram() {
    let world = World::new();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let one = bridge(&world, socket.local_addr().expect("an address").port(), "udp");
    send(&world, &one, "m-1");
    let mut arrived = Vec::new();
    while !arrived.iter().any(|message: &String| message.contains(r#"resource="m-1""#)) {
        let mut datagram = vec![0; 65_536];
        let length = socket.recv(&mut datagram).expect("a datagram");
        arrived.push(String::from_utf8_lossy(&datagram[..length]).into_owned());
    }
    assert_eq!(one.stop(), Some(0));
    let log = exported(&world, DATA);
    assert!(arrived[0].contains(" store.open "));
    assert_eq!(arrived[..], log[..arrived.len()]);
    // A person's look has the same entry.
    let tail = ["enterprise", "audit", "tail", "--json", "--resource", "m-1", "-n", "1000"];
    let (_, data, _) = output(world.loki("one", NOWHERE).args(tail));
    let entry: Value = serde_json::from_str(data.lines().next().expect("an entry")).expect("json");
    assert!(arrived.iter().any(|message| message.contains(&format!("seq={}", entry["seq"]))));
}

#[test]
fn a_server_sends_its_log_and_goes_on_after_a_kill_where_it_was() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let submit = |server: &Program, id: &str| {
        let task = json!({"task_id": id, "task_type": "painting"});
        let answer = world.post(&format!("{}/tasks", server.address), &task);
        assert_eq!(answer.expect("an answer").0, 201);
    };
    let mut arrived = Vec::new();
    let mut read_to = |task: &str| {
        let named = format!(r#"resource="{task}""#);
        let begun = arrived.len();
        while !arrived.iter().any(|message: &String| message.contains(&named)) {
            arrived.extend(messages(accepted(&world, &listener)));
        }
        arrived[begun..].to_vec()
    };
    let one = server(&world, port, "tcp");
    submit(&one, "t-1");
    let first = read_to("t-1");
    assert!(first[0].contains(" store.open ") && first[0].starts_with("<110>1 "), "{first:?}");
    let file = world.path("server/syslog");
    world.wait("a place", || std::fs::read_to_string(&file).ok());
    one.kill();
    let one = server(&world, port, "tcp");
    submit(&one, "t-2");
    let second = read_to("t-2");
    assert!(!places(&second).contains(&places(&first)[0]), "what was read is not sent again");
    let log = exported(&world, "server");
    let until = log.iter().position(|one| one.contains(r#"resource="t-2""#)).expect("the task");
    let all: BTreeSet<String> = first.into_iter().chain(second).collect();
    let missing: Vec<_> = log[..until].iter().filter(|one| !all.contains(*one)).collect();
    assert_eq!(missing, Vec::<&String>::new());
    // Its last words are not waited for: nobody reads them.
    assert_eq!(one.stop(), Some(0));

    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let one = server(&world, socket.local_addr().expect("an address").port(), "udp");
    submit(&one, "t-3");
    let mut datagram = vec![0; 65_536];
    loop {
        let length = socket.recv(&mut datagram).expect("a datagram");
        if String::from_utf8_lossy(&datagram[..length]).contains(r#"resource="t-3""#) {
            break;
        }
    }
    assert_eq!(one.stop(), Some(0));
}

#[test]
fn a_server_refuses_audit_settings_that_fit_nothing() {
    let world = World::new();
    for (setting, sentence) in [
        (
            "exclude_events: [mesage.queued]",
            "audit.exclude_events: no event is called mesage.queued; did you mean message.queued?",
        ),
        ("levle: info", "unknown key `audit.levle`; did you mean `audit.level`?"),
        ("level: loud", "`audit.level` is `loud`, expected one of debug, info"),
        ("syslog: {port: 0}", "`audit.syslog.port`"),
    ] {
        world.write("server.yaml", &format!("audit:\n  {setting}\n"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw-server"));
        command.arg("--config").arg(world.path("server.yaml"));
        command.arg("--data-dir").arg(world.path("refused"));
        let (code, _, talk) = output(command.env("OPENCLAW_LISTEN", "127.0.0.1:0"));
        assert_eq!((code, talk.lines().count()), (Some(2), 1), "{setting}: {talk}");
        assert!(talk.contains(sentence), "{setting}: {talk}");
        assert!(!world.path("refused").exists(), "{setting}");
    }
}
